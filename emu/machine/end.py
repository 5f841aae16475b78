"""How a run of a CPU ends."""

from __future__ import annotations

from enum import Enum

from emu.record import record


class EndKind(Enum):
    """Why `advance` returned."""

    LIMIT = "limit"  # the clock reached the limit
    UNTIL = "until"  # the caller's condition holds
    BREAKPOINT = "breakpoint"  # before an instruction that the laboratory asked for
    HALTED = "halted"  # HLT, and nothing will ever wake this CPU
    SHUTDOWN = "shutdown"  # triple fault
    CRASHED = "crashed"  # the kernel gave up (oops, panic)
    FINISHED = "finished"  # nothing left to run
    STUCK = "stuck"  # fault after fault without an instruction in between


@record
class End:
    """The end of `advance`, with a text for people."""

    kind: EndKind
    ip: int
    text: str = ""
