"""Conditional assembly: `.if` and its kin, `.else`, `.elseif`, `.endif`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from asm.errors import Problem
from asm.layout import Place
from asm.source import scrub
from asm.unit import Unit

NAME = re.compile(r"\s*([A-Za-z_.$][\w.$]*)\s*")
Test = Callable[[Unit, str], bool]


@dataclass
class Condition:
    """An open .if: whether the lines count, whether a branch was taken, whether all around it counts."""

    place: Place
    live: bool
    taken: bool
    outer: bool
    had_else: bool = False


class Conditions:
    """The stack of open conditions."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._stack: list[Condition] = []

    @property
    def live(self) -> bool:
        """Whether the current line counts."""
        return not self._stack or self._stack[-1].live

    @property
    def depth(self) -> int:
        """The number of open conditions."""
        return len(self._stack)

    def cut(self, depth: int) -> list[Condition]:
        """Drop the conditions above `depth`; gives them."""
        dropped = self._stack[depth:]
        del self._stack[depth:]
        return dropped

    def handle(self, word: str, text: str, place: Place, floor: int) -> bool:
        """Obey a conditional directive; False if `word` is none. `floor` is the depth at which the current file or
        macro began: what is open below it cannot be continued here."""
        test = TESTS.get(word)
        if test is not None:
            self._open(test, text, place)
        elif word == ".else":
            self._else(self._current(word, floor))
        elif word == ".elseif":
            self._elseif(self._current(word, floor), text)
        elif word == ".endif":
            self._current(word, floor)
            self._stack.pop()
        else:
            return False
        return True

    def _open(self, test: Test, text: str, place: Place) -> None:
        condition = Condition(place, False, False, self.live)
        self._stack.append(condition)
        if condition.outer:
            condition.taken = True  # a faulty condition skips all its branches
            condition.live = condition.taken = test(self._unit, text)

    def _current(self, word: str, floor: int) -> Condition:
        if len(self._stack) <= floor:
            raise Problem(f"{word} without .if")
        return self._stack[-1]

    def _else(self, condition: Condition) -> None:
        if condition.had_else:
            raise Problem("second .else")
        condition.had_else = True
        condition.live = condition.outer and not condition.taken

    def _elseif(self, condition: Condition, text: str) -> None:
        if condition.had_else:
            raise Problem(".elseif after .else")
        condition.live = False
        if condition.outer and not condition.taken:
            condition.taken = True
            condition.live = condition.taken = bool(self._unit.absolute(text, "the condition"))


def _compare(relation: Callable[[int], bool]) -> Test:
    return lambda unit, text: relation(unit.absolute(text, "the condition"))


def _defined(unit: Unit, text: str) -> bool:
    found = NAME.fullmatch(text)
    if found is None:
        raise Problem(f"expected a name, not {text.strip()!r}")
    return unit.is_defined(found[1])


def _same(unit: Unit, text: str) -> bool:
    text = scrub(text)
    first, at = _string(text, 0)
    if text[at : at + 1] != ",":
        raise Problem(".ifc needs two strings")
    return first == _string(text, at + 1)[0]


def _string(text: str, at: int) -> tuple[str, int]:
    """An operand of `.ifc`: up to a comma outside quotes."""
    start = at
    quoted = False
    while at < len(text) and (quoted or text[at] != ","):
        quoted ^= text[at] in "'\""
        at += 1
    return text[start:at].strip(), at


TESTS: dict[str, Test] = {
    ".if": _compare(lambda value: value != 0),
    ".ifne": _compare(lambda value: value != 0),
    ".ifeq": _compare(lambda value: value == 0),
    ".iflt": _compare(lambda value: value < 0),
    ".ifle": _compare(lambda value: value <= 0),
    ".ifgt": _compare(lambda value: value > 0),
    ".ifge": _compare(lambda value: value >= 0),
    ".ifdef": _defined,
    ".ifndef": lambda unit, text: not _defined(unit, text),
    ".ifb": lambda unit, text: not text.strip(),
    ".ifnb": lambda unit, text: bool(text.strip()),
    ".ifc": _same,
    ".ifnc": lambda unit, text: not _same(unit, text),
}
CONDITION_WORDS = (*TESTS, ".else", ".elseif", ".endif")
