"""Ctrl-C while the engine runs.

Python raises KeyboardInterrupt wherever it happens to be. Inside a callback of the engine that is lost: ctypes prints
and drops it, and the stop that the callback was to make with it. So the signal waits until the engine has returned.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


class Keyboard:
    """Whether the engine runs, and whether somebody wants it to end."""

    __slots__ = ("pressed", "stop")

    def __init__(self) -> None:
        self.stop: Callable[[], object] | None = None
        """Ends the engine's run that is under way; None at rest."""
        self.pressed = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if self.stop is None:
            raise KeyboardInterrupt
        self.pressed = True
        self.stop()

    def give_way(self) -> None:
        """The engine has returned: KeyboardInterrupt, for the signal that came before."""
        self.pressed = False
        raise KeyboardInterrupt


keyboard = Keyboard()


def handle_interrupts() -> None:
    """For a command: let Ctrl-C wait for the engine, unless this process ignores it or handles it in its own way."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, keyboard)
