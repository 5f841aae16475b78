"""The values of expressions when addresses are known, or offsets in sections while sizes are still being settled."""

from __future__ import annotations

from asm.errors import Problem
from asm.expression import COMPARISONS, Op, Ref, Symbol, Value, apply, apply_unary, signed64
from asm.layout import Section
from asm.unit import Unit

MAX_STEPS = 2_000
MAX_CHAIN = 100  # symbols defined by symbols


class Values:
    """Evaluates the expressions of a unit."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._steps = 0

    def _step(self, chain: int) -> None:
        """Count: names that are twice another name would otherwise take exponential time."""
        self._steps += 1
        if self._steps > MAX_STEPS or chain > MAX_CHAIN:
            raise Problem("the expression is too large")

    # Offsets

    def offset(self, value: Value) -> tuple[int, Section | None]:
        """For relaxation: the number, with addresses as offsets in their section, and that section (None for a plain
        number). Problem for what cannot be known before linking."""
        self._steps = 0
        return self._offset(value, 0)

    def _offset(self, value: Value, chain: int) -> tuple[int, Section | None]:
        if isinstance(value, int):
            return value, None
        self._step(chain)
        if isinstance(value, Ref):
            symbol = value.symbol
            if symbol.frag is not None:
                frag = symbol.frag
                return frag.address + frag.offset(symbol.index) + symbol.delta + value.addend, frag.section
            if symbol.value is not None:
                number, section = self._offset(symbol.value, chain + 1)
                return number + value.addend, section
            if symbol.name in self._unit.externals:
                raise Problem(f"the address of {symbol.name} is not known to the assembler")
            raise Problem(self._unit.undefined(symbol))
        left, left_section = self._offset(value.left, chain)
        if value.right is None:
            if left_section is not None:
                raise Problem(f"an address cannot be the operand of {value.op}")
            return apply_unary(value.op, left), None
        right, right_section = self._offset(value.right, chain)
        comparable = value.op == "-" or value.op in COMPARISONS
        if left_section is right_section and (left_section is None or comparable):
            return apply(value.op, left, right), None
        if right_section is None and value.op in ("+", "-"):
            return apply(value.op, left, right), left_section
        if left_section is None and value.op == "+":
            return left + right, right_section
        raise Problem(f"the operands of {value.op} are addresses that cannot be combined")

    # Addresses

    def final(self, value: Value) -> tuple[int, int]:
        """The number, and how many addresses it is the sum of (0: a plain number, 1: an address)."""
        self._steps = 0
        return self._final(value, 0)

    def _final(self, value: Value, chain: int) -> tuple[int, int]:
        if isinstance(value, int):
            return value, 0
        self._step(chain)
        if isinstance(value, Ref):
            number, weight = self._symbol(value.symbol, chain)
            return signed64(number + value.addend), weight
        return self._operation(value, chain)

    def _symbol(self, symbol: Symbol, chain: int) -> tuple[int, int]:
        if symbol.frag is not None:
            frag = symbol.frag
            return frag.section.address + frag.address + frag.offset(symbol.index) + symbol.delta, 1
        if symbol.value is not None:
            return self._final(symbol.value, chain + 1)
        if symbol.name in self._unit.externals:
            return self._unit.externals[symbol.name], 1
        raise Problem(self._unit.undefined(symbol))

    def _operation(self, value: Op, chain: int) -> tuple[int, int]:
        left, weight = self._final(value.left, chain)
        if value.right is None:
            if weight:
                raise Problem(f"an address cannot be the operand of {value.op}")
            return apply_unary(value.op, left), 0
        right, right_weight = self._final(value.right, chain)
        if value.op in ("+", "-"):
            weight += right_weight if value.op == "+" else -right_weight
        elif weight or right_weight:
            if weight != right_weight or value.op not in COMPARISONS:
                raise Problem(f"an address cannot be an operand of {value.op}")
            weight = 0
        return apply(value.op, left, right), weight
