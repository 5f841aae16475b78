"""`python -m emu.lab.check.record check-full.txt`: a page of what `entry64 check --full` printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_COUNT = re.compile(r"([\d,]+) (boundaries|cases|clean|pending|violation|crash|hang|lost|of them merged)")
_LINE = re.compile(r"^(PASS|FAIL) (\S+\.toml): (.*)$", re.MULTILINE)
_HEAD = """# The full sweep

What `make check-full` found: every event of [sweep.md](sweep.md) at every instruction boundary of every scenario, on
every CPU. The command writes this page. `known` are cases that show a hole which the scenario lists with its reason.

| scenario | boundaries | cases | merged | clean | pending | known |
|---|--:|--:|--:|--:|--:|--:|
"""


def page(printed: str) -> str:
    """The page, of the lines that `entry64 check --full` printed; a sweep that fails is marked."""
    total = [0] * 6
    lines, scenarios, swept = [], set(), set()
    for passed, scenario, words in _LINE.findall(printed):
        name = Path(scenario).stem
        scenarios.add(name)
        if not words.startswith("sweep "):
            continue
        swept.add(name)
        row = _row(words)
        total = [one + other for one, other in zip(total, row, strict=True)]
        lines.append(_line(f"`{name}`" if passed == "PASS" else f"**`{name}` fails**", row))
    text = _HEAD + "".join(lines) + _line(f"**{len(swept)} scenarios**", total)
    if left_out := sorted(scenarios - swept):
        text += f"\nNot swept, for the reason that their files give: {', '.join(f'`{name}`' for name in left_out)}.\n"
    return text


def _row(summary: str) -> list[int]:
    """boundaries, cases, merged, clean, pending, known"""
    found = {word: int(number.replace(",", "")) for number, word in _COUNT.findall(summary)}
    bad = sum(found.get(word, 0) for word in ("violation", "crash", "hang", "lost"))
    return [*(found.get(word, 0) for word in ("boundaries", "cases", "of them merged", "clean", "pending")), bad]


def _line(name: str, row: list[int]) -> str:
    return f"| {name} | {' | '.join(f'{number:,}' for number in row)} |\n"


if __name__ == "__main__":
    print(page(Path(sys.argv[1]).read_text()), end="")
