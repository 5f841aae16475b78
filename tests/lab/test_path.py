"""The path summary, from made-up events."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from emu.events import CCalled, Delivered, EventType, Frame, Note, Returned, SystemCall
from emu.lab.observers import path
from emu.lab.observers.path import PathSummary

NAMES = {0x400005: "main+0x5", 0x400007: "main+0x7", 0x100: "entry_SYSCALL_64", 0x200: "asm_exc_nmi"}
USER = Frame(0x400007, 0x33, 0x202, 0x7000, 0x2B)
GAP = Frame(0x100, 0x10, 2, 0x7000, 0x18)


@pytest.fixture
def summary() -> PathSummary:
    def name(address: int) -> str:
        return NAMES.get(address, f"{address:#x}")

    view = SimpleNamespace(
        image=SimpleNamespace(symbols={}), cr3=lambda cpu: 0, raw_registers=lambda cpu: b"", where=name, symbol=name
    )
    return PathSummary(view)  # type: ignore[arg-type]


def syscall(number: int = 39) -> SystemCall:
    return SystemCall(1, 0, 0x400005, number, 0x400007, 0x202, 0x7000, 0x100, 0, 0)


def nmi() -> Delivered:
    return Delivered(2, 0, 0x100, 2, EventType.NMI, None, GAP, 0, 2, 0x200, 0, 0, 0)


def called(name: str) -> CCalled:
    return CCalled(3, 0, 0, name, (), 0, 0, 0, 2, 0, 0, 0)


def back(frame: Frame, by: str) -> Returned:
    return Returned(4, 0, 0, by, frame, 0, 0, 0, 0)


def feed(summary: PathSummary, *events: object) -> list[str]:
    for event in events:
        summary(event)  # type: ignore[arg-type]
    return summary.lines()


CALL = (syscall(), called("do_syscall_64"), back(USER, "sysretq"))
CALL_LINE = "main+0x5 --SYSCALL 39 (getpid)--> entry_SYSCALL_64 -> do_syscall_64 -> SYSRETQ --> user"


def test_system_call_in_one_line(summary: PathSummary) -> None:
    assert feed(summary, *CALL) == [f"user {CALL_LINE}"]


def test_repeated_crossings_are_folded(summary: PathSummary) -> None:
    assert feed(summary, *CALL, *CALL, *CALL) == [f"user {CALL_LINE}   x3"]


def test_nested_event_is_indented(summary: PathSummary) -> None:
    events = (syscall(), nmi(), called("exc_nmi"), back(GAP, "iretq"), *CALL[1:])
    assert feed(summary, *events) == [
        f"user {CALL_LINE}",
        "    NMI at entry_SYSCALL_64 --> asm_exc_nmi -> exc_nmi -> IRETQ --> entry_SYSCALL_64",
    ]


def test_notes_stand_below_their_crossing(summary: PathSummary) -> None:
    lines = feed(summary, syscall(), called("do_syscall_64"), Note(3, 0, 0, "a tick"), back(USER, "sysretq"))
    assert lines == [f"user {CALL_LINE}", "    (a tick)"]


def test_crossing_that_never_returns_is_shown_open(summary: PathSummary) -> None:
    lines = feed(summary, syscall(60), called("do_syscall_64"))
    assert lines == ["user main+0x5 --SYSCALL 60 (exit)--> entry_SYSCALL_64 -> do_syscall_64 ..."]


def test_a_long_path_is_cut(summary: PathSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "MAX_LINES", 2)
    events = [event for number in range(4) for event in (syscall(number), back(USER, "sysretq"))]
    assert feed(summary, *events)[-1] == "... and 2 more crossings"
