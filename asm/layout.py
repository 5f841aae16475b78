"""Sections, fragments and addresses.

A section is a chain of fragments as in gas: items of known size, then one tail whose size depends on addresses (a
branch, an alignment, `.org`, `.skip`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asm.assembler import Encoder
from asm.errors import Position, Problem
from asm.expression import Value
from asm.source import SourceLine

PAGE = 4096
MAX_SECTION = 1 << 26  # bytes
MAX_NOPS = 7

# gas's padding of up to 11 bytes in executable sections (generic64), index = size.
NOPS = tuple(
    bytes.fromhex(code)
    for code in (
        "", "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000",
        "660f1f840000000000", "662e0f1f840000000000", "66662e0f1f840000000000",
    )
)  # fmt: skip


def nop_padding(size: int) -> bytes:
    """`size` bytes of no-operations, as gas pads code: what needs eight full ones is jumped over."""
    longest = len(NOPS) - 1
    if size // longest > MAX_NOPS:
        short = size - 2 <= 127
        rest = size - (2 if short else 5)
        jump = b"\xeb" + bytes([rest]) if short else b"\xe9" + rest.to_bytes(4, "little")
        return jump + _nops(rest)
    return _nops(size)


def _nops(size: int) -> bytes:
    longest = len(NOPS) - 1
    return NOPS[longest] * (size // longest) + NOPS[size % longest]


@dataclass(frozen=True, slots=True)
class Place:
    """A source line as it was expanded: where it stands and through which macro calls it came (outermost first)."""

    line: SourceLine
    sites: tuple[Position, ...]
    number: int = 0  # how many statements were read before


@dataclass(slots=True)
class Branch:
    """A jump to a label. Grows from `short` + disp8 to `long` + disp32."""

    target: Value
    short: bytes
    long: bytes
    is_long: bool = False


@dataclass(frozen=True, slots=True)
class Align:
    """Padding to a multiple of `boundary` bytes, none if it would take more than `limit` (0: no limit)."""

    boundary: int
    fill: bytes | None  # None: no-operations
    limit: int


@dataclass(frozen=True, slots=True)
class Org:
    """Padding up to an address in the same section."""

    target: Value
    fill: int


@dataclass(frozen=True, slots=True)
class Space:
    """`count` times `fill`, the count being known only when all sizes are."""

    count: Value
    fill: bytes


Tail = Branch | Align | Org | Space


class Frag:
    """Items of known size (bytes, or the text of an instruction), then at most one tail."""

    __slots__ = ("address", "encoder", "items", "place", "prefix", "region", "section", "tail", "visited", "width")

    def __init__(self, section: Section, encoder: Encoder) -> None:
        self.section = section
        self.encoder = encoder
        self.items: list[bytes | str] = []
        self.prefix = [0]  # prefix[i]: offset of item i, extended on demand
        self.tail: Tail | None = None
        self.place: Place | None = None  # of the tail
        self.address = 0  # offset in the section
        self.width = 0  # size of the tail
        self.region = 0
        self.visited = 0

    def offset(self, index: int) -> int:
        """Offset of item `index` in the fragment; needs the sizes of the instructions before it."""
        prefix = self.prefix
        while len(prefix) <= index:
            item = self.items[len(prefix) - 1]
            prefix.append(prefix[-1] + (self.encoder.size(item) if isinstance(item, str) else len(item)))
        return prefix[index]

    @property
    def fixed(self) -> int:
        """Size of the items."""
        return self.offset(len(self.items))


@dataclass(slots=True)
class Record:
    """A statement that takes space: item `index` of the fragment, or its tail when `index` is the item count."""

    frag: Frag
    index: int
    place: Place
    kind: str  # "code", "bytes", "data" or "padding"
    is_tail: bool = False


class Section:
    """One output section. `address` is known after `place_sections`."""

    def __init__(self, name: str, flags: str, nobits: bool, encoder: Encoder) -> None:
        self.name = name
        self.flags = flags  # gas's letters, sorted
        self.nobits = nobits
        self.encoder = encoder
        self.frags = [Frag(self, encoder)]
        self.records: list[Record] = []
        self.alignment = 1
        self.address = 0
        self.has_label = False
        self.bytes_known = 0

    @property
    def permissions(self) -> str:
        """ "r", "rx", "rw" or "rwx"."""
        return "r" + ("w" if "w" in self.flags else "") + ("x" if "x" in self.flags else "")

    @property
    def executable(self) -> bool:
        """Whether the section holds code."""
        return "x" in self.flags

    @property
    def frag(self) -> Frag:
        """The open fragment."""
        return self.frags[-1]

    def add_item(self, item: bytes | str, place: Place, kind: str) -> Frag:
        """Append data or the text of an instruction; gives the fragment that it is the last item of."""
        frag = self.frags[-1]
        self.records.append(Record(frag, len(frag.items), place, kind))
        frag.items.append(item)
        self.bytes_known += len(item)
        if self.bytes_known > MAX_SECTION:
            raise Problem(f"section {self.name} is larger than {MAX_SECTION} bytes")
        return frag

    def add_tail(self, tail: Tail, place: Place, kind: str) -> None:
        """Append something of yet unknown size and open the next fragment."""
        frag = self.frags[-1]
        frag.tail, frag.place = tail, place
        self.records.append(Record(frag, len(frag.items), place, kind, True))
        self.frags.append(Frag(self, self.encoder))

    @property
    def size(self) -> int:
        """Bytes; valid after relaxation."""
        last = self.frags[-1]
        return last.address + last.fixed + last.width


def place_sections(sections: Iterable[Section], base: int) -> None:
    """Give each section its address: one after the other from `base`, on a new page where the permissions change."""
    address = base
    before: str | None = None
    for section in sections:
        if before is not None and section.permissions != before:
            address += -address % PAGE
        address += -address % section.alignment
        section.address = address
        address += section.size
        before = section.permissions
