"""What a case is, and its verdict."""

from __future__ import annotations

from emu.lab.sweep.bench import Boundary
from emu.lab.sweep.event import SweepEvent, Tables
from emu.lab.sweep.state import Apart
from emu.lab.violation import Violation
from emu.record import record

CLEAN, PENDING, VIOLATION, CRASH, HANG, LOST = "clean", "pending", "violation", "crash", "hang", "lost"
VERDICTS = (CLEAN, PENDING, VIOLATION, CRASH, HANG, LOST)
"""`lost`: the process that ran the case died."""
TRANSPARENCY = "transparency"
DELIVERY = "delivery"
ENDING = "ending"
"""What the sweep judges itself: the run looks as without the event; the event's handler has run; the run ends as it may
with an event that user mode notices."""


@record
class Where:
    """A boundary of a track, as a scenario file names it."""

    boundary: Boundary
    arrival: int
    """How often that address has been reached, this time included."""
    cpu: int = 0


@record
class Shot:
    """An event raised at a boundary."""

    event: SweepEvent
    where: Where
    tables: Tables
    """Its [[inject]] tables."""


@record
class Case:
    """One case with its verdict."""

    key: str
    """`nmi@231 mce+4`: the first event at boundary 231 of the run, the second 4 boundaries later."""
    shots: tuple[Shot, ...]
    verdict: str
    merged: str = ""
    """Key of the case whose state this one's is."""
    to_end: bool = False
    """Whether it ran to the end of the scenario."""
    violation: Violation | None = None


@record
class Result:
    """What one raised event led to."""

    verdict: str
    delivered: bool
    to_end: bool = False
    same_as_next: bool = False
    apart: Apart | None = None
    """What the state had of its own when it was otherwise the track's again, however the run went on."""
    violation: Violation | None = None
