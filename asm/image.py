"""Image: the assembled program as a frozen value. Segments, symbols, source lines, instructions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from asm.errors import OutsideImage, Position, UnknownSymbol, near_names

if TYPE_CHECKING:
    from asm.decode import Decoder


@dataclass(frozen=True, slots=True)
class Statement:
    """One assembled statement. `position` is the innermost line (inside a macro: the line of its body),
    `macro_sites` the calls that led there, outermost first. `kind` is "code", "bytes" (`.byte`), "data" or "padding"
    (an alignment)."""

    address: int
    size: int
    position: Position
    macro_sites: tuple[Position, ...]
    text: str
    kind: str = "code"


@dataclass(frozen=True, slots=True)
class Segment:
    """One section of the image. flags: "r", "rx", "rw" or "rwx"."""

    name: str
    address: int
    data: bytes
    flags: str

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction, AT&T syntax."""

    address: int
    size: int
    mnemonic: str
    operands: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.mnemonic} {self.operands}".rstrip()


class Image:
    """A program at its final addresses. Equal only to itself; do not change it.

    symbols: every label but `.L` and numeric ones, in order of definition. externals: names outside the image.
    """

    def __init__(
        self,
        *,
        segments: Iterable[Segment],
        symbols: Mapping[str, int],
        globals: Iterable[str] = (),
        externals: Mapping[str, int] | None = None,
        statements: Iterable[Statement] = (),
        entry: int | None = None,
    ) -> None:
        self.segments = tuple(segments)
        self.symbols: Mapping[str, int] = MappingProxyType(dict(symbols))
        self.globals = frozenset(globals)
        self.externals: Mapping[str, int] = MappingProxyType(dict(externals or {}))
        self.statements = tuple(statements)
        first = min((segment.address for segment in self.segments), default=0)
        self.entry = entry if entry is not None else first
        self._names: dict[int, tuple[str, int] | None] = {}

    def __repr__(self) -> str:
        parts = ", ".join(f"{s.name} {s.address:#x}+{len(s.data):#x} {s.flags}" for s in self.segments)
        return f"<Image {parts}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.segments, dict(self.symbols), self.globals, dict(self.externals), self.statements, self.entry)
        return _rebuild, state

    # Symbols

    def symbol(self, name: str) -> int:
        """The address of a symbol of the image, or else of an external; UnknownSymbol if there is neither."""
        address = self.symbols.get(name, self.externals.get(name))
        if address is None:
            raise UnknownSymbol(name, near_names(name, [*self.symbols, *self.externals]))
        return address

    def symbolize(self, address: int) -> str:
        """`name` or `name+0x3`; plain hexadecimal where no symbol of the same segment precedes."""
        found = self.locate(address)
        if found is None:
            return f"{address:#x}"
        name, offset = found
        return f"{name}+{offset:#x}" if offset else name

    def locate(self, address: int) -> tuple[str, int] | None:
        """The nearest symbol at or before `address` in its segment, and the distance in bytes."""
        try:
            return self._names[address]
        except KeyError:
            found = self._names[address] = self._locate(address)
            return found

    def _locate(self, address: int) -> tuple[str, int] | None:
        segment = self.segment_at(address)
        if segment is None:
            return None
        addresses, names = self._symbol_index
        at = bisect_right(addresses, address) - 1
        if at < 0 or addresses[at] < segment.address:
            return None
        return names[at], address - addresses[at]

    @cached_property
    def _symbol_index(self) -> tuple[list[int], list[str]]:
        # Of several names for an address the first one, but markers like __entry_text_start only if there is no other.
        first: dict[int, str] = {}
        for name, address in sorted(self.symbols.items(), key=lambda item: item[0].startswith("__")):
            first.setdefault(address, name)
        addresses = sorted(first)
        return addresses, [first[address] for address in addresses]

    # Memory

    @cached_property
    def _segment_index(self) -> tuple[list[int], list[Segment]]:
        ordered = sorted((s for s in self.segments if s.data), key=lambda segment: segment.address)
        return [segment.address for segment in ordered], ordered

    def segment_at(self, address: int) -> Segment | None:
        """The segment that covers `address`."""
        addresses, ordered = self._segment_index
        at = bisect_right(addresses, address) - 1
        return ordered[at] if at >= 0 and address < ordered[at].end else None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`, which may span adjacent segments; OutsideImage if any byte is in none."""
        result = b""
        while len(result) < size:
            here = address + len(result)
            segment = self.segment_at(here)
            if segment is None:
                raise OutsideImage(f"no byte at {here:#x} (read of {size} bytes at {address:#x})")
            start = here - segment.address
            result += segment.data[start : start + size - len(result)]
        return result

    # Source lines

    @cached_property
    def _statement_addresses(self) -> list[int]:
        return [statement.address for statement in self._ordered_statements]

    @cached_property
    def _ordered_statements(self) -> list[Statement]:
        return sorted(self.statements, key=lambda statement: statement.address)

    def line_at(self, address: int) -> Statement | None:
        """The statement that covers `address`."""
        at = bisect_right(self._statement_addresses, address) - 1
        if at < 0:
            return None
        statement = self._ordered_statements[at]
        return statement if address < statement.address + statement.size else None

    @cached_property
    def _line_index(self) -> dict[Position, list[int]]:
        index: dict[Position, dict[int, None]] = {}
        for statement in self._ordered_statements:
            for position in (statement.position, *statement.macro_sites):
                for file in {position.file, PurePath(position.file).name}:
                    index.setdefault(Position(file, position.line), {})[statement.address] = None
        return {position: list(addresses) for position, addresses in index.items()}

    def addresses_of(self, file: str, line: int) -> list[int]:
        """The addresses of the statements that stand on a line or come from a macro call on it, lowest first.
        `file` is the full name or the last part of it."""
        return list(self._line_index.get(Position(file, line), ()))

    # Instructions

    @cached_property
    def _decoder(self) -> Decoder:
        from asm.decode import Decoder  # capstone is loaded only when something is decoded

        return Decoder(self.segments, self._ordered_statements)

    def instructions(self) -> tuple[Instruction, ...]:
        """All instructions of the executable segments, lowest first. Data inside code is left out."""
        return self._decoder.all()

    def instruction_at(self, address: int) -> Instruction | None:
        """The instruction that begins at `address`."""
        return self._decoder.at(address)

    # ELF

    def to_elf(self) -> bytes:
        """The image as an ELF64 executable with symbols and DWARF lines."""
        from asm.elf_writer import write_elf

        return write_elf(self)

    @classmethod
    def from_elf(cls, data: bytes) -> Image:
        """The image in an x86-64 ELF executable or shared object (a vmlinux, or what `to_elf` wrote);
        BadElf if `data` is something else."""
        from asm.elf_reader import read_elf

        return read_elf(data)


def _rebuild(
    segments: tuple[Segment, ...],
    symbols: Mapping[str, int],
    global_names: frozenset[str],
    externals: Mapping[str, int],
    statements: tuple[Statement, ...],
    entry: int,
) -> Image:
    return Image(
        segments=segments,
        symbols=symbols,
        globals=global_names,
        externals=externals,
        statements=statements,
        entry=entry,
    )
