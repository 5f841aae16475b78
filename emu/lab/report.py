"""Reports for people and for programs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from emu.lab.rig import Facts
from emu.lab.run import Report
from kernel_stubs.signal import signal_name

WIDTH = 110
_INDENT = "  "


def ending(facts: Facts) -> str:
    """How the run ended, on one line."""
    count = f"{facts.clock} instructions"
    if facts.exit_code is not None:
        return f"the program exited with status {facts.exit_code} after {count}"
    if facts.signal is not None:
        return f"{signal_name(facts.signal)} killed the program after {count}"
    words = {
        "budget": "gave up",
        "crashed": "the kernel crashed",
        "shutdown": "the CPU shut down",
        "halted": "the CPU halted for ever",
        "stuck": "the CPU got nowhere",
    }
    return f"{words.get(facts.end, facts.end)} after {count} at {facts.where}: {facts.text}"


def verdict_line(report: Report) -> str:
    """`PASS: ...` or `FAIL: ...`."""
    facts = report.facts
    if not report.passed:
        broken = _count(len(report.violations), "violation of an invariant", "violations of invariants")
        missing = _count(len(report.unmet), "unmet expectation", "unmet expectations")
        return f"FAIL: {' and '.join(filter(None, (broken, missing)))}; {ending(facts)}"
    known = _count(len(facts.violations), "expected violation", "expected violations")
    return f"PASS: {ending(facts)}; {known or 'every invariant held'}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""


def problems(report: Report) -> list[str]:
    """Everything that makes a report fail, explained."""
    lines = [f"unmet: {text}" for text in report.unmet]
    for violation in report.violations:
        lines += violation.lines()
    if report.unmet and not report.violations:
        lines.append(f"reproduce: {report.reproduce}")
    return lines


def text_report(reports: Sequence[Report], *, explain: bool = False) -> str:
    """The reports of one scenario; `explain` adds what it shows."""
    first = reports[0]
    lines = [f"{first.title}  [{first.name}]"]
    if explain and first.shows:
        for paragraph in first.shows.split("\n\n"):
            lines += [*_indented(textwrap.wrap(" ".join(paragraph.split()), WIDTH)), ""]
    if first.case:
        lines += _indented(_cases(reports))
    else:
        lines += _indented(_single(first))
    return "\n".join(lines) + "\n"


def _single(report: Report) -> list[str]:
    facts = report.facts
    lines = []
    if facts.path:
        lines += ["path:", *_indented(part for line in facts.path for part in _broken(line))]
    lines += [f"injected: {text}" for text in facts.fired]
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        data = facts.stream(descriptor)
        if data:
            lines.append(f"{name}: {_shown(data)}")
    return [*lines, *problems(report), verdict_line(report)]


def _broken(line: str) -> list[str]:
    """A line of the path; what does not fit goes on in the next one, deeper by two steps."""
    text = line.lstrip()
    indent = line[: len(line) - len(text)]
    parts = [indent]
    for step in re.split(r"(?= -> | --> )", text):
        if len(parts[-1]) + len(step) > WIDTH and parts[-1].strip():
            parts.append(f"{indent}{_INDENT * 4}{step.lstrip()}")
        else:
            parts[-1] += step
    return parts


def _cases(reports: Sequence[Report]) -> list[str]:
    lines = []
    for report in reports:
        lines.append(f"{'PASS' if report.passed else 'FAIL'} {report.case}")
        lines += _indented(problems(report))
    passed = sum(report.passed for report in reports)
    lines.append(f"{'PASS' if passed == len(reports) else 'FAIL'}: {passed} of {len(reports)} cases passed")
    return lines


def _indented(lines: Iterable[str]) -> list[str]:
    return [_INDENT + line for line in lines]


def _shown(data: bytes) -> str:
    text = repr(data)[1:]
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}... ({len(data)} bytes)"


def as_dict(report: Report) -> dict[str, Any]:
    """For JSON. Output is text, with bytes that are not UTF-8 replaced."""
    facts = report.facts
    return {
        "scenario": report.name,
        "title": report.title,
        "case": report.case or None,
        "verdict": "PASS" if report.passed else "FAIL",
        "end": facts.end,
        "end_text": facts.text,
        "end_where": facts.where,
        "exit": facts.exit_code,
        "signal": None if facts.signal is None else signal_name(facts.signal),
        "instructions": facts.clock,
        "stdout": facts.stream(1).decode(errors="replace"),
        "stderr": facts.stream(2).decode(errors="replace"),
        "injected": list(facts.fired),
        "calls": list(facts.calls),
        "returns": list(facts.returns),
        "page_faults": facts.faults,
        "notes": list(facts.notes),
        "path": list(facts.path),
        "unknown_syscalls": facts.unknown_syscalls,
        "unmet": list(report.unmet),
        "violations": [violation.as_dict() for violation in report.violations],
        "expected_violations": len(facts.violations) - len(report.violations),
        "reproduce": report.reproduce,
    }


def summary(reports: Sequence[Report]) -> dict[str, Any]:
    """The JSON document of a whole `run`."""
    passed = sum(report.passed for report in reports)
    return {"passed": passed, "failed": len(reports) - passed, "reports": [as_dict(report) for report in reports]}
