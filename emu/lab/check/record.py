"""`python -m emu.lab.check.record check-full.json`: a page of what `entry64 check --full --json` found."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_COUNT = re.compile(r"([\d,]+) (boundaries|cases|clean|pending|violation|crash|hang|lost|of them merged)")
_HEAD = """# The full sweep

What `make check-full` found: every event of [sweep.md](sweep.md) at every instruction boundary of every scenario, on
every CPU. The command writes this page. `known` are cases that show a hole which the scenario lists with its reason.

| scenario | boundaries | cases | merged | clean | pending | known |
|---|--:|--:|--:|--:|--:|--:|
"""


def page(document: Mapping[str, Any]) -> str:
    """The page, of the JSON document of `entry64 check --full`; a sweep that fails is marked."""
    swept = [result for result in document["results"] if result["name"].startswith("sweep ")]
    total = [0] * 6
    lines = []
    for result in swept:
        row = _row(result["summary"])
        total = [one + other for one, other in zip(total, row, strict=True)]
        name = Path(result["scenario"]).stem
        lines.append(_line(f"`{name}`" if result["passed"] else f"**`{name}` fails**", row))
    left_out = sorted(set(_scenarios(document)) - {Path(result["scenario"]).stem for result in swept})
    text = _HEAD + "".join(lines) + _line(f"**{len(swept)} scenarios**", total)
    if left_out:
        text += f"\nNot swept, for the reason that their files give: {', '.join(f'`{name}`' for name in left_out)}.\n"
    return text


def _scenarios(document: Mapping[str, Any]) -> Iterator[str]:
    for result in document["results"]:
        yield Path(result["scenario"]).stem


def _row(summary: str) -> list[int]:
    """boundaries, cases, merged, clean, pending, known"""
    found = {word: int(number.replace(",", "")) for number, word in _COUNT.findall(summary)}
    bad = sum(found.get(word, 0) for word in ("violation", "crash", "hang", "lost"))
    return [*(found.get(word, 0) for word in ("boundaries", "cases", "of them merged", "clean", "pending")), bad]


def _line(name: str, row: list[int]) -> str:
    return f"| {name} | {' | '.join(f'{number:,}' for number in row)} |\n"


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text())), end="")
