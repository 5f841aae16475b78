"""Tables that sets of scenarios measure: each [[cell]] is a cell or a row, and what stands there is what a run gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asm.errors import near_names
from emu.errors import ScenarioError
from emu.lab.outcome import Outcome
from emu.lab.run import Report, prepare, run_prepared
from emu.lab.scenario import Cell, ScenarioFile
from kernel_stubs.kernel_image import Overrides

ASPECTS = {"event": "event", "saved": "saved RIP", "rf": "RF", "signal": "signal", "then": "goes on at"}
"""Columns of a table whose cells name none."""
MANUAL = "manual"
Given = Sequence[tuple[str, ScenarioFile]]
"""Scenarios, as the user gave them."""


@dataclass(frozen=True)
class Table:
    """A table as it was measured."""

    name: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    """Row -> column -> text; the manual's place as the last column."""
    reports: tuple[Report, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as the scenarios expect."""
        return all(report.passed for report in self.reports)


def tables(files: Given) -> dict[str, list[tuple[str, ScenarioFile]]]:
    """Name -> the scenarios that have cells of it. ScenarioError for cells that do not fit together."""
    found: dict[str, list[tuple[str, ScenarioFile]]] = {}
    seen: dict[tuple[str, str, str | None], str] = {}
    shape: dict[str, bool] = {}
    for given, file in files:
        for index, cell in enumerate(file.scenario.cell):
            where = file.where("cell", index)
            first = seen.setdefault((cell.table, cell.row, cell.column), where)
            if first != where:
                raise ScenarioError(f"{where}: the table {cell.table!r} has this cell already: {first}")
            if shape.setdefault(cell.table, cell.column is None) != (cell.column is None):
                raise ScenarioError(f"{where}: other cells of the table {cell.table!r} have a column, or have none")
            scenarios = found.setdefault(cell.table, [])
            if (given, file) not in scenarios:
                scenarios.append((given, file))
    return found


def measure(name: str, files: Given, sources: Overrides | None = None, options: tuple[str, ...] = ()) -> Table:
    """Run the scenarios of a table. `options`: what else the line that reproduces a run needs on the command line."""
    known = tables(files)
    if name not in known:
        near = near_names(name, known)
        hint = f"near: {', '.join(near)}" if near else f"there are {', '.join(sorted(known)) or 'none'}"
        raise ScenarioError(f"no scenario has a cell of a table {name!r}; {hint}")
    rows: dict[str, dict[str, str]] = {}
    manuals: dict[str, list[str]] = {}
    reports = []
    for given, file in known[name]:
        (report,) = run_prepared(prepare(file, own_sources=sources), given, options=options)
        reports.append(report)
        for cell, outcome in zip(file.scenario.cell, report.facts.outcomes, strict=True):
            if cell.table == name:
                row = rows.setdefault(cell.row, {})
                row |= _measured(cell, outcome)
                places = manuals.setdefault(cell.row, [])
                places += [cell.manual] if cell.manual not in places else []
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    for title, row in rows.items():
        row[MANUAL] = "; ".join(manuals[title])
    return Table(name, (*columns, MANUAL), rows, tuple(reports))


def _measured(cell: Cell, outcome: Outcome | None) -> dict[str, str]:
    """What stands in a table: nothing that the scenario says of itself."""
    if cell.column is not None:
        return {cell.column: "never reached" if outcome is None else outcome.event}
    if outcome is None:
        return dict.fromkeys(ASPECTS.values(), "never reached")
    return {title: getattr(outcome, aspect) for aspect, title in ASPECTS.items()}


def text_lines(table: Table) -> Iterator[str]:
    """For people: the table, then what is not as expected."""
    yield from _aligned(
        [("", *table.columns), *((n, *(r.get(c, "") for c in table.columns)) for n, r in table.rows.items())]
    )
    for report in table.reports:
        for text in (*report.unmet, *(violation.message for violation in report.violations)):
            yield f"{report.name}: {text}"
    runs = f"{len(table.rows)} rows, {len(table.reports)} scenarios"
    yield f"{table.name}: {runs}: {'PASS' if table.passed else 'FAIL'}"


def _aligned(lines: Iterable[Sequence[str]]) -> Iterator[str]:
    shown = list(lines)
    widths = [max(len(line[n]) for line in shown) for n in range(len(shown[0]))]
    for line in shown:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def as_dict(table: Table) -> dict[str, Any]:
    """For JSON. Any: as JSON has it."""
    return {
        "table": table.name,
        "passed": table.passed,
        "columns": list(table.columns),
        "rows": [{"row": name, **row} for name, row in table.rows.items()],
        "unmet": [text for report in table.reports for text in report.unmet],
        "violations": [violation.as_dict() for report in table.reports for violation in report.violations],
        "outcomes": {
            report.name: [outcome and asdict(outcome) for outcome in report.facts.outcomes] for report in table.reports
        },
    }


def overview(files: Given) -> Iterator[str]:
    """What tables there are."""
    for name, scenarios in sorted(tables(files).items()):
        rows = {cell.row for _, file in scenarios for cell in file.scenario.cell if cell.table == name}
        yield f"{name}: {len(rows)} rows of {', '.join(given for given, _ in scenarios)}"
