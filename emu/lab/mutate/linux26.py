"""Small checks of linux-2.6; the shipped scenarios execute the rest of its entry code."""

from __future__ import annotations

from emu.arch import Vector
from emu.lab.mutate import rare
from emu.lab.mutate.check import CLEAR_VALUES, EXIT, GETPID, SCRATCH, SET, Check, inject, same
from emu.lab.mutate.check import scenario as any_scenario
from emu.lab.shipped import find_scenario
from kernel_stubs.abi26 import LINUX_26

_EVENTS = ("nmi", "mce", "db", "irq", "timer", "resched", "pf")
_WITH_CODE = {Vector.TS: 0x18, Vector.NP: 0x20, Vector.SS: 0x28, Vector.GP: 0x30, Vector.AC: 0}
_USER_FAULTS = (0, 1, 3, 4, 5, 6, 9, 10, 11, 12, 13, 15, 16, 17, 19)
_INTERRUPTS = (0x30, *range(0xEF, 0x100))
_IN_C = "sys_getpid"
_LOST = ("r8", "r9", "r10", "r11")
"""Registers that INT 0x80 of 64-bit code does not give back: they are 0 before, as they are after."""
_INT80 = (
    f"_start:\n{SET}"
    + "".join(f"    xorl %{name}d, %{name}d\n" for name in _LOST)
    + f"    movabsq ${CLEAR_VALUES + 0x101:#x}, %rcx\n    movabsq $0x1234567800000014, %rax\n    int $0x80\n"
    + f"    movabsq ${CLEAR_VALUES + 0x101:#x}, %rax\n    cmpq %rax, %rcx\n    jne bad\n{same(*_LOST)}{EXIT}"
)
_CRASHED = '[expect]\nend = "crashed"\n'


def _scenario(title: str, asm: str, *tables: str, options: str = "") -> str:
    return any_scenario(title, asm, *tables, options=options, kernel=LINUX_26)


def _code(vector: int) -> dict[str, int]:
    return {"error_code": _WITH_CODE[Vector(vector)]} if vector in _WITH_CODE else {}


def checks() -> tuple[Check, ...]:
    """For the image, of which there is one build."""
    plain = _scenario("getpid", GETPID)
    found = [Check("getpid", plain), *(Check(f"getpid x {event}", plain, (event,)) for event in _EVENTS)]
    found.append(Check("int80", _scenario("int80", _INT80)))
    handled = GETPID.replace("_start:\n", f"_start:\n{rare.HANDLERS}") + rare.HANDLER
    for vector in _USER_FAULTS:
        table = inject(event="exception", vector=vector, at="user:here", **_code(vector))
        found.append(Check(f"vector {vector}", _scenario(f"vector {vector}", GETPID, table)))
        found.append(Check(f"vector {vector}, handled", _scenario("handled", handled, table)))
    for vector in (1, 3, 8, 12, 13, 18):
        code = {"error_code": 0x30} if vector in (8, 12, 13) else {}
        table = inject(event="exception", vector=vector, at=_IN_C, **code)
        end = "" if vector in (1, 18) else _CRASHED
        found.append(Check(f"kernel vector {vector}", _scenario(f"kernel {vector}", GETPID, table, end)))
    for vector in (1, 8, 18):
        for at in ("system_call", "iret_label", "sysret_unsafe_stack"):
            table = inject(event="exception", vector=vector, at=at)
            name = f"vector {vector} at {at}"
            irq = inject(event="irq", vector=0x30, at="user:here")  # for there to be an IRETQ
            found.append(Check(name, _scenario(name, GETPID, irq, table, _CRASHED if vector == 8 else "")))
    for vector in _INTERRUPTS:
        tables = [inject(event="irq", vector=vector, at=place) for place in ("user:here", _IN_C)]
        found.append(Check(f"interrupt {vector:#x}", _scenario("interrupt", GETPID, *tables)))
        tables = [
            inject(event="memory", at="user:here", address="percpu:softirq_pending", value=0x10),
            inject(event="irq", at="user:here", vector=0x30),
            inject(event="irq", at="__do_softirq+0x4", vector=vector),
        ]
        found.append(Check(f"interrupt {vector:#x} in a softirq", _scenario("softirq", GETPID, *tables)))
    for event in ("nmi", "timer", "machine-check"):
        table = inject(event=event, at="user:place")
        found.append(Check(f"scratch, {event}", _scenario("scratch registers", SCRATCH, table)))
    early = [inject(event="timer", at="user:here"), inject(event="nmi", at="apic_timer_interrupt")]
    found.append(Check("NMI before CLD", _scenario("NMI before CLD", GETPID, *early)))
    # Pending since before STI, so it comes where its shadow ends: in user mode.
    table = inject(event="irq", vector=0x30, at="sysexit_from_sys_call:sti")
    sysenter = find_scenario("classic-ia32-sysenter").text.replace("[expect]\n", f"{table}[expect]\n")
    found.append(Check("interrupt in SYSEXIT's shadow", sysenter, shipped=True))
    return tuple(found)
