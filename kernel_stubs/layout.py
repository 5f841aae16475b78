"""Guest structures as ctypes classes: fields are annotated once, views are live windows on guest RAM.

    @layout
    class ThreadInfo(Struct):
        flags: U64

A class made this way has the C layout (natural alignment, or `pack`), `offset("flags")`, and can be laid over guest
memory with `from_buffer`. Reading and writing an attribute reads and writes the guest's RAM; there is no copy to sync.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

U8 = Annotated[int, ctypes.c_uint8]
U16 = Annotated[int, ctypes.c_uint16]
U32 = Annotated[int, ctypes.c_uint32]
U64 = Annotated[int, ctypes.c_uint64]
S32 = Annotated[int, ctypes.c_int32]
S64 = Annotated[int, ctypes.c_int64]


@cache
def _compiled(annotation: str) -> CodeType:
    return compile(annotation, "<annotation>", "eval")


def evaluated(annotations: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """Annotations as what they name in a module; typing.get_type_hints takes ten times as long at each start.

    They are Any because an annotation may be anything.
    """
    return {name: eval(_compiled(kind), names) if isinstance(kind, str) else kind for name, kind in annotations.items()}


class Struct(ctypes.LittleEndianStructure):
    """Base of all guest structures."""

    SIZE: ClassVar[int]

    @classmethod
    def offset(cls, field: str) -> int:
        """Byte offset of `field`."""
        offset: int = getattr(cls, field).offset
        return offset


S = TypeVar("S", bound=type[Struct])


def layout(pack: int | None = None) -> Callable[[S], S]:
    """Turn annotations into ctypes fields, in order; `pack` as in C's #pragma pack."""

    def apply(cls: S) -> S:
        hints = evaluated(cls.__annotations__, vars(sys.modules[cls.__module__]))
        fields = []
        for name in cls.__annotations__:
            hint = hints[name]
            fields.append((name, get_args(hint)[1] if get_origin(hint) is Annotated else hint))
        if pack is not None:
            cls._pack_ = pack
        cls._fields_ = fields
        cls.SIZE = ctypes.sizeof(cls)
        return cls

    return apply


def constants(prefix: str, cls: type[Struct]) -> dict[str, int]:
    """PREFIX_FIELD -> offset for every field (dotted one level for nested structures), and PREFIX_SIZE."""
    table: dict[str, int] = {f"{prefix}_SIZE": ctypes.sizeof(cls)}
    for entry in cls._fields_:
        name, kind = entry[0], entry[1]
        if name.startswith("pad"):
            continue
        table[f"{prefix}_{name.upper()}"] = cls.offset(name)
        if isinstance(kind, type) and issubclass(kind, Struct):
            for inner, offset in constants(f"{prefix}_{name.upper()}", kind).items():
                if not inner.endswith("_SIZE"):
                    table[inner] = cls.offset(name) + offset
    return table
