"""From cases to a bootable image: harness, stubs, tables, and each case's record, changes and code."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asm import Image, Instruction, assemble_text
from conformance import fields, layout, tables
from conformance.layout import KERNEL, kernel
from conformance.model import Case, Value

HERE = Path(__file__).parent
CODE_ALIGNMENT = 64
END = "int $0xff"


@dataclass(frozen=True)
class TestImage:
    """The bytes from physical layout.IMAGE on, and where each case's code is (kernel address, size)."""

    __test__ = False
    cases: tuple[Case, ...]
    data: bytes
    entry: int
    code: tuple[tuple[int, int], ...]
    instructions: tuple[Instruction, ...]
    selection_at: int

    def selecting(self, first: int, last: int) -> bytes:
        """The same bytes, to run cases `first` to `last` only."""
        at = self.selection_at
        return self.data[:at] + struct.pack("<II", first, last) + self.data[at + 8 :]


def _stubs() -> str:
    lines = [f".org {layout.STUBS - layout.IMAGE:#x}"]
    for vector in range(0x104):
        lines.append(f".balign 16\nmovw ${vector:#x}, vector(%rip)\njmp caught")
    lines.append(".balign 16\njmp *handler(%rip)")
    return "\n".join(lines) + "\n"


def _expression(case: Case, index: int, value: Value) -> str:
    return f"{value & layout.MASK64:#x}" if isinstance(value, int) else value.replace("@", f"c{index}_")


def _patches(case: Case) -> list[tuple[int, Value]]:
    """(kernel address, quadword) of everything that the case changes in memory; page tables come last."""
    found: list[tuple[int, Value]] = list(case.memory.items())
    found += [(kernel(layout.GDT) + (selector & 0xFFF8), raw) for selector, raw in case.gdt.items()]
    for vector, data in case.idt.items():
        found += [(kernel(layout.IDT) + 16 * vector + 8 * n, word) for n, word in enumerate(struct.unpack("<2Q", data))]
    if case.tss:
        contents = bytearray(tables.tss().ljust(0x90, b"\0"))
        for at, word in case.tss.items():
            struct.pack_into("<Q", contents, at, word)
        pristine = tables.tss().ljust(0x90, b"\0")
        for at in range(0, 0x90, 8):
            if contents[at : at + 8] != pristine[at : at + 8]:
                found.append((kernel(layout.TSS) + at, int.from_bytes(contents[at : at + 8], "little")))
    found += [(tables.leaf_slot(linear), entry) for linear, entry in case.pages.items()]
    return found


def _record(case: Case, index: int) -> tuple[str, str]:
    """Assembly of the case's record, and of its changes and code."""
    defaults = fields.DEFAULTS | (fields.USER_DEFAULTS if case.cpl == 3 else fields.KERNEL_DEFAULTS)
    start = f"c{index}_start" + (f" + {layout.USER - KERNEL:#x}" if case.cpl == 3 else "")
    values: dict[str, Value] = {**defaults, "rip": start, **case.set}
    patches = _patches(case)
    values |= {"patches": len(patches), "patch_list": f"c{index}_patches" if patches else 0}
    for limit in ("gdt_limit", "idt_limit"):
        value = values[limit]
        assert isinstance(value, int)
        values[limit] = value << 48
    record = "".join(f".quad {_expression(case, index, values[name])}\n" for name in fields.FIELDS)
    text = f"c{index}_patches:\n" if patches else ""
    text += "".join(f".quad {at:#x}, {_expression(case, index, value)}\n" for at, value in patches)
    code = case.code.replace("@", f"c{index}_")
    return record, f"{text}.balign {CODE_ALIGNMENT}\nc{index}_start:\n{code}\n{END}\nc{index}_end:\n"


def _source(cases: Sequence[Case]) -> str:
    parts = [(HERE / "harness.S").read_text()]
    msr = ", ".join(f"{number:#x}, F_{name.upper()}" for name, number in fields.MSR_FIELDS.items())
    parts.append(f".balign 8\nmsr_list:\n.long {msr}\nmsr_list_end:\n")
    words = struct.unpack(f"<{layout.GDT_WORDS}Q", tables.gdt())
    parts.append(".balign 8\npristine_gdt:\n.quad " + ", ".join(f"{w:#x}" for w in words) + "\n")
    parts.append(_stubs())
    parts.append(f".org {layout.WORK - layout.IMAGE:#x}\nframe:\n.skip 48\nafter:\n.skip CASE_SIZE\n")
    parts.append("undo_list:\n.skip 512\n")
    parts.append("memory_before:\n.skip MEMORY_WORDS * 8\nmemory_after:\n.skip MEMORY_WORDS * 8\n")
    parts.append(f".org {layout.CASES - layout.IMAGE:#x}\ncase_table:\n")
    records = [_record(case, n) for n, case in enumerate(cases)]
    parts += [record for record, _ in records]
    parts += [code for _, code in records]
    return "".join(parts)


def build(cases: Sequence[Case]) -> TestImage:
    """Assemble cases into an image."""
    constants = {
        "KERNEL": KERNEL, "GDT": layout.GDT, "IDT": layout.IDT, "PML4": layout.PML4,
        "HARNESS_STACK": layout.HARNESS_STACK, "KERNEL_DATA_PAGE": kernel(layout.KDATA),
        "USER_DATA_PAGE": kernel(layout.UDATA), "KDATA_WORDS": layout.KDATA_WORDS, "GDT_WORDS": layout.GDT_WORDS,
        "TSS_SELECTOR": layout.TSS_SELECTOR, "KERNEL_CS": layout.KERNEL_CS, "KERNEL_DS": layout.KERNEL_DS,
        "CASE_SIZE": fields.CASE_SIZE, "COMPARED": len(fields.COMPARED), "MEMORY_WORDS": fields.MEMORY_WORDS,
        "DEFAULT_CR0": fields.DEFAULT_CR0, "DEFAULT_CR4": fields.DEFAULT_CR4, "DEFAULT_EFER": fields.DEFAULT_EFER,
        "APIC_PAGE": kernel(layout.APIC), "ICR": kernel(layout.APIC) + 0x300,
        "KDATA": kernel(layout.KDATA), "UDATA": layout.user(layout.UDATA), "UEXTRA": layout.user(layout.UEXTRA),
        "KEXTRA": kernel(layout.KEXTRA), "USTACK": layout.user(layout.USTACK),
        **{f"F_{name.upper()}": fields.offset(name) for name in fields.FIELDS},
    }  # fmt: skip
    image = assemble_text(_source(cases), name="conformance.S", base=kernel(layout.IMAGE), constants=constants)
    end = max(segment.end for segment in image.segments)
    if end > kernel(layout.CASES_END):
        raise ValueError(f"the image ends at {end:#x}, beyond {kernel(layout.CASES_END):#x}: split the group")
    data = bytearray(end - kernel(layout.IMAGE))
    for segment in image.segments:
        at = segment.address - kernel(layout.IMAGE)
        data[at : at + len(segment.data)] = segment.data
    for physical, contents in tables.regions().items():
        data[physical - layout.IMAGE : physical - layout.IMAGE + len(contents)] = contents
    code = tuple(_code_span(image, n) for n in range(len(cases)))
    at = image.symbol("first_case") - kernel(layout.IMAGE)
    struct.pack_into("<II", data, at, 0, len(cases) - 1)
    return TestImage(tuple(cases), bytes(data), image.symbol("_start"), code, image.instructions(), at)


def _code_span(image: Image, index: int) -> tuple[int, int]:
    start = image.symbol(f"c{index}_start")
    return start, image.symbol(f"c{index}_end") - start
