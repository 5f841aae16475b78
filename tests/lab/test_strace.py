"""--strace against strace itself: the same programs, natively under strace 6.1 (strace/record.sh) and in the emulator.

Where two runs may differ, both are brought to one form: pids by their order of appearance, addresses, user ids, and of
several tasks each one's own lines (which strace interleaves as it gets hold of them).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from lab_runs import text

from emu.cli import main
from emu.lab.observers.strace import calls, names, results
from emu.lab.observers.strace.call import Call
from emu.lab.rig import Rig
from emu.lab.run import prepare
from emu.lab.shipped import find_scenario
from emu.lab.user_memory import UserMemory
from emu.lab.view import View
from kernel_stubs.abi import MmStruct
from kernel_stubs.errno import Errno
from kernel_stubs.kernel_image import load_c_functions
from kernel_stubs.syscalls import compat, table
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES
from kernel_stubs.uaccess import write_user

FOLDER = Path(__file__).parent / "strace"
FLAGS = ("-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-no-pie", "-w")
OUR_UID = 1000
PIDS = re.compile(r"((?:fork\(\)|clone\(.*\)) = |wait4\(|kill\(|si_pid=)(\d+)\b")
PARENT_TID = re.compile(r"(parent_tid=\[)(\d+)")
WAITED = re.compile(r"(^wait4\(.* = )(\d+)$")


def m32() -> bool:
    done = subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-x", "c", "-o", "/dev/null", "-"], input=b"void _start(void) {}",
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


ABIS = [64, pytest.param(32, marks=pytest.mark.skipif(not m32(), reason="gcc makes no i386 programs"))]


def entry64(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


def ours(folder: Path, name: str, bits: int, *options: str) -> list[str]:
    """The lines that we write of a program."""
    program = folder / f"{name}{bits}"
    if not program.exists():
        subprocess.run(["gcc", f"-m{bits}", *FLAGS, "-o", program, FOLDER / f"{name}.c"], check=True)
    result = entry64("exec", "--strace", "-o", str(folder / "trace"), *options, str(program))
    assert "every invariant held" in result.stderr
    return (folder / "trace").read_text().splitlines()


def recorded(name: str, bits: int) -> list[str]:
    """Those of strace, but for the execve with which it began the program."""
    first, execve, *lines = (FOLDER / f"{name}{bits}.txt").read_text().splitlines()
    assert first.startswith("# strace ")
    assert "execve(" in execve
    return lines


def settled(line: str) -> str:
    """A line without what the two kernels may choose."""
    line = re.sub(r"\b0x[0-9a-f]{6,}\b", "ADDRESS", line)
    line = re.sub(rf"si_uid=(0|{OUR_UID})\b", "si_uid=UID", line)
    line = re.sub(r"(tv_sec=2, tv_nsec=9\d{8}|tv_sec=0, tv_nsec=[56]\d{7})\b", "LEFT", line)
    return re.sub(r"\)\s+= ", ") = ", line)


def by_task(lines: list[str]) -> list[tuple[list[str], list[str]]]:
    """For each task, in order of appearance: its calls and its signals, each whole, with pids by that order."""
    tasks: dict[str, list[str]] = defaultdict(list)
    begun: dict[str, str] = {}
    first = "1"
    for line in lines:
        match = re.match(r"(?:\[pid +(\d+)\] |(\d+) +)?(.*)$", line)
        assert match
        pid = match[1] or match[2] or first
        rest = match[3]
        if rest.endswith(" <unfinished ...>"):
            begun[pid] = re.sub(r"^<\.\.\. \w+ resumed>", begun.pop(pid, ""), rest.removesuffix(" <unfinished ...>"))
            tasks[pid] += []
            continue
        tasks[pid].append(re.sub(r"^<\.\.\. \w+ resumed>", begun.pop(pid, "").replace("\\", "\\\\"), rest))
    numbers = {pid: f"PID{index}" for index, pid in enumerate(sorted(tasks, key=int), 1)}

    def renamed(line: str) -> str:
        def name(match: re.Match[str]) -> str:
            return match[1] + numbers.get(match[2], match[2])

        return WAITED.sub(name, PARENT_TID.sub(name, PIDS.sub(name, settled(line))))

    named = [[renamed(line) for line in tasks[pid]] for pid in numbers]
    return [
        ([line for line in own if not line.startswith("---")], [line for line in own if line.startswith("---")])
        for own in named
    ]


# --- strace itself as the judge ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", ABIS)
@pytest.mark.parametrize("name", ["files", "arguments"])
def test_lines_of_one_task_are_those_of_strace_to_the_column(programs: Path, name: str, bits: int) -> None:
    address = re.compile(r"\b0x[0-9a-f]{6,} *")
    found = [address.sub("ADDRESS", line) for line in ours(programs, name, bits)]
    assert found == [address.sub("ADDRESS", line) for line in recorded(name, bits)]


@pytest.mark.parametrize("bits", ABIS)
def test_signals_and_restarted_calls_are_shown_as_by_strace(programs: Path, bits: int) -> None:
    pid = recorded("signals", bits)[0].split()[0]
    native = [re.sub(rf"\b{pid}\b", "1", re.sub(r"^\d+ +", "", line)) for line in recorded("signals", bits)]
    assert [settled(line) for line in ours(programs, "signals", bits)] == [settled(line) for line in native]


@pytest.mark.parametrize("bits", ABIS)
def test_each_task_does_what_it_does_under_strace(programs: Path, bits: int) -> None:
    native, emulated = by_task(recorded("processes", bits)), by_task(ours(programs, "processes", bits))
    assert len(native) == len(emulated) == 10
    for (their_calls, signals), (our_calls, our_signals) in zip(native, emulated, strict=True):
        parents = (r"getppid\(\) = \d+", "getppid() = PARENT")
        assert [re.sub(*parents, line) for line in our_calls] == [re.sub(*parents, line) for line in their_calls]
        assert our_signals == signals


@pytest.mark.parametrize("bits", ABIS)
def test_a_call_goes_on_after_a_stop_that_no_handler_saw(programs: Path, bits: int) -> None:
    """The parent is left out: strace takes SIGCHLD for it, which interrupts calls that nothing interrupts otherwise."""
    native, emulated = by_task(recorded("restarts", bits))[1:], by_task(ours(programs, "restarts", bits))[1:]
    assert len(native) == len(emulated) == 4
    for (their_calls, signals), (our_calls, our_signals) in zip(native, emulated, strict=True):
        assert any("restart_syscall(<... resuming interrupted" in line for line in our_calls)
        assert our_calls == their_calls
        assert our_signals == signals


def test_a_break_in_a_decoder_is_noticed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.WHENCE, 0, "SEEK_CUR")
    with pytest.raises(AssertionError, match="SEEK_CUR"):
        test_lines_of_one_task_are_those_of_strace_to_the_column(programs, "files", 64)


# --- the shape of the whole -------------------------------------------------------------------------------------------
def test_lines_of_several_tasks_name_them_and_halves_are_marked(programs: Path) -> None:
    lines = ours(programs, "processes", 64)
    assert lines[0] == "pipe([3, 4])                            = 0"
    assert "[pid     2] exit_group(5)               = ?" in lines
    assert "[pid     2] +++ exited with 5 +++" in lines
    at = lines.index("[pid     1] wait4(3,  <unfinished ...>")
    assert lines[at + 1 : at + 4] == [
        "[pid     3] <... pause resumed>)        = ?",
        "[pid     3] +++ killed by SIGKILL +++",
        "<... wait4 resumed>[{WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL}], WSTOPPED|__WALL, NULL) = 3",
    ]
    assert lines[-1] == "+++ exited with 0 +++"


def test_the_classic_kernel_shows_the_same(programs: Path) -> None:
    newer = ours(programs, "signals", 64)
    assert [settled(line) for line in ours(programs, "signals", 64, "--kernel", "linux-2.6")] == list(
        map(settled, newer)
    )


def test_strace_goes_to_stderr_and_leaves_the_report_alone() -> None:
    plain, traced = entry64("run", "syscall-getpid"), entry64("run", "syscall-getpid", "--strace")
    assert traced.stdout == plain.stdout
    assert traced.stderr.splitlines()[-3:] == [
        "getpid()                                = 1",
        "exit_group(0)                           = ?",
        "+++ exited with 0 +++",
    ]


def test_a_string_in_a_page_that_was_never_touched_is_read(tmp_path: Path) -> None:
    asm = """
_start:
    leaq    name(%rip), %rdi
    xorl    %esi, %esi
    movl    $SYS_open, %eax
    syscall
    movl    $SYS_exit_group, %eax
    syscall
.section .rodata,"a",@progbits
    .fill   5000
name:
    .asciz  "/far/away"
"""
    scenario = tmp_path / "s.toml"
    scenario.write_text(text("", asm))
    stderr = entry64("run", str(scenario), "--strace").stderr
    assert stderr.startswith('open("/far/away", O_RDONLY)             = -1 ENOENT (No such file or directory)\n')


def test_several_runs_are_told_apart() -> None:
    lines = entry64("run", "syscall-getpid", "timer-interrupt", "--strace").stderr.splitlines()
    assert [line for line in lines if line.startswith("==")] == ["== syscall-getpid", "== timer-interrupt"]


# --- the summary ------------------------------------------------------------------------------------------------------
def test_the_summary_counts_calls_errors_and_instructions(programs: Path) -> None:
    head, rule, *rows, second, total = ours(programs, "files", 64, "-c")
    assert head == "% time instructions    per call     calls    errors syscall"
    assert rule == second
    counted = {row.split()[-1]: row.split() for row in rows}
    assert counted["open"][3:] == ["4", "3", "open"]
    assert counted["exit_group"][3:] == ["1", "exit_group"]
    assert total.split()[0] == "100.00"
    assert int(total.split()[1]) == sum(int(row.split()[1]) for row in rows)
    assert int(total.split()[3]) == sum(int(row.split()[3]) for row in rows)
    assert [int(row.split()[1]) for row in rows] == sorted((int(row.split()[1]) for row in rows), reverse=True)


def test_a_call_that_sleeps_costs_what_its_own_task_executes(programs: Path) -> None:
    rows = {row.split()[-1]: row.split() for row in ours(programs, "signals", 64, "-c")}
    # 20 ms of sleep are 20,000,000 instructions of the idle task.
    assert 100 < int(rows["nanosleep"][2]) < 2_000


# --- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-c",), "-c says how to write what --strace shows; give --strace too"),
        (("-o", "x"), "-o says how to write what --strace shows; give --strace too"),
        (("--strace", "-o", "-", "--json"), "--json and -o - would mix on stdout"),
        (("--strace", "-o", "x", "--ftrace", "./x"), "-o and --ftrace ./x would mix in ./x"),
        (("--strace", "-o", "/none/x"), "/none/x: cannot be written: No such file or directory"),
        (("--strace", "-o", ""), ": cannot be written"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(options: tuple[str, ...], message: str) -> None:
    result = entry64("run", "syscall-getpid", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_exec_keeps_the_programs_output_alone(programs: Path) -> None:
    ours(programs, "files", 64)
    result = entry64("exec", "--ftrace", "-", str(programs / "files64"))
    assert result.exit_code == 2
    assert "the program's output and --ftrace - would mix on stdout" in result.output


# --- nothing is left out ----------------------------------------------------------------------------------------------
def test_every_system_call_that_we_have_is_described() -> None:
    load_c_functions()
    assert set(table.implemented().values()) <= calls.KNOWN[False]
    assert {name for number, name in IA32_SYSCALL_NAMES.items() if compat.implemented(number)} <= calls.KNOWN[True]


def test_every_error_has_the_words_of_the_c_library() -> None:
    assert {error: os.strerror(error) for error in Errno} == names.ERRORS


# --- whatever programs do ---------------------------------------------------------------------------------------------
def _numbers(random: Random, memory: range) -> list[int]:
    """Arguments, often where something is, or at an end of something."""
    corners = [0, 1, 2, 3, 8, 0xFFFF_FFFF, 1 << 31, 1 << 47, (1 << 47) - 8, (1 << 64) - 1, 1 << 63, memory.stop - 3]
    return [
        random.choice((random.choice(corners), random.choice(memory), random.getrandbits(12), random.getrandbits(64)))
        for _ in range(6)
    ]


@pytest.mark.parametrize("ia32", [False, True], ids=["x86-64", "i386"])
def test_no_arguments_hurt_a_decoder(ia32: bool) -> None:
    prepared = prepare(find_scenario("syscall-getpid"))
    rig = Rig(prepared.options, prepared.user)
    rig.run((), 100_000, "", log=False)
    view = View(rig._system)
    task = view.current_task(0)
    assert task is not None
    kernel = rig._system.kernel
    memory = UserMemory(kernel, kernel.view(MmStruct, task.mm))
    stack = range(0x7FFF_FFFF_E000, 0x7FFF_FFFF_F000)
    assert memory.read_some(stack.start, 10) == bytes(10)
    random = Random(5)
    write_user(kernel, kernel.view(MmStruct, task.mm), stack.start, random.randbytes(0xE00))
    for name in sorted(calls.KNOWN[ia32]):
        for result in (None, -14, -516, 0, 1, 3, 40, 1 << 30):
            arguments = tuple(value & (0xFFFF_FFFF if ia32 else -1) for value in _numbers(random, stack))
            call = Call(name, 0, arguments, ia32, memory, arguments[0], result=result)
            shown = [arg.decode(call, arg.index) for arg in calls.arguments(call) if arg.out <= (result is not None)]
            assert all(shown)
            assert "\n" not in "".join(shown)
            if result is not None:
                assert results.result(call, result)
