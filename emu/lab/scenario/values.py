"""Values of scenario files that are more than a number or a text: signals, vectors, places."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from emu.arch import Vector
from kernel_stubs.signal import Sig


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


def place(value: object) -> object:
    """A number is a place too."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError("the number does not fit in 64 bits")
        return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}"
    if not isinstance(value, str):
        raise ValueError("must be a number or a place such as 'symbol+0x8'")
    return value


_INT_OR_STRING = {"type": ["integer", "string"]}
Place = Annotated[str, BeforeValidator(place), Field(min_length=1, json_schema_extra=_INT_OR_STRING)]
"""An address or value: a number, or text that emu.lab.places resolves (`symbol+0x8`, `user:label`, `tss:ist1`)."""
SignalNumber = Annotated[int, BeforeValidator(signal_number), Field(ge=1, le=64, json_schema_extra=_INT_OR_STRING)]
VectorNumber = Annotated[int, BeforeValidator(vector_number), Field(ge=0, le=255, json_schema_extra=_INT_OR_STRING)]
VectorRange = Annotated[
    tuple[Annotated[int, Field(ge=0, le=255)], ...],
    BeforeValidator(vector_range), Field(json_schema_extra=_INT_OR_STRING),
]  # fmt: skip
Texts = Annotated[tuple[str, ...], Field(strict=False)]


def _values(value: object) -> object:
    """One value, or several."""
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(place(one) for one in several)


Values = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_values), Field(min_length=1)]
"""Numbers, places, names of flags, or words such as `corners`."""


class Model(BaseModel):
    """Frozen, strict about types and names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
