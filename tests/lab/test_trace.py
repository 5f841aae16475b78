"""Traces of the real machine: what a line says, and that two runs are alike."""

from __future__ import annotations

import json

import pytest

from asm import assemble_text
from emu.lab.observers.trace import JsonlTrace, TextTrace, Trace
from emu.lab.view import View
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image

PROGRAM = """
.globl _start
_start:
    movl $39, %eax
    syscall
    xorl %edi, %edi
    movl $231, %eax
    syscall
"""


def trace(kind: type[Trace], *, registers: bool = False) -> list[str]:
    """All lines of a run with an NMI at the first instruction of entry_SYSCALL_64."""
    image = build_image("linux-6", Profile())
    user = assemble_text(PROGRAM, name="user.S", base=0x400000)
    system = boot(BootOptions(image, Profile(), program_from_image(user, "program"), (b"program",)))
    lines: list[str] = []
    kind(View(system, user), lines.append, registers).attach(system.machine)
    core = system.machine.cores[0]
    core.set_breakpoints({image.symbol("entry_SYSCALL_64")})
    assert system.machine.run(20_000).kind is EndKind.BREAKPOINT
    core.set_breakpoints(set())
    core.raise_nmi()
    assert system.machine.run(20_000).kind is EndKind.FINISHED
    return "".join(lines).splitlines()


@pytest.fixture(scope="module")
def text() -> list[str]:
    return trace(TextTrace)


@pytest.fixture(scope="module")
def objects() -> list[dict[str, object]]:
    return [json.loads(line) for line in trace(JsonlTrace, registers=True)]


def test_line_of_a_user_instruction(text: list[str]) -> None:
    line = next(line for line in text if line.endswith("movl $0x27, %eax"))
    assert line.split()[1:] == ["cpu0", "cpl3", "user", "user", "_start", "(user.S:4)", "movl", "$0x27,", "%eax"]


def test_the_gap_shows_user_gs_and_user_stack_at_cpl0(text: list[str]) -> None:
    line = next(line for line in text if " entry_SYSCALL_64 " in line and line.endswith("swapgs"))
    assert line.split()[2:5] == ["cpl0", "user", "user"]


def test_stack_and_gs_follow_the_moves(text: list[str]) -> None:
    kinds = {tuple(line.split()[2:5]) for line in text if "======" not in line and "------" not in line}
    assert {("cpl0", "kernel", "task"), ("cpl0", "kernel", "trampoline"), ("cpl0", "user", "IST2")} <= kinds


def test_delivery_stands_out_with_its_frame(text: list[str]) -> None:
    line = next(line for line in text if "NMI (injected)" in line)
    assert "====== NMI (injected) -> asm_exc_nmi IST2, frame at 0x" in line
    assert "RIP entry_SYSCALL_64 CS 0x10" in line


def test_return_stands_out_with_its_frame(text: list[str]) -> None:
    assert any("====== SYSRETQ -> user mode: RIP _start+0x7 CS 0x33" in line for line in text)


def test_every_instruction_has_a_line(text: list[str]) -> None:
    clocks = [int(line.split()[0]) for line in text if " cpl" in line]
    assert clocks == list(range(clocks[0], clocks[0] + len(clocks)))


def test_registers_follow_their_instruction() -> None:
    lines = trace(TextTrace, registers=True)
    at = next(n for n, line in enumerate(lines) if line.endswith("xorl %edi, %edi"))
    assert lines[at + 1].split()[:2] == ["rax", "1"]


def test_jsonl_instruction(objects: list[dict[str, object]]) -> None:
    found = next(o for o in objects if o.get("instruction") == "movl $0x27, %eax")
    assert {key: found[key] for key in ("event", "cpu", "cpl", "gs", "stack", "ip", "where")} == {
        "event": "instruction", "cpu": 0, "cpl": 3, "gs": "user", "stack": "user", "ip": "0x400000",
        "where": "_start (user.S:4)",
    }  # fmt: skip
    assert len(list(found["registers"])) == 16  # type: ignore[call-overload]


def test_jsonl_crossings(objects: list[dict[str, object]]) -> None:
    kinds = {str(o["event"]) for o in objects}
    assert {"instruction", "delivered", "syscall", "returned", "swapgs", "call", "return", "note"} <= kinds


@pytest.mark.parametrize("kind", [TextTrace, JsonlTrace])
def test_two_runs_are_byte_identical(kind: type[Trace]) -> None:
    assert trace(kind) == trace(kind)
