"""Compatibility mode: events from it, far transfers into and out of it, instructions that only it has (SDM 3A 6.14)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.layout import KERNEL32_CS, KERNEL_DS, SPARE, USER32_CS, USER_CS, USER_DS, kernel, user
from conformance.model import Case, Value, on_user
from conformance.tables import CONFORMING, USER32_CODE, USER_CODE, USER_DATA, based, gate, stub

TARGET = on_user("@target")
OPEN = {vector: gate(stub(vector), level=3) for vector in (3, 4, 5, 0x80)}
FAR_JUMP = ".byte 0xea\n .long {offset}\n .word {selector:#x}\n nop\n@target: nop"
DATA = user(layout.UDATA)

CODE = {
    "nothing": "nop",
    "ud2": ".byte 0x0f, 0x0b",
    "int3": ".byte 0xcc",
    "int_0x80": ".byte 0xcd, 0x80",
    "into_set": ".byte 0xb0, 0x7f, 0x04, 0x01, 0xce",
    "into_clear": ".byte 0x31, 0xc0, 0xce",
    "bound_outside": ".byte 0xb8\n .long 9\n .byte 0x62, 0x05\n .long {data}",
    "bound_inside": ".byte 0x31, 0xc0, 0x62, 0x05\n .long {data}",
    "divide": ".byte 0x31, 0xc9, 0xf7, 0xf1",
    "hlt": ".byte 0xf4",
    "cli": ".byte 0xfa",
    "icebp": ".byte 0xf1",
    "inc_eax": ".byte 0x40",
    "pusha": ".byte 0x60",
    "push_es": ".byte 0x06",
    "pop_ss_null": ".byte 0x6a, 0, 0x17",
    "mov_ss_null": ".byte 0x31, 0xc0, 0x8e, 0xd0",
    "les": ".byte 0xc4, 0x04, 0x24",
    "aam_0": ".byte 0xd4, 0",
    "daa": ".byte 0x27",
    "salc": ".byte 0xd6",
    "read_absent": ".byte 0xa1\n .long 0x123456",
    "write_absent": ".byte 0xa3\n .long 0x123456",
    "read_kernel_wraps": ".byte 0xa1\n .long 0x80010000",
    "call_absent": ".byte 0xb8\n .long 0x123456\n .byte 0xff, 0xd0",
    "swapgs": ".byte 0x0f, 0x01, 0xf8",
    "rdmsr": ".byte 0x0f, 0x32",
    "mov_cr0": ".byte 0x0f, 0x20, 0xc0",
    "wrfsbase": ".byte 0xf3, 0x0f, 0xae, 0xd0",
    "out": ".byte 0xe6, 0x80",
    "pushf": ".byte 0x9c, 0x58",
    "popf": ".byte 0x68\n .long 0x3ed7\n .byte 0x9d",
    "sidt": ".byte 0x0f, 0x01, 0x0c, 0x24",
    "lock_inc_register": ".byte 0xf0, 0x40",
    "gs_load_null": ".byte 0x31, 0xc0, 0x8e, 0xe8",
    "gs_load": ".byte 0xb8\n .long 0x2b\n .byte 0x8e, 0xe8",
    "sysretl": ".byte 0x0f, 0x07",
    "sysexitl": ".byte 0x0f, 0x35",
}


def both(name: str, code: str, **more: object) -> Iterator[Case]:
    """The code at CPL 3 and at CPL 0."""
    text = code.replace("{data}", f"{DATA:#x}")
    yield Case(f"{name}_user", text, 3, set={"cs": USER32_CS, "ds": USER_DS, "es": USER_DS}, idt=OPEN, **more)  # type: ignore[arg-type]
    state: dict[str, Value] = {
        "cs": KERNEL32_CS, "rip": on_user("@start"), "rsp": user(layout.USTACK) + 0x800,
        "ds": KERNEL_DS, "es": KERNEL_DS,
    }  # fmt: skip
    yield Case(f"{name}_kernel", text, set=state, idt=OPEN, **more)  # type: ignore[arg-type]


def _all() -> Iterator[Case]:
    for name, code in CODE.items():
        yield from both(name, code)
    user32: dict[str, Value] = {"cs": USER32_CS, "ds": USER_DS, "es": USER_DS}
    for name, selector in (
        ("64", USER_CS), ("32", USER32_CS), ("kernel", 0x10), ("null", 0), ("data", USER_DS), ("rpl_0", 0x20),
        ("conforming", SPARE), ("beyond", 0x1003), ("tss", 0x40),
    ):  # fmt: skip
        code = FAR_JUMP.format(offset=TARGET, selector=selector)
        yield Case(f"far_jump_to_{name}", code, 3, set=user32, gdt={SPARE: USER32_CODE | CONFORMING})
        lret = f"pushq ${selector:#x}\n leaq @target(%rip), %rax\n pushq %rax\n .byte 0x48, 0xcb\n nop\n@target: nop"
        yield Case(f"lretq_to_{name}", lret, 3, gdt={SPARE: USER_CODE | CONFORMING})
        yield Case(f"lretq_to_{name}_from_kernel", lret, gdt={SPARE: USER_CODE | CONFORMING})
    yield Case("iret_to_64", f".byte 0x9c, 0x6a, {USER_CS:#x}, 0x68\n .long {TARGET}\n .byte 0xcf\n nop\n@target: nop",
               3, set=user32)  # fmt: skip
    yield Case("iret_same_segment", f".byte 0x9c, 0x6a, {USER32_CS:#x}, 0x68\n .long {TARGET}\n .byte 0xcf\n nop\n"
               "@target: nop", 3, set=user32)  # fmt: skip
    yield Case("iret_to_kernel", f".byte 0x9c, 0x6a, 0x10, 0x68\n .long {TARGET}\n .byte 0xcf\n@target: nop", 3,
               set=user32)  # fmt: skip
    yield Case("tf", "nop\n nop", 3, set={**user32, "rflags": 0x102})
    yield Case("breakpoint", "nop\n@bp: nop", 3, set={**user32, "dr0": on_user("@bp"), "dr7": 0x402})
    yield Case("watchpoint", f".byte 0xa3\n .long {DATA:#x}\n nop", 3, set={**user32, "dr0": DATA, "dr7": 0xD0402})
    based_data = based(USER_DATA, DATA)
    yield Case("based_data_segment", ".byte 0xa1\n .long 8", 3, set={**user32, "ds": SPARE | 3},
               gdt={SPARE: based_data}, memory={kernel(layout.UDATA) + 8: 0x11223344})  # fmt: skip
    small = USER_DATA & ~(0xF << 48 | 1 << 55 | 0xFFFF) | 0xFF
    for name, state, code in (
        ("data_limit", {"ds": SPARE | 3}, ".byte 0xa1\n .long 0x100"),
        ("data_limit_last_byte", {"ds": SPARE | 3}, ".byte 0xa1\n .long 0xfd"),
        ("null_data_segment", {"ds": 0}, ".byte 0xa1\n .long 0x490000"),
        ("read_only_segment", {"ds": SPARE | 3}, ".byte 0xa3\n .long 0x490000"),
        ("stack_limit", {"ss": SPARE | 3}, ".byte 0x50"),
    ):
        raw = small if "limit" in name else USER_DATA & ~(1 << 41)
        yield Case(name, code, 3, set={**user32, **state}, gdt={SPARE: raw})
    yield Case("code_limit", "nop\n nop", 3, set={**user32, "cs": SPARE | 3},
               gdt={SPARE: USER32_CODE & ~(0xF << 48 | 1 << 55 | 0xFFFF) | 0xFF})  # fmt: skip


CASES = tuple(_all())
