"""Units of work on worker processes.

A worker writes the key of each case into shared memory before it runs it. If the worker dies, or says nothing for
too long, that case is the one to blame: another worker takes the unit again and leaves it out.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from emu.lab.rig import Facts
from emu.lab.sweep.case import VERDICTS, Case
from emu.lab.sweep.reproducer import place, reproducer
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.store import Row

KEY_BYTES = 256
SILENCE = 120.0
"""Seconds of the host without a new case until a worker is given up."""
START_UP = 600.0
"""Seconds until the first case of a unit: a new process imports, assembles, boots and walks there."""
MAX_LOST = 64
"""Cases of one unit that may cost a worker its life; the rest of the unit is given up then."""
_POLL = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What workers are given once: the scenarios, as texts, and what to do with them."""

    scenarios: tuple[tuple[str, str], ...]
    options: Options


class Workshop:
    """The scenes of one process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scenes: dict[int, Scene] = {}
        self._facts: dict[int, Facts] = {}

    def rows(self, unit: Unit, announce: Callable[[str], object]) -> Iterator[Row]:
        """The rows of a unit."""
        scene = self._scenes.get(unit.scenario)
        if scene is None:
            self._scenes.clear()
            scene = self._scenes[unit.scenario] = Scene(*self._job.scenarios[unit.scenario], self._job.options)
        scene.walker.announce = announce
        for case in scene.cases(unit):
            yield self._row(unit.scenario, scene, case)

    def _row(self, number: int, scene: Scene, case: Case) -> Row:
        image, user, found = scene.prepared.options.image, scene.prepared.user, case.violation
        places = " > ".join(place(shot.where.boundary.ip, image, user) for shot in case.shots)
        if case.verdict in VERDICTS[:2]:
            return Row(case.key, places, case.verdict, case.merged, case.to_end, "", "", "", "")
        if number not in self._facts:
            self._facts[number] = scene.baseline()
        text = reproducer(scene.file.text, self._facts[number], case, image, user)
        invariant, message, where = (
            (found.invariant, found.message, found.where) if found else ("", "the worker died", "")
        )
        return Row(case.key, places, case.verdict, case.merged, case.to_end, invariant, message, where, text)


def _work(job: Job, connection: Connection, current: Any) -> None:  # `current`: a ctypes array in shared memory
    """A worker process: units in, rows out, until the other end is closed."""
    workshop = Workshop(job)

    def announce(key: str) -> None:
        current.value = key.encode()[: KEY_BYTES - 1]

    try:
        while True:
            unit = connection.recv()
            connection.send(list(workshop.rows(unit, announce)))
    except (EOFError, OSError, KeyboardInterrupt):
        return


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    current: Any
    unit: Unit | None = None
    seen: bytes = b""
    since: float = field(default_factory=time.monotonic)


class Pool:
    """Worker processes for one job."""

    def __init__(self, job: Job, jobs: int, target: Callable[[Job, Connection, Any], None] = _work) -> None:
        self._job = job
        self._context = multiprocessing.get_context("spawn")
        self._target = target
        self._jobs = jobs
        self._workers: list[_Worker] = []

    def run(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        """The rows of each unit, in the order in which they are done."""
        todo = list(reversed(units))
        try:
            self._workers = [self._hire() for _ in range(min(self._jobs, len(todo)))]
            for worker in self._workers:
                self._give(worker, todo.pop())
            while any(worker.unit is not None for worker in self._workers):
                yield from self._wait(todo)
        finally:
            self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()
        self._workers = []

    def _hire(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        current = self._context.RawArray("c", KEY_BYTES)
        process = self._context.Process(target=self._target, args=(self._job, theirs, current), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, current)

    def _give(self, worker: _Worker, unit: Unit) -> None:
        worker.unit, worker.current.value, worker.since = unit, b"", time.monotonic()
        worker.connection.send(unit)

    def _wait(self, todo: list[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        busy = {worker.connection: worker for worker in self._workers if worker.unit is not None}
        ready = wait(list(busy), _POLL)
        for connection in [one for one in busy if one in ready]:
            worker = busy.pop(connection)
            unit = worker.unit
            assert unit is not None
            try:
                rows = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            worker.unit = None
            if todo:
                self._give(worker, todo.pop())
            yield unit, rows
        for worker in busy.values():
            if worker.current.value != worker.seen:
                worker.seen, worker.since = worker.current.value, time.monotonic()
            elif time.monotonic() - worker.since > (SILENCE if worker.seen else START_UP):
                self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        """A worker is dead or silent: another one takes its unit, without the case that it was at."""
        unit, key = worker.unit, worker.current.value.decode()
        assert unit is not None
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        if not key or key in unit.skip or len(unit.skip) >= MAX_LOST:
            raise RuntimeError(f"a worker died with status {worker.process.exitcode} and no case to blame: {unit}")
        fresh = self._hire()
        self._workers[self._workers.index(worker)] = fresh
        self._give(fresh, replace(unit, skip=unit.skip | {key}))
