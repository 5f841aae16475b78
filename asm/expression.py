"""Expressions with gas's operators, ranks and folding rules.

An expression is folded as far as what is known where it stands allows, as in gas; the rest is kept and evaluated when
all addresses are final. Values are 64-bit and signed, as gas's offsetT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from asm.errors import Position, Problem

if TYPE_CHECKING:
    from asm.layout import Frag

RANKS = {
    "*": 8, "/": 8, "%": 8, "<<": 8, ">>": 8,
    "|": 7, "^": 7, "&": 7, "!": 7,
    "+": 5, "-": 5,
    "==": 4, "<>": 4, "!=": 4, "<": 4, "<=": 4, ">=": 4, ">": 4,
    "&&": 3, "||": 2,
}  # fmt: skip
UNARY_RANK = 9
COMPARISONS = frozenset({"==", "<>", "!=", "<", "<=", ">=", ">"})
MAX_DEPTH = 60  # of parentheses
MAX_OPERATIONS = 100  # of operations that wait for an address, one inside the other

TOKEN = re.compile(
    r"\s*(?:(?P<local>\d+[bf](?![\w.$]))|(?P<number>\d\w*)|(?P<name>[A-Za-z_.$][\w.$]*)"
    r"|(?P<op><<|>>|<=|>=|==|<>|!=|&&|\|\||[-+*/%&|^~!<>()])|(?P<string>\"))"
)
NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9]\d*")
SIMPLE_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17}|0x[0-9a-fA-F]{1,15})")


class Symbol:
    """A name, or an unnamed place (`.`, numeric label). Undefined, a place in a section, or a value set by `.set`."""

    __slots__ = ("delta", "frag", "index", "name", "position", "value")

    def __init__(self, name: str) -> None:
        self.name = name
        self.frag: Frag | None = None
        self.index = 0  # item of the fragment
        self.delta = 0  # bytes after the start of that item
        self.value: Value | None = None
        self.position: Position | None = None

    @property
    def defined(self) -> bool:
        """Whether the symbol has a place or a value."""
        return self.frag is not None or self.value is not None


@dataclass(frozen=True, slots=True)
class Ref:
    """symbol + addend."""

    symbol: Symbol
    addend: int = 0


@dataclass(frozen=True, slots=True)
class Op:
    """An operation that could not be folded. `right` is None for a unary one."""

    op: str
    left: Value
    right: Value | None
    depth: int


def make_op(op: str, left: Value, right: Value | None = None) -> Op:
    """An Op; Problem when it would be nested too deeply to be evaluated."""
    depth = 1 + max(operand.depth if isinstance(operand, Op) else 0 for operand in (left, right))
    if depth > MAX_OPERATIONS:
        raise Problem("expression nested too deeply")
    return Op(op, left, right, depth)


Value: TypeAlias = int | Ref | Op


class Scope(Protocol):
    """What an expression needs of its surroundings."""

    def lookup(self, name: str) -> Value:
        """The value of a name as far as it is known here."""

    def local_label(self, reference: str) -> Value:
        """The label that `1b` or `1f` means here."""

    def here(self) -> Value:
        """The current location."""

    def distance(self, left: Symbol, right: Symbol) -> int | None:
        """left - right in bytes if no statement of yet unknown size lies between them."""


def signed64(value: int) -> int:
    """`value` modulo 2**64, as a signed number."""
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def parse(text: str, scope: Scope) -> Value:
    """The value of an expression; Problem if `text` is not exactly one."""
    if SIMPLE_NUMBER.fullmatch(text):
        return int(text, 0)
    parser = _Parser(text, scope)
    value = parser.expression(0)
    parser.expect_end()
    return value


class _Parser:
    def __init__(self, text: str, scope: Scope) -> None:
        self.text = text
        self.scope = scope
        self.depth = 0
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        place, end = 0, len(text.rstrip())
        while place < end:
            found = TOKEN.match(text, place)
            if found is None or found.lastgroup is None:
                raise Problem(f"bad expression {text.strip()!r}: unexpected {text[place:].strip()[:1]!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def fail(self) -> Problem:
        kind, token = self.peek()
        if not self.tokens:
            return Problem("missing expression")
        return Problem(
            f"bad expression {self.text.strip()!r}: "
            + ("it ends too early" if kind == "end" else f"unexpected {token!r}")
        )

    def expect_end(self) -> None:
        if self.at < len(self.tokens):
            raise self.fail()

    def expression(self, rank: int) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Problem("expression nested too deeply")
        left = self.operand()
        while True:
            kind, token = self.peek()
            if kind != "op" or RANKS.get(token, 0) <= rank:
                self.depth -= 1
                return left
            self.at += 1
            left = binary(token, left, self.expression(RANKS[token]), self.scope)

    def operand(self) -> Value:
        kind, token = self.peek()
        if kind == "number":
            if not NUMBER.fullmatch(token):
                raise Problem(f"bad number {token!r}")
            self.at += 1
            number = int(token, 8) if token[0] == "0" and token.isdigit() else int(token, 0)
            if number >= 1 << 64:
                raise Problem(f"number {token} does not fit in 64 bits")
            return signed64(number)
        if kind == "name":
            self.at += 1
            return self.scope.here() if token == "." else self.scope.lookup(token)
        if kind == "local":
            self.at += 1
            return self.scope.local_label(token)
        if kind == "op" and token in "-+~!":
            self.at += 1
            return unary(token, self.expression(UNARY_RANK))
        if kind == "op" and token == "(":
            self.at += 1
            value = self.expression(0)
            if self.peek() != ("op", ")"):
                raise self.fail()
            self.at += 1
            return value
        raise self.fail()


def unary(op: str, value: Value) -> Value:
    """`op value`, folded when it can be."""
    if op == "+":
        return value
    if isinstance(value, int):
        return apply_unary(op, value)
    return make_op(op, value)


def apply_unary(op: str, value: int) -> int:
    """`op value` of a number."""
    return signed64({"-": -value, "~": ~value, "!": int(not value)}[op])


def binary(op: str, left: Value, right: Value, scope: Scope) -> Value:
    """`left op right`, folded when it can be."""
    if isinstance(left, int) and isinstance(right, int):
        return apply(op, left, right)
    if op == "+" and isinstance(right, int) and isinstance(left, Ref):
        return Ref(left.symbol, signed64(left.addend + right))
    if op == "+" and isinstance(left, int) and isinstance(right, Ref):
        return Ref(right.symbol, signed64(right.addend + left))
    if op == "-" and isinstance(right, int) and isinstance(left, Ref):
        return Ref(left.symbol, signed64(left.addend - right))
    if isinstance(left, Ref) and isinstance(right, Ref) and (op == "-" or op in COMPARISONS):
        apart = scope.distance(left.symbol, right.symbol)
        if apart is not None:
            apart += left.addend - right.addend
            return signed64(apart) if op == "-" else apply(op, apart, 0)
    return make_op(op, left, right)


def apply(op: str, left: int, right: int) -> int:
    """`left op right` of two signed 64-bit numbers, as gas computes it; Problem on division by zero."""
    if op in COMPARISONS:
        truth = {
            "==": left == right, "<>": left != right, "!=": left != right,
            "<": left < right, "<=": left <= right, ">=": left >= right, ">": left > right,
        }[op]  # fmt: skip
        return -int(truth)
    if op in ("/", "%"):
        if right == 0:
            raise Problem("division by zero")
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return signed64(quotient if op == "/" else left - quotient * right)
    if op in ("<<", ">>"):
        if not 0 <= right < 64:
            raise Problem(f"shift by {right}: not in 0..63")
        return signed64(left << right if op == "<<" else (left & ((1 << 64) - 1)) >> right)
    if op == "&&":
        return int(bool(left and right))
    if op == "||":
        return int(bool(left or right))
    if op == "+":
        return signed64(left + right)
    if op == "-":
        return signed64(left - right)
    if op == "*":
        return signed64(left * right)
    if op == "&":
        return left & right
    if op == "|":
        return left | right
    if op == "^":
        return left ^ right
    return signed64(left | ~right)  # `!`: or-not
