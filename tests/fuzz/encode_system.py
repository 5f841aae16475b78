"""Random system instructions as bytes, each with what it needs in registers and on the stack."""

from __future__ import annotations

import struct
from collections.abc import Callable

from conformance import layout

from emu.arch import Cr0, Cr4, Efer, Msr
from fuzz.encode import Draw, ordinary, rm

NON_CANONICAL = 0x8000_0000_0000
CODE_SELECTORS = (0, layout.KERNEL_CS, layout.USER_CS, layout.USER_CS & ~3, layout.KERNEL_CS | 3, layout.SPARE,
                  layout.SPARE | 3, layout.USER_DS, layout.TSS_SELECTOR, 0x100, 0x1B, 0x54)  # fmt: skip
"""No 32-bit code: compatibility mode is outside what is modelled."""
DATA_SELECTORS = (0, 3, layout.KERNEL_DS, layout.USER_DS, layout.USER_DS & ~3, layout.SPARE2, layout.SPARE2 | 3,
                  layout.KERNEL_CS, layout.USER_CS, layout.TSS_SELECTOR, 0x100, 0x54, 0x57)  # fmt: skip
MSRS = (Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.STAR, Msr.LSTAR, Msr.CSTAR, Msr.SYSCALL_MASK, Msr.EFER,
        Msr.SYSENTER_CS, Msr.SYSENTER_ESP, Msr.SYSENTER_EIP)  # fmt: skip
FLAGS = (2, 0x202, 0x102, 0x4002, 0x3002, 0x3202, 0xCD7, 0x200002, 0x402)
"""For POPFQ and IRETQ: IF, TF, NT, IOPL, arithmetic flags, ID, DF."""


def _load(register: int, value: int) -> bytes:
    """MOVABS to RAX ... RDI."""
    return bytes([0x48, 0xB8 | register]) + struct.pack("<Q", value & (1 << 64) - 1)


def _push(value: int) -> bytes:
    return _load(0, value) + b"\x50"


def _address(draw: Draw) -> int:
    return draw.choice(
        [0, 0x1234, NON_CANONICAL, NON_CANONICAL - 1, ~NON_CANONICAL, layout.kernel(layout.KDATA), draw.getrandbits(47)]
    )


def software(draw: Draw, _cpl: int) -> bytes:
    """INT n, INT3, ICEBP, UD2, INTO."""
    vector = draw.choice([0, 1, 3, 6, 8, 13, 14, 0x20, 0x80, 0x80, 0xFE, 0xFE, 0xF0])
    return draw.choice([bytes([0xCD, vector]), bytes([0xCD, vector]), b"\xcc", b"\xf1", b"\x0f\x0b", b"\xce"])


def system_call(draw: Draw, _cpl: int) -> bytes:
    """SYSCALL and SYSENTER."""
    return draw.choice([b"\x0f\x05", b"\x0f\x05", b"\x0f\x34"])


def fast_return(draw: Draw, _cpl: int) -> bytes:
    """SYSRETQ to a place that is not there (so that it ends the stream), or a refused one."""
    to = draw.choice([0x1000, NON_CANONICAL, NON_CANONICAL - 0x1000])
    return _load(1, to) + b"\x49\xbb" + struct.pack("<Q", draw.choice(FLAGS) & ~0x100) + b"\x48\x0f\x07"


def interrupt_return(draw: Draw, cpl: int) -> bytes:
    """IRETQ to the instruction behind it, at the same or another level, with frames good and bad."""
    cs = draw.choice([layout.KERNEL_CS if cpl == 0 else layout.USER_CS, layout.USER_CS, *CODE_SELECTORS])
    ss = draw.choice([layout.USER_DS if cs & 3 else layout.KERNEL_DS, *DATA_SELECTORS])
    sp = draw.choice([layout.user(layout.USTACK) + 0x700 if cs & 3 else layout.kernel(layout.KSTACK) - 0x300])
    frame = _push(ss) + _push(sp) + _push(draw.choice(FLAGS)) + _push(cs)
    moved = layout.USER - layout.KERNEL if cpl == 0 and cs & 3 == 3 else 0
    target = NON_CANONICAL if draw.random() < 0.08 else None
    if target is not None:
        return frame + _push(target) + b"\x48\xcf"
    # lea behind(%rip), %rax; movabs $moved, %rcx; add %rcx, %rax; push %rax; iretq
    tail = _load(1, moved) + b"\x48\x01\xc8\x50\x48\xcf"
    return frame + b"\x48\x8d\x05" + struct.pack("<i", len(tail)) + tail


def far_return(draw: Draw, cpl: int) -> bytes:
    """LRETQ to the instruction behind it at the same level, or a refused one."""
    cs = draw.choice([layout.KERNEL_CS if cpl == 0 else layout.USER_CS, 0, layout.SPARE, 0x100, layout.USER_DS, 0x54])
    tail = b"\x50\x48\xcb"
    return _push(cs) + b"\x48\x8d\x05" + struct.pack("<i", len(tail)) + tail


def segments(draw: Draw, _cpl: int) -> bytes:
    """MOV to and from segment registers, POP FS and GS, LAR LSL VERR VERW, SLDT STR SMSW."""
    chosen = draw.choice(DATA_SELECTORS)
    # A null FS or GS keeps its base on AMD, but not in the oracles (docs/fidelity.md, "Choices").
    number = draw.choice([0, 3, 4, 5, 4, 5, 2] if chosen > 3 else [0, 3, 2])
    selector = b"\xb8" + struct.pack("<I", chosen)
    match draw.randrange(6):
        case 0 | 1:
            return selector + bytes([0x8E, 0xC0 | number << 3])
        case 2:
            return _push(chosen if chosen > 3 else layout.USER_DS) + draw.choice([b"\x0f\xa1", b"\x0f\xa9"])
        case 3:
            return b"\x48\x8c" + bytes([0xC0 | draw.randrange(6) << 3 | draw.choice([0, 2])])
        case 4:
            which = draw.choice([b"\x0f\x00\xe0", b"\x0f\x00\xe8", b"\x0f\x02\xd0", b"\x0f\x03\xd0"])
            return selector + which
        case _:
            return draw.choice([b"\x48\x0f\x00\xc0", b"\x48\x0f\x00\xca", b"\x48\x0f\x01\xe0"])


def bases(draw: Draw, _cpl: int) -> bytes:
    """SWAPGS, RD/WRFSBASE, RD/WRGSBASE."""
    if draw.random() < 0.4:
        return b"\x0f\x01\xf8"
    return _load(0, _address(draw)) + b"\xf3\x48\x0f\xae" + bytes([0xC0 | draw.randrange(4) << 3])


def model_specific(draw: Draw, _cpl: int) -> bytes:
    """RDMSR and WRMSR of registers that both oracles know."""
    number = draw.choice(MSRS)
    head = b"\xb9" + struct.pack("<I", number)
    if draw.random() < 0.4:
        return head + b"\x0f\x32"
    value = _address(draw)
    if number is Msr.EFER:
        value = int(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE) ^ draw.choice([0, int(Efer.SCE), int(Efer.LME), 1 << 9])
    elif number is Msr.SYSCALL_MASK:
        value = draw.getrandbits(32)
    elif number is Msr.STAR:
        value = draw.choice([layout.KERNEL_CS << 32 | layout.USER32_CS << 48, draw.getrandbits(64)])
    elif number is Msr.SYSENTER_CS:
        value = draw.choice([0, layout.KERNEL_CS])
    return (
        head + b"\xb8" + struct.pack("<I", value & 0xFFFF_FFFF)
        + b"\xba" + struct.pack("<I", value >> 32 & 0xFFFF_FFFF) + b"\x0f\x30"
    )  # fmt: skip


def flag_register(draw: Draw, _cpl: int) -> bytes:
    """CLI, STI, PUSHFQ, POPFQ."""
    return draw.choice([b"\xfa", b"\xfb", b"\x9c", _push(draw.choice(FLAGS)) + b"\x9d"])


def control(draw: Draw, _cpl: int) -> bytes:
    """MOV from and to control registers, CLTS, INVLPG."""
    match draw.randrange(5):
        case 0:
            return b"\x0f\x20" + bytes([0xC0 | draw.choice([0, 2, 3, 4]) << 3])
        case 1:
            bits = int(Cr0.PE | Cr0.ET | Cr0.NE | Cr0.PG) | draw.choice(
                [0, int(Cr0.WP), int(Cr0.TS), int(Cr0.EM), int(Cr0.MP | Cr0.WP)]
            )
            bits ^= draw.choice([0, 0, 0, int(Cr0.PG), int(Cr0.PE)])
            return _load(0, bits) + b"\x0f\x22\xc0"
        case 2:
            bits = int(Cr4.PAE | Cr4.OSFXSR)
            bits ^= draw.choice(
                [0, int(Cr4.SMEP), int(Cr4.UMIP), int(Cr4.FSGSBASE), int(Cr4.PGE), int(Cr4.PAE), 1 << 35]
            )
            return _load(0, bits) + b"\x0f\x22\xe0"
        case 3:
            return draw.choice([b"\x0f\x06", b"\x0f\x01\x3b"])
        case _:
            value = draw.choice([0, 5, 15, 16])
            return _load(0, value) + draw.choice([b"\x44\x0f\x22\xc0", b"\x44\x0f\x20\xc0", b"\x0f\x22\xd0"])


def debug(draw: Draw, _cpl: int) -> bytes:
    """MOV from and to debug registers; no breakpoint is enabled."""
    number = draw.choice([0, 1, 2, 3, 6, 7])
    if draw.random() < 0.4:
        return b"\x0f\x21" + bytes([0xC0 | number << 3])
    value = {6: draw.choice([0, 0xFFFF0FF0, 0x4001]), 7: draw.choice([0x400, 0])}.get(number, _address(draw))
    return _load(0, value) + b"\x0f\x23" + bytes([0xC0 | number << 3])


def privileged(draw: Draw, cpl: int) -> bytes:
    """What CPL 3 may not do; at CPL 0 an ordinary instruction instead. With IOPL 3, OUT to a port that does nothing."""
    if cpl == 0:
        return ordinary(draw)
    return draw.choice(
        [b"\xf4", b"\x0f\x08", b"\x0f\x09", b"\xe6\x80", b"\x66\xba\x80\0\xee", b"\x0f\x01\x13", b"\x0f\x01\x1b",
         b"\x0f\x00\xd8", b"\x0f\x00\xd0"]
    )  # fmt: skip


def tables(draw: Draw, _cpl: int) -> bytes:
    """SGDT and SIDT, to memory."""
    return rm(draw, b"\x0f\x01", draw.randrange(2), 4, memory=True)


def branch(draw: Draw, _cpl: int) -> bytes:
    """Jcc, JMP, CALL over an instruction; CALL and RET to what follows."""
    over = ordinary(draw)
    match draw.randrange(4):
        case 0:
            return bytes([0x70 | draw.randrange(16), len(over)]) + over
        case 1:
            return bytes([0xEB, len(over)]) + over
        case 2:
            return b"\xe8" + struct.pack("<i", len(over)) + over
        case _:
            return b"\x48\x8d\x05\x02\0\0\0\x50\xc3"


SYSTEM: tuple[tuple[Callable[[Draw, int], bytes], int], ...] = (
    (branch, 6), (software, 2), (system_call, 1), (fast_return, 1), (interrupt_return, 3), (far_return, 1),
    (segments, 4), (bases, 3), (model_specific, 3), (flag_register, 3), (control, 3), (debug, 2), (privileged, 1),
    (tables, 1),
)  # fmt: skip


def system(draw: Draw, cpl: int) -> bytes:
    """One system instruction with its preparations."""
    families, weights = zip(*SYSTEM, strict=True)
    return draw.choices(families, weights)[0](draw, cpl)
