"""One crossing of the path summary: its line, and what happened inside it, folded and bounded."""

from __future__ import annotations

from dataclasses import dataclass, field

INDENT = "    "
MAX_STEPS = 200
"""Of one crossing, and events inside it: more are only counted, for a broken kernel may loop for ever."""
Folded = tuple[tuple[str, ...], int]
"""Lines, and how often in a row."""


@dataclass(slots=True)
class Crossing:
    """A way into the kernel; `line` grows with each step."""

    serial: int
    depth: int
    line: str
    inner: list[Folded] = field(default_factory=list)
    steps: int = 0
    dropped: int = 0

    def step(self, words: str) -> None:
        """What it did next."""
        self.steps += 1
        if self.steps <= MAX_STEPS:
            self.line += f" -> {words}"

    def leave(self, words: str) -> None:
        """How it ended, or went on elsewhere."""
        self.line = self._text() + words
        self.steps = 0

    def add(self, block: tuple[str, ...]) -> None:
        """What happened inside."""
        if len(self.inner) < MAX_STEPS or self.inner[-1][0] == block:
            fold(self.inner, block)
        else:
            self.dropped += 1

    def block(self, ending: str = "") -> tuple[str, ...]:
        """Its lines."""
        inner = [line for block, count in self.inner for line in shown(block, count)]
        if self.dropped:
            inner.append(INDENT * (self.depth + 1) + f"... and {self.dropped} more events")
        return (INDENT * self.depth + self._text() + ending, *inner)

    def _text(self) -> str:
        more = self.steps - MAX_STEPS
        return f"{self.line} -> ... {more} more steps" if more > 0 else self.line


def fold(blocks: list[Folded], block: tuple[str, ...]) -> None:
    """Add a block; one like the last is only counted."""
    if blocks and blocks[-1][0] == block:
        blocks[-1] = (block, blocks[-1][1] + 1)
    else:
        blocks.append((block, 1))


def shown(block: tuple[str, ...], count: int) -> list[str]:
    """A block's lines, with how often it came."""
    return [block[0] + (f"   x{count}" if count > 1 else ""), *block[1:]]
