"""The corpus as a whole: images by group and vendor, our answers, verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import get_args

from conformance import ours, records
from conformance.cases import GROUPS
from conformance.decode import Answer
from conformance.image import TestImage, build
from conformance.judge import Verdict, differing, judge
from conformance.model import Vendor
from conformance.rulings import CASE_RULINGS, FIELD_RULINGS, KNOWN_WRONG, repair

VENDORS: tuple[Vendor, ...] = get_args(Vendor)


@dataclass(frozen=True)
class Result:
    """One case: its full name, our answer, the oracles' and the right one."""

    name: str
    ours: Answer
    oracles: dict[str, Answer]
    verdict: Verdict

    @property
    def wrong(self) -> list[str]:
        """Fields in which we are wrong."""
        return differing(self.ours, self.verdict.expected)

    @property
    def known(self) -> bool:
        """Whether the difference is a listed one."""
        return any(fnmatchcase(self.name, pattern) for pattern in KNOWN_WRONG)

    def explain(self) -> str:
        """Every wrong or unsettled field with everyone's answer."""
        wrong = self.wrong
        parts = []
        for name in dict.fromkeys((*wrong, *self.verdict.open)):
            told = ", ".join(f"{oracle} {answer.get(name)}" for oracle, answer in self.oracles.items())
            right = "not ruled" if name in self.verdict.open else f"right {self.verdict.expected.get(name)}"
            parts.append(f"{name}: ours {self.ours.get(name)}, {right} ({told})")
        return f"{self.name}: " + "; ".join(parts)


@cache
def image(group: str, vendor: Vendor) -> TestImage | None:
    """The image of a group's cases for a vendor; None if it has none."""
    cases = [case for case in GROUPS[group] if vendor in case.cpu]
    return build(cases) if cases else None


def images(group: str) -> Iterator[tuple[Vendor, TestImage]]:
    """The images of a group."""
    for vendor in VENDORS:
        found = image(group, vendor)
        if found is not None:
            yield vendor, found


def stale(group: str) -> list[str]:
    """Cases whose record is missing, or was made from another version of the case."""
    known = records.load(group)
    found = []
    for vendor, tested in images(group):
        for case in tested.cases:
            record = known.get(records.key(case, vendor))
            if record is None or record.digest != records.digest(case):
                found.append(records.key(case, vendor))
    return found


def results(group: str) -> list[Result]:
    """Our machine's run of a group, judged by the records."""
    known = records.load(group)
    found = []
    for vendor, tested in images(group):
        for case, answer in zip(tested.cases, ours.answers(tested, vendor), strict=True):
            short = records.key(case, vendor)
            name = f"{group}/{short}"
            oracles = dict(known[short].answers)
            found.append(Result(name, answer, oracles, judge(name, oracles, CASE_RULINGS, FIELD_RULINGS, repair)))
    return found
