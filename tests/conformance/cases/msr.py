"""RDMSR and WRMSR: values kept, refused values, unknown registers (SDM volumes 2 and 4)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.fields import DEFAULT_EFER
from conformance.model import Case, Value
from emu.arch import Efer, Msr

BOTH = ("intel", "amd")
ADDRESSES = (
    Msr.LSTAR, Msr.CSTAR, Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.SYSENTER_ESP, Msr.SYSENTER_EIP,
)  # fmt: skip
VALUES = {
    "low": 0x1234_5678,
    "high": 0xFFFF_8123_4567_8000,
    "last_low": 0x7FFF_FFFF_FFFF,
    "hole": 0x8000_0000_0000,
    "hole_top": 0xFFFF_7FFF_FFFF_FFFF,
    "bit_63": 1 << 63,
}
ROUND_TRIP = "wrmsr\n xorl %eax, %eax\n xorl %edx, %edx\n rdmsr"
EFER_VALUES = {
    "same": DEFAULT_EFER,
    "sce_off": DEFAULT_EFER & ~1,
    "nxe_off": DEFAULT_EFER & ~int(Efer.NXE),
    "lme_off": DEFAULT_EFER & ~int(Efer.LME),
    "lma_off": DEFAULT_EFER & ~int(Efer.LMA),
    "bit_1": DEFAULT_EFER | 2,
    "bit_20": DEFAULT_EFER | 1 << 20,
    "bit_63": DEFAULT_EFER | 1 << 63,
}
PAT_VALUES = {
    "reset": 0x0007_0406_0007_0406,
    "linux": 0x0407_0106_0007_0106,
    "type_2": 0x0007_0406_0007_0402,
    "type_3": 0x0300_0406_0007_0406,
    "type_8": 0x0007_0408_0007_0406,
}


def access(name: str, code: str, number: int, value: int = 0, cpl: int = 0, cpu: tuple[str, ...] = BOTH) -> Case:
    state: dict[str, Value] = {"rcx": number, "rax": value & 0xFFFF_FFFF, "rdx": value >> 32}
    return Case(name, code, cpl, cpu, set=state)  # type: ignore[arg-type]


def _all() -> Iterator[Case]:
    for msr in ADDRESSES:
        for name, value in VALUES.items():
            cpu = BOTH if name == "hole" or "SYSENTER" in msr.name else ("intel",)
            yield access(f"{msr.name.lower()}_{name}", ROUND_TRIP, msr, value, cpu=cpu)
    for name, value in EFER_VALUES.items():
        yield access(f"efer_{name}", ROUND_TRIP, Msr.EFER, value, cpu=("intel",))
    for name, value in PAT_VALUES.items():
        yield access(f"pat_{name}", ROUND_TRIP, Msr.PAT, value, cpu=("intel",))
    for name, value in (("low", 0x1234_5678), ("high", 1 << 63), ("bit_32", 1 << 32 | 5)):
        yield access(f"fmask_{name}", ROUND_TRIP, Msr.SYSCALL_MASK, value)
        yield access(f"star_{name}", ROUND_TRIP, Msr.STAR, value)
        yield access(f"tsc_aux_{name}", ROUND_TRIP, Msr.TSC_AUX, value)
        yield access(f"sysenter_cs_{name}", ROUND_TRIP, Msr.SYSENTER_CS, value)
    for number in (0xDEAD, 0xC000_0FFF, 0x4000_1234, 0x8000_0000):
        for code in ("rdmsr", "wrmsr"):
            yield access(f"unknown_{number:x}_{code}", f"nop\n {code}", number)
    for code in ("rdmsr", "wrmsr"):
        for number in (Msr.EFER, Msr.LSTAR, 0xDEAD):
            yield access(f"{code}_user_{number:x}", f"nop\n {code}", number, cpl=3, cpu=("intel",))
        yield access(f"{code}_lock", f".byte 0xf0\n {code}", Msr.LSTAR, cpu=("intel",))
        yield Case(f"{code}_high_half_of_rcx", code, set={"rcx": 0xABCD_0000_0000 | Msr.STAR, "rax": 0x77, "rdx": 0x88})
    yield access("apic_base_read_clears_high", "movq $-1, %rax\n movq $-1, %rdx\n rdmsr\n xorl %eax, %eax",
                 Msr.APIC_BASE, cpu=("intel",))  # fmt: skip
    yield access("mcg_cap_write", "wrmsr", Msr.MCG_CAP, 1, cpu=("intel",))
    yield access("nxe_off_makes_nx_reserved", "wrmsr\n nop", Msr.EFER, DEFAULT_EFER & ~int(Efer.NXE), cpu=("intel",))


CASES = tuple(_all())
