from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from asm import assemble_text
from emu.cli import main
from emu.errors import ScenarioError
from emu.lab.program import TerminalInput, parse_injection

ECHO = """
_start:
    xorl    %eax, %eax
    xorl    %edi, %edi
    leaq    buffer(%rip), %rsi
    movl    $4096, %edx
    syscall
    testl   %eax, %eax
    jle     done
    movl    %eax, %edx
    movl    $1, %eax
    movl    $1, %edi
    syscall
    jmp     _start
done:
    movl    $2, %edi
    movl    $1, %eax
    leaq    buffer(%rip), %rsi
    movl    $3, %edx
    syscall
    movl    $7, %edi
    movl    $231, %eax
    syscall
.section .data,"aw",@progbits
buffer:
    .fill   4096, 1, 0x21
"""


def elf(folder: Path, source: str, name: str = "program") -> str:
    path = folder / name
    path.write_bytes(assemble_text(source, name="p.S", base=0x400000).to_elf())
    return str(path)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


def entry64(*arguments: str, stdin: bytes = b"") -> Done:
    result = CliRunner().invoke(main, ["exec", *arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout_bytes, result.stderr_bytes)


def entry64_process(*arguments: str, stdin: bytes = b"") -> Done:
    command = [sys.executable, "-m", "emu.cli", "exec", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def test_input_output_and_status_are_the_programs(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    done = entry64_process(elf(tmp_path, ECHO), stdin=data)
    assert done.stdout == data
    assert done.stderr.startswith(data[-2048:][:3])
    assert done.returncode == 7


def test_the_verdict_is_one_line_on_stderr(tmp_path: Path) -> None:
    (line,) = entry64(elf(tmp_path, "_start: movl $231, %eax\nxorl %edi, %edi\nsyscall\n")).stderr.splitlines()
    assert line.startswith(b"entry64: PASS: the program exited with status 0 after ")


def test_a_signal_gives_128_and_its_number(tmp_path: Path) -> None:
    assert entry64(elf(tmp_path, "_start: ud2\n")).returncode == 128 + 4


def test_a_violation_gives_125(tmp_path: Path) -> None:
    skip = "register,register=rip,value=entry_SYSRETQ_unsafe_stack+0x3@entry_SYSRETQ_unsafe_stack"
    program = elf(tmp_path, "_start: movl $39, %eax\nsyscall\nmovl $231, %eax\nsyscall\n")
    done = entry64("--inject", skip, program)
    assert done.returncode == 125
    assert b"FAIL" in done.stderr
    assert b"GS nesting" in done.stderr


def test_an_endless_loop_gives_125(tmp_path: Path) -> None:
    done = entry64("--budget", "100000", elf(tmp_path, "_start: jmp _start\n"))
    assert done.returncode == 125
    assert b"budget 100000 exhausted" in done.stderr


def test_an_injection_does_not_change_the_output(tmp_path: Path) -> None:
    injections = [
        "--inject",
        "nmi@entry_SYSCALL_64+0x3",
        "--inject",
        "nmi@instruction=5200",
        "--inject",
        "nmi@user:done",
    ]
    done = entry64(*injections, elf(tmp_path, ECHO), stdin=b"abc")
    assert (done.stdout, done.returncode) == (b"abc", 7)


def test_an_injection_that_does_not_come_about_is_said(tmp_path: Path) -> None:
    done = entry64("--inject", "nmi@user:done", "--inject", "nmi,hit=9@user:done", elf(tmp_path, ECHO))
    assert done.returncode == 1
    assert b"injection 2 (NMI at user:done, arrival 9): the injection point was reached only once" in done.stderr


def test_options_after_the_program_are_the_programs(tmp_path: Path) -> None:
    argument_count = "_start: movl (%rsp), %edi\nmovl $231, %eax\nsyscall\n"
    assert entry64_process(elf(tmp_path, argument_count), "--help", "-x", "--", "y").returncode == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", b"the file is empty"),
        (b"hello", b"not an ELF file"),
        (b"\x7fELF\x02\x01", b"truncated"),
        (None, b"cannot be read: No such file or directory"),
    ],
)
def test_a_program_that_cannot_be_started_gives_status_2(tmp_path: Path, content: bytes | None, message: bytes) -> None:
    path = tmp_path / "program"
    if content is not None:
        path.write_bytes(content)
    done = entry64(str(path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr


def test_a_directory_gives_status_2(tmp_path: Path) -> None:
    done = entry64_process(str(tmp_path))
    assert b"Traceback" not in done.stderr
    assert done.returncode == 2
    assert b"a directory" in done.stderr


def test_a_device_is_not_read() -> None:
    done = entry64("/dev/zero")
    assert done.returncode == 2
    assert b"not a regular file" in done.stderr


def test_a_reader_that_goes_away_ends_the_program(tmp_path: Path) -> None:
    count = "movl $200000, %ecx\n1: decl %ecx\njnz 1b\n"  # output is written every million instructions
    write = "movl $1, %eax\nmovl $1, %edi\nleaq _start(%rip), %rsi\nmovl $64, %edx\nsyscall\n"
    writer = f"_start: {write}{count}jmp _start\n"
    program = elf(tmp_path, writer)
    command = [sys.executable, "-m", "emu.cli", "exec", "--budget", "100000000", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(64)) == 64
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(timeout=60) == 128 + 13


@pytest.mark.parametrize(
    ("text", "event", "where"),
    [
        ("nmi@entry_SYSCALL_64+0x3", "nmi", "entry_SYSCALL_64+0x3"),
        ("nmi@instruction=1234", "nmi", 1234),
        ("irq,line=1,hit=2@user:main", "irq", "user:main"),
        ("exception,vector=GP,error_code=0x10@entry_64.S:11", "exception", "entry_64.S:11"),
    ],
)
def test_an_injection_is_read_from_the_command_line(text: str, event: str, where: str | int) -> None:
    injection = parse_injection(text)
    assert injection.event == event
    assert where in (injection.at, injection.instruction)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "event must be 'nmi', "),
        ("nmi", "give one of at, instruction and each; write EVENT[,KEY=VALUE...]@PLACE"),
        ("nmi@", "at "),
        ("nmi@instruction=x", "instruction must be a whole number, not 'x'"),
        ("nmi,hit@a", "'hit' is not KEY=VALUE"),
        ("nmi,hits=2@a", "unknown key 'hits'"),
        ("nmi,each=a..b", "needs a scenario"),
    ],
)
def test_a_wrong_injection_is_explained(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_injection(text)
    assert str(caught.value).startswith(f"--inject {text!r}: ")
    assert message in str(caught.value)


def test_standard_input_is_left_alone_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    terminal = TerminalInput()
    assert terminal[0:10] == b""
