"""The tables of a scenario file as frozen models."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from emu.lab.scenario.cell import Cell
from emu.lab.scenario.inject import Inject
from emu.lab.scenario.values import Model, SignalNumber, Texts, Values
from emu.machine.profile import Profile
from emu.machine.registers import REGISTER_NAMES

MAX_BUDGET = 1_000_000_000


class CpuModel(Model):
    """`[cpu]`: vendor behaviour and features."""

    profile: Literal["intel", "amd"] = "intel"
    smap: bool = True
    smep: bool = True
    umip: bool = True
    fsgsbase: bool = True

    def profile_of_machine(self) -> Profile:
        """What the machine is built from."""
        return Profile(self.profile, smep=self.smep, smap=self.smap, umip=self.umip, fsgsbase=self.fsgsbase)


class User(Model):
    """`[user]`: the program that runs at CPL 3."""

    asm: str
    bits: Literal[32, 64] = 64
    """32: it runs in compatibility mode, and makes i386 system calls."""
    argv: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=64)] = ("user",)
    stdin: str = ""


class Timer(Model):
    """`[timer]`: the local APIC timer."""

    period: Annotated[int, Field(gt=0, le=0xFFFF_FFFF)]
    """Instructions between two interrupts."""


class Options(Model):
    """`[options]`: how the C side behaves."""

    nmi_touches_memory: bool = False
    """exc_nmi touches kernel memory that is not mapped yet, so it takes a page fault, whose IRETQ unmasks NMIs."""
    panic_on_oops: bool = True
    """An exception in kernel mode ends the run; else it ends the task, unless that is init or in an interrupt."""
    init_thread: bool = False
    """linux-2.6: the program begins as a kernel thread, by kernel_execve, as the first program of a real one does."""
    ram: Annotated[int, Field(ge=2, le=4096)] = 32
    """MiB of memory."""


class Expect(Model):
    """`[expect]`: what must come out; every key is one check."""

    exit: Annotated[int, Field(ge=0, le=255)] | None = None
    signal: SignalNumber | None = None
    stdout: str | None = None
    stderr: str | None = None
    calls: Texts = ()
    """C functions called in this order, others between them allowed."""
    never: Texts = ()
    """C functions that are not called."""
    count: dict[str, NonNegativeInt] = {}
    """How often C functions are called."""
    returns: Annotated[tuple[Literal["sysretq", "iretq"], ...], Field(strict=False)] = ()
    """How user mode is returned to, the last times."""
    faults: NonNegativeInt | None = None
    """Number of page faults."""
    end: Literal["finished", "halted", "crashed", "shutdown", "stuck", "budget"] | None = None
    console: str | None = None
    """Part of what the C side reported: a note, or the text of a crash."""
    violation: str | None = None
    """The invariant that a known-bad scenario violates first; what follows is taken as its consequence."""

    @model_validator(mode="after")
    def _consistent(self) -> Expect:
        if self.exit is not None and self.signal is not None:
            raise ValueError("a program ends by exit or by signal, not by both")
        return self


class Schedule(Model):
    """`[schedule]`: how several CPUs take turns."""

    quantum: Annotated[int, Field(gt=0, le=1_000_000)] = 1000
    """Instructions of one CPU at a time, at most."""
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    """Draws the length of each turn and the order of the CPUs; without it both stay as they are."""


class Known(Model):
    """`[[sweep.known]]`: a hole that the image really has; the sweep must find just that."""

    invariant: Annotated[str, Field(min_length=1)]
    at: Annotated[str, Field(min_length=1)]
    """Symbol of the instruction, with or without an offset."""
    reason: Annotated[str, Field(min_length=1)]
    full: bool = False
    """Whether only the full sweep (`check --full`) comes to it, for the scenario declares a smaller one."""

    def means(self, invariant: str, where: str) -> bool:
        """Whether a violation, at a place as messages write it, is this hole."""
        place = where.partition(" ")[0]
        return invariant == self.invariant and self.at in (place, place.partition("+")[0])


VARIABLES = (
    *REGISTER_NAMES, "rflags", "fs_base", "gs_base", "ds", "es", "fs", "gs", "ss",
    *(f"frame_{name}" for name in ("ip", "cs", "flags", "sp", "ss", "ax", "cx", "dx", "r11")),
)  # fmt: skip
"""What `vary` can change: the program's registers, and words of the signal frame that RSP points at."""
SweepEventName = Literal["nmi", "irq", "timer", "resched", "mce", "db", "pf", "access"]


class Vary(Model):
    """`[sweep.vary]`: values that user mode controls take corner values, pair by pair, at one point of the program."""

    at: str
    """Before this instruction of user mode."""
    hit: PositiveInt = 1
    values: Annotated[dict[str, Values], Field(min_length=1)]
    """Variable -> values to take besides its own."""

    @field_validator("at")
    @classmethod
    def _in_the_program(cls, at: str) -> str:
        if not at.startswith("user:"):
            raise ValueError(f"{at!r} is not in the program; give a place such as 'user:label'")
        return at

    @field_validator("values")
    @classmethod
    def _known(cls, values: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in values:
            if name not in VARIABLES:
                near = difflib.get_close_matches(name, VARIABLES, 3, 0.5)
                hint = f"near: {', '.join(near)}" if near else f"known: {', '.join(VARIABLES)}"
                raise ValueError(f"nothing called {name!r} can vary; {hint}")
        return values


class Sweep(Model):
    """`[sweep]`: what `entry64 check` sweeps the scenario with."""

    events: Annotated[tuple[SweepEventName, ...], Field(strict=False)] = ()
    omitted: str = ""
    """Why there is no sweep of this scenario at all; then there is nothing else."""
    full: bool = False
    """Whether there is only the full sweep (`check --full`), which takes too long for every day."""
    first: Annotated[tuple[SweepEventName, ...], Field(strict=False)] = ()
    """Those of them that come first, if others are for the nested places only."""
    depth: Annotated[int, Field(ge=1, le=3)] = 1
    window: str = ""
    cpus: Annotated[tuple[Annotated[int, Field(ge=0, le=7)], ...], Field(strict=False)] = ()
    """Those that are swept, one after the other; all if none are named."""
    known: Annotated[tuple[Known, ...], Field(strict=False)] = ()
    vary: Vary | None = None

    @model_validator(mode="after")
    def _some_or_none(self) -> Sweep:
        if self.omitted and self.model_fields_set != {"omitted"}:
            raise ValueError("omitted: there is no sweep then, so there can be nothing else in it")
        if self.full and not self.model_fields_set <= {"full", "known", "cpus", "vary"}:
            raise ValueError(
                "full: that sweep is of all events at all instructions, so only known, cpus, vary can be here"
            )
        if not self.omitted and not self.full and not self.events:
            raise ValueError("events: name some, or say `full = true`, or in `omitted` why there are none")
        return self

    @property
    def daily(self) -> bool:
        """Whether `entry64 check` sweeps the scenario without being asked for the full sweep."""
        return not self.omitted and not self.full

    @model_validator(mode="after")
    def _first_of_them(self) -> Sweep:
        if not set(self.first) <= set(self.events):
            raise ValueError("first: each must be one of events")
        return self


class Scenario(Model):
    """A whole scenario file."""

    title: Annotated[str, Field(min_length=1)]
    shows: str = ""
    kernel: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "linux-6"
    cpu: CpuModel = CpuModel()
    cpus: Annotated[int, Field(ge=1, le=8)] = 1
    schedule: Schedule = Schedule()
    user: User
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0
    budget: Annotated[int, Field(gt=0, le=MAX_BUDGET)] = 1_000_000
    """Instructions after which a run is given up."""
    timer: Timer | None = None
    options: Options = Options()
    inject: Annotated[tuple[Inject, ...], Field(strict=False, max_length=64)] = ()
    expect: Expect = Expect()
    cell: Annotated[tuple[Cell, ...], Field(strict=False, max_length=64)] = ()
    sweep: Sweep | None = None

    @model_validator(mode="after")
    def _one_each(self) -> Scenario:
        if sum(injection.each is not None for injection in self.inject) > 1:
            raise ValueError("only one [[inject]] may have each")
        if self.cell and any(injection.each is not None for injection in self.inject):
            raise ValueError("a scenario with a [[cell]] is one run: no [[inject]] may have each")
        return self
