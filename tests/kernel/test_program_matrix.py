"""Programs whose output nothing may change: interrupts, NMIs, a second CPU, another kernel. `make matrix` runs all."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from c_programs import HAS_GCC, compiled, has_m32
from programs import (
    NMI_97,
    QUIET,
    TIMER_50,
    TIMER_50_CLASSIC,
    TWO_CPUS,
    Condition,
    Outcome,
    native,
    outcome,
    packets,
)  # fmt: skip

ALL = os.environ.get("ENTRY64_MATRIX") == "all"
UNORDERED = {"threads"}
"""Whose lines come in whatever order tasks run."""
PROGRAMS = (
    "signals", "faults", "sigreturn", "step", "fpu", "fsgs", "family", "processes", "threads", "pipeline", "segments",
    "tracer", "lazyfpu", "files", "jobs", "packets", "badends", "limits", "ldt", "align",
)  # fmt: skip
PROGRAMS_32 = (
    "hello32", "processes", "threads", "family", "signals32", "step32", "badends", "limits", "files", "jobs",
    "vsyscall32", "ldt", "align",
)  # fmt: skip
CONDITIONS = (QUIET, TIMER_50, NMI_97, TWO_CPUS)
NOT_IN_LINUX_26 = {
    "fsgs": "no FSGSBASE",
    "sigreturn": "a frame that IRETQ refuses is the end of the task there",
    "step": "it returns by SYSRET with TF set, which traps at once; linux-6 takes IRETQ then, as kernels do today",
}
IN_LINUX_26 = {"segments": ("26",), "signals32": ("{pause}", "2")}
"""Arguments that leave out what that kernel cannot return to."""
SLEEPERS = {"family"}
"""Programs of long idle times, in which so many events would never end."""
PACKETS = ("exited with status 5", ["ready", *(f"packet {number}" for number in range(1, 6))])
"""No host has that network card."""
IN_THE_SUITE = {
    ("linux-6", "segments", "undisturbed"), ("linux-6", "segments", "NMI every 97"),
    ("linux-6", "sigreturn", "timer interrupt every 50"), ("linux-6", "tracer", "2 CPUs"),
    ("linux-2.6", "signals", "undisturbed"), ("linux-2.6", "signals", "NMI every 97"),
    ("linux-2.6", "lazyfpu", "undisturbed"), ("linux-2.6", "lazyfpu", "2 CPUs"),
    ("linux-6", "align", "undisturbed"), ("linux-6", "ldt", "undisturbed"), ("linux-2.6", "ldt-m32", "2 CPUs"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")


def _cases() -> list[tuple[str, str, str, Condition]]:
    cases = [("linux-6", name, "", condition) for name in PROGRAMS for condition in CONDITIONS]
    cases += [("linux-6", name, "-m32", condition) for name in PROGRAMS_32 for condition in CONDITIONS]
    own = [(name, flag) for names, flag in ((PROGRAMS, ""), (PROGRAMS_32, "-m32")) for name in names]
    cases += [
        ("linux-2.6", name, flag, TIMER_50_CLASSIC if condition is TIMER_50 else condition)
        for name, flag in own
        if name not in NOT_IN_LINUX_26
        for condition in CONDITIONS
    ]
    return [case for case in cases if ALL or (case[0], case[1] + case[2], case[3].name) in IN_THE_SUITE]


def _comparable(name: str, found: Outcome) -> Outcome:
    lines = [line.replace("vDSO:0f34", "vDSO:0f05") for line in found[1]]  # SYSENTER or SYSCALL: the vendor's choice
    return found[0], sorted(lines) if name in UNORDERED else lines


@pytest.mark.parametrize(("kernel", "name", "flag", "condition"), _cases(), ids=lambda x: getattr(x, "name", x) or "64")
def test_the_output_is_that_of_a_native_run(
    kernel: str, name: str, flag: str, condition: Condition, tmp_path: Path
) -> None:
    if flag and not has_m32():
        pytest.skip("gcc -m32 -static does not work here")
    path = compiled(name, *([flag] if flag else []))
    if name in SLEEPERS and condition.event:
        condition = dataclasses.replace(condition, every=1_000_003)
    ours = {"files": ("/tmp",), "signals32": ("100000",)}.get(name, ())
    hosts = (str(tmp_path),) if name == "files" else ()
    if kernel == "linux-2.6" and name in IN_LINUX_26:
        ours, hosts = (tuple(text.format(pause=pause) for text in IN_LINUX_26[name]) for pause in (100000, 20000000))
    expected = PACKETS if name == "packets" else native(path, *hosts)
    device = packets(5) if name == "packets" else None
    found = outcome(path, *ours, kernel=kernel, condition=condition, device=device)
    assert _comparable(name, found) == _comparable(name, expected)
