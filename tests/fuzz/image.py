"""Streams as a bootable image of the conformance harness, put together in binary: assembling takes too long."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs
from conformance import fields, layout
from conformance.image import CODE_ALIGNMENT, TestImage, _patches, build
from conformance.layout import kernel
from conformance.model import Case

from asm import Instruction
from fuzz.streams import Stream

END = b"\xcd\xff"
_decoder = Cs(CS_ARCH_X86, CS_MODE_64)
_decoder.syntax = CS_OPT_SYNTAX_ATT


@cache
def _harness() -> TestImage:
    """The harness with a case that does not count."""
    built = build([Case("nothing", "nop")])
    return replace(built, instructions=tuple(i for i in built.instructions if i.address < kernel(layout.CASES)))


def image(streams: Sequence[Stream]) -> TestImage:
    """The image of some streams; ValueError if they are too many."""
    harness = _harness()
    at = layout.CASES + fields.CASE_SIZE * len(streams)
    table, code, spans = bytearray(), bytearray(), []
    for one in streams:
        changes = [(where, int(value)) for where, value in _patches(one.case)]
        list_at = kernel(at + len(code))
        code += b"".join(struct.pack("<QQ", *change) for change in changes)
        code += bytes(-(at + len(code)) % CODE_ALIGNMENT)
        start = kernel(at + len(code))
        body = one.code + END
        code += body
        spans.append((start, len(body)))
        table += _record(one, start, len(changes), list_at)
    if at + len(code) > layout.CASES_END:
        raise ValueError(f"{len(streams)} streams need {at + len(code) - layout.CASES:#x} bytes")
    data = (
        bytearray(harness.data[: layout.CASES - layout.IMAGE].ljust(layout.CASES - layout.IMAGE, b"\0")) + table + code
    )
    struct.pack_into("<II", data, harness.selection_at, 0, len(streams) - 1)
    instructions = [i for one, (start, _) in zip(streams, spans, strict=True) for i in _decode(one.code, start)]
    return replace(
        harness, cases=tuple(one.case for one in streams), data=bytes(data), code=tuple(spans),
        instructions=(*harness.instructions, *instructions),
    )  # fmt: skip


def _record(one: Stream, start: int, count: int, list_at: int) -> bytes:
    case = one.case
    defaults = fields.DEFAULTS | (fields.USER_DEFAULTS if case.cpl == 3 else fields.KERNEL_DEFAULTS)
    moved = layout.USER - layout.KERNEL if case.cpl == 3 else 0
    values = {**defaults, "rip": start + moved, **case.set, "patches": count, "patch_list": list_at if count else 0}
    for limit in ("gdt_limit", "idt_limit"):
        values[limit] = int(values[limit]) << 48
    return struct.pack(f"<{len(fields.FIELDS)}Q", *(int(values[n]) & layout.MASK64 for n in fields.FIELDS))


def _decode(code: bytes, start: int) -> list[Instruction]:
    """At every byte: wherever a stream jumps, its instructions are known."""
    found = []
    for at in range(len(code)):
        for address, size, mnemonic, operands in _decoder.disasm_lite(code[at : at + 15], start + at, 1):
            found.append(Instruction(address, size, mnemonic, operands, code[at : at + size]))
    return found
