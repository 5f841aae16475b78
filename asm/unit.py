"""The translation unit while it is being read: symbols, sections, the current location, errors, open fixups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asm.assembler import Encoder
from asm.errors import Diagnostic, Position, Problem, did_you_mean, near_names
from asm.expression import Op, Ref, Symbol, Value, parse, signed64
from asm.layout import Frag, Place, Section

MAX_DIAGNOSTICS = 500
END = 1 << 62  # after all statements
MAX_SUGGESTIONS = 30  # looking for similar names is slow

DEFAULT_FLAGS = (
    (".text", "ax"), (".data", "aw"), (".bss", "aw"), (".rodata", "a"), (".tdata", "awT"), (".tbss", "awT"),
)  # fmt: skip


class TooManyErrors(Exception):
    """Ends the reading of a source with hundreds of errors."""


@dataclass(frozen=True, slots=True)
class Fixup:
    """A field to be filled in when addresses are known.

    kind: "data" (at `offset` of the item), "disp" (the 32-bit displacement before `tail` bytes of immediate),
    "pcrel" (likewise, relative to the end of the instruction) or "imm" (the last `size` bytes).
    `signed`: the field holds a signed number, as in a sign-extended immediate.
    """

    frag: Frag
    index: int
    kind: str
    size: int
    value: Value
    place: Place
    offset: int = 0
    tail: int = 0
    signed: bool = False


class Unit:
    """Everything known about the source so far. Implements expression.Scope."""

    def __init__(self, constants: Mapping[str, int], externals: Mapping[str, int]) -> None:
        self.encoder = Encoder()
        self.externals = dict(externals)
        self.symbols: dict[str, Symbol] = {}
        self.order: list[Symbol] = []  # in order of definition
        self.globals: set[str] = set()
        self.sections: dict[str, Section] = {}
        self.appeared: list[Section] = []
        self.section = self.get_section(".text", None, None)
        self.previous: Section | None = None
        self.stack: list[tuple[Section, Section | None]] = []
        self.fixups: list[Fixup] = []
        self._noted: list[tuple[int, Diagnostic]] = []
        self._numeric_last: dict[str, Symbol] = {}
        self._numeric_next: dict[str, Symbol] = {}
        self._suggestions = 0
        for name, number in constants.items():
            symbol = self.symbol(name)
            symbol.value = signed64(number)

    # Errors

    def report(self, place: Place, message: str) -> None:
        """Note an error of the statement at `place`."""
        self._noted.append((place.number, Diagnostic(place.line.position, message, place.sites)))
        if len(self._noted) >= MAX_DIAGNOSTICS:
            raise TooManyErrors

    def report_at_end(self, position: Position, message: str) -> None:
        """Note an error that belongs to no single statement."""
        self._noted.append((END, Diagnostic(position, message)))

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """All errors, in the order in which their statements were read."""
        return [diagnostic for _, diagnostic in sorted(self._noted, key=lambda noted: noted[0])]

    # Sections

    def get_section(self, name: str, flags: str | None, nobits: bool | None) -> Section:
        """The section of this name, made if need be; Problem if it exists with other flags."""
        section = self.sections.get(name)
        if section is None:
            if flags is None:
                flags = next((f for prefix, f in DEFAULT_FLAGS if name == prefix or name.startswith(prefix + ".")), "")
            if nobits is None:
                nobits = name == ".bss" or name.startswith((".bss.", ".tbss"))
            section = self.sections[name] = Section(name, "".join(sorted(flags)), nobits, self.encoder)
        elif flags is not None and {*"awx"} & ({*flags} ^ {*section.flags}):
            raise Problem(f'section {name} has the flags "{section.flags}" already, not "{flags}"')
        return section

    def use_section(self, section: Section) -> None:
        """Make `section` current."""
        self.previous, self.section = self.section, section
        self.mark_appeared()

    def mark_appeared(self) -> None:
        """Give the current section its rank in the image."""
        if self.section not in self.appeared:
            self.appeared.append(self.section)

    # Symbols

    def symbol(self, name: str) -> Symbol:
        """The symbol of this name, undefined if new."""
        symbol = self.symbols.get(name)
        if symbol is None:
            symbol = self.symbols[name] = Symbol(name)
        return symbol

    def define_label(self, name: str, place: Place) -> None:
        """Define `name` (a number for a local label) at the current location."""
        if name.isdigit():
            symbol = self._numeric_next.pop(name, None) or Symbol(name)
            self._numeric_last[name] = symbol
        else:
            symbol = self.symbol(name)
            if symbol.defined:
                first = f" at {symbol.position}" if symbol.position else " as a constant"
                raise Problem(f"symbol {name} is already defined{first}")
            self.order.append(symbol)
        symbol.position = place.line.position
        self.put_here(symbol)
        self.section.has_label = True
        self.mark_appeared()

    def put_here(self, symbol: Symbol, delta: int = 0) -> None:
        """Set the place of a symbol, `delta` bytes after the current location."""
        symbol.frag = self.section.frag
        symbol.index = len(symbol.frag.items)
        symbol.delta = delta

    def assign(self, name: str, value: Value, place: Place) -> None:
        """`name = value`; a label cannot be assigned to."""
        symbol = self.symbol(name)
        if symbol.frag is not None:
            raise Problem(f"symbol {name} is already defined at {symbol.position}")
        if _mentions(value, symbol):
            raise Problem(f"{name} is defined in terms of itself")
        if symbol.value is None:
            self.order.append(symbol)
        symbol.value = value
        symbol.position = place.line.position

    def is_defined(self, name: str) -> bool:
        """Whether `.ifdef name` holds here."""
        symbol = self.symbols.get(name)
        return symbol is not None and symbol.defined

    # expression.Scope

    def lookup(self, name: str) -> Value:
        """A constant's value, else a reference to the symbol."""
        symbol = self.symbols.get(name)
        if symbol is None:
            symbol = self.symbols[name] = Symbol(name)
        elif symbol.value is not None:
            return symbol.value
        return Ref(symbol)

    def local_label(self, reference: str) -> Value:
        """The nearest numeric label before or after this line."""
        number, direction = reference[:-1], reference[-1]
        if direction == "b":
            if number not in self._numeric_last:
                raise Problem(f"no label {number}: before this line")
            return Ref(self._numeric_last[number])
        symbol = self._numeric_next.get(number)
        if symbol is None:
            symbol = self._numeric_next[number] = Symbol(number)
        return Ref(symbol)

    def here(self, delta: int = 0) -> Value:
        """`.`, or the place `delta` bytes after it."""
        symbol = Symbol(".")
        self.put_here(symbol, delta)
        return Ref(symbol)

    def distance(self, left: Symbol, right: Symbol) -> int | None:
        """left - right if only statements of known size lie between, as gas folds within a fragment."""
        if left is right:
            return 0
        if left.frag is None or left.frag is not right.frag:
            return None
        return left.frag.offset(left.index) + left.delta - right.frag.offset(right.index) - right.delta

    def absolute(self, text: str, what: str) -> int:
        """The number that `text` is here; Problem naming `what` when it is not known here."""
        value = parse(text, self)
        if isinstance(value, int):
            return value
        for symbol in symbols_in(value):
            if not symbol.defined and symbol.name not in self.externals:
                raise Problem(f"{what} must be a number known here: {self.undefined(symbol)}")
        raise Problem(f"{what} must be a number known here, {text.strip()!r} is not")

    # Messages

    def undefined(self, symbol: Symbol) -> str:
        """The message about a symbol without definition."""
        if symbol.name.isdigit():
            return f"no label {symbol.name}: after this line"
        near: list[str] = []
        if self._suggestions < MAX_SUGGESTIONS:
            self._suggestions += 1
            known = [name for name, other in self.symbols.items() if other.defined]
            near = near_names(symbol.name, [*known, *self.externals])
        return f"undefined symbol {symbol.name}{did_you_mean(near)}"


def symbols_in(value: Value | None) -> list[Symbol]:
    """The symbols that an expression refers to directly."""
    found: list[Symbol] = []
    seen: set[int] = set()
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, Ref):
            found.append(part.symbol)
        elif isinstance(part, Op) and id(part) not in seen:
            seen.add(id(part))
            todo += [part.right, part.left]
    return found


def _mentions(value: Value | None, symbol: Symbol) -> bool:
    """Whether `value` depends on `symbol`, also through other symbols."""
    seen: set[int] = set()
    todo = symbols_in(value)
    while todo:
        other = todo.pop()
        if other is symbol:
            return True
        if id(other) not in seen:
            seen.add(id(other))
            todo.extend(symbols_in(other.value))
    return False
