"""The scenario file: TOML, read into frozen models. docs/scenarios.md is its reference for people.

A scenario is untrusted: nothing in it names a file of the host. Whatever is wrong with one is a ScenarioError whose
lines are `file:line: what`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from emu.arch import Vector
from emu.errors import ScenarioError
from emu.lab.complaints import complaints
from emu.lab.locate import Lines, locate
from emu.machine.profile import Profile
from kernel_stubs.signal import Sig

MAX_FILE = 1 << 20
MAX_BUDGET = 1_000_000_000


def signal_number(value: object) -> object:
    """`"SIGSEGV"` -> 11; numbers stay."""
    if isinstance(value, str):
        name = "SIG" + value.upper().removeprefix("SIG")
        if name not in Sig.__members__:
            raise ValueError(f"there is no signal {value!r}")
        return int(Sig[name])
    return value


def vector_number(value: object) -> object:
    """`"PF"` or `"#PF"` -> 14; numbers stay."""
    if isinstance(value, str):
        name = value.upper().removeprefix("#")
        if name not in Vector.__members__:
            names = ", ".join(Vector.__members__)
            raise ValueError(f"there is no exception {value!r}; use a number, or one of {names}")
        return int(Vector[name])
    return value


def vector_range(value: object) -> object:
    """`"0x20..0xeb"` -> the vectors from the first to the last; else one vector."""
    if isinstance(value, str) and ".." in value:
        first, _, last = value.partition("..")
        try:
            numbers = tuple(range(int(first, 0), int(last, 0) + 1))
        except ValueError:
            raise ValueError(f"{value!r} is no range of vectors, such as '0x20..0xeb'") from None
        if not numbers or numbers[0] < 0 or numbers[-1] > 255:
            raise ValueError(f"{value!r} is no range of vectors: they rise from 0 to 255 at most")
        return numbers
    return (vector_number(value),)


def _place(value: object) -> object:
    """A number is a place too."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError("the number does not fit in 64 bits")
        return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}"
    if not isinstance(value, str):
        raise ValueError("must be a number or a place such as 'symbol+0x8'")
    return value


_INT_OR_STRING = {"type": ["integer", "string"]}
Place = Annotated[str, BeforeValidator(_place), Field(min_length=1, json_schema_extra=_INT_OR_STRING)]
"""An address or value: a number, or text that emu.lab.places resolves (`symbol+0x8`, `user:label`, `tss:ist1`)."""
SignalNumber = Annotated[int, BeforeValidator(signal_number), Field(ge=1, le=64, json_schema_extra=_INT_OR_STRING)]
VectorNumber = Annotated[int, BeforeValidator(vector_number), Field(ge=0, le=255, json_schema_extra=_INT_OR_STRING)]
VectorRange = Annotated[
    tuple[Annotated[int, Field(ge=0, le=255)], ...],
    BeforeValidator(vector_range), Field(json_schema_extra=_INT_OR_STRING),
]  # fmt: skip
Texts = Annotated[tuple[str, ...], Field(strict=False)]


class Model(BaseModel):
    """Frozen, strict about types and names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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


EventName = Literal[
    "nmi", "irq", "timer", "machine-check", "exception", "page-not-present", "register", "memory", "signal",
    "thread-flag", "text-poke",
]  # fmt: skip
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nmi": ((), ()),
    "irq": ((), ("vector", "vectors", "line")),
    "timer": ((), ()),
    "machine-check": ((), ()),
    "exception": ((), ("vector", "vectors", "error_code", "address")),
    "page-not-present": (("address",), ()),
    "register": (("register", "value"), ()),
    "memory": (("address", "value"), ("size",)),
    "signal": (("signal",), ()),
    "thread-flag": (("flag",), ()),
    "text-poke": (("address",), ()),
}
"""Event -> fields that it needs, fields that it may have."""


class Inject(Model):
    """`[[inject]]`: one event at one instruction boundary, before the instruction executes."""

    event: EventName
    at: Annotated[str, Field(min_length=1)] | None = None
    instruction: NonNegativeInt | None = None
    each: Annotated[str, Field(min_length=1)] | None = None
    hit: PositiveInt = 1
    cpu: NonNegativeInt = 0
    vector: VectorNumber | None = None
    vectors: Annotated[tuple[VectorRange, ...], Field(strict=False)] | None = None
    """One at each arrival, from `hit` on."""
    line: NonNegativeInt | None = None
    error_code: Annotated[int, Field(ge=0, le=0xFFFF_FFFF)] | None = None
    address: Place | None = None
    value: Place | None = None
    size: Literal[1, 2, 4, 8] | None = None
    register_: str | None = Field(default=None, alias="register")
    signal: SignalNumber | None = None
    flag: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Inject:
        wheres = [name for name in ("at", "instruction", "each") if getattr(self, name) is not None]
        if len(wheres) != 1:
            given = f", not {' and '.join(wheres)}" if wheres else ""
            raise ValueError(f"give one of at, instruction and each{given}")
        if self.instruction is not None and self.hit != 1:
            raise ValueError("hit counts arrivals at a place; it makes no sense with instruction")
        needed, allowed = _FIELDS[self.event]
        for name in (
            "vector",
            "vectors",
            "line",
            "error_code",
            "address",
            "value",
            "size",
            "register",
            "signal",
            "flag",
        ):
            present = self.field(name) is not None
            if present and name not in needed and name not in allowed:
                raise ValueError(f"event {self.event!r} has no {name}")
            if not present and name in needed:
                raise ValueError(f"event {self.event!r} needs {name}")
        if self.event == "irq" and sum(x is not None for x in (self.vector, self.vectors, self.line)) != 1:
            raise ValueError("event 'irq' needs one of vector, vectors and line")
        if self.event == "exception" and (self.vector is None) == (self.vectors is None):
            raise ValueError("event 'exception' needs either vector or vectors")
        if self.vectors is not None and self.at is None:
            raise ValueError("vectors come one at each arrival at a place: give at")
        for vector in self.all_vectors():
            if self.event == "irq" and vector < 16:
                raise ValueError(f"vector {vector} is no interrupt's: the local APIC refuses vectors below 16")
            if self.event == "exception" and vector > 31:
                raise ValueError(f"vector {vector:#x} is no exception's: those are 0 to 31")
        return self

    def all_vectors(self) -> tuple[int, ...]:
        """Of `vector` or `vectors`."""
        if self.vectors is not None:
            return tuple(vector for some in self.vectors for vector in some)
        return () if self.vector is None else (self.vector,)

    def single(self) -> tuple[Inject, ...]:
        """With `vectors`: an injection of one vector for each arrival."""
        if self.vectors is None:
            return (self,)
        return tuple(
            self.model_copy(update={"vectors": None, "vector": vector, "hit": self.hit + number})
            for number, vector in enumerate(self.all_vectors())
        )

    def field(self, name: str) -> object:
        """A field by its name in the file."""
        value: object = getattr(self, "register_" if name == "register" else name)
        return value


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


class Sweep(Model):
    """`[sweep]`: what `entry64 check` sweeps the scenario with."""

    events: Annotated[
        tuple[Literal["nmi", "irq", "timer", "resched", "mce", "db", "pf"], ...], Field(strict=False, min_length=1)
    ]
    depth: Annotated[int, Field(ge=1, le=3)] = 1
    window: str = ""
    known: Annotated[tuple[Known, ...], Field(strict=False)] = ()


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
    sweep: Sweep | None = None

    @model_validator(mode="after")
    def _one_each(self) -> Scenario:
        if sum(injection.each is not None for injection in self.inject) > 1:
            raise ValueError("only one [[inject]] may have each")
        return self


class ScenarioFile:
    """A scenario with where its parts stand."""

    def __init__(self, name: str, scenario: Scenario, lines: Lines, text: str = "") -> None:
        self.name = name
        """The file's name in messages."""
        self.text = text
        self.scenario = scenario
        self.lines = lines

    def where(self, *path: str | int) -> str:
        """`file:line` of a key."""
        return f"{self.name}:{self.lines.of(path)}"


def parse_scenario(text: str, name: str) -> ScenarioFile:
    """Read a scenario from its text; `name` stands for the file in messages."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(f"{name}:1: not TOML: nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or a number that int() refuses
        raise ScenarioError(_syntax_error(name, text, str(error))) from None
    lines = locate(text)
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError("\n".join(complaints(error, Scenario, name, lines))) from None
    return ScenarioFile(name, scenario, lines, text)


def _syntax_error(name: str, text: str, message: str) -> str:
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found:
        return f"{name}:{found[1]}: not TOML: {message[: found.start()]}, in column {found[2]}"
    message = message.removesuffix(" (at end of document)")
    if message.startswith("Exceeds the limit"):
        message = "a number has too many digits"
    return f"{name}:{len(text.splitlines()) or 1}: not TOML: {message.splitlines()[0]}"


def read_scenario(path: Path, name: str | None = None) -> ScenarioFile:
    """Read a scenario file."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ScenarioError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a null byte in the name
        raise ScenarioError(f"{name!r}: cannot be read: {error}") from None
    if len(data) > MAX_FILE:
        raise ScenarioError(f"{name}: larger than {MAX_FILE >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{name}:{line}: not UTF-8 (byte {data[error.start]:#04x})") from None
    return parse_scenario(text, name)


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of the file format, for editors."""
    return Scenario.model_json_schema()
