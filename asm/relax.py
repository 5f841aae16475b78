"""Branch relaxation: the size of everything that depends on addresses.

Repeats gas's relax_segment, because another algorithm that is equally right would choose other branch lengths around
alignments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from asm.errors import Problem
from asm.expression import Value
from asm.layout import MAX_SECTION, Align, Branch, Frag, Org, Place, Section, Tail

MAX_PASSES = 200

Resolve = Callable[[Value], tuple[int, "Section | None"]]
Report = Callable[[Place, str], None]


@dataclass
class Relaxer:
    """gas's relax_segment over all sections, until nothing moves.

    `resolve` gives a value with section-relative offsets in place of addresses, and the section that it is relative to
    (None for a plain number); it raises Problem for what can never be resolved.
    """

    resolve: Resolve
    report: Report
    failed: set[int] = field(default_factory=set)  # id() of fragments already reported

    def run(self, sections: Iterable[Section]) -> None:
        """Settle the size of every fragment."""
        sections = list(sections)
        for section in sections:
            self._estimate(section)
        for attempt in range(MAX_PASSES):
            moved = [self._pass(section, attempt) for section in sections]
            if not any(moved) and attempt >= 2:
                return
        place = next((frag.place for section in sections for frag in section.frags if frag.place), None)
        if place is not None:
            self.report(place, "sizes do not settle: they depend on each other")

    def _estimate(self, section: Section) -> None:
        address = region = 0
        for frag in section.frags:
            frag.address, frag.region, frag.visited, frag.width = address, region, 0, 0
            address += frag.fixed
            tail = frag.tail
            if isinstance(tail, Branch):
                if self._needs_long(tail, section):
                    tail.is_long = True
                frag.width = self._branch_width(tail)
            elif isinstance(tail, Align):
                frag.width = _padding(address, tail)
                region += 1
            elif isinstance(tail, Org):
                region += 1
            address += frag.width

    def _needs_long(self, branch: Branch, section: Section) -> bool:
        """Whether the target is not in this section, so that only the linker would know the distance."""
        try:
            return self.resolve(branch.target)[1] is not section
        except Problem:
            return True  # an undefined symbol: reported where the branch is written

    @staticmethod
    def _branch_width(branch: Branch) -> int:
        return len(branch.long) + 4 if branch.is_long else len(branch.short) + 1

    def _pass(self, section: Section, attempt: int) -> bool:
        stretch = 0
        moved = False
        for frag in section.frags:
            frag.visited ^= 1
            frag.address += stretch
            tail = frag.tail
            if tail is None:
                continue
            width = self._width(frag, tail, stretch, attempt)
            if width != frag.width:
                stretch += width - frag.width
                frag.width = width
                moved = True
            if frag.address + frag.fixed + frag.width > MAX_SECTION:
                frag.width, moved = 0, True
                self._fail(frag, f"section {section.name} would become larger than {MAX_SECTION} bytes")
        return moved

    def _width(self, frag: Frag, tail: Tail, stretch: int, attempt: int) -> int:
        """The size of the tail, with the fragment where it is in this pass."""
        if id(frag) in self.failed:
            return frag.width
        end = frag.address + frag.fixed
        if isinstance(tail, Align):
            return _padding(end, tail)
        if isinstance(tail, Branch):
            if not tail.is_long and not self._reaches(frag, tail, stretch):
                tail.is_long = True
            return self._branch_width(tail)
        try:
            if isinstance(tail, Org):
                target, section = self.resolve(tail.target)
                if section is not frag.section and section is not None:
                    raise Problem(".org needs an address in the same section")
                if target < end and attempt >= 2:
                    raise Problem("attempt to move .org backwards")
                return max(0, target - end)
            count, section = self.resolve(tail.count)
            if section is not None:
                raise Problem("the size is not a plain number")
            if count < 0 and attempt >= 2:
                raise Problem(f"negative size {count}")
            return max(0, count) * len(tail.fill)
        except Problem as problem:
            self._fail(frag, str(problem))
            return 0

    def _reaches(self, frag: Frag, branch: Branch, stretch: int) -> bool:
        """Whether disp8 is enough. A target not yet visited in this pass will move by `stretch` as we did."""
        target = self.resolve(branch.target)[0]
        address = frag.address + frag.fixed + frag.width
        label = _label_frag(branch.target)
        if stretch and label is not None and label.visited != frag.visited:
            if stretch < 0 or label.region == frag.region:
                target += stretch
            elif target < address - frag.width:
                return True
        return -128 <= target - address <= 127

    def _fail(self, frag: Frag, message: str) -> None:
        self.failed.add(id(frag))
        if frag.place is not None:
            self.report(frag.place, message)


def _label_frag(value: Value) -> Frag | None:
    symbol = getattr(value, "symbol", None)
    while symbol is not None and symbol.frag is None:
        symbol = getattr(symbol.value, "symbol", None)
    return symbol.frag if symbol is not None else None


def _padding(address: int, align: Align) -> int:
    padding = -address % align.boundary
    return 0 if align.limit and padding > align.limit else padding
