"""strace: system calls and signals of a run, line by line or summed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.lab.observers.strace.observer import Strace
from emu.lab.observers.strace.summary import StraceSummary
from emu.lab.view import View


@dataclass(frozen=True, slots=True)
class StraceText:
    """Where it goes, whether as lines or as a summary, and a title for one of several runs (emu.lab.rig.Tracing)."""

    write: Callable[[str], object]
    summary: bool = False
    title: str = ""
    boot: bool = False

    def begin(self, view: View) -> Strace | StraceSummary:
        """The observer that writes it."""
        return (StraceSummary if self.summary else Strace)(view, self.write, self.title)


__all__ = ["Strace", "StraceSummary", "StraceText"]
