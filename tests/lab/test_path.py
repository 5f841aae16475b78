"""The path summary, from made-up events and from real runs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from emu.events import CCalled, Delivered, EventType, Frame, Note, Returned, SystemCall
from emu.lab.observers import path
from emu.lab.observers.path import PathSummary
from emu.lab.rig import Trace
from emu.lab.run import prepare, run_prepared, run_scenario
from emu.lab.shipped import find_scenario

NAMES = {0x400005: "main+0x5", 0x400007: "main+0x7", 0x100: "entry_SYSCALL_64", 0x200: "asm_exc_nmi"}
USER = Frame(0x400007, 0x33, 0x202, 0x7000, 0x2B)
GAP = Frame(0x100, 0x10, 2, 0x7000, 0x18)


@pytest.fixture
def summary() -> PathSummary:
    def name(address: int) -> str:
        return NAMES.get(address, f"{address:#x}")

    view = SimpleNamespace(
        image=SimpleNamespace(symbols={}),
        cr3=lambda cpu: 0,
        raw_registers=lambda cpu: b"",
        where=name,
        symbol=name,
        stack_name=lambda cpu, sp: "task",
        gs_owner=lambda cpu, base: "kernel",
        user_cr3=lambda cr3: False,
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
CALL_LINE = "main+0x5 --SYSCALL 39 (getpid)--> entry_SYSCALL_64 -> task stack -> do_syscall_64 -> SYSRETQ --> user"


def test_system_call_in_one_line(summary: PathSummary) -> None:
    assert feed(summary, *CALL) == [f"user {CALL_LINE}"]


def test_repeated_crossings_are_folded(summary: PathSummary) -> None:
    assert feed(summary, *CALL, *CALL, *CALL) == [f"user {CALL_LINE}   x3"]


def test_nested_event_is_indented(summary: PathSummary) -> None:
    events = (syscall(), nmi(), called("exc_nmi"), back(GAP, "iretq"), *CALL[1:])
    assert feed(summary, *events) == [
        f"user {CALL_LINE.replace(' -> task stack', '')}",
        "    NMI at entry_SYSCALL_64 --> asm_exc_nmi (task stack) -> exc_nmi -> IRETQ --> entry_SYSCALL_64",
    ]


def test_notes_stand_below_their_crossing(summary: PathSummary) -> None:
    lines = feed(summary, syscall(), called("do_syscall_64"), Note(3, 0, 0, "a tick"), back(USER, "sysretq"))
    assert lines == [f"user {CALL_LINE}", "    (a tick)"]


def test_crossing_that_never_returns_is_shown_open(summary: PathSummary) -> None:
    lines = feed(summary, syscall(60), called("do_syscall_64"))
    assert lines == ["user main+0x5 --SYSCALL 60 (exit)--> entry_SYSCALL_64 -> task stack -> do_syscall_64 ..."]


def test_a_long_path_is_cut(summary: PathSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "MAX_LINES", 2)
    events = [event for number in range(4) for event in (syscall(number), back(USER, "sysretq"))]
    assert feed(summary, *events)[-1] == "... and 2 more crossings"


# --- real runs --------------------------------------------------------------------------------------------------------
def path_of(name: str) -> list[str]:
    """The path of a shipped scenario, without the source lines of places."""
    (report,) = run_scenario(find_scenario(name))
    assert report.passed
    return [re.sub(r" \([\w.-]+:\d+\)", "", line) for line in report.facts.path]


@pytest.mark.parametrize(
    ("scenario", "line"),
    [
        (
            "syscall-getpid",
            "user _start+0x5 --SYSCALL 39 (getpid)--> entry_SYSCALL_64 -> SWAPGS -> kernel CR3 -> task stack "
            "-> do_syscall_64 -> entry stack -> user CR3 -> SWAPGS -> SYSRETQ --> user",
        ),
        (
            "nmi-in-syscall-gap",
            "    NMI at entry_SYSCALL_64 --> asm_exc_nmi (IST2 NMI stack) -> paranoid_entry -> kernel CR3 -> kernel GS "
            "-> exc_nmi -> user CR3 -> user GS -> IRETQ --> entry_SYSCALL_64",
        ),
        (
            "nmi-no-fsgsbase",
            "    NMI at entry_SYSCALL_64 --> asm_exc_nmi (IST2 NMI stack) -> paranoid_entry -> kernel CR3 -> SWAPGS "
            "-> exc_nmi -> user CR3 -> SWAPGS -> IRETQ --> entry_SYSCALL_64",
        ),
        (
            "nmi-in-user",
            "NMI in user mode at here --> asm_exc_nmi (IST2 NMI stack) -> SWAPGS -> kernel CR3 -> task stack "
            "-> exc_nmi -> entry stack -> user CR3 -> SWAPGS -> IRETQ --> user",
        ),
        (
            "softirq-on-irqstack",
            "interrupt 0x30 in user mode at here --> irq_entries_start+0x100 (entry stack) -> error_entry -> SWAPGS "
            "-> kernel CR3 -> task stack -> common_interrupt -> IRQ stack -> __do_softirq -> task stack -> entry stack "
            "-> user CR3 -> SWAPGS -> IRETQ --> user",
        ),
        (
            "classic-nmi-in-syscall-gap",
            "    NMI at system_call --> nmi (IST3 NMI stack) -> SWAPGS -> do_nmi -> paranoid_exit -> SWAPGS "
            "-> IRETQ --> system_call",
        ),
    ],
)
def test_a_crossing_is_drawn_as_it_went(scenario: str, line: str) -> None:
    assert line in path_of(scenario)


def test_the_way_to_a_16_bit_stack_goes_by_espfix() -> None:
    (line,) = (line for line in path_of("espfix64") if "native_irq_return_ldt" in line)
    assert "-> native_irq_return_ldt -> SWAPGS -> kernel CR3 -> user CR3 -> SWAPGS -> espfix stack ->" in line


def test_a_swapgs_that_did_not_run_is_not_drawn() -> None:
    (report,) = run_scenario(find_scenario("swapgs-skipped"))
    (line,) = (line for line in report.facts.path if "getpid" in line)
    assert line.count("SWAPGS") == 1


def test_work_before_user_mode_is_named() -> None:
    assert any("do_syscall_64 -> work before user mode: SIGPENDING" in line for line in path_of("signal-at-exit"))


def test_tasks_keep_their_own_crossings() -> None:
    lines = path_of("classic-two-cpus")
    assert "CPU 1: task 2 begins -> schedule_tail -> SWAPGS -> SYSRETQ --> user" in lines
    assert (
        "user _start+0x1e --SYSCALL 61 (wait4)--> system_call -> SWAPGS -> task stack -> sys_wait4 -> __switch_to "
        "-> SWAPGS -> SYSRETQ --> user"
    ) in lines
    assert any(line.endswith("sys_exit_group -> __switch_to (the task is gone)") for line in lines)


def test_nested_events_that_are_alike_are_folded() -> None:
    (line,) = (line for line in path_of("classic-ksoftirqd") if line.startswith("    interrupt 0x35 at __do_softirq"))
    assert line.endswith("   x10")


def test_the_path_is_the_same_while_a_trace_stops_everywhere() -> None:
    plain = path_of("nmi-in-syscall-gap")
    prepared = prepare(find_scenario("nmi-in-syscall-gap"))
    trace = Trace([].append)
    (report,) = run_prepared(prepared, "s", lambda case: (trace,))
    assert [re.sub(r" \([\w.-]+:\d+\)", "", line) for line in report.facts.path] == plain


def test_a_crossing_that_never_ends_stays_short(summary):
    summary(syscall())
    for number in range(1000):
        summary(called(f"again{number % 7}"))
    (line,) = summary.lines()
    assert line.endswith("again2 -> ... 801 more steps ...")  # the first was a change of stacks
    assert summary.lines() == [line]  # asking changes nothing


def test_endless_events_inside_a_crossing_are_counted(summary):
    summary(syscall())
    for number in range(500):
        summary(nmi())
        summary(called(f"handler{number}"))
        summary(Returned(4, 0, 0x210, "iretq", GAP, 0, 0, 0, 0))
    lines = summary.lines()
    assert len(lines) == 202
    assert lines[-1].strip() == "... and 300 more events"
