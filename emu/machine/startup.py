"""How a CPU begins, other than in long mode: by a startup IPI in real mode, by a boot loader in protected mode.

The engine executes real-mode and 32-bit protected-mode code and every switch between the modes. Interrupts and
exceptions are delivered in long mode only (emu.machine.delivery): elsewhere they end the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.arch import Cr0
from emu.machine.registers import CS, DS, ES, FS, GS, RAX, RBX, RDX, SS
from emu.machine.saved_cpu import set_selector

if TYPE_CHECKING:
    from emu.machine.core import Core

_CPL, _CS32, _SS32, _ADDSEG, _PE, _LMA, _CS64 = 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 14, 1 << 15
"""Mode bits of the engine's hflags."""
_MODE = _CPL | _CS32 | _SS32 | _ADDSEG | _PE | _LMA | _CS64
INIT_CR0 = 0x6000_0010
"""CR0 after INIT: caches off, ET (SDM table 9-1)."""
PROCESSOR_SIGNATURE = 0x50654
"""EDX after INIT."""
DR6_RESET, DR7_RESET = 0xFFFF_0FF0, 0x400
_REAL_CODE, _REAL_DATA = 0x9B00, 0x9300
_FLAT_CODE, _FLAT_DATA = 0x00CF9B00, 0x00CF9300
_BUSY_TSS, _LDT = 0x8B00, 0x8200


def _leave_long_mode(core: Core, cr0: int, mode: int) -> None:
    """Paging off, every register as after INIT, the mode bits as given."""
    cpu = core.cpu
    state = cpu.state
    cpu.set_control(cr0=cr0)
    cpu.set_control(cr3=0, cr4=0)
    cpu.set_efer(0)
    state.efer = 0  # the engine keeps LMA
    state.hflags = state.hflags & ~_MODE | mode
    for number in range(16):
        cpu.set_register(number, 0)
    cpu.flags = 2
    state.dr[0] = state.dr[1] = state.dr[2] = state.dr[3] = 0
    state.dr[6], state.dr[7] = DR6_RESET, DR7_RESET
    state.gdt.base, state.gdt.limit = 0, 0xFFFF
    state.idt.base, state.idt.limit = 0, 0xFFFF
    set_selector(state.ldt, 0, _LDT, limit=0xFFFF)
    set_selector(state.tr, 0, _BUSY_TSS, limit=0xFFFF)
    cpu.mark_dirty()


def startup_ipi(core: Core, vector: int) -> None:
    """A startup IPI: real mode at the page `vector` (SDM 8.4.3 and table 9-1)."""
    _leave_long_mode(core, INIT_CR0, _ADDSEG)
    segments = core.cpu.state.segs
    set_selector(segments[CS], vector << 8, _REAL_CODE, vector << 12, 0xFFFF)
    for number in (ES, SS, DS, FS, GS):
        set_selector(segments[number], 0, _REAL_DATA, 0, 0xFFFF)
    core.cpu.set_register(RDX, PROCESSOR_SIGNATURE)
    core.cpu.ip = 0


def multiboot(core: Core, entry: int, magic: int, information: int) -> None:
    """As a boot loader leaves the CPU: flat 32-bit segments, paging off (Multiboot Specification 0.6.96, 3.2)."""
    _leave_long_mode(core, int(Cr0.PE | Cr0.ET), _PE | _CS32 | _SS32)
    segments = core.cpu.state.segs
    set_selector(segments[CS], 0x08, _FLAT_CODE)
    for number in (ES, SS, DS, FS, GS):
        set_selector(segments[number], 0x10, _FLAT_DATA)
    core.cpu.set_register(RAX, magic)
    core.cpu.set_register(RBX, information)
    core.cpu.ip = entry
