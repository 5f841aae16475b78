"""What of a scenario's expectations a run did not meet, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emu.lab.outcome import Outcome
from emu.lab.rig import Facts
from emu.lab.scenario import Cell, Expect
from kernel_stubs.signal import signal_name

_SHOWN = 200


def unmet(expect: Expect, facts: Facts) -> Iterator[str]:
    """Every difference; nothing for a run that is as expected."""
    yield from facts.missed
    yield from _end(expect, facts)
    for name, descriptor, wanted in (("stdout", 1, expect.stdout), ("stderr", 2, expect.stderr)):
        if wanted is not None and facts.stream(descriptor) != wanted.encode():
            yield f"expected {name} {_quoted(wanted.encode())}, got {_quoted(facts.stream(descriptor))}"
    yield from _calls(expect, facts)
    if expect.returns and facts.returns[-len(expect.returns) :] != expect.returns:
        got = ", ".join(facts.returns[-len(expect.returns) :]) or "none"
        yield f"expected the last returns to user mode to be {', '.join(expect.returns)}; they were {got}"
    if expect.faults is not None and facts.faults != expect.faults:
        yield f"expected {expect.faults} page faults, got {facts.faults}"
    if expect.console is not None and not any(expect.console in text for text in (*facts.notes, facts.text)):
        yield f"expected a note with {expect.console!r}; there were {_listed((*facts.notes, facts.text))}"
    if expect.violation is not None and [v.invariant for v in facts.violations[:1]] != [expect.violation]:
        broken = ", ".join(dict.fromkeys(v.invariant for v in facts.violations)) or "none"
        yield f"expected the first violation to be of {expect.violation!r}; violated were, in this order: {broken}"


def unmet_cells(cells: Sequence[Cell], outcomes: Sequence[Outcome | None]) -> Iterator[str]:
    """Every cell of a table that was measured otherwise."""
    for cell, outcome in zip(cells, outcomes, strict=True):
        name = ", ".join(filter(None, (f"table {cell.table}", cell.row, cell.column)))
        if outcome is None:
            yield f"{name}: the instruction at {cell.at} was never reached"
            continue
        for aspect, wanted in cell.is_.stated().items():
            got = getattr(outcome, aspect)
            if got != wanted:
                yield f"{name}: expected {aspect} {wanted!r}, measured {got!r}"


def _end(expect: Expect, facts: Facts) -> Iterator[str]:
    # A run may end in any way that leads to the expected violation.
    wanted = expect.end or (None if expect.violation else "finished")
    if wanted is not None and facts.end != wanted:
        yield f"expected the run to end with {wanted!r}, but it {_how(facts)}"
        return
    if expect.exit is not None and facts.exit_code != expect.exit:
        yield f"expected exit status {expect.exit}, but the program {_how(facts)}"
    if expect.signal is not None and facts.signal != expect.signal:
        yield f"expected {signal_name(expect.signal)}, but the program {_how(facts)}"


def _calls(expect: Expect, facts: Facts) -> Iterator[str]:
    left = iter(facts.calls)
    for index, name in enumerate(expect.calls):
        if name not in left:
            before = f" after {', '.join(expect.calls[:index])}" if index else ""
            yield f"expected a call of {name}{before}; the calls were {_listed(facts.calls)}"
            break
    for name in expect.never:
        if name in facts.calls:
            yield f"expected no call of {name}; there were {facts.calls.count(name)}"
    for name, count in expect.count.items():
        if facts.calls.count(name) != count:
            yield f"expected {count} calls of {name}, got {facts.calls.count(name)}"


def _how(facts: Facts) -> str:
    if facts.exit_code is not None:
        return f"exited with status {facts.exit_code}"
    if facts.signal is not None:
        return f"was killed by {signal_name(facts.signal)}"
    return f"ended with {facts.end!r} at {facts.where}: {facts.text}"


def _quoted(data: bytes) -> str:
    text = repr(data)[1:]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(data)} bytes)"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) or "none"
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
