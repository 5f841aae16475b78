"""The chain of entries: which crossings into the kernel are under way on each CPU, innermost last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from emu.arch import INT80_VECTOR, Rflags, Selector, Vector
from emu.events import CCalled, Delivered, Event, EventType, Returned, SystemCall
from emu.record import record
from kernel_stubs.syscalls.names import syscall_name
from kernel_stubs.syscalls.names32 import ia32_syscall_name

if TYPE_CHECKING:
    from emu.lab.view import View


FrameWords = tuple[int, int, int, int, int]
"""ip, cs, flags, sp, ss."""


@dataclass(slots=True, eq=False)
class Entry:
    """One crossing into the kernel; never changed after it is made."""

    serial: int
    event: SystemCall | Delivered
    from_user: bool
    """Whether it came from CPL 3."""
    words: FrameWords
    """What its return should restore."""
    cr3: int
    """As the handler found it."""
    registers: bytes
    """RAX..R15 of the interrupted code."""
    vector: int | None = None
    """None for SYSCALL and SYSENTER."""
    ist: int = 0
    """IST index of its gate, 0 if it has none."""
    type: EventType | None = None
    """None for SYSCALL and SYSENTER."""

    @property
    def ip(self) -> int:
        """Where its return should go."""
        return self.words[0]


class Closing(Enum):
    """What a return did to the chain."""

    USER = "user"  # to user mode: nothing is under way any more
    MATCH = "match"  # to the code that an entry interrupted
    CHANGED = "changed"  # out of the innermost entry, to another place than it came from (a fixup)
    REPEAT = "repeat"  # to repeat_nmi: the NMI goes on
    UNKNOWN = "unknown"  # no entry is under way


# Names of a module are found several times as fast as members of an enum; these are asked for at each return.
USER, MATCH, CHANGED, REPEAT = Closing.USER, Closing.MATCH, Closing.CHANGED, Closing.REPEAT
_NMI = EventType.NMI


class Return(NamedTuple):
    """A return: how it went, the entry that it ended (or goes on with, for REPEAT), and the instruction it was."""

    how: Closing
    entry: Entry | None
    ip: int = 0


@record
class ChainState:
    """A snapshot of the chain."""

    open: dict[int, tuple[Entry, ...]]
    parked: dict[int, tuple[Entry, ...]]


MAX_DEPTH = 64
"""Entries kept: no sound kernel nests so deep, and a broken one may fault for ever."""

_USER_CS, _USER_DS, _USER32_CS = int(Selector.USER_CS), int(Selector.USER_DS), int(Selector.USER32_CS)
_LOST_BY_SYSENTER = int(Rflags.IF | Rflags.VM | Rflags.RF)
_NOTHING = Return(Closing.UNKNOWN, None)


class EntryChain:
    """Observer. Whoever asks it about an event shows it that event first; it looks at none twice."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._open: dict[int, tuple[Entry, ...]] = {}
        self._parked: dict[int, tuple[Entry, ...]] = {}
        self.last_return = _NOTHING
        """What the newest Returned event did."""
        self.broken = False
        """Whether any invariant that shares this chain has been violated since the last load."""
        self._serial = 0
        self._repeat = view.image.symbols.get("repeat_nmi")
        self._seen: Event | None = None
        self.handlers: Mapping[type[Event], Callable[[Any], None]] = {
            SystemCall: self._system_call,
            Delivered: self._delivered,
            Returned: self._returned,
            CCalled: self._c_called,
        }

    def __call__(self, event: Event) -> None:
        """Follow one event."""
        if event is self._seen:
            return
        self._seen = event
        handler = self.handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- answers ----------------------------------------------------------------------------------------------------
    def stack(self, cpu: int) -> tuple[Entry, ...]:
        """The entries under way, outermost first."""
        return self._open.get(cpu, ())

    def top(self, cpu: int) -> Entry | None:
        """The innermost entry under way."""
        entries = self._open.get(cpu)
        return entries[-1] if entries else None

    def describe(self, cpu: int, *more: Entry) -> tuple[str, ...]:
        """The entries in words, outermost first; `more` are some that have just ended."""
        return tuple(self.words(entry) for entry in (*self.stack(cpu), *more))

    def words(self, entry: Entry) -> str:
        """One entry: `NMI at entry_SYSCALL_64+0x3 (entry_64.S:41)`."""
        event, place = entry.event, self._view.where(entry.ip)
        if isinstance(event, SystemCall):
            return f"{call_words(event)} from user {self._view.where(event.ip)}"
        name = vector_name(event.vector, event.type)
        if event.vector == INT80_VECTOR and event.type is EventType.SWINT:
            number = int.from_bytes(entry.registers[:4], "little")
            name += f", {number} ({ia32_syscall_name(number)})"
        if event.vector == Vector.PF and event.error_code is not None:
            name += f" (error {event.error_code:#x}, CR2 {event.cr2:#x})"
        elif event.error_code:
            name += f" (error {event.error_code:#x})"
        return f"{name} in user mode at {place}" if entry.from_user else f"{name} at {place}"

    def parked(self) -> frozenset[int]:
        """Serial numbers of the entries of tasks that do not run."""
        return frozenset(entry.serial for entries in self._parked.values() for entry in entries)

    def save(self) -> ChainState:
        """The state, to come back to after a machine snapshot is restored."""
        return ChainState(dict(self._open), dict(self._parked))

    def load(self, saved: ChainState) -> None:
        """Back to a saved state."""
        self._open, self._parked = dict(saved.open), dict(saved.parked)
        self.last_return, self._seen, self.broken = _NOTHING, None, False

    # --- events -----------------------------------------------------------------------------------------------------
    def _push(
        self, event: SystemCall | Delivered, words: FrameWords,
        vector: int | None = None, ist: int = 0, kind: EventType | None = None,
    ) -> None:  # fmt: skip
        view, cpu, from_user = self._view, event.cpu, words[1] & 3 == 3
        self._serial += 1
        entry = Entry(self._serial, event, from_user, words, view.cr3(cpu), view.raw_registers(cpu), vector, ist, kind)
        # What user mode was doing when it entered is over: an older entry of this CPU never returned.
        self._open[cpu] = (entry,) if from_user else (*self._open.get(cpu, ())[-MAX_DEPTH:], entry)

    def _system_call(self, event: SystemCall) -> None:
        if event.by == "sysenter":  # the CPU saves nothing: the entry leaves RIP and RSP to C
            words = (0, _USER32_CS, event.flags & ~_LOST_BY_SYSENTER, 0, _USER_DS)
        else:
            words = (event.return_ip, _USER32_CS if event.compat else _USER_CS, event.flags, event.sp, _USER_DS)
        self._push(event, words)

    def _delivered(self, event: Delivered) -> None:
        frame = event.frame
        words = frame.ip, frame.cs, frame.flags, frame.sp, frame.ss
        self._push(event, words, event.vector, event.ist, event.type)

    def _c_called(self, event: CCalled) -> None:
        if event.name == "__switch_to" and len(event.args) >= 2:
            self._parked[event.args[0]] = self._open.get(event.cpu, ())
            self._open[event.cpu] = self._parked.pop(event.args[1], ())
        elif event.name in TASK_BEGINS:
            self._open[event.cpu] = ()  # whoever had this task_struct before is dead

    def _returned(self, event: Returned) -> None:
        cpu, frame = event.cpu, event.frame
        entries = self._open.get(cpu, ())
        if frame.cs & 3:
            self._open[cpu] = ()
            self.last_return = Return(USER, entries[-1] if entries else None, event.ip)
            return
        for index in range(len(entries) - 1, -1, -1):
            ip, cs, _, sp, _ = entries[index].words
            if ip == frame.ip and sp == frame.sp and cs == frame.cs:
                self._close(event, entries, index, MATCH)
                return
        if frame.ip == self._repeat:
            for index in range(len(entries) - 1, -1, -1):
                if entries[index].type is _NMI:
                    self._open[cpu] = entries[: index + 1]
                    self.last_return = Return(REPEAT, entries[index], event.ip)
                    return
        if not entries:
            self.last_return = _NOTHING
            return
        self._close(event, entries, len(entries) - 1, CHANGED)

    def _close(self, event: Returned, entries: tuple[Entry, ...], index: int, how: Closing) -> None:
        self._open[event.cpu] = entries[:index]
        self.last_return = Return(how, entries[index], event.ip)


TASK_BEGINS = frozenset({"ret_from_fork", "schedule_tail"})
"""A new task's first C function."""
_EXCEPTIONS = {vector.value: f"#{vector.name}" for vector in Vector if vector is not Vector.NMI}
_EXCEPTIONS[Vector.OLD_MF.value] = "vector 9"
_EXCEPTIONS[Vector.SPURIOUS.value] = "vector 15"


def call_words(event: SystemCall) -> str:
    """`SYSCALL 39 (getpid)`; i386 calls as `SYSENTER 20 (getpid, 32-bit)`."""
    number = event.number
    if event.by == "sysenter" or event.compat:
        number &= 0xFFFF_FFFF
        return f"{event.by.upper()} {number} ({ia32_syscall_name(number)}, 32-bit)"
    return f"{event.by.upper()} {number} ({syscall_name(number)})"


def vector_name(vector: int, kind: EventType) -> str:
    """`#PF`, `NMI`, `interrupt 0x30`, `INT 0x80`."""
    if vector == Vector.NMI and kind is EventType.NMI:
        return "NMI"
    if kind is EventType.EXTINT:
        return f"interrupt {vector:#x}"
    if kind is EventType.SWINT:
        return f"INT {vector:#x}"
    return _EXCEPTIONS.get(vector, f"vector {vector:#x}")
