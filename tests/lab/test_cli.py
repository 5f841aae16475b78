from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from elftools.elf.elffile import ELFFile
from lab_runs import inject, text

from emu.cli import main


def entry64(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def write(folder: Path, content: str, name: str = "s.toml") -> str:
    path = folder / name
    path.write_text(content)
    return str(path)


# --- run --------------------------------------------------------------------------------------------------------------
def test_a_scenario_that_is_as_expected_gives_status_0(tmp_path: Path) -> None:
    result = entry64("run", write(tmp_path, text("[expect]\nexit = 0\n")))
    assert result.exit_code == 0
    assert "PASS" in result.stdout


def test_an_unmet_expectation_gives_status_1(tmp_path: Path) -> None:
    result = entry64("run", write(tmp_path, text("[expect]\nexit = 1\n")))
    assert result.exit_code == 1
    assert "expected exit status 1" in result.stdout


def test_an_injection_point_that_is_never_reached_gives_status_1_and_says_so(tmp_path: Path) -> None:
    result = entry64("run", write(tmp_path, text(inject(event="nmi", at="asm_exc_overflow"))))
    assert result.exit_code == 1
    assert "injection 1 (NMI at asm_exc_overflow): the injection point was never reached" in result.stdout


def test_a_violation_gives_status_1(tmp_path: Path) -> None:
    skip = inject(
        event="register", at="entry_SYSRETQ_unsafe_stack", register="rip", value="entry_SYSRETQ_unsafe_stack+0x3"
    )
    result = entry64("run", write(tmp_path, text(skip)))
    assert result.exit_code == 1
    assert "GS nesting" in result.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title = 3\n", "s.toml:1: title must be text, not 3"),
        (text("[expect]\nexits = 1\n"), "unknown key 'exits' in [expect]; near: exit"),
        (text(asm="bogus\n"), "s.toml:3: "),
        (
            text(inject(event="nmi", at="entry_SYSCALL_46")),
            "no symbol 'entry_SYSCALL_46' in the image; near: entry_",
        ),
        ("not toml", "s.toml:1: not TOML"),
    ],
)
def test_bad_input_gives_status_2_and_a_message_on_stderr(tmp_path: Path, content: str, message: str) -> None:
    result = entry64("run", write(tmp_path, content))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_missing_scenario_names_near_ones() -> None:
    result = entry64("run", "syscall-getpdi")
    assert result.exit_code == 2
    assert result.stderr.startswith("syscall-getpdi: neither a file nor a shipped scenario; near: syscall-getpid")


def test_a_directory_gives_status_2(tmp_path: Path) -> None:
    result = entry64("run", str(tmp_path))
    assert result.exit_code == 2
    assert "Is a directory" in result.stderr


def test_a_name_with_a_null_byte_gives_status_2() -> None:
    assert entry64("run", "a\0b").exit_code == 2


def test_a_file_whose_name_is_not_utf8_is_run(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.toml")
    path.write_text(text())
    assert entry64("run", str(path)).exit_code == 0


def test_no_scenario_gives_status_2() -> None:
    assert entry64("run").exit_code == 2


def test_shipped_scenarios_are_found_by_bare_name() -> None:
    assert entry64("run", "syscall-getpid").exit_code == 0


def test_several_scenarios_end_in_a_summary(tmp_path: Path) -> None:
    bad = write(tmp_path, text("[expect]\nexit = 1\n"), "bad.toml")
    result = entry64("run", "syscall-getpid", bad)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == f"2 scenarios, 2 runs: FAIL: {bad}"


def test_a_wrong_scenario_is_noticed_before_any_runs(tmp_path: Path) -> None:
    result = entry64("run", "syscall-getpid", write(tmp_path, "title = 3\n"))
    assert (result.exit_code, result.stdout) == (2, "")


def test_json_is_one_document(tmp_path: Path) -> None:
    result = entry64("run", "--json", "syscall-getpid", write(tmp_path, text("[expect]\nexit = 1\n")))
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [report["verdict"] for report in document["reports"]] == ["PASS", "FAIL"]


def test_a_single_case_can_be_run() -> None:
    result = entry64("run", "nmi-every-syscall-instruction", "--case", "entry_SYSCALL_64+0x3")
    assert result.exit_code == 0
    assert "1 of 1 cases passed" in result.stdout


def test_a_case_that_does_not_exist_gives_status_2() -> None:
    result = entry64("run", "nmi-every-syscall-instruction", "--case", "x")
    assert result.exit_code == 2
    assert "no case 'x'" in result.stderr


def test_a_trace_goes_to_a_file(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert entry64("run", "syscall-getpid", "--trace", str(trace)).exit_code == 0
    lines = trace.read_text().splitlines()
    assert lines[0] == "== syscall-getpid"
    assert any("entry_SYSCALL_64 (entry_64.S:" in line and line.endswith("swapgs") for line in lines)


def test_a_trace_goes_to_stdout() -> None:
    result = entry64("run", "syscall-getpid", "--trace", "-")
    assert "entry_SYSCALL_64+0x3 (entry_64.S:" in result.stdout


def test_a_jsonl_trace_is_one_object_a_line(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    entry64("run", "syscall-getpid", "--trace", str(trace), "--trace-format", "jsonl", "--registers")
    objects = [json.loads(line) for line in trace.read_text().splitlines()]
    assert objects[0] == {"event": "run", "title": "syscall-getpid"}
    assert len(objects) > 100


def test_the_trace_leaves_boot_out_unless_asked(tmp_path: Path) -> None:
    sizes = []
    for option in ([], ["--trace-boot"]):
        trace = tmp_path / "trace"
        entry64("run", "syscall-getpid", "--trace", str(trace), *option)
        sizes.append(trace.read_text().count("\n"))
    assert sizes[0] < 1000 < sizes[1]


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_two_runs_give_the_same_trace(tmp_path: Path, form: str) -> None:
    traces = []
    for name in ("one", "two"):
        options = ["--trace", str(tmp_path / name), "--trace-format", form, "--registers", "--trace-boot"]
        entry64("run", "nmi-nested", "timer-interrupt", *options)
        traces.append((tmp_path / name).read_bytes())
    assert traces[0] == traces[1]


def test_a_trace_file_that_cannot_be_written_gives_status_2(tmp_path: Path) -> None:
    result = entry64("run", "syscall-getpid", "--trace", str(tmp_path / "no" / "trace"))
    assert result.exit_code == 2
    assert "cannot be written: No such file or directory" in result.stderr


def test_json_and_a_trace_do_not_share_stdout() -> None:
    assert entry64("run", "syscall-getpid", "--json", "--trace", "-").exit_code == 2


# --- tour -------------------------------------------------------------------------------------------------------------
def test_the_tour_shows_four_paths_and_verdicts() -> None:
    result = entry64("tour")
    assert result.exit_code == 0
    assert result.stdout.count("PASS: the program exited with status 0") == 4
    assert [line[:2] for line in result.stdout.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3.", "4."]


# --- image ------------------------------------------------------------------------------------------------------------
def test_an_image_is_summed_up() -> None:
    assert "symbols, " in entry64("image", "linux-6").stdout.splitlines()[-1]


def test_symbols_are_listed_by_address() -> None:
    lines = entry64("image", "linux-6", "--symbols").stdout.splitlines()
    addresses = [int(line.split()[0], 16) for line in lines]
    assert addresses == sorted(addresses)
    assert any(line.split()[1:] == ["T", "entry_SYSCALL_64"] for line in lines)


def test_the_listing_has_every_instruction_with_its_source_line() -> None:
    listing = entry64("image", "linux-6", "--listing").stdout
    assert "<entry_SYSCALL_64>:" in listing
    assert any("0f 01 f8" in line and "swapgs" in line and "entry_64.S:" in line for line in listing.splitlines())


def test_an_elf_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "kernel.elf"
    assert entry64("image", "linux-6", "--elf", str(path)).exit_code == 0
    with path.open("rb") as file:
        assert ELFFile(file).get_section_by_name(".symtab") is not None


def test_an_unknown_image_gives_status_2() -> None:
    result = entry64("image", "linux-5")
    assert result.exit_code == 2
    assert "no kernel image 'linux-5'; there are " in result.stderr


def test_an_elf_file_that_cannot_be_written_gives_status_2(tmp_path: Path) -> None:
    assert entry64("image", "linux-6", "--elf", str(tmp_path)).exit_code == 2


def test_only_one_form_of_an_image_is_shown() -> None:
    assert entry64("image", "linux-6", "--symbols", "--listing").exit_code == 2


def test_image_lists_the_system_calls_of_both_abis_and_where_they_lead():
    for kernel, native, compat in (
        ("linux-6", "do_syscall_64", "do_int80_syscall_32"),
        ("linux-2.6", "sys_getpid", "sys_getpid"),
    ):
        done = CliRunner().invoke(main, ["image", kernel, "--syscalls"])
        rows = [line.split() for line in done.output.splitlines()]
        assert [row[4] for row in rows if row[:3] == ["64", "39", "getpid"]] == [native]
        assert [row[4] for row in rows if row[:3] == ["i386", "20", "getpid"]] == [compat]
        assert ["64", "156", "_sysctl", "-ENOSYS"] in rows
