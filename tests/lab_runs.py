"""Runs scenario texts for the tests of the laboratory."""

from __future__ import annotations

from emu.lab.run import Report, run_scenario
from emu.lab.scenario import parse_scenario

GETPID = """
_start:
    movl    $SYS_getpid, %eax
after_mov:
    syscall
after:
    leal    -1(%rax), %edi
    movl    $SYS_exit_group, %eax
    syscall
"""
WAIT = """\
    movl    $SYS_wait4, %eax
    movq    $-1, %rdi
    xorl    %esi, %esi
    xorl    %edx, %edx
    xorl    %r10d, %r10d
    syscall
"""
FORK_AND_WAIT = f"""\
    movl    $SYS_fork, %eax
    syscall
    testl   %eax, %eax
    jz      child
{WAIT}"""
"""A child, which begins at `child`; the parent waits for its end."""


def text(rest: str = "", asm: str = GETPID) -> str:
    """A scenario around a program; `rest` is what follows the [user] table."""
    return f"title = \"t\"\n[user]\nasm = '''{asm}'''\n{rest}"


def run_all(rest: str = "", asm: str = GETPID) -> list[Report]:
    """All cases."""
    return run_scenario(parse_scenario(text(rest, asm), "s.toml"))


def run(rest: str = "", asm: str = GETPID) -> Report:
    """The only case."""
    (report,) = run_all(rest, asm)
    return report


def inject(**fields: object) -> str:
    """An [[inject]] table."""
    lines = (f"{key} = {value!r}" if isinstance(value, int) else f'{key} = "{value}"' for key, value in fields.items())
    return "[[inject]]\n" + "\n".join(lines) + "\n"
