"""What a run looks like boundary by boundary: the instruction, and who owns CPL, GS, the stack and CR3 there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from emu.lab.sweep.bench import Bench
from emu.lab.sweep.scene import Scene

BEFORE, BEHIND = 400, 3
"""Boundaries that a timeline keeps before a violation and after it."""


class State(NamedTuple):
    """One boundary; plain values, for JSON."""

    clock: int
    symbol: str
    """`entry_SYSCALL_64+0x3`."""
    source: str
    """`entry_64.S:17`; empty where nothing is known."""
    instruction: str
    cpl: int
    gs: str
    """`user` or `kernel`, as GS_BASE says."""
    stack: str
    cr3: str
    """`user` or `kernel`."""


def state(bench: Bench) -> State:
    """The present boundary."""
    view, cpu = bench.view, bench.core.cpu
    symbol, _, source = view.where(cpu.ip).partition(" (")
    cr3 = "user" if view.isolated and view.user_cr3(cpu.cr3) else "kernel"
    return State(
        bench.core.clock, symbol, source.removesuffix(")"), view.disassemble(cpu.ip), cpu.cpl,
        view.gs_owner(0, cpu.gs_base), view.stack_name(0, cpu.sp), cr3,
    )  # fmt: skip


def baseline(scene: Scene) -> Iterator[State]:
    """Every boundary of a scenario's run, numbered as the sweep does."""
    bench = scene.start()
    yield state(bench)
    while bench.step() is None and bench.core.clock < bench.budget:
        yield state(bench)


def to_violation(scene: Scene) -> tuple[list[State], int]:
    """The way to the first violation of a run with the scenario's own injections, and the index of its last state
    before that; -1 if there is none."""
    bench = scene.start()
    kept: deque[State] = deque((state(bench),), BEFORE)
    while not bench.violated:
        if bench.step() is not None or bench.core.clock >= bench.budget:
            break
        kept.append(state(bench))
    if not bench.violated and not bench.judge.violations:
        return list(kept), -1
    last = max(len(kept) - 2, 0)
    behind: list[State] = []
    while len(behind) < BEHIND and bench.step() is None:
        behind.append(state(bench))
    return [*kept, *behind], last
