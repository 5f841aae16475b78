"""A kernel image as text: its sections, its symbols, its instructions."""

from __future__ import annotations

from collections.abc import Iterator

from asm import Image


def overview(image: Image) -> Iterator[str]:
    """The sections, and how much is in them."""
    for segment in image.segments:
        yield f"{segment.address:016x} {len(segment.data):8} bytes {segment.flags:3} {segment.name}"
    count = len(image.instructions())
    yield f"{len(image.symbols)} symbols, {count} instructions, entry {image.symbolize(image.entry)}"


def symbols(image: Image) -> Iterator[str]:
    """One line a symbol, by address, with nm's letters."""
    for name, address in sorted(image.symbols.items(), key=lambda item: item[1]):
        segment = image.segment_at(address) or image.segment_at(address - 1)
        letter = {"rx": "t", "r": "r", "rw": "d"}.get(segment.flags if segment else "", "a")
        yield f"{address:016x} {letter.upper() if name in image.globals else letter} {name}"


def listing(image: Image) -> Iterator[str]:
    """One line an instruction: address, bytes, text, file:line; labels on lines of their own."""
    labels: dict[int, list[str]] = {}
    for name, address in image.symbols.items():
        labels.setdefault(address, []).append(name)
    for instruction in image.instructions():
        for name in labels.get(instruction.address, ()):
            yield f"\n{instruction.address:016x} <{name}>:"
        statement = image.line_at(instruction.address)
        where = "  ".join(map(str, (statement.position, *reversed(statement.macro_sites)))) if statement else ""
        yield f"  {instruction.address:x}  {instruction.data.hex(' '):32}  {instruction!s:44} {where}".rstrip()
