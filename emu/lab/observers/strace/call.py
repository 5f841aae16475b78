"""One system call, as the decoders of its arguments see it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emu.lab.observers.strace import text
from emu.lab.user_memory import UserMemory

MAX_ERRNO = 4095


@dataclass(slots=True)
class Call:
    """A system call under way. `result` is None until it ends."""

    name: str
    number: int
    args: tuple[int, ...]
    ia32: bool
    memory: UserMemory | None
    """Of the process, now; None if it has none."""
    sp: int = 0
    """User mode's stack pointer."""
    interrupted: str = "system call"
    """What restart_syscall goes on with."""
    result: int | None = None

    @property
    def word(self) -> int:
        """Bytes of a pointer or a long."""
        return 4 if self.ia32 else 8

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, or is to be made again."""
        return self.result is not None and -MAX_ERRNO <= self.result < 0

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes of the process; None if they cannot be read."""
        return None if self.memory is None else self.memory.read(address, size)

    def values(self, address: int, layout: str) -> tuple[Any, ...] | None:
        """Numbers of a structure: `layout` as for the struct module, `l`, `L` and `P` being words."""
        if self.ia32:
            pattern = "<" + layout.replace("l", "i").replace("L", "I").replace("P", "I")
        else:
            pattern = "<" + layout.replace("l", "q").replace("L", "Q").replace("P", "Q")
        raw = self.read(address, struct.calcsize(pattern))
        return None if raw is None else struct.unpack(pattern, raw)


Decode = Callable[[Call, int], str]
"""decode(call, which argument) -> text."""


@dataclass(frozen=True, slots=True)
class Arg:
    """How one argument is shown: `out` if that must wait for the result."""

    decode: Decode
    index: int
    out: bool = False


def plain(show: Callable[[int], str], bits: int = 0) -> Decode:
    """A decoder that looks at the number alone; `bits` if it is narrower than a register."""
    mask = (1 << bits) - 1 if bits else -1
    return lambda call, index: show(call.args[index] & mask)


def pointer(show: Callable[[Call, int], str | None], *, always: bool = False) -> Decode:
    """A decoder of what an argument points to: the address alone if that is NULL, unreadable or was not filled in.

    A call that has failed filled in nothing, unless `always`.
    """

    def decode(call: Call, index: int) -> str:
        at = call.args[index]
        if not at or (call.failed and not always):
            return text.address(at)
        return show(call, at) or text.address(at)

    return decode


def given(show: Callable[[Call, int], str | None]) -> Decode:
    """The same for what the program itself has filled in."""
    return pointer(show, always=True)
