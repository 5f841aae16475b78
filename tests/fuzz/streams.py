"""Seeded streams: a few random instructions with random registers, descriptors, gates and page-table entries.

Restricted to what the oracles model and agree on (docs/fidelity.md, "Fuzzing"): no CPUID, time-stamp counter or FPU, no
compatibility mode, no alignment checks, no enabled breakpoints, no near branch to a non-canonical address.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance import layout, tables
from conformance.fields import DEFAULT_CR0, DEFAULT_CR4
from conformance.model import Case, Value, Vendor

from emu.arch import Cr0, Cr4
from fuzz.encode import POINTERS, Draw, ordinary
from fuzz.encode_system import CODE_SELECTORS, FLAGS, NON_CANONICAL, system

NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
ABSENT = 0x12_3456_7000


@dataclass(frozen=True)
class Stream:
    """One stream: the case without its code, and the code as bytes."""

    seed: int
    vendor: Vendor
    case: Case
    code: bytes


def _pointer(draw: Draw, cpl: int) -> int:
    """Mostly good data, else a page of rights that vary, an absent one, or no address at all."""
    good = layout.user(layout.UDATA) if cpl == 3 else layout.kernel(layout.KDATA)
    place = draw.random()
    if place < 0.86:
        return good + draw.randrange(16, 400)
    if place < 0.94:
        return draw.choice([layout.user(layout.UEXTRA), layout.kernel(layout.KEXTRA)]) + draw.randrange(8, 0x800)
    if place < 0.96:
        return layout.user(layout.UDATA) + 64 if cpl == 0 else layout.kernel(layout.KDATA) + 64
    return draw.choice([ABSENT, NON_CANONICAL + 64, layout.user(layout.UEXTRA) - 20, 0])


def _registers(draw: Draw, cpl: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for number, name in enumerate(NAMES):
        if number in POINTERS:
            values[name] = _pointer(draw, cpl)
        elif name == "rsp":
            if draw.random() < 0.06:
                values[name] = draw.choice([ABSENT, layout.kernel(layout.KEXTRA) + 0x800, NON_CANONICAL + 0x100])
        else:
            values[name] = draw.choice([draw.getrandbits(64), draw.randrange(256), draw.getrandbits(32), 0])
    values["rflags"] = 2 | draw.getrandbits(12) & 0x8D5 | draw.choice([0, 0, 0x3000, 0x200, 0x400, 0x40000])
    return values


def _controls(draw: Draw, vendor: Vendor) -> dict[str, Value]:
    cr0, cr4 = DEFAULT_CR0 & ~int(Cr0.AM), DEFAULT_CR4
    for bit in (Cr0.TS, Cr0.EM, Cr0.WP):
        cr0 ^= int(bit) if draw.random() < 0.1 else 0
    for bit in (Cr4.SMEP, Cr4.SMAP, Cr4.FSGSBASE, *((Cr4.UMIP,) if vendor == "intel" else ())):
        cr4 ^= int(bit) if draw.random() < 0.3 else 0
    return {"cr0": cr0, "cr4": cr4}


def _descriptor(draw: Draw) -> int:
    """A flat segment of any kind but 32-bit code."""
    code = draw.randrange(32)
    raw = tables.kind(tables.KERNEL_DATA, code)
    if code & 0x18 == 0x18:
        raw = raw & ~tables.DEFAULT_32 | tables.LONG | (tables.DEFAULT_32 if draw.random() < 0.1 else 0)
    raw = tables.dpl(raw, draw.randrange(4))
    return raw & ~tables.PRESENT if draw.random() < 0.2 else raw


def _gate(draw: Draw, vector: int) -> bytes:
    handler = NON_CANONICAL if draw.random() < 0.05 else tables.stub(vector)
    selector = draw.choice([layout.KERNEL_CS, layout.KERNEL_CS, *CODE_SELECTORS])
    return tables.gate(
        handler, selector=selector, ist=draw.choice([0, 0, 1, 3]), kind=draw.choice([14, 14, 15, 15, 12, 5, 9]),
        level=draw.choice([0, 3, 3]), present=draw.random() < 0.85,
    )  # fmt: skip


def _page(draw: Draw, linear: int) -> int:
    entry = tables.leaf(linear)
    for bit in (tables.P, tables.RW, tables.US, tables.NX):
        entry ^= bit if draw.random() < 0.25 else 0
    return entry


def stream(seed: int) -> Stream:
    """The stream of a seed."""
    draw = Draw(f"stream {seed}")
    cpl = draw.choice([0, 3])
    vendor: Vendor = "amd" if draw.random() < 0.25 else "intel"
    privileged = draw.choice([0.0, 0.15, 0.4])
    parts = [system(draw, cpl) if draw.random() < privileged else ordinary(draw) for _ in range(draw.randrange(4, 14))]
    parts.insert(0, b"\x50\x51\x52\x41\x50\x41\x51\x41\x52" * 2)  # PUSHes, so that what is popped is known
    gdt: dict[int, Value] = {}
    if draw.random() < 0.4:
        gdt = {layout.SPARE: _descriptor(draw), layout.SPARE2: _descriptor(draw)}
    vectors = draw.sample([0, 3, 6, 13, 14, 0x80, 0xFE], 2) if draw.random() < 0.25 else []
    places = (layout.user(layout.UEXTRA), layout.kernel(layout.KEXTRA))
    case = Case(
        f"s{seed}", "", cpl, (vendor,),
        set=_registers(draw, cpl) | _controls(draw, vendor) | {"fmask": draw.choice((0x47700, *FLAGS))},
        gdt=gdt,
        idt={vector: _gate(draw, vector) for vector in vectors},
        tss={tables.SP_OFFSET: draw.choice([NON_CANONICAL, ABSENT])} if draw.random() < 0.03 else {},
        pages={linear: _page(draw, linear) for linear in places} if draw.random() < 0.5 else {},
        memory={layout.kernel(layout.KDATA if cpl == 0 else layout.UDATA) + 8 * n: draw.getrandbits(64)
                for n in range(0, 24, 3)},
    )  # fmt: skip
    return Stream(seed, vendor, case, b"".join(parts))
