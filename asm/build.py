"""The steps from source to image: read, relax, place, fill in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from asm.errors import AssemblyError, Diagnostic, Position, Problem
from asm.expression import Ref, signed64
from asm.image import Image, Segment, Statement
from asm.instructions import DISPLACEMENT, PLACEHOLDERS
from asm.layout import Align, Branch, Frag, Org, Place, Section, Space, nop_padding, place_sections
from asm.preprocess import Preprocessor
from asm.relax import Relaxer
from asm.source import Library, read_source
from asm.unit import Fixup, TooManyErrors, Unit
from asm.values import Values

MASK = (1 << 64) - 1


def assemble_file(
    path: Path,
    *,
    base: int,
    include_dirs: Sequence[Path] = (),
    virtual_files: Mapping[str, str] = {},
    constants: Mapping[str, int] = {},
    externals: Mapping[str, int] = {},
    entry: str | None = None,
) -> Image:
    """Assemble the source file `path` at the address `base`. See `assemble_text`."""
    try:
        text = read_source(path)
    except Problem as problem:
        raise AssemblyError([Diagnostic(Position(str(path), 1), str(problem))]) from None
    return assemble_text(
        text,
        name=str(path),
        base=base,
        include_dirs=include_dirs,
        virtual_files=virtual_files,
        constants=constants,
        externals=externals,
        entry=entry,
    )


def assemble_text(
    text: str,
    *,
    name: str,
    base: int,
    first_line: int = 1,
    include_dirs: Sequence[Path] = (),
    virtual_files: Mapping[str, str] = {},
    constants: Mapping[str, int] = {},
    externals: Mapping[str, int] = {},
    entry: str | None = None,
) -> Image:
    """Assemble `text`, whose first line is line `first_line` of the file `name`, at the address `base`.

    constants: as if `.set` at the head. externals: addresses of names that the source may use without defining them.
    virtual_files: what `.include` finds before the disk. entry: the symbol where the program begins (default `_start`,
    else the lowest address). AssemblyError with every error of the source.
    """
    return assemble(
        text, name, base, first_line, Library(virtual_files, tuple(include_dirs)), constants, externals, entry
    )


def assemble(
    text: str,
    name: str,
    base: int,
    first_line: int,
    library: Library,
    constants: Mapping[str, int],
    externals: Mapping[str, int],
    entry: str | None,
) -> Image:
    """`assemble_text` with an explicit library of includes."""
    unit = Unit(constants, externals)
    preprocessor = Preprocessor(unit, library)
    last = _last_line(text, name, first_line)
    try:
        preprocessor.run(text, name, first_line)
        if unit.stack:
            raise AssemblyError([*unit.diagnostics, Diagnostic(last, ".pushsection without .popsection")])
        return _link(unit, base, entry, last)
    except TooManyErrors:
        raise AssemblyError([*unit.diagnostics, Diagnostic(last, "too many errors, giving up")]) from None


def _last_line(text: str, name: str, first_line: int) -> Position:
    """The last line of the source."""
    return Position(name, first_line + text.rstrip("\n").count("\n"))


def _link(unit: Unit, base: int, entry: str | None, last: Position) -> Image:
    unit.encoder.flush()
    _report_bad_instructions(unit)
    for section in unit.sections.values():
        if section not in unit.appeared and section.records:
            unit.appeared.append(section)
    sections = [section for section in unit.appeared if section.records or section.has_label]
    for section in sections:
        if "a" not in section.flags:
            message = f'section {section.name} has no "a" flag, so it would not be in the image'
            place = section.records[0].place if section.records else None
            if place is not None:
                unit.report(place, message)
            else:
                unit.report_at_end(last, message)
    values = Values(unit)
    Relaxer(values.offset, unit.report).run(sections)
    place_sections(sections, signed64(base))
    contents = {id(frag): bytearray() for section in sections for frag in section.frags}
    for section in sections:
        for frag in section.frags:
            contents[id(frag)] = _contents(unit, values, frag)
    for fixup in unit.fixups:
        try:
            _apply(values, fixup, contents[id(fixup.frag)])
        except Problem as problem:
            unit.report(fixup.place, str(problem))
    symbols = _symbols(unit, values, last)
    start = _entry(unit, symbols, entry, last)
    if unit.diagnostics:
        raise AssemblyError(unit.diagnostics)
    return Image(
        segments=[
            Segment(s.name, s.address & MASK, b"".join(contents[id(frag)] for frag in s.frags), s.permissions)
            for s in sections
        ],
        symbols=symbols,
        globals=[name for name in symbols if name in unit.globals],
        externals={name: address for name, address in unit.externals.items() if name not in symbols},
        statements=[statement for section in sections for statement in _statements(section)],
        entry=start,
    )


def _report_bad_instructions(unit: Unit) -> None:
    for section in unit.sections.values():
        for record in section.records:
            if record.is_tail:
                continue
            item = record.frag.items[record.index]
            if isinstance(item, str):
                try:
                    unit.encoder.code(item)
                except Problem as problem:
                    unit.report(record.place, str(problem))


def _contents(unit: Unit, values: Values, frag: Frag) -> bytearray:
    """The bytes of a fragment, with fields still open."""
    data = bytearray()
    for item in frag.items:
        if isinstance(item, str):
            with suppress(Problem):  # reported before
                data += unit.encoder.code(item)
        else:
            data += item
    tail, place = frag.tail, frag.place
    if tail is None or place is None:
        return data
    if isinstance(tail, Align):
        if tail.fill is None:
            return data + nop_padding(frag.width)
        return data + tail.fill * frag.width
    if isinstance(tail, Org):
        return data + bytes([tail.fill]) * frag.width
    if isinstance(tail, Space):
        return data + tail.fill * (frag.width // len(tail.fill))
    return data + _branch(unit, values, frag, tail, place)


def _branch(unit: Unit, values: Values, frag: Frag, branch: Branch, place: Place) -> bytes:
    code, size = (branch.long, 4) if branch.is_long else (branch.short, 1)
    try:
        target = values.final(branch.target)[0]
    except Problem as problem:
        unit.report(place, str(problem))
        return code + bytes(size)
    distance = signed64(target - (frag.section.address + frag.address + frag.fixed + frag.width))
    try:
        return code + _field(distance, size, True, f"the distance to the target, {distance:#x},")
    except Problem as problem:
        if branch.is_long:  # a short one is out of reach only where sizes did not settle
            unit.report(place, str(problem))
        return code + bytes(size)


def _field(value: int, size: int, signed: bool, what: str) -> bytes:
    low, high = (-(1 << 8 * size - 1), 1 << 8 * size - 1) if signed else (-(1 << 8 * size - 1), 1 << 8 * size)
    if not low <= value < high:
        raise Problem(f"{what} does not fit in {8 * size} bits")
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _apply(values: Values, fixup: Fixup, data: bytearray) -> None:
    """Fill in one field."""
    start, end = fixup.frag.offset(fixup.index), fixup.frag.offset(fixup.index + 1)
    if start == end:
        return  # an instruction with an error of its own
    value, weight = values.final(fixup.value)
    if weight not in (0, 1):
        raise Problem("the expression is not a number, an address or a difference of addresses")
    if fixup.kind == "data":
        at = start + fixup.offset
        data[at : at + fixup.size] = _value_field(value, weight, fixup.size, False)
        return
    address = fixup.frag.section.address + fixup.frag.address + end
    at = end - fixup.size - (fixup.tail if fixup.kind != "imm" else 0)
    if fixup.kind in ("disp", "pcrel"):
        expected = DISPLACEMENT
    elif fixup.kind == "imm":
        expected = PLACEHOLDERS[8 * fixup.size]
    else:
        expected = 0
    field = data[at : at + fixup.size]
    if int.from_bytes(field, "little") not in (expected, 0):
        raise Problem("this instruction cannot take a symbol here")
    if fixup.kind in ("pcrel", "branch"):
        distance = signed64(value - address)
        what = f"the distance to the target, {distance:#x},"
        data[at : at + fixup.size] = _field(distance, fixup.size, True, what)
    else:
        data[at : at + fixup.size] = _value_field(value, weight, fixup.size, fixup.signed)


def _value_field(value: int, weight: int, size: int, signed: bool) -> bytes:
    """A number or address in a field. An address in a narrow unsigned field must not be negative, as for ld."""
    if size == 8:
        return (value & MASK).to_bytes(8, "little")
    if weight and size == 4 and not signed and value < 0:
        raise Problem(f"the address {value & MASK:#x} does not fit in 32 bits")
    return _field(value, size, signed, f"{value:#x}")


def _symbols(unit: Unit, values: Values, last: Position) -> dict[str, int]:
    """The named labels, and aliases of labels, in order of definition."""
    symbols: dict[str, int] = {}
    for symbol in unit.order:
        if symbol.name.startswith(".L"):
            continue
        if symbol.frag is None and isinstance(symbol.value, int):
            continue  # a plain constant, not an address
        try:
            address, weight = values.final(Ref(symbol))
        except Problem as problem:
            unit.report_at_end(symbol.position or last, str(problem))
            continue
        if weight == 1:
            symbols[symbol.name] = address & MASK
    return symbols


def _entry(unit: Unit, symbols: Mapping[str, int], entry: str | None, last: Position) -> int | None:
    if entry is None:
        return symbols.get("_start")
    if entry not in symbols:
        unit.report_at_end(last, f"the entry: {unit.undefined(unit.symbol(entry))}")
        return None
    return symbols[entry]


def _statements(section: Section) -> list[Statement]:
    statements: list[Statement] = []
    for record in section.records:
        frag = record.frag
        offset = frag.offset(record.index)
        size = frag.width if record.is_tail else frag.offset(record.index + 1) - offset
        if size:
            line, address = record.place.line, section.address + frag.address + offset
            text = " ".join(line.text.split())
            statements.append(Statement(address & MASK, size, line.position, record.place.sites, text, record.kind))
    return statements
