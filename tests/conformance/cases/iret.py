"""IRETQ: same and outer level, refused frames, compatibility mode, what happens to data segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conformance import layout
from conformance.layout import (
    KERNEL32_CS,
    KERNEL_CS,
    KERNEL_DS,
    LDT_SELECTOR,
    SPARE,
    SPARE2,
    TSS_SELECTOR,
    USER32_CS,
    USER_CS,
    USER_DS,
    kernel,
    user,
)
from conformance.model import Case, Value, on_user
from conformance.tables import (
    CONFORMING,
    DEFAULT_32,
    KERNEL_CODE,
    KERNEL_DATA,
    LONG,
    PRESENT,
    USER_CODE,
    USER_DATA,
    dpl,
    kind,
)
from emu.arch import Rflags

HOLE = 0x0000_8000_0000_0000
USER_SP = user(layout.USTACK) + 0x400
TARGET = on_user("@target")
CODE = "iretq\n nop\n@target: int $0xff"


def frame(*, ip: Value = TARGET, cs: int = USER_CS, flags: int = 2, sp: int = USER_SP, ss: int = USER_DS,
          at: int = kernel(layout.KSTACK) - 0x100) -> dict[int, Value]:  # fmt: skip
    """The words that IRETQ pops, by address."""
    return {at + 8 * n: word for n, word in enumerate((ip, cs, flags, sp, ss))}


def case(name: str, *, code: str = CODE, cpl: int = 0, gdt: Mapping[int, Value] | None = None,
         state: Mapping[str, Value] | None = None, **words: Value) -> Case:  # fmt: skip
    return Case(name, code, cpl, memory=frame(**words), gdt=gdt or {}, set=state or {})  # type: ignore[arg-type]


CS = {
    "null": 0,
    "null_rpl_3": 3,
    "data": USER_DS,
    "beyond_gdt": 0x1003,
    "last_byte_beyond": 0x103,
    "absent_ldt": 0x37,
    "kernel_rpl_3": KERNEL_CS | 3,
    "user_rpl_0": USER_CS & ~3,
    "user_rpl_1": USER_CS & ~3 | 1,
    "tss": TSS_SELECTOR | 3,
    "ldt": LDT_SELECTOR | 3,
    "empty": SPARE2 | 3,
}
SS = {
    "null": 0,
    "null_rpl_3": 3,
    "user_rpl_0": USER_DS & ~3,
    "user_rpl_1": USER_DS & ~3 | 1,
    "kernel": KERNEL_DS,
    "kernel_rpl_3": KERNEL_DS | 3,
    "code": USER_CS,
    "beyond_gdt": 0x1003,
    "absent_ldt": 0x37,
    "tss": TSS_SELECTOR | 3,
    "empty": SPARE2 | 3,
}
SPARE_CS = {
    "not_present": USER_CODE & ~PRESENT,
    "conforming": USER_CODE | CONFORMING,
    "conforming_dpl_0": KERNEL_CODE | CONFORMING,
    "long_and_default": USER_CODE | DEFAULT_32,
    "sixteen_bit": USER_CODE & ~LONG,
    "not_accessed": kind(USER_CODE, 0x1A),
    "execute_only": kind(USER_CODE, 0x19),
    "dpl_1": dpl(USER_CODE, 1),
    "dpl_0_not_present": KERNEL_CODE & ~PRESENT,
    "data_not_present": USER_DATA & ~PRESENT,
}
SPARE_SS = {
    "not_present": USER_DATA & ~PRESENT,
    "read_only": kind(USER_DATA, 0x11),
    "expand_down": kind(USER_DATA, 0x17),
    "not_accessed": kind(USER_DATA, 0x12),
    "dpl_0": KERNEL_DATA,
    "dpl_2": dpl(USER_DATA, 2),
    "dpl_0_not_present": KERNEL_DATA & ~PRESENT,
    "code_readable": USER_CODE,
    "based": USER_DATA | 0x1000 << 16,
}
FLAGS = {
    "if": Rflags.IF, "tf": Rflags.TF, "nt": Rflags.NT, "rf": Rflags.RF, "vm": Rflags.VM, "ac": Rflags.AC,
    "id": Rflags.ID, "vif": Rflags.VIF, "vip": Rflags.VIP, "iopl": Rflags.IOPL, "df": Rflags.DF,
    "reserved": 0xFFFF_FFFF_FFC0_8028, "all_arithmetic": 0x8D5,
}  # fmt: skip


def _all() -> Iterator[Case]:
    yield case("to_user")
    yield case("to_kernel", ip="@target", cs=KERNEL_CS, sp=kernel(layout.KSTACK) - 0x208, ss=KERNEL_DS)
    yield case("to_kernel_null_ss", ip="@target", cs=KERNEL_CS, sp=kernel(layout.KSTACK) - 0x208, ss=0)
    yield case("to_kernel_user_ss", ip="@target", cs=KERNEL_CS, ss=USER_DS)
    yield case("to_kernel_null_ss_rpl_3", ip="@target", cs=KERNEL_CS, ss=3)
    yield case("to_kernel_compatibility_null_ss", ip="@target", cs=KERNEL32_CS, ss=0)
    yield case("to_user_compatibility", cs=USER32_CS)
    yield case("to_user_compatibility_null_ss", cs=USER32_CS, ss=0)
    yield case("to_compatibility_truncates_rip", ip=f"{TARGET} + 0x100000000", cs=USER32_CS)
    yield case("to_compatibility_truncates_rsp", cs=USER32_CS, sp=1 << 32 | USER_SP)
    yield case("cs_upper_bits_ignored", cs=0xABCD_0000 | USER_CS)
    yield case("ss_upper_bits_ignored", ss=0x1234_0000 | USER_DS)
    yield case("nt_set", state={"rflags": 2 | int(Rflags.NT)})
    yield case("non_canonical_rip", ip=HOLE)
    yield case("non_canonical_rip_high", ip=0xFFFF_7FFF_FFFF_FFFF)
    yield case("non_canonical_rip_kernel", ip=HOLE, cs=KERNEL_CS, ss=KERNEL_DS, sp=kernel(layout.KSTACK) - 0x200)
    yield case("non_canonical_rip_and_bad_ss", ip=HOLE, ss=USER_CS)
    yield case("non_canonical_rsp", sp=HOLE)
    yield case("rip_not_mapped", ip=0x700000)
    yield case("rip_in_kernel_page", ip="@target")
    for name, selector in CS.items():
        yield case(f"cs_{name}", cs=selector)
    for name, selector in SS.items():
        yield case(f"ss_{name}", ss=selector)
        yield case(f"ss_{name}_to_kernel", ip="@target", cs=KERNEL_CS, ss=selector, sp=kernel(layout.KSTACK) - 0x200)
    for name, raw in SPARE_CS.items():
        yield case(f"cs_{name}", cs=SPARE | 3, gdt={SPARE: raw})
    for name, raw in SPARE_SS.items():
        yield case(f"ss_{name}", ss=SPARE | 3, gdt={SPARE: raw})
    for name, bits in FLAGS.items():
        yield case(f"flags_{name}_to_user", flags=2 | int(bits))
        yield case(f"flags_{name}_to_kernel", ip="@target", cs=KERNEL_CS, ss=KERNEL_DS, flags=2 | int(bits),
                   sp=kernel(layout.KSTACK) - 0x200)  # fmt: skip
    stack = user(layout.USTACK) + 0x800
    at = {"at": kernel(layout.USTACK) + 0x800}
    yield case("user_to_user", cpl=3, **at)
    yield case("user_to_kernel", cpl=3, ip="@target", cs=KERNEL_CS, ss=KERNEL_DS, **at)
    yield case("user_keeps_iopl_and_if", cpl=3, flags=0x3202, **at)
    yield case("user_iopl_3_may_set_if", cpl=3, flags=0x202, state={"rflags": 0x3002, "rsp": stack}, **at)
    yield case("user_non_canonical", cpl=3, ip=HOLE, **at)
    yield case("user_nt", cpl=3, state={"rflags": 2 | int(Rflags.NT)}, **at)
    yield Case("stack_not_mapped", CODE, 3, set={"rsp": 0x700000})
    yield Case("stack_non_canonical", CODE, 3, set={"rsp": HOLE})
    yield Case("stack_crosses_into_a_hole", CODE, 3, set={"rsp": user(layout.USTACK) + 0x1000 - 16})
    for segment in ("ds", "es", "fs", "gs"):
        for name, selector in (("kernel", KERNEL_DS), ("user", USER_DS), ("null", 0), ("null_rpl_3", 3)):
            state = {segment: selector, "fs_base": 0x1234, "gs_base": 0x5678}
            yield case(f"{segment}_{name}_on_return", state=state)
    yield case("gs_conforming_kept", gdt={SPARE: KERNEL_CODE | CONFORMING}, state={"gs": SPARE, "gs_base": 0x5678})
    yield case("iretl", code=".byte 0xcf\n nop\n@target: int $0xff", cs=USER_CS)
    # The 32-bit form pops five doublewords in 64-bit mode.
    low = kernel(layout.KSTACK) - 0x100
    words = {low: f"{TARGET} + {USER_CS << 32:#x}", low + 8: USER_SP << 32 | 2, low + 16: USER_DS}
    yield Case("iretl_frame", ".byte 0xcf\n@target: int $0xff", memory=words)


CASES = tuple(_all())
