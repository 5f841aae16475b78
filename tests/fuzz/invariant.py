"""What is true of a CPU at rest whatever it executed (SDM volume 3A 2.3-2.5, 3.4, 4.1, 5.5, 6.7, 10.8, 17.2)."""

from __future__ import annotations

from collections.abc import Iterator

from emu.arch import Cr0, Cr4, Efer, Rflags, is_canonical
from emu.machine.core import Core
from emu.machine.registers import CS, FS, GS, SS

_FLAGS_ALWAYS, _FLAGS_NEVER = 2, ~0x3F7FD7 | 0x28 | int(Rflags.VM)
_CR0_KNOWN = 0xE005003F
_CR4_KNOWN = 0x7FFFFF
_EFER_KNOWN = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)
_LONG, _DEFAULT_32 = 1 << 21, 1 << 22
_DR6_ONES, _DR6_ZEROS = 0xFFFE0FF0, 1 << 12
_DR7_ONES, _DR7_ZEROS = 1 << 10, 0xD000
_CODE_64 = 1 << 15


def violations(core: Core, *, shut_down: bool = False) -> Iterator[str]:
    """What is impossible about a core in long mode."""
    yield from _privilege(core)
    yield from _registers(core)
    if not shut_down:
        yield from _instruction_pointer(core)
    yield from _controls(core)
    yield from _events(core)


def _privilege(core: Core) -> Iterator[str]:
    cpu = core.cpu
    code, stack = cpu.state.segs[CS], cpu.state.segs[SS]
    if code.selector & 3 != cpu.cpl:
        yield f"CS {code.selector:#x} at CPL {cpu.cpl}"
    if stack.selector & 0xFFFC and stack.selector & 3 != cpu.cpl:  # IRETQ checks no RPL of a null selector
        yield f"SS {stack.selector:#x} at CPL {cpu.cpl}"
    if stack.flags >> 13 & 3 != cpu.cpl:
        yield f"SS has DPL {stack.flags >> 13 & 3} at CPL {cpu.cpl}"
    conforming, dpl = code.flags >> 10 & 1, code.flags >> 13 & 3
    if (dpl > cpu.cpl) if conforming else (dpl != cpu.cpl):
        yield f"CS has DPL {dpl} (conforming {conforming}) at CPL {cpu.cpl}"
    if code.flags >> 11 & 3 != 3 or not code.flags >> 15 & 1:
        yield f"CS holds no present code segment: {code.flags:#x}"
    if code.flags & _LONG and code.flags & _DEFAULT_32:
        yield "CS has both L and D"
    if bool(code.flags & _LONG) != bool(cpu.state.hflags & _CODE_64):
        yield "the engine's mode is not that of CS"


def _registers(core: Core) -> Iterator[str]:
    cpu = core.cpu
    state = cpu.state
    if cpu.flags & _FLAGS_NEVER or not cpu.flags & _FLAGS_ALWAYS:
        yield f"RFLAGS {cpu.flags:#x}"
    bases = {
        "FS": state.segs[FS].base, "GS": state.segs[GS].base, "KERNEL_GS": state.kernel_gs_base,
        "GDTR": state.gdt.base, "IDTR": state.idt.base, "LDTR": state.ldt.base, "TR": state.tr.base,
        "LSTAR": state.lstar, "CSTAR": state.cstar, "SYSENTER_EIP": state.sysenter_eip,
        "SYSENTER_ESP": state.sysenter_esp,
    }  # fmt: skip
    for name, base in bases.items():
        if not is_canonical(base):
            yield f"{name} base {base:#x}"
    if state.dr[6] & _DR6_ONES != _DR6_ONES or state.dr[6] & _DR6_ZEROS or state.dr[6] >> 32:
        yield f"DR6 {state.dr[6]:#x}"
    if not state.dr[7] & _DR7_ONES or state.dr[7] & _DR7_ZEROS or state.dr[7] >> 32:
        yield f"DR7 {state.dr[7]:#x}"


def _instruction_pointer(core: Core) -> Iterator[str]:
    """Not after a triple fault: near branches to non-canonical addresses fault too late (docs/fidelity.md)."""
    cpu = core.cpu
    if not is_canonical(cpu.ip) and not 0 <= cpu.ip - 0x8000_0000_0000 < 16:
        yield f"RIP {cpu.ip:#x}"  # just behind the lower half is where a CPU may have run to
    if not cpu.long_mode_code and cpu.ip >> 32:
        yield f"RIP {cpu.ip:#x} in compatibility mode"


def _controls(core: Core) -> Iterator[str]:
    cpu = core.cpu
    efer = cpu.state.efer
    if not cpu.cr0 & Cr0.PG or not cpu.cr0 & Cr0.PE or not cpu.cr0 & Cr0.ET or cpu.cr0 & ~_CR0_KNOWN:
        yield f"CR0 {cpu.cr0:#x}"
    if cpu.cr0 >> 29 & 3 == 1:
        yield "CR0.NW without CD"
    if not cpu.cr4 & Cr4.PAE or cpu.cr4 & ~_CR4_KNOWN:
        yield f"CR4 {cpu.cr4:#x}"
    if not efer & Efer.LME or not efer & Efer.LMA or efer & ~_EFER_KNOWN:
        yield f"EFER {efer:#x}"


def _events(core: Core) -> Iterator[str]:
    apic = core.apic
    if core.nmi_pending not in (0, 1):
        yield f"{core.nmi_pending} NMIs remembered"
    if (apic.irr | apic.isr) & 0xFFFF:
        yield "an interrupt of vector 0-15 in IRR or ISR"
    if apic.tpr > 0xFF:
        yield f"TPR {apic.tpr:#x}"
    if core.cpu.state.old_exception != -1:
        yield "the engine remembers an exception: the next one would become #DF inside it"
