"""A case: what the CPU is given and which few instructions it executes. What it does then is for the oracles to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from conformance import layout
from conformance.fields import COMPARED, INPUTS

Vendor = Literal["intel", "amd"]
Value = int | str
"""A number, or an assembler expression; `@name` in it is a label of the case's code (its kernel address)."""

SETTABLE = frozenset(COMPARED) | {"rip", "gdt_limit", "gdt_base", "idt_limit", "idt_base", "handler", "apic"}


@dataclass(frozen=True)
class Case:
    """One micro-test.

    code: AT&T assembly; `@name` is a label private to the case. It runs at CPL `cpl` (at its kernel or user address)
    and ends with an event; one that falls off its end executes INT 0xFF, which reports the state and a frame (vector
    ff). set: initial values of fields.COMPARED and INPUTS. gdt: descriptors by selector. idt: gates by vector. tss:
    words by offset. pages: page-table entries by linear address (of the kernel or user map). memory: quadwords by
    linear kernel address.
    """

    name: str
    code: str
    cpl: int = 0
    cpu: tuple[Vendor, ...] = ("intel",)
    set: Mapping[str, Value] = field(default_factory=dict)
    gdt: Mapping[int, Value] = field(default_factory=dict)
    idt: Mapping[int, bytes] = field(default_factory=dict)
    tss: Mapping[int, int] = field(default_factory=dict)
    pages: Mapping[int, int] = field(default_factory=dict)
    memory: Mapping[int, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.set) - SETTABLE
        if unknown:
            raise ValueError(f"case {self.name}: no field {', '.join(sorted(unknown))}; fields: {sorted(SETTABLE)}")


def on_user(name: str) -> str:
    """The user address of a label of the case."""
    return f"{name} + {layout.USER - layout.KERNEL:#x}"


assert set(INPUTS) - SETTABLE == {"patches", "patch_list"}
