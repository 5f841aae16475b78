"""The regression: each scenario's runs and the sweep that it declares, as flat results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from asm import Image
from emu.errors import ScenarioError
from emu.lab.minimise import Finding
from emu.lab.report import ending, problems
from emu.lab.run import Prepared, Report, prepare, run_prepared
from emu.lab.scenario import ScenarioFile, Sweep
from emu.lab.shipped import find_scenario, shipped_names
from emu.lab.sweep.command import Swept, sweep
from emu.lab.sweep.command import text_lines as sweep_lines
from emu.lab.sweep.events import EVENTS
from emu.lab.sweep.pool import prepare_workers
from emu.lab.sweep.progress import Progress, silent
from emu.lab.sweep.scene import Options
from emu.lab.sweep.store import Store
from kernel_stubs.kernel_image import Overrides


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, with where it belongs."""

    rule: str
    """An invariant's name, `expectation`, or a verdict of the sweep."""
    message: str
    file: str
    """Source file of the image, or of the scenario."""
    line: int
    kernel: str
    """Whose source the file is; empty for a scenario file."""
    symbol: str = ""
    chain: tuple[str, ...] = ()
    reproduce: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """One result of the regression."""

    scenario: str
    name: str
    """`run`, the boundary of a case, or `sweep nmi,mce`."""
    summary: str
    """One line."""
    details: tuple[str, ...]
    """What is wrong, for people; empty if all is well."""
    problems: tuple[Problem, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.details


def collect(names: Sequence[str]) -> list[tuple[str, ScenarioFile]]:
    """(as the user gave it, scenario) of files, shipped names, and all .toml files in folders; without names: shipped.

    ScenarioError for what cannot be read, and for a folder without scenarios.
    """
    found: list[tuple[str, ScenarioFile]] = []
    for name in names or shipped_names():
        path = Path(name)
        if path.is_dir():
            inside = sorted(path.rglob("*.toml"))
            if not inside:
                raise ScenarioError(f"{name}: no scenario files (*.toml) in this folder")
            found += [(str(one), find_scenario(str(one))) for one in inside]
        else:
            found.append((name, find_scenario(name)))
    return found


@dataclass(frozen=True, slots=True)
class How:
    """How a regression is run."""

    sources: Overrides | None = None
    options: tuple[str, ...] = ()
    """What else the line that reproduces a run needs on the command line."""
    jobs: int = 1
    progress: Progress = silent
    full: bool = False
    """Sweep each by every event at every boundary, whatever it declares; look for its holes too."""
    store: Store | None = None
    """Where the sweeps' results are kept; None: nowhere."""


def check(files: Sequence[tuple[str, ScenarioFile]], how: How) -> Iterator[Checked]:
    """Run them one after the other."""
    swept = {file.scenario.kernel for _, file in files if how.full or file.scenario.sweep is not None}
    if swept and how.sources is None:
        prepare_workers(swept)
    for name, file in files:
        prepared = prepare(file, own_sources=how.sources)
        for report in run_prepared(prepared, name, options=how.options):
            yield checked_run(report, prepared)
        declared = full_sweep(file.scenario.sweep) if how.full else file.scenario.sweep
        if declared is not None and declared.daily:
            yield checked_sweep(declared, prepared, how)


def full_sweep(declared: Sweep | None) -> Sweep | None:
    """Every event at every boundary, with the known holes and the variations that a scenario declares; None if it has
    said that there is to be no sweep."""
    if declared is None:
        return Sweep.model_validate({"events": tuple(EVENTS)})
    if declared.omitted:
        return None
    return declared.model_copy(update={"events": tuple(EVENTS), "full": False, "first": (), "depth": 1, "window": ""})


def checked_run(report: Report, prepared: Prepared) -> Checked:
    """The result of one run."""
    file = prepared.file
    found = [_problem(v.invariant, v.message, v.ip, v.where, prepared, v.chain, v.reproduce) for v in report.violations]
    line = file.lines.of(("expect",)) if file.scenario.expect.model_fields_set else 1
    found += [
        Problem("expectation", text, file.name, line, kernel="", reproduce=report.reproduce) for text in report.unmet
    ]
    details = () if report.passed else tuple(problems(report))
    return Checked(file.name, report.case or "run", ending(report.facts), details, tuple(found))


def checked_sweep(spec: Sweep, prepared: Prepared, how: How) -> Checked:
    """The result of a declared sweep: clean, but for the holes that it says are known, and for those it must find."""
    file = prepared.file
    holes = [(index, known) for index, known in enumerate(spec.known) if how.full or not known.full]

    def known_hole(invariant: str, where: str) -> bool:
        return any(known.means(invariant, where) for _, known in holes)

    asked = file.where("sweep", "window")
    options = Options(spec.events, spec.depth, spec.window, how.sources, first=spec.first, asked=asked)
    cpus = spec.cpus or tuple(range(file.scenario.cpus))
    with nullcontext(how.store) if how.store else closing(Store(None)) as store:
        each = [
            sweep([file], replace(options, cpu=cpu), how.jobs, store, how.progress, known=known_hole)[0] for cpu in cpus
        ]
    swept = _all_cpus(each)
    name = f"sweep {','.join(spec.events)}" + (f" depth {spec.depth}" if spec.depth > 1 else "")
    name += f" after {','.join(spec.first)}" if spec.first else ""
    name += f" on CPU {' '.join(map(str, cpus))}" if file.scenario.cpus > 1 else ""
    summary, *_ = sweep_lines(swept)
    summary = summary.partition(": ")[2]
    if swept.counts.get("merged"):
        summary += f", {swept.counts['merged']:,} of them merged"
    if swept.broken:
        first = swept.broken[0]
        problem = _problem(first.invariant, first.message, first.ip, first.where, prepared, first.chain, "")
        return Checked(file.name, name, summary, tuple(sweep_lines(swept)), (problem,))
    details: list[str] = []
    found: list[Problem] = []
    for finding in swept.findings:
        if known_hole(finding.invariant, finding.where):
            continue
        details += [*finding.lines(), *(f"    {line}" for line in finding.scenario.splitlines())]
        found.append(_finding(finding, prepared))
    for part in swept.unreached:
        line = file.lines.of(("sweep", "window"))
        text = f"the scenario is never at {part}, so nothing is swept there"
        details.append(f"{file.name}:{line}: {text}")
        found.append(Problem("window", text, file.name, line, kernel=""))
    there = [(one.invariant, one.where) for one in swept.findings] + [(one.invariant, one.where) for one in swept.shown]
    for index, known in holes:
        if not any(known.means(*one) for one in there):
            line = file.lines.of(("sweep", "known", index))
            text = f"the known hole is not there any more: {known.invariant} at {known.at} ({known.reason})"
            details.append(f"{file.name}:{line}: {text}")
            found.append(Problem("known", text, file.name, line, kernel=""))
    return Checked(file.name, name, summary, tuple(details), tuple(found))


def _all_cpus(swept: Sequence[Swept]) -> Swept:
    """The sweeps of several CPUs of a scenario as one."""
    first, *others = swept
    if not others:
        return first
    counts: Counter[str] = Counter()
    for one in swept:
        counts.update(one.counts)
    return replace(
        first,
        boundaries=sum(one.boundaries for one in swept),
        counts=dict(counts),
        findings=tuple(finding for one in swept for finding in one.findings),
        unreached=tuple(part for part in first.unreached if all(part in one.unreached for one in others)),
    )


def text_lines(results: Sequence[Checked]) -> Iterator[str]:
    """One scenario's results for people: a line each for its runs and its sweep, and all that is wrong."""
    runs = [result for result in results if not result.name.startswith("sweep ")]
    passed = sum(result.passed for result in runs)
    words = runs[0].summary if len(runs) == 1 else f"{passed} of {len(runs)} cases passed"
    yield f"{'PASS' if passed == len(runs) else 'FAIL'} {runs[0].scenario}: {words}"
    for result in results:
        if result.name.startswith("sweep "):
            yield f"{'PASS' if result.passed else 'FAIL'} {result.scenario}: {result.name}: {result.summary}"
        elif not result.passed and len(runs) > 1:
            yield f"  FAIL {result.name}"
        yield from (f"    {line}" for line in result.details)


def _problem(
    rule: str, message: str, ip: int, where: str, prepared: Prepared, chain: tuple[str, ...], reproduce: str
) -> Problem:
    for image, kernel in ((prepared.options.image, prepared.file.scenario.kernel), (prepared.user, "")):
        statement = image.line_at(ip)
        if statement is not None:
            position = statement.position
            symbol = where.partition(" ")[0]
            return Problem(rule, message, position.file, position.line, kernel, symbol, chain, reproduce)
    return Problem(rule, message, prepared.file.name, 1, kernel="", chain=chain, reproduce=reproduce)


def _finding(finding: Finding, prepared: Prepared) -> Problem:
    symbol = finding.where.partition(" ")[0]
    ip = _address(prepared.options.image, symbol)
    message = f"{finding.message} ({finding.cases} cases, the smallest {finding.events}: {finding.place})"
    return _problem(finding.invariant or "lost", message, ip, finding.where, prepared, (), "")


def _address(image: Image, place: str) -> int:
    name, _, offset = place.partition("+")
    return image.symbols.get(name, 0) + int(offset or "0", 16)
