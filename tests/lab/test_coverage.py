"""entry64 coverage: what is executed, listed, missing; and lists that are not true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from emu.cli import main
from emu.errors import ImageError
from emu.lab import coverage
from emu.lab.coverage import Covered, cover
from emu.lab.scenario import parse_scenario
from tests import lab_runs


@pytest.fixture(scope="module")
def getpid() -> Covered:
    (covered,) = cover([parse_scenario(lab_runs.text(), "getpid.toml")], ["linux-6"])
    return covered


def _executed(covered: Covered, routine: str) -> list[bool]:
    return [one.executed for one in covered.instructions if one.where.partition("+")[0] == routine]


def test_a_system_call_executes_its_entry(getpid: Covered) -> None:
    executed = _executed(getpid, "entry_SYSCALL_64")
    assert executed
    assert all(executed)


def test_a_system_call_executes_no_entry_of_an_nmi(getpid: Covered) -> None:
    executed = _executed(getpid, "asm_exc_nmi")
    assert executed
    assert not any(executed)


def test_c_functions_and_boot_code_are_no_entry_code(getpid: Covered) -> None:
    assert not {"do_syscall_64", "startup_64"} & {one.where.partition("+")[0] for one in getpid.instructions}


def test_what_is_not_executed_and_not_listed_is_missing(getpid: Covered) -> None:
    assert "asm_exc_nmi" in {one.where for one in getpid.missing}
    assert not getpid.complete


def _with_list(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Covered:
    (folder / "linux-6").mkdir()
    (folder / "linux-6" / coverage.LISTED).write_text(text)
    monkeypatch.setattr(coverage, "SOURCES", folder)
    (covered,) = cover([parse_scenario(lab_runs.text(), "getpid.toml")], ["linux-6"])
    return covered


def test_a_row_of_the_list_gives_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = '[[unexecuted]]\nroutine = "entry_SYSRETQ_end"\ninstruction = "int3"\nreason = "no way there"\n'
    covered = _with_list(monkeypatch, tmp_path, row)
    assert [one.reason for one in covered.instructions if one.where == "entry_SYSRETQ_end"] == ["no way there"]
    assert not covered.stale


def test_a_row_for_what_is_executed_is_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = '[[unexecuted]]\nroutine = "entry_SYSCALL_64"\nreason = "no way there"\n'
    covered = _with_list(monkeypatch, tmp_path, row)
    assert len(covered.stale) == 1
    assert "entry_SYSCALL_64" in covered.stale[0]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('routine = "entry_SYSCALL_64"', "a row has a reason"),
        ('reason = "why"', "a row names a routine, a file or places"),
        ('reason = "why"\nroutin = "entry_SYSCALL_64"', "a row has a reason"),
    ],
)
def test_a_bad_row_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        _with_list(monkeypatch, tmp_path, f"[[unexecuted]]\n{row}\n")


def test_the_command_fails_on_missing_instructions(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(lab_runs.text())
    result = CliRunner().invoke(main, ["coverage", "linux-6", "--scenarios", str(tmp_path), "--json"])
    assert result.exit_code == 1
    (kernel,) = json.loads(result.stdout)
    assert kernel["kernel"] == "linux-6"
    assert not kernel["complete"]


def test_an_unknown_kernel_is_the_users_mistake() -> None:
    result = CliRunner().invoke(main, ["coverage", "linux-5"])
    assert result.exit_code != 0
    assert "linux-6" in result.output or "linux-6" in str(result.exception)
