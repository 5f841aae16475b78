"""The command line's side of a sweep: what is done already, the table, the findings, the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from emu.errors import Entry64Error
from emu.lab.minimise import Finding, Known, findings
from emu.lab.scenario import ScenarioFile
from emu.lab.sweep.case import VERDICTS
from emu.lab.sweep.pool import Job, Pool, prepare_workers
from emu.lab.sweep.progress import Progress
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.store import Row, Store, Sweep
from emu.lab.violation import Violation


class Workers(Protocol):
    """Who runs units of work."""

    def run(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        """The rows of each unit, in the order in which they are done."""


_FOUND = frozenset(VERDICTS[2:])
Hire = Callable[[Job], Workers]


@dataclass(frozen=True, slots=True)
class Swept:
    """One scenario's part of a sweep."""

    scenario: str
    key: str
    boundaries: int
    counts: dict[str, int]
    broken: tuple[Violation, ...]
    """Violations of the run without any event, but for known holes: there is no sweep then."""
    findings: tuple[Finding, ...]
    unreached: tuple[str, ...] = ()
    """Ranges of the window where the scenario never is."""
    variations: int = 0
    """Runs with other values of what user mode controls."""
    shown: tuple[Violation, ...] = ()
    """Known holes that the run without any event has already."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.broken and not any(self.counts.get(verdict) for verdict in VERDICTS[2:])


def sweep(
    files: list[ScenarioFile],
    options: Options,
    jobs: int,
    store: Store,
    progress: Progress,
    *,
    hire: Hire | None = None,
    minimise: bool = True,
    known: Known = lambda _invariant, _where: False,
) -> list[Swept]:
    """Run what the store does not have yet, and say what it has then. `hire`: other workers than `jobs` processes."""
    if hire is None:
        prepare_workers({file.scenario.kernel for file in files} if options.sources is None else ())
    scenes = [Scene(file.name, file.text, options) for file in files]
    broken = [scene.broken() for scene in scenes]
    units: list[Unit] = []
    total = 0
    keys = [scene.key() for scene in scenes]
    for number, scene in enumerate(scenes):
        if broken[number]:
            continue
        all_units = scene.units(number)
        total += len(all_units)
        store.begin(
            Sweep(
                keys[number], scene.file.name, ",".join(options.events), ",".join(scene.first), options.depth,
                options.window, options.cpu, scene.boundaries, scene.file.text,
            )
        )  # fmt: skip
        done = store.done(keys[number])
        units += [unit for unit in all_units if unit.first not in done]
    counts = [store.counts(key) for key in keys]
    cases = sum(sum(table.get(v, 0) for v in VERDICTS) for table in counts)
    found = sum(sum(table.get(v, 0) for v in VERDICTS[2:]) for table in counts)
    progress(total - len(units), total, cases, found)
    job = Job(tuple((scene.file.name, scene.file.text) for scene in scenes), options)
    ready = total - len(units)
    if units:
        workers = Pool(job, jobs) if hire is None else hire(job)
        for unit, rows in workers.run(units):
            store.add(keys[unit.scenario], unit.first, rows)
            ready, cases = ready + 1, cases + len(rows)
            found += sum([row.verdict in _FOUND for row in rows])
            progress(ready, total, cases, found)
    return [
        Swept(
            scene.file.name, key, scene.boundaries, store.counts(key), bad,
            () if not minimise else tuple(findings(_rows(store, key), scene, known)), scene.unreached,
            scene.rows, scene.shown,
        )
        for scene, key, bad in zip(scenes, keys, broken, strict=True)
    ]  # fmt: skip


def _rows(store: Store, key: str) -> Iterator[Row]:
    return store.rows(key, VERDICTS[2:])


@contextmanager
def hired(scheduler: str | None) -> Iterator[Hire | None]:
    """Workers of the Dask cluster at this address (Entry64Error if there is none); without one, processes here."""
    if scheduler is None:
        yield None
        return
    try:
        from emu.lab.sweep import cluster
    except ModuleNotFoundError as error:
        raise Entry64Error(f"--scheduler needs Dask ({error}): pip install 'entry64[cluster]'") from None
    with cluster.connected(scheduler) as client:
        yield partial(cluster.Cluster, client)


# --- reports ----------------------------------------------------------------------------------------------------------
def text_lines(result: Swept) -> Iterator[str]:
    """One scenario's result for people."""
    if result.broken:
        yield f"{result.scenario}: not swept, for it fails without any event:"
        yield from (f"  {line}" for line in result.broken[0].lines())
        return
    counts = result.counts
    cases = sum(counts.get(verdict, 0) for verdict in VERDICTS)
    words = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts.get(verdict))
    varied = f" and {result.variations:,} variations" if result.variations else ""
    yield f"{result.scenario}: {result.boundaries:,} boundaries{varied}, {cases:,} cases: {words or 'none'}"
    yield f"  {counts['merged']:,} merged with a case of the same state, {counts['to the end']:,} run to the end"
    yield from (f"  without any event already: {one.invariant} at {one.where}, a known hole" for one in result.shown)
    yield from (f"  never at {part}" for part in result.unreached)
    for finding in result.findings:
        yield from (f"  {line}" for line in finding.lines())


def as_json(results: list[Swept]) -> str:
    """The JSON document of a sweep."""
    table = [
        {
            "scenario": result.scenario,
            "sweep": result.key,
            "boundaries": result.boundaries,
            "variations": result.variations,
            "counts": result.counts,
            "clean": result.clean,
            "baseline_violations": [violation.as_dict() for violation in result.broken],
            "known_in_baseline": [violation.as_dict() for violation in result.shown],
            "unreached": list(result.unreached),
            "findings": [finding.as_dict() for finding in result.findings],
        }
        for result in results
    ]
    return json.dumps({"clean": all(result.clean for result in results), "scenarios": table}, indent=2)


def write_findings(results: list[Swept], folder: Path) -> list[Path]:
    """Each finding as a scenario file of its own."""
    written = []
    try:
        for result in results:
            if result.findings:
                folder.mkdir(parents=True, exist_ok=True)
            for number, finding in enumerate(result.findings, 1):
                path = folder / f"{Path(result.scenario).stem}-{number}.toml"
                path.write_text(finding.scenario)
                written.append(path)
    except OSError as error:
        raise Entry64Error(f"{folder}: cannot be written: {error.strerror}") from None
    return written
