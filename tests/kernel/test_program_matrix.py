"""Programs whose output nothing may change: interrupts, NMIs, a second CPU, another kernel. `make matrix` runs all."""

from __future__ import annotations

import dataclasses
import os

import pytest
from programs import (
    HAS_GCC,
    NMI_97,
    QUIET,
    TIMER_50,
    TIMER_50_CLASSIC,
    TWO_CPUS,
    Condition,
    Outcome,
    compiled,
    has_m32,
    native,
    outcome,
)  # fmt: skip

ALL = os.environ.get("ENTRY64_MATRIX") == "all"
UNORDERED = {"threads"}
"""Whose lines come in whatever order tasks run."""
PROGRAMS = (
    "signals", "faults", "sigreturn", "step", "fpu", "fsgs", "family", "processes", "threads", "pipeline", "segments",
    "tracer", "lazyfpu",
)  # fmt: skip
PROGRAMS_32 = ("hello32", "processes", "threads", "family")
CONDITIONS = (QUIET, TIMER_50, NMI_97, TWO_CPUS)
NOT_IN_LINUX_26 = {
    "segments": "the image has no modify_ldt",
    "fsgs": "no FSGSBASE",
    "sigreturn": "a frame that IRETQ refuses is the end of the task there",
    "step": "it returns by SYSRET with TF set, which traps at once; linux-6 takes IRETQ then, as kernels do today",
}
SLEEPERS = {"family"}
"""Programs of long idle times, in which so many events would never end."""
IN_THE_SUITE = {
    ("linux-6", "segments", "undisturbed"), ("linux-6", "segments", "NMI every 97"),
    ("linux-6", "sigreturn", "timer interrupt every 50"), ("linux-6", "tracer", "2 CPUs"),
    ("linux-2.6", "signals", "undisturbed"), ("linux-2.6", "signals", "NMI every 97"),
    ("linux-2.6", "lazyfpu", "undisturbed"), ("linux-2.6", "lazyfpu", "2 CPUs"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")


def _cases() -> list[tuple[str, str, str, Condition]]:
    cases = [("linux-6", name, "", condition) for name in PROGRAMS for condition in CONDITIONS]
    cases += [("linux-6", name, "-m32", condition) for name in PROGRAMS_32 for condition in CONDITIONS]
    cases += [
        ("linux-2.6", name, "", TIMER_50_CLASSIC if condition is TIMER_50 else condition)
        for name in PROGRAMS
        if name not in NOT_IN_LINUX_26
        for condition in CONDITIONS
    ]
    return [case for case in cases if ALL or (case[0], case[1] + case[2], case[3].name) in IN_THE_SUITE]


def _comparable(name: str, found: Outcome) -> Outcome:
    return (found[0], sorted(found[1])) if name in UNORDERED else found


@pytest.mark.parametrize(("kernel", "name", "flag", "condition"), _cases(), ids=lambda x: getattr(x, "name", x) or "64")
def test_the_output_is_that_of_a_native_run(kernel: str, name: str, flag: str, condition: Condition) -> None:
    if flag and not has_m32():
        pytest.skip("gcc -m32 -static does not work here")
    path = compiled(name, *([flag] if flag else []))
    if name in SLEEPERS and condition.event:
        condition = dataclasses.replace(condition, every=1_000_003)
    found = outcome(path, kernel=kernel, condition=condition)
    assert _comparable(name, found) == _comparable(name, native(path))
