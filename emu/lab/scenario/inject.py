"""`[[inject]]`: what one injection of a scenario may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from emu.lab.scenario.values import Model, Place, SignalNumber, VectorNumber, VectorRange

EventName = Literal[
    "nmi", "irq", "timer", "machine-check", "exception", "page-not-present", "register", "memory", "signal",
    "thread-flag", "text-poke",
]  # fmt: skip
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nmi": ((), ()),
    "irq": ((), ("vector", "vectors", "line")),
    "timer": ((), ()),
    "machine-check": ((), ("value",)),
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
