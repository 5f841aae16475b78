"""What the engine lacks or gets wrong, by instruction. All of it happens at rest, before or instead of the instruction.

`scan` finds the instructions of an image that need a look; `BEFORE` says what to do when the CPU stands before one of
them; `AFTER` what to do when the engine stopped behind one (SYSCALL, CPUID, IN, ...). Intel and AMD differ where
`Profile.vendor` is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from emu.arch import Efer, Msr, Rflags, Vector
from emu.events import EventType, GsSwapped, SystemCall
from emu.machine import msr, returns, system_instructions
from emu.machine.delivery import Interruption
from emu.machine.descriptors import CpuFault
from emu.machine.paging import PageFaultError
from emu.machine.registers import CS, R11, RAX, RCX, RDX, RSI, SS
from emu.machine.stop import Stop, StopKind

if TYPE_CHECKING:
    from asm import Instruction
    from emu.machine.core import Core

_PREFIXES = bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, *range(0x40, 0x50)))
_NOT_REPEAT = bytes(set(_PREFIXES) - {0xF2, 0xF3})
KERNEL_CODE_FLAGS = 0x00A09B00
KERNEL_DATA_FLAGS = 0x00C09300

RETURNING = frozenset({"iretq", "iretl", "iretw", "sysretq", "sysretl", "sysexitq", "sysexitl"})
STOPPING = RETURNING | {"swapgs", "rdmsr", "wrmsr"}
"""Instructions before which the CPU always stops."""
SYSRET = frozenset({"sysretq", "sysretl"})
UNMASKING = frozenset({"sti", "popfq"})
"""Instructions that may set IF: the CPU stops there only while a maskable interrupt waits."""


def scan(instructions: Iterable[Instruction]) -> dict[int, str]:
    """Address -> mnemonic of every instruction that needs attention."""
    wanted = STOPPING | UNMASKING
    found = {}
    for instruction in instructions:
        if instruction.mnemonic in wanted:
            found[instruction.address] = instruction.mnemonic
        else:
            kind = system_instructions.classify(instruction)
            if kind is not None:
                found[instruction.address] = kind
    return found


# --- before the instruction: True when it is done and RIP moved on, False to let the engine execute it ---------------
def swapgs(core: Core) -> bool:
    """SWAPGS (SDM volume 2): the engine executes it; observers learn the bases."""
    tell_swapgs(core, core.clock)
    return False


def tell_swapgs(core: Core, clock: int) -> None:
    """The event of a SWAPGS at RIP that retires as instruction number `clock`; at CPL 3 it will be #GP instead."""
    cpu = core.cpu
    if cpu.cpl == 0:
        core.emit(GsSwapped(clock, core.index, cpu.ip, cpu.gs_base, cpu.kernel_gs_base))


def rdmsr(core: Core) -> bool:
    """RDMSR: unknown registers are #GP(0)."""
    cpu = core.cpu
    if cpu.cpl:
        return False  # #GP, which the engine raises
    value = msr.read(core, cpu.register(RCX) & 0xFFFFFFFF)
    cpu.set_register(RAX, value & 0xFFFFFFFF)
    cpu.set_register(RDX, value >> 32)
    core.skip(2)
    return True


def wrmsr(core: Core) -> bool:
    """WRMSR: unknown registers and non-canonical addresses are #GP(0)."""
    cpu = core.cpu
    if cpu.cpl:
        return False
    number = cpu.register(RCX) & 0xFFFFFFFF
    value = (cpu.register(RDX) & 0xFFFFFFFF) << 32 | cpu.register(RAX) & 0xFFFFFFFF
    msr.check_write(core, number, value)
    core.emit(msr.written(core, number, value))
    msr.write(core, number, value)
    core.skip(2)
    return True


def unmask(core: Core) -> bool:
    """STI and POPF: one step, then the machine looks at its pending interrupts again."""
    stepped = core.debug.begin()
    stop = core.execute_one()
    if stepped and stop.kind is StopKind.COUNT:
        core.debug.executed()  # a POPF that clears TF: the engine's trap comes too late to be one
    return True


BEFORE: dict[str, Callable[[Core], bool]] = {
    "swapgs": swapgs,
    "rdmsr": rdmsr,
    "wrmsr": wrmsr,
    "sysretq": lambda core: returns.sysret(core, long=True),
    "sysretl": lambda core: returns.sysret(core, long=False),
    "sysexitq": lambda core: returns.sysexit(core, long=True),
    "sysexitl": lambda core: returns.sysexit(core, long=False),
    "iretq": lambda core: returns.iret(core, 8),
    "iretl": lambda core: returns.iret(core, 4),
    "iretw": lambda core: returns.iret(core, 2),
    "sti": unmask,
    "popfq": unmask,
    **system_instructions.BEFORE,
}
EXECUTING = UNMASKING | {"mov_dr", "load_fs", "load_gs"}
"""Those that let the engine execute the instruction: it does the single steps there."""


# --- after the instruction: the engine did nothing but move RIP ------------------------------------------------------
def syscall(core: Core, stop: Stop) -> None:
    """SYSCALL (SDM volume 2; APM volume 3). Compatibility mode: AMD enters CSTAR, Intel raises #UD."""
    cpu, state = core.cpu, core.cpu.state
    long_mode = cpu.long_mode_code
    if not state.efer & Efer.SCE or (not long_mode and core.profile.vendor == "intel"):
        core.take_back()
        raise CpuFault(Vector.UD, None, "SYSCALL is not enabled here")
    flags, target = cpu.flags, state.lstar if long_mode else state.cstar
    core.emit(
        SystemCall(
            core.clock, core.index, stop.ip - 2, cpu.register(RAX), stop.ip, flags, cpu.sp, target,
            cpu.gs_base, cpu.kernel_gs_base, compat=not long_mode,
        )
    )  # fmt: skip
    cpu.set_register(RCX, stop.ip)
    cpu.set_register(R11, flags & ~Rflags.RF)
    cpu.flags = flags & ~(state.fmask | int(Rflags.RF)) | 2
    selector = state.star >> 32 & 0xFFFC
    cpu.load_code_segment(selector, KERNEL_CODE_FLAGS, 0)
    cpu.load_stack_segment(selector + 8, KERNEL_DATA_FLAGS)
    cpu.ip = target


def sysenter(core: Core, stop: Stop) -> None:
    """SYSENTER (SDM volume 2): #GP(0) while SYSENTER_CS is null; AMD has it in legacy mode only (#UD)."""
    cpu, state = core.cpu, core.cpu.state
    if core.profile.vendor == "amd":
        core.take_back()
        raise CpuFault(Vector.UD, None, "SYSENTER in long mode on AMD")
    if not state.sysenter_cs & 0xFFFC:
        core.take_back()
        raise CpuFault(Vector.GP, 0, "SYSENTER with a null IA32_SYSENTER_CS")
    core.emit(
        SystemCall(
            core.clock, core.index, stop.ip - 2, cpu.register(RAX), stop.ip, cpu.flags, cpu.sp, state.sysenter_eip,
            cpu.gs_base, cpu.kernel_gs_base, "sysenter", compat=not cpu.long_mode_code,
        )
    )  # fmt: skip
    cpu.flags = cpu.flags & ~int(Rflags.VM | Rflags.IF | Rflags.RF)
    cpu.load_code_segment(state.sysenter_cs & 0xFFFC, KERNEL_CODE_FLAGS, 0)
    cpu.load_stack_segment((state.sysenter_cs & 0xFFFC) + 8, KERNEL_DATA_FLAGS)
    cpu.sp, cpu.ip = state.sysenter_esp, state.sysenter_eip


def software_interrupt(core: Core, stop: Stop) -> None:
    """INT n and INT3; RIP is saved behind the instruction, a refused gate blames the instruction itself."""
    # INT3 and INTO are one byte; INT n, also INT 3 and INT 4 in their long form, two.
    short = (stop.vector, core.code_byte(stop.ip - 1)) in ((Vector.BP, 0xCC), (Vector.OF, 0xCE))
    core.instruction_start = stop.ip - (1 if short else 2)
    kind = EventType.SWEXC if short else EventType.SWINT
    core.deliver(Interruption(stop.vector, kind, stop.ip))


def cpuid(core: Core, _stop: Stop) -> None:
    """CPUID from the profile."""
    cpu = core.cpu
    leaf, subleaf = cpu.register(RAX) & 0xFFFFFFFF, cpu.register(RCX) & 0xFFFFFFFF
    for register, value in zip((RAX, 3, RCX, RDX), core.profile.cpuid(leaf, subleaf, core.index), strict=True):
        cpu.set_register(register, value)


def rdtsc(core: Core, stop: Stop) -> None:
    """RDTSC and RDTSCP: the TSC counts retired instructions."""
    cpu = core.cpu
    value = msr.read(core, Msr.TSC)
    cpu.set_register(RAX, value & 0xFFFFFFFF)
    cpu.set_register(RDX, value >> 32 & 0xFFFFFFFF)
    if core.code_byte(stop.ip - 1) == 0xF9:  # 0f 01 f9: RDTSCP; RDTSC ends in 31
        cpu.set_register(RCX, cpu.state.tsc_aux)


def port_io(core: Core, stop: Stop) -> None:
    """IN and OUT: IOPL and the TSS's I/O bitmap (SDM volume 1, 18.5); a port without a device reads as all ones."""
    cpu = core.cpu
    if cpu.cpl > cpu.flags >> 12 & 3 and not _bitmap_allows(core, stop.port, stop.size):
        core.take_back(stop.start)
        _undo_port_io(core, stop)
        raise CpuFault(Vector.GP, 0, f"port {stop.port:#x} at CPL {cpu.cpl}")
    core.debug.note_port(stop.port, stop.size)
    value = core.port(stop)
    if stop.kind is StopKind.IN:
        mask = (1 << 8 * stop.size) - 1
        keep = cpu.register(RAX) & ~mask if stop.size < 4 else 0
        cpu.set_register(RAX, keep | value & mask)


def _undo_port_io(core: Core, stop: Stop) -> None:
    """The engine has changed RAX (IN), or RSI and RCX (OUTS), by the time that we are asked."""
    cpu = core.cpu
    code = core.read_code(cpu.ip, 15)
    prefixes = len(code) - len(code.lstrip(_PREFIXES))
    opcode = code[prefixes] if prefixes < len(code) else 0xEC  # page tables changed behind the TLB: no string, then
    if opcode & 0xFC != 0x6C:
        if stop.kind is StopKind.IN:
            cpu.set_register(RAX, stop.value)
        return
    if not opcode & 2:
        return
    step = -stop.size if cpu.flags & Rflags.DF else stop.size
    cpu.set_register(RSI, cpu.register(RSI) - step)
    if code[:prefixes].strip(_NOT_REPEAT):
        cpu.set_register(RCX, cpu.register(RCX) + 1)


def _bitmap_allows(core: Core, port: int, size: int) -> bool:
    tss = core.cpu.state.tr
    try:
        at = int.from_bytes(core.linear.read(tss.base + 102, 2), "little") + port // 8
        if at + 1 > tss.limit:
            return False
        bits = int.from_bytes(core.linear.read(tss.base + at, 2), "little")
    except PageFaultError as fault:
        raise CpuFault.from_page(fault, "I/O bitmap") from None
    return not bits >> port % 8 & ((1 << size) - 1)


AFTER: dict[StopKind, Callable[[Core, Stop], None]] = {
    StopKind.SYSCALL: syscall,
    StopKind.SYSENTER: sysenter,
    StopKind.SOFTWARE: software_interrupt,
    StopKind.CPUID: cpuid,
    StopKind.RDTSC: rdtsc,
    StopKind.IN: port_io,
    StopKind.OUT: port_io,
}

__all__ = ["AFTER", "BEFORE", "CS", "SS", "STOPPING", "UNMASKING", "scan"]
