"""Why a run of a CPU's engine ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StopKind(Enum):
    """Why a run ended."""

    COUNT = "count"  # as many instructions retired as asked for
    BREAK = "break"  # before an instruction that has a stop on it
    FAULT = "fault"  # an exception; RIP on the instruction (after it for a single-step #DB)
    SOFTWARE = "software"  # INT n, INT3: RIP after it
    SYSCALL = "syscall"  # RIP after it
    SYSENTER = "sysenter"  # RIP after it
    CPUID = "cpuid"  # RIP after it
    RDTSC = "rdtsc"  # RIP after it
    IN = "in"  # RIP after it
    OUT = "out"  # RIP after it
    MMIO = "mmio"  # wrote to a device's memory; RIP after the writing instruction
    HALT = "halt"  # HLT at CPL 0; RIP after it
    BUS = "bus"  # physical memory that is not there


# Names of a module are found several times as fast as members of an enum; these are asked for at each stop.
COUNT, BREAK, FAULT, SOFTWARE, MMIO = (
    StopKind.COUNT, StopKind.BREAK, StopKind.FAULT, StopKind.SOFTWARE, StopKind.MMIO
)  # fmt: skip
SYSCALL, SYSENTER, HALT, BUS = StopKind.SYSCALL, StopKind.SYSENTER, StopKind.HALT, StopKind.BUS


@dataclass(slots=True)
class Stop:
    """The end of a run: its kind, how many instructions retired, RIP, and what belongs to the kind."""

    kind: StopKind
    retired: int
    ip: int
    vector: int = 0
    error_code: int = 0
    start: int = 0
    """IN and OUT: address of the instruction."""
    port: int = 0
    size: int = 0
    value: int = 0
    """OUT: what was written. IN: RAX before it."""
    old_cr2: int = 0
