"""What a device is to the machine: state that snapshots carry, deadlines, and a place in physical memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from emu.machine.core import Core


class DeviceState(Protocol):
    """A dataclass of plain values."""

    def copy(self) -> Self:
        """An independent copy."""


State = TypeVar("State", bound=DeviceState)


class Device(Generic[State]):
    """A device whose whole state is `state`.

    Time is the clock of retired instructions of the CPU that runs; the machine stops a run at
    `deadline` and calls `tick`.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._saved: State | None = None

    @property
    def deadline(self) -> int | None:
        """Clock at which `tick` has something to do, or None."""
        return None

    def tick(self, clock: int) -> None:
        """Time has come to `clock`, at or after the deadline."""

    def save(self) -> State:
        """The state, for a snapshot; nobody may change it."""
        if self._saved is None or self._saved != self.state:
            self._saved = self.state.copy()
        return self._saved

    def load(self, saved: State) -> None:
        """Back to what `save` gave."""
        if self.state != saved:
            self.state = saved.copy()


class MappedDevice(Protocol):
    """A device in physical memory. Reads change nothing; both are told which CPU asks."""

    base: int
    size: int

    def read(self, core: Core, address: int, size: int) -> int:
        """`size` bytes at a physical address."""

    def write(self, core: Core, address: int, size: int, value: int) -> None:
        """Store `size` bytes at a physical address."""
