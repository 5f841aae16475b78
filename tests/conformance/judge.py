"""What the right answer of a case is, from the oracles' answers and the rulings where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from conformance.decode import Answer

OracleName = Literal["bochs", "qemu"]


@dataclass(frozen=True)
class Disagreement:
    """One field that the oracles answer differently."""

    case: str
    field: str
    bochs: Answer
    qemu: Answer

    def number(self, answer: Answer) -> int:
        """The field as a number; -1 if it is absent or names a place."""
        try:
            return int(answer.get(self.field, ""), 16)
        except ValueError:
            return -1


@dataclass(frozen=True)
class FieldRuling:
    """A difference that shows in many cases: which oracle is wrong about a field, and what the manuals say."""

    name: str
    wrong: OracleName
    section: str
    why: str
    applies: Callable[[Disagreement], bool]


@dataclass(frozen=True, eq=False)
class CaseRuling:
    """The right answer of certain cases (patterns): one oracle's, with `change` applied (None removes a field)."""

    cases: tuple[str, ...]
    right: OracleName
    section: str
    why: str
    change: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The right answer, the rulings that led to it, and the fields that nobody has ruled about."""

    expected: Answer
    rulings: tuple[FieldRuling | CaseRuling, ...]
    open: tuple[str, ...]


def differing(first: Answer, second: Answer) -> list[str]:
    """Fields in which two answers differ."""
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]


def judge(
    case: str,
    answers: Mapping[str, Answer],
    case_rulings: tuple[CaseRuling, ...],
    field_rulings: tuple[FieldRuling, ...],
    repair: Callable[[str, Answer], Answer],
) -> Verdict:
    """Settle one case (named "group/name/vendor")."""
    bochs, qemu = answers["bochs"], answers["qemu"]
    for ruling in case_rulings:
        if any(fnmatchcase(case, pattern) for pattern in ruling.cases):
            expected = repair(ruling.right, answers[ruling.right])
            for name, value in ruling.change.items():
                if value is None:
                    expected.pop(name, None)
                else:
                    expected[name] = value
            return Verdict(expected, (ruling,), ())
    expected = dict(bochs)
    used, unsettled = [], []
    for name in differing(bochs, qemu):
        apart = Disagreement(case, name, bochs, qemu)
        found = next((r for r in field_rulings if r.applies(apart)), None)
        if found is None:
            unsettled.append(name)
            continue
        used.append(found)
        if found.wrong == "bochs":
            if name in qemu:
                expected[name] = qemu[name]
            else:
                del expected[name]
    return Verdict(expected, tuple(dict.fromkeys(used)), tuple(unsettled))
