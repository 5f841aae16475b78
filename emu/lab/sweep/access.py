"""`access`: faults where the entry code touches what user mode controls.

Before the instruction runs, what it is to use is made bad in the machine: a slot of the frame that IRETQ is to pop, the
selector that a segment register is to get, the page that it is to read. The machine then finds out by itself. Unlike
other events these may be noticed, by the task that they belong to alone: it gets the signal that Linux sends, or an
error, or its kernel finds a way on; Ending says which.

Sites, where the baseline has them:

- IRETQ with a frame of user mode (SDM volume 2, IRET: what is checked);
- a point inside a C function that was called on user mode's behalf: there its pt_regs change, as a tracer or
  rt_sigreturn may leave them, mostly to values that IRETQ accepts; how to go back is for the exit code to decide;
- MOV to DS, ES, FS, GS in kernel mode;
- instructions in kernel mode that read or write user memory;
- C functions that do, at their first instruction.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from emu.arch import PAGE_SIZE, Rflags, Selector
from emu.events import CReturned, Event
from emu.lab.sweep.event import Ending, SweepEvent, Table, Tables
from emu.lab.view import PT_REGS_SIZE, View
from emu.machine.operands import memory_operands
from kernel_stubs.abi import GDT_ENTRY_TLS_MIN, TASK_SIZE_MAX, MmStruct, PtRegs, TaskStruct, VmArea, VmFlags
from kernel_stubs.running import SLOT_RET, SLOT_SIZE, SLOT_WINDOW
from kernel_stubs.vma import areas

if TYPE_CHECKING:
    from emu.lab.sweep.bench import Bench

FAMILY = "access"
NON_CANONICAL = 1 << 47
_IN_WINDOW = SLOT_WINDOW + 2
"""Offset in a stub slot where C is at work, between two instructions."""
_SLOTS = {"rip": 0, "cs": 8, "rflags": 16, "rsp": 24, "ss": 32}
_FRAME = struct.Struct("<5Q")
_BEYOND = 0xFFFF
"""A selector of the LDT, RPL 3, beyond any limit."""
_TLS = 8 * GDT_ENTRY_TLS_MIN | 3
_ABSENT_CODE, _ABSENT_DATA = 0x00AF_7B00_0000_FFFF, 0x00CF_7300_0000_FFFF
"""Descriptors of DPL 3 without the P bit: 64-bit code, data."""
_SEGMENTS = ("%ds", "%es", "%fs", "%gs")
_NO_MEMORY = ("lea", "nop", "prefetch", "clflush", "invlpg")

SEGV, SEGV_OR_BUS = frozenset({"SIGSEGV"}), frozenset({"SIGSEGV", "SIGBUS"})
REFUSED = Ending(SEGV, recovers=False)
REFUSED_ABSENT = Ending(SEGV_OR_BUS, recovers=False)
"""#NP and #SS are SIGBUS; linux-2.6 ends the task with status 11 whatever it was."""
MAYBE_KILLED = Ending(SEGV)
ANYHOW = Ending(anything=True)


def _poke(address: int, value: int, size: int = 8) -> Table:
    return {"event": "memory", "address": address, "value": value, "size": size}


# --- IRETQ ------------------------------------------------------------------------------------------------------------
def _is_iret(view: View, ip: int) -> bool:
    instruction = view.image.instruction_at(ip)
    return instruction is not None and instruction.mnemonic == "iretq"


def _iret_slot(slot: str, value: int, bench: Bench, *, descriptor: int = 0) -> Tables | None:
    """One word of the frame that IRETQ is about to pop, on whatever stack (RSP into that of espfix64 is read-only)."""
    cpu = bench.core.cpu
    frame = None if cpu.cpl else bench.view.read_kernel(cpu.sp, _FRAME.size)
    if frame is None or not _FRAME.unpack(frame)[1] & 3:
        return None
    if slot == "rip" and _FRAME.unpack(frame)[1] != Selector.USER_CS:
        return None  # compatibility mode has no more of RIP than EIP
    poke = _poke(cpu.sp + _SLOTS[slot], value)
    if not descriptor:
        return (poke,)
    gdt = cpu.state.gdt
    return (_poke(gdt.base + (_TLS & -8), descriptor), poke) if gdt.limit > _TLS | 7 else None


def _iret(name: str, slot: str, value: int, ending: Ending = REFUSED, descriptor: int = 0) -> SweepEvent:
    tables = partial(_iret_slot, slot, value, descriptor=descriptor)
    return SweepEvent(f"{FAMILY}.iret-{name}", -1, site=_is_iret, tables=tables, ending=ending, faults=True)


# --- pt_regs ----------------------------------------------------------------------------------------------------------
def _is_window(view: View, ip: int) -> bool:
    return view.in_c(ip) and ip % SLOT_SIZE == _IN_WINDOW


def _regs_word(change: Callable[[PtRegs, Bench], dict[str, int]], bench: Bench) -> Tables | None:
    """Words of user mode's pt_regs. C is at work for user mode, and nothing else is under way."""
    entries = bench.judge.chain.stack(bench.cpu)
    if len(entries) != 1 or not entries[0].from_user:
        return None
    at = bench.view.top_of_stack(bench.cpu) - PT_REGS_SIZE
    raw = bench.view.pt_regs(at)
    if raw is None:
        return None
    regs = PtRegs.from_buffer_copy(raw)
    if not regs.user_mode:
        return None
    words = change(regs, bench)
    return tuple(_poke(at + PtRegs.offset(name), value) for name, value in words.items()) or None


def _regs(name: str, change: Callable[[PtRegs, Bench], dict[str, int]], ending: Ending) -> SweepEvent:
    return SweepEvent(
        f"{FAMILY}.regs-{name}", -1, site=_is_window, tables=partial(_regs_word, change), ending=ending, arms=True
    )


def _to(address: int) -> Callable[[PtRegs, Bench], dict[str, int]]:
    # RCX too, for SYSRETQ asks whether it is RIP.
    return lambda regs, bench: {"ip": address, "cx": address} if regs.cs == Selector.USER_CS else {}


def _to_kernel(regs: PtRegs, bench: Bench) -> dict[str, int]:
    return _to(bench.view.image.entry or bench.view.image.segments[0].address)(regs, bench)


def _flag(flag: Rflags) -> Callable[[PtRegs, Bench], dict[str, int]]:
    # R11 too, for SYSRETQ asks whether it is RFLAGS.
    return lambda regs, bench: {"flags": regs.flags | flag, "r11": regs.flags | flag}


def _kernel_stack(_regs: PtRegs, bench: Bench) -> dict[str, int]:
    return {"sp": bench.view.top_of_stack(bench.cpu) - PT_REGS_SIZE}


# --- segment registers ------------------------------------------------------------------------------------------------
def _is_segment_load(view: View, ip: int) -> bool:
    """MOV of a register to a segment register; not of a constant, which no user has chosen."""
    instruction = view.image.instruction_at(ip)
    if instruction is None or not instruction.mnemonic.startswith("mov"):
        return False
    source, _, target = instruction.operands.partition(", ")
    if target not in _SEGMENTS or not source.startswith("%"):
        return False
    before = next((i for size in range(1, 8) if (i := view.image.instruction_at(ip - size)) and i.size == size), None)
    return before is None or not before.operands.endswith(f", {source}")


def _selector(value: int, bench: Bench, *, descriptor: int = 0) -> Tables | None:
    cpu, gdt = bench.core.cpu, bench.core.cpu.state.gdt
    instruction = bench.view.image.instruction_at(cpu.ip)
    if cpu.cpl or instruction is None:
        return None
    register = _FULL[instruction.operands.partition(", ")[0].removeprefix("%")]
    load: Table = {"event": "register", "register": register, "value": value}
    if not descriptor:
        return (load,)
    return (_poke(gdt.base + (_TLS & -8), descriptor), load) if gdt.limit > _TLS | 7 else None


def _segment(name: str, value: int, descriptor: int = 0) -> SweepEvent:
    tables = partial(_selector, value, descriptor=descriptor)
    return SweepEvent(f"{FAMILY}.segment-{name}", -1, site=_is_segment_load, tables=tables, ending=ANYHOW, faults=True)


# --- user memory ------------------------------------------------------------------------------------------------------
def _has_memory_operand(view: View, ip: int) -> bool:
    instruction = view.image.instruction_at(ip)
    return instruction is not None and "(" in instruction.operands and not view.in_c(ip)


def _operand_pages(bench: Bench) -> set[int]:
    """User pages that the instruction at RIP reads or writes."""
    cpu = bench.core.cpu
    if cpu.cpl:
        return set()
    operands = memory_operands(cpu, bench.core.read_code(cpu.ip, 15), cpu.ip)
    return {
        o.address & -PAGE_SIZE
        for o in operands
        if (o.reads or o.writes) and o.address < TASK_SIZE_MAX and not o.mnemonic.startswith(_NO_MEMORY)
    }


def _is_c_entry(view: View, ip: int) -> bool:
    return view.in_c(ip) and ip % SLOT_SIZE == 0


def _c_pages(bench: Bench) -> set[int]:
    """User pages that the C function at RIP reads or writes: it is let run, so the bench is elsewhere afterwards."""
    kernel, machine, slot = bench.system.kernel, bench.machine, bench.core.cpu.ip
    pages: set[int] = set()
    done = False

    def observe(event: Event) -> None:
        nonlocal done
        done = done or (isinstance(event, CReturned) and event.ip == slot + SLOT_RET)

    machine.observers.append(observe)
    kernel.user_accesses.append(lambda address: pages.add(address & -PAGE_SIZE))
    try:
        bench.go(bench.budget, lambda: done or bench.violated)
    finally:
        kernel.user_accesses.pop()
        machine.observers.pop()
    return pages


def _absent(pages: Callable[[Bench], set[int]], bench: Bench) -> Tables | None:
    """The pages are not present, but what was in them is there: it has to be brought in."""
    return tuple(_not_present(page) for page in sorted(pages(bench))) or None


def _denied(pages: Callable[[Bench], set[int]], bench: Bench) -> Tables | None:
    """Another thread has made the first area PROT_NONE."""
    found = min(pages(bench), default=None)
    kernel = bench.system.kernel
    task = kernel.view(TaskStruct, bench.view.percpu_word(bench.cpu, "current_task"))
    if found is None or not task.mm:
        return None
    mm = kernel.view(MmStruct, task.mm)
    for number, area in enumerate(areas(kernel, mm)):
        if area.start <= found < area.end:
            table = task.mm + ctypes.sizeof(MmStruct) + number * ctypes.sizeof(VmArea)
            flags = area.flags & ~(VmFlags.READ | VmFlags.WRITE | VmFlags.EXEC)
            return _poke(table + VmArea.offset("flags"), flags), _not_present(found)
    return None


def _not_present(page: int) -> Table:
    return {"event": "page-not-present", "address": page}


_FULL = {f"e{name}": f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")}
_FULL |= {name: name for name in _FULL.values()} | {f"r{n}d": f"r{n}" for n in range(8, 16)}
"""Registers of a MOV to a segment register -> what an injection calls them."""

ACCESS: tuple[SweepEvent, ...] = (
    _iret("rip-noncanonical", "rip", NON_CANONICAL),
    _iret("cs-null", "cs", 3),
    _iret("cs-kernel", "cs", Selector.KERNEL_CS | 3),
    _iret("cs-data", "cs", Selector.USER_DS),
    _iret("cs-beyond", "cs", _BEYOND),
    _iret("cs-absent", "cs", _TLS, REFUSED_ABSENT, _ABSENT_CODE),
    _iret("ss-null", "ss", 0),
    _iret("ss-kernel", "ss", Selector.KERNEL_DS),
    _iret("ss-code", "ss", Selector.USER_CS),
    _iret("ss-beyond", "ss", _BEYOND),
    _iret("ss-absent", "ss", _TLS, REFUSED_ABSENT, _ABSENT_DATA),
    _regs("rip-noncanonical", _to(NON_CANONICAL), MAYBE_KILLED),
    _regs("rip-kernel", _to_kernel, MAYBE_KILLED),
    _regs("rsp-noncanonical", lambda regs, bench: {"sp": NON_CANONICAL}, ANYHOW),
    _regs("rsp-kernel", _kernel_stack, ANYHOW),
    *(
        _regs(f"rflags-{flag.name}".lower(), _flag(flag), ANYHOW)
        for flag in (Rflags.NT, Rflags.IOPL, Rflags.VM, Rflags.TF, Rflags.AC, Rflags.DF, Rflags.RF)
    ),
    _segment("beyond", _BEYOND),
    _segment("kernel", Selector.KERNEL_DS | 3),
    _segment("system", Selector.TSS),
    _segment("absent", _TLS, _ABSENT_DATA),
    SweepEvent(
        f"{FAMILY}.page-absent", -1, site=_has_memory_operand, tables=partial(_absent, _operand_pages), faults=True
    ),
    SweepEvent(
        f"{FAMILY}.page-denied", -1, site=_has_memory_operand, tables=partial(_denied, _operand_pages),
        ending=ANYHOW, faults=True,
    ),
    SweepEvent(f"{FAMILY}.c-page-absent", -1, site=_is_c_entry, tables=partial(_absent, _c_pages), arms=True),
    SweepEvent(
        f"{FAMILY}.c-page-denied", -1, site=_is_c_entry, tables=partial(_denied, _c_pages), ending=ANYHOW, arms=True
    ),
)  # fmt: skip
