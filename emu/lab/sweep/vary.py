"""`[sweep.vary]`: the program as an adversary. What it controls takes corner values, pair by pair.

At one boundary of user mode the sweep changes registers, or the signal frame that `rt_sigreturn` is about to read, as
the program itself could: a value that it cannot have there (a selector without a descriptor, a kernel address in
GS_BASE without FSGSBASE) is left out. Each row of a pairwise covering array is a run of its own, which the invariants
judge and in which the events are raised as in the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from emu.arch import PAGE_SIZE, Cr4, Rflags
from emu.errors import ScenarioError
from emu.lab.injection import CannotInject
from emu.lab.injection.segments import SEGMENT_REGISTERS
from emu.lab.places import Places
from emu.lab.scenario import ScenarioFile, Vary
from emu.lab.sweep.event import Ending, SweepEvent, Table, Tables, raiser
from emu.lab.sweep.pairwise import pairwise
from emu.machine.registers import REGISTER_NAMES
from kernel_stubs.abi import TASK_SIZE_MAX
from kernel_stubs.context import KernelOops
from kernel_stubs.signal_frame64 import SIGCONTEXT_REGISTERS, UC_MCONTEXT

if TYPE_CHECKING:
    from emu.lab.sweep.bench import Bench, Saved

FAMILY = "vary"
CORNERS, HIGH_BITS = "corners", "high-bits"
_FRAME = "frame_"
_FRAME_AT = {name: (UC_MCONTEXT + 8 * number, 8) for number, name in enumerate(SIGCONTEXT_REGISTERS)}
_FRAME_AT |= {
    name: (UC_MCONTEXT + 8 * len(SIGCONTEXT_REGISTERS) + 2 * n, 2) for n, name in enumerate(("cs", "gs", "fs", "ss"))
}
_GARBAGE = 0x5EED_5EED << 32

_NON_CANONICAL, _LAST_USER, _KERNEL = "0x800000000000", f"{TASK_SIZE_MAX:#x}", "0xffff888000001000"
_NUMBERS = ("0", "0xffffffffffffffff", "0x8000000000000000", _NON_CANONICAL, _KERNEL, HIGH_BITS)
_STACKS = ("1", _NON_CANONICAL, _LAST_USER, "0xfffffffffffffff8", "stack:task+0x800", "stack:nmi+0x800")
_BASES = ("0", f"{TASK_SIZE_MAX - PAGE_SIZE:#x}", _KERNEL, "0xffffffffffffffff")
_TEXTS = ("0", _LAST_USER, _NON_CANONICAL, "0xffffffff81000000", "0xffffffffffffffff")
_DATA = ("0", "3", "0x2b", "0x23", "0x7b", "0x63", "0x7", "0xf")
_USER_FLAGS = ("NT", "TF", "AC", "DF", "NT|TF|AC|DF")
_CORNERS: dict[str, tuple[str, ...]] = dict.fromkeys((*REGISTER_NAMES, "frame_ax", "frame_dx"), _NUMBERS) | {
    "rsp": _STACKS,
    "frame_sp": _STACKS,
    "rflags": _USER_FLAGS,
    "frame_flags": (*_USER_FLAGS, "RF", "IOPL", "VM"),
    "frame_r11": (*_USER_FLAGS, "RF", "IOPL", "VM"),
    "fs_base": _BASES,
    "gs_base": _BASES,
    "ds": _DATA, "es": _DATA, "fs": _DATA, "gs": _DATA,
    "ss": ("0x2b", "0x7", "0xf"),
    "frame_ip": _TEXTS,
    "frame_cx": _TEXTS,
    "frame_cs": ("0", "0x10", "0x13", "0x23", "0x2b", "0xf", "0xffff"),
    "frame_ss": ("0", "0x18", "0x1b", "0x33", "0x7", "0xf", "0xffff"),
}  # fmt: skip
"""Variable -> what `corners` stands for: null, kernel and non-canonical addresses, negative bases, LDT selectors."""
_FLAG_VARIABLES = frozenset({"rflags", "frame_flags", "frame_r11"})


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable with one of its values."""

    variable: str
    value: str
    """As the scenario writes it."""
    table: Table

    def __str__(self) -> str:
        return f"{self.variable} = {self.value}"


class Variation:
    """The rows of one scenario, found at the boundary where they begin."""

    def __init__(self, file: ScenarioFile, spec: Vary, places: Places) -> None:
        self._file, self._spec, self._places = file, spec, places
        where = file.where("sweep", "vary", "at")
        self.addresses = places.boundary(spec.at, where).addresses
        self.hit = spec.hit
        if file.scenario.user.bits == 32 and any(name.startswith(_FRAME) for name in spec.values):
            raise ScenarioError(f"{file.where('sweep', 'vary', 'values')}: frames are those of 64-bit programs")
        self._values = {name: tuple(self._expand(name)) for name in spec.values}
        self._rows: tuple[tuple[Choice, ...], ...] | None = None

    def _expand(self, name: str) -> list[str]:
        values = [
            one for value in self._spec.values[name] for one in (_CORNERS[name] if value == CORNERS else (value,))
        ]
        for value in values:
            self._check(name, value)
        return list(dict.fromkeys(values))

    def _check(self, name: str, value: str) -> None:
        where = self._file.where("sweep", "vary", "values", name)
        if name in _FLAG_VARIABLES:
            unknown = [flag for flag in value.split("|") if flag.upper() not in Rflags.__members__]
            if unknown:
                raise ScenarioError(f"{where}: no flag {unknown[0]!r}; write names such as 'NT|AC', or '{CORNERS}'")
        elif value != HIGH_BITS:
            self._places.address(value, where)

    def rows(self, bench: Bench) -> tuple[tuple[Choice, ...], ...]:
        """What each row changes, in order; the bench is at the boundary, and stays there."""
        if self._rows is None:
            if not bench.binding.at_rest:
                raise ScenarioError(
                    f"{self._file.where('sweep', 'vary', 'at')}: another task sleeps in the kernel here"
                )
            saved = bench.save()
            columns: list[list[Choice]] = []
            for name, values in self._values.items():
                choices = [choice for value in values if (choice := self._choice(bench, name, value)) is not None]
                columns.append([choice for choice in choices if self._applies(bench, choice, saved)])
            possible = [column for column in columns if column]
            rows = pairwise([1 + len(column) for column in possible])
            self._rows = tuple(
                tuple(column[value - 1] for column, value in zip(possible, row, strict=True) if value) for row in rows
            )
        return self._rows

    def _choice(self, bench: Bench, name: str, value: str) -> Choice | None:
        core = bench.core
        if name.startswith(_FRAME):
            offset, size = _FRAME_AT[name.removeprefix(_FRAME)]
            at = core.cpu.sp + offset
            now = int.from_bytes(bench.view.read(0, at, size), "little")
            number = self._number(bench, name, value, now)
            return Choice(name, value, {"event": "memory", "address": at, "value": number, "size": size})
        now = core.cpu.flags if name == "rflags" else 0
        if name in REGISTER_NAMES:
            now = core.cpu.register(REGISTER_NAMES.index(name))
        number = self._number(bench, name, value, now)
        # ARCH_SET_GS takes user addresses alone; WRGSBASE takes what is canonical.
        if name.endswith("_base") and number >= TASK_SIZE_MAX and not core.cpu.cr4 & Cr4.FSGSBASE:
            return None
        if name in SEGMENT_REGISTERS:
            number &= 0xFFFF
        return Choice(name, value, {"event": "register", "register": name, "value": number})

    def _number(self, bench: Bench, name: str, value: str, now: int) -> int:
        if name in _FLAG_VARIABLES:
            flags = reduce(lambda bits, flag: bits | Rflags[flag.upper()], value.split("|"), 0)
            return now | int(flags)
        if value == HIGH_BITS:
            return now & 0xFFFF_FFFF | _GARBAGE
        return self._places.address(value, "vary")(bench.system.kernel, bench.core)

    def _applies(self, bench: Bench, choice: Choice, saved: Saved) -> bool:
        """Whether the program can have it here."""
        try:
            raiser([choice.table], self._places)(bench.system.kernel, bench.core)
        except (CannotInject, KernelOops):
            return False
        finally:
            bench.load(saved)
        return True

    def event(self, number: int, row: tuple[Choice, ...]) -> SweepEvent:
        """A row as an event of the sweep."""
        # The frame first: where it is, RSP says.
        ordered = sorted(row, key=lambda choice: not choice.variable.startswith(_FRAME))
        tables: Tables = tuple(choice.table for choice in ordered)
        words = ", ".join(map(str, row))
        ending = Ending(anything=True)
        return SweepEvent(f"{FAMILY}.{number}", -1, tables=lambda bench: tables, ending=ending, words=words, arms=True)
