"""A CPU's registers at rest, in the saved context. Values are unsigned 64-bit; a write marks the context dirty."""

from __future__ import annotations

from ctypes import c_uint64, sizeof

from emu.arch import Rflags
from emu.machine.saved_cpu import BASE_IN_SEGMENT, SavedCpu, Segment, picked, set_selector

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
REGISTER_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
ES, CS, SS, DS, FS, GS = range(6)

_SHADOW = 1 << 3
"""hflags: interrupts inhibited for one instruction (STI, MOV SS)."""
_CPL = 3
_IF, _RF = int(Rflags.IF), int(Rflags.RF)
_CS32, _SS32, _ADD_BASES = 1 << 4, 1 << 5, 1 << 6
_CODE64_HFLAGS = _CS32 | _SS32 | 1 << 15
"""hflags of a 64-bit code segment: CS32, SS32, CS64."""
_LONG, _BIG = 1 << 21, 1 << 22
"""L and D/B in a segment's flags."""


_GLANCE = picked(
    ("regs", 8 * RSP, "Q"), ("rip", 0, "Q"), ("eflags", 0, "Q"), ("hflags", 0, "I"),
    ("segs", sizeof(Segment) * GS + BASE_IN_SEGMENT, "Q"), ("cr", 8 * 3, "Q"), ("kernel_gs_base", 0, "Q"),
)  # fmt: skip
"""RSP, RIP, RFLAGS, hflags, GS_BASE, CR3 and KERNEL_GS_BASE in a saved context."""


class Registers:
    """Read and write registers between two runs; the owner writes a dirty context back before the next one."""

    def __init__(self, state: SavedCpu) -> None:
        self.state = state
        # Views into the context, made once: each access through `state` would make them anew.
        self._regs, self._cr, self._dr = state.regs, state.cr, state.dr
        self._segs: tuple[Segment, ...] = tuple(state.segs)
        _, self._cs, self._ss, _, self._fs, self._gs = self._segs
        self._dirty = False

    def register(self, number: int) -> int:
        """A general register by its encoding (RAX 0 ... R15 15)."""
        value: int = self._regs[number]
        return value

    def set_register(self, number: int, value: int) -> None:
        """Write a general register."""
        self._regs[number] = value & 0xFFFF_FFFF_FFFF_FFFF
        self._dirty = True

    def set_registers(self, values: tuple[tuple[int, int], ...]) -> None:
        """Write several general registers: (encoding, unsigned 64-bit value)."""
        registers = self._regs
        for number, value in values:
            registers[number] = value
        self._dirty = True

    def set_run(self, first: int, values: list[c_uint64 | int]) -> None:
        """Write general registers whose encodings follow each other; values are unsigned 64-bit."""
        self._regs[first : first + len(values)] = values
        self._dirty = True

    def glance(self) -> tuple[int, int, int, int, int, int, int]:
        """What observers are told of most: RSP, RIP, CPL, RFLAGS, GS_BASE, KERNEL_GS_BASE and CR3 (CCalled has the last
        five in this order)."""
        sp, ip, flags, hflags, gs_base, cr3, kernel_gs_base = _GLANCE.unpack_from(self.state)
        return sp, ip, hflags & _CPL, flags, gs_base, kernel_gs_base, cr3

    @property
    def ip(self) -> int:
        """RIP."""
        return self.state.rip

    @ip.setter
    def ip(self, value: int) -> None:
        self.state.rip = value
        self._dirty = True

    @property
    def sp(self) -> int:
        """RSP."""
        return int(self._regs[RSP])

    @sp.setter
    def sp(self, value: int) -> None:
        self._regs[RSP] = value & 0xFFFF_FFFF_FFFF_FFFF
        self._dirty = True

    @property
    def flags(self) -> int:
        """RFLAGS."""
        return self.state.eflags

    @flags.setter
    def flags(self, value: int) -> None:
        self.state.eflags = int(value) & 0xFFFF_FFFF | 2
        self._dirty = True

    def jump(self, ip: int, flags: int, sp: int) -> None:
        """Go on at RIP with these RFLAGS and RSP (modulo 2**64)."""
        self.state.rip, self.state.eflags, self._regs[RSP] = ip, flags & 0xFFFF_FFFF | 2, sp & 0xFFFF_FFFF_FFFF_FFFF
        self._dirty = True

    @property
    def interrupts_enabled(self) -> bool:
        """RFLAGS.IF."""
        return bool(self.state.eflags & _IF)

    @property
    def cpl(self) -> int:
        """Current privilege level."""
        return self.state.hflags & _CPL

    @property
    def shadow(self) -> bool:
        """Whether an STI or MOV SS shadow holds interrupts off for this instruction (SDM 6.8.3)."""
        return bool(self.state.hflags & _SHADOW)

    def clear_shadow(self) -> None:
        """End a shadow."""
        self.state.hflags &= ~_SHADOW
        self._dirty = True

    def end_instruction(self) -> None:
        """An instruction is done: RF and a shadow last for one."""
        state = self.state
        state.eflags &= ~_RF
        state.hflags &= ~_SHADOW
        self._dirty = True

    @property
    def long_mode_code(self) -> bool:
        """Whether CS is a 64-bit code segment (not compatibility mode)."""
        return bool(self._cs.flags & _LONG)

    def selector(self, segment: int) -> int:
        """Selector in a segment register (ES CS SS DS FS GS: 0-5)."""
        return self._segs[segment].selector

    def load_code_segment(self, selector: int, flags: int, cpl: int) -> None:
        """CS of 64-bit code with the given descriptor flags, and the privilege level with it."""
        set_selector(self._cs, selector, flags)
        self.state.hflags = (self.state.hflags & ~(_CPL | _ADD_BASES)) | _CODE64_HFLAGS | cpl
        self._dirty = True

    def load_segment(self, segment: int, selector: int, flags: int, base: int = 0, limit: int = 0xFFFFFFFF) -> None:
        """A segment register with its hidden part. After CS or SS, `enter_code_mode` makes them count."""
        set_selector(self._segs[segment], selector, flags, base, limit)
        self._dirty = True

    def enter_code_mode(self, cpl: int) -> None:
        """The mode that the hidden parts of CS and SS stand for, at a privilege level."""
        state = self.state
        code, stack = self._cs.flags, self._ss.flags
        hflags = state.hflags & ~(_CPL | _CODE64_HFLAGS | _ADD_BASES) | cpl
        if code & _LONG:
            hflags |= _CODE64_HFLAGS
        else:
            hflags |= (_CS32 if code & _BIG else 0) | (_SS32 if stack & _BIG else 0)
            if any(self._segs[segment].base for segment in (ES, SS, DS)):
                hflags |= _ADD_BASES
        state.hflags = hflags
        self._dirty = True

    def load_stack_segment(self, selector: int, flags: int, base: int = 0, limit: int = 0xFFFFFFFF) -> None:
        """SS with the given hidden part."""
        set_selector(self._ss, selector, flags, base, limit)
        self._dirty = True

    def clear_segment(self, segment: int) -> None:
        """A null selector, base and limit 0."""
        set_selector(self._segs[segment], 0, 0, 0, 0)
        self._dirty = True

    @property
    def gs_base(self) -> int:
        """IA32_GS_BASE."""
        return self._gs.base

    @gs_base.setter
    def gs_base(self, value: int) -> None:
        self._gs.base = value
        self._dirty = True

    @property
    def fs_base(self) -> int:
        """IA32_FS_BASE."""
        return self._fs.base

    @fs_base.setter
    def fs_base(self, value: int) -> None:
        self._fs.base = value
        self._dirty = True

    @property
    def kernel_gs_base(self) -> int:
        """IA32_KERNEL_GS_BASE."""
        return self.state.kernel_gs_base

    @kernel_gs_base.setter
    def kernel_gs_base(self, value: int) -> None:
        self.state.kernel_gs_base = value
        self._dirty = True

    @property
    def cr0(self) -> int:
        """CR0."""
        return int(self._cr[0])

    @property
    def cr2(self) -> int:
        """CR2."""
        return int(self._cr[2])

    @cr2.setter
    def cr2(self, value: int) -> None:
        self._cr[2] = value
        self._dirty = True

    @property
    def cr3(self) -> int:
        """CR3."""
        return int(self._cr[3])

    @property
    def cr4(self) -> int:
        """CR4."""
        return int(self._cr[4])

    def mark_dirty(self) -> None:
        """`state` was changed directly."""
        self._dirty = True
