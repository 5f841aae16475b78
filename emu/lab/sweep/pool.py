"""Units of work on worker processes.

A worker writes the key of each case into shared memory before it runs it. If workers die there twice, or one says
nothing for too long, that case is the one to blame: another worker takes the unit again and leaves it out. Who dies
once may have been killed by somebody else: the unit is done again, as if nothing had been.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import pickle
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from asm import Image
from emu.errors import Entry64Error
from emu.lab.rig import Facts
from emu.lab.sweep.case import LOST, VERDICTS, Case, Shot
from emu.lab.sweep.reproducer import place, reproducer
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.store import Row
from emu.lab.sweep.warm import modules
from emu.process import tune

KEY_BYTES = 256
SILENCE = 120.0
"""Seconds of the host without a new case until a worker is given up."""
START_UP = 600.0
"""Seconds until the first case of a unit: a new process imports, assembles, boots and walks there."""
MAX_LOST = 64
"""Cases of one unit that may cost a worker its life; the sweep is given up then."""
MAX_SUSPECTS = 8
"""Cases of one unit at which workers have died once; one more is to blame at once, for the unit must end."""
_POLL = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What workers are given once: the scenarios, as texts, and what to do with them."""

    scenarios: tuple[tuple[str, str], ...]
    options: Options


_CONTEXT = multiprocessing.get_context("forkserver")
"""Workers are copies of a process that has imported all this, assembled images, and done nothing else: they begin at
once, and have no threads, locks or files of ours."""


def prepare_workers(kernels: Collection[str] = ()) -> None:
    """Have the process started that workers are copies of, so that it is ready when they are wanted, with the images
    of these kernels. Nothing happens if there is one."""
    _CONTEXT.set_forkserver_preload([__name__, *modules(kernels)])
    multiprocessing.resource_tracker.ensure_running()  # whose start would unblock them again
    with _interrupts_blocked():
        multiprocessing.forkserver.ensure_running()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C in a terminal is for all its processes; workers, which inherit this, end when we end them, and say
    nothing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


Target = Callable[[Job, Connection, Any], None]
"""What a worker process runs."""


class Workshop:
    """The scenes of one process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scenes: dict[int, Scene] = {}
        self._facts: dict[int, Facts] = {}
        self._places: dict[int, str] = {}
        """Of the addresses of the present scene."""

    def rows(self, unit: Unit, announce: Callable[[str], object]) -> Iterator[Row]:
        """The rows of a unit."""
        scene = self._scenes.get(unit.scenario)
        if scene is None:
            self._scenes.clear()
            self._places.clear()
            scene = self._scenes[unit.scenario] = Scene(*self._job.scenarios[unit.scenario], self._job.options)
        scene.walker.announce = announce
        for case in scene.cases(unit):
            yield self._row(unit, scene, case)

    def _place(self, shot: Shot, image: Image, user: Image) -> str:
        address = shot.where.boundary.ip
        known = self._places.get(address)
        if known is None:
            known = self._places[address] = place(address, image, user)
        return f"{known} ({shot.event.words})" if shot.event.words else known

    def _row(self, unit: Unit, scene: Scene, case: Case) -> Row:
        image, user, found = scene.prepared.options.image, scene.prepared.user, case.violation
        places = " > ".join([self._place(shot, image, user) for shot in case.shots])
        if case.verdict in VERDICTS[:2]:
            return Row(case.key, places, case.verdict, case.merged, case.to_end, "", "", "", "")
        if unit.scenario not in self._facts:
            self._facts[unit.scenario] = scene.baseline
        text = reproducer(scene.file.text, self._facts[unit.scenario], case, image, user)
        if found is not None:
            invariant, message, where = found.invariant, found.message, found.where
        else:
            last = case.shots[-1].where.boundary.ip
            line = image.line_at(last) or user.line_at(last)
            where = place(last, image, user) + (f" ({line.position.file}:{line.position.line})" if line else "")
            invariant, message = LOST, dict(unit.lost)[case.key]
        return Row(case.key, places, case.verdict, case.merged, case.to_end, invariant, message, where, text)


def _begin(target: Target, job: Any, connection: Connection, current: Any) -> None:  # `job`: a ctypes array, pickled
    """A worker process begins. What a process is given as arguments goes through a pipe that blocks for ever if it dies
    meanwhile, and a job with its sources is too large for such a pipe's buffer."""
    target(pickle.loads(job.raw), connection, current)


def _work(job: Job, connection: Connection, current: Any) -> None:  # `current`: a ctypes array in shared memory
    """A worker process: units in, rows out, until the other end is closed."""
    tune()
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
    suspects: frozenset[str] = frozenset()
    """Cases of the unit at which workers have died, once each."""
    seen: bytes = b""
    since: float = field(default_factory=time.monotonic)


class Pool:
    """Worker processes for one job."""

    def __init__(self, job: Job, jobs: int, target: Target = _work) -> None:
        self._job = job
        self._target = target
        pickled = pickle.dumps(job)
        self._pickled = _CONTEXT.RawArray("c", len(pickled))
        self._pickled.raw = pickled
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

    def rows(self, unit: Unit) -> list[Row]:
        """The rows of one unit, by one worker, which stays for the next one until `close`."""
        if not self._workers:
            self._workers = [self._hire()]
        self._give(self._workers[0], unit)
        done: list[tuple[Unit, list[Row]]] = []
        while not done:
            done = list(self._wait([]))
        return done[0][1]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()
        self._workers = []

    def _hire(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        current = _CONTEXT.RawArray("c", KEY_BYTES)
        process = _CONTEXT.Process(target=_begin, args=(self._target, self._pickled, theirs, current), daemon=True)
        prepare_workers()
        try:
            with _interrupts_blocked():
                process.start()
        except (OSError, EOFError) as error:
            raise Entry64Error(f"no worker process can be started: {error}") from None
        finally:
            theirs.close()
        return _Worker(process, ours, current)

    def _give(self, worker: _Worker, unit: Unit) -> None:
        worker.unit, worker.current.value, worker.seen = unit, b"", b""
        worker.since = time.monotonic()
        try:
            worker.connection.send(unit)
        except OSError:
            self._replace(worker, silent=False)  # it has died since its last unit

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
                self._replace(worker, silent=False)
                continue
            worker.unit, worker.suspects = None, frozenset()
            if todo:
                self._give(worker, todo.pop())
            yield unit, rows
        for worker in busy.values():
            if worker.current.value != worker.seen:
                worker.seen, worker.since = worker.current.value, time.monotonic()
            elif time.monotonic() - worker.since > (SILENCE if worker.seen else START_UP):
                self._replace(worker, silent=True)

    def _replace(self, worker: _Worker, *, silent: bool) -> None:
        """A worker is dead or silent: another one takes its unit, without the case that has cost two their lives."""
        unit, key = worker.unit, worker.current.value.decode()
        assert unit is not None
        if not silent:
            worker.process.join(1)  # it has closed the pipe, and may be about to end: its own status is the better one
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        how = _ending(worker.process.exitcode)
        if silent:
            how = f"no answer for {SILENCE if key else START_UP:g} seconds"
        suspects = worker.suspects
        if silent or key in suspects or len(suspects) >= MAX_SUSPECTS:
            if not key or key in dict(unit.lost) or len(unit.lost) >= MAX_LOST:
                where = f"case {key}" if key else "the first case"
                raise Entry64Error(
                    f"{self._job.scenarios[unit.scenario][0]}: workers are lost at boundaries {unit.first} to "
                    f"{unit.end - 1}, {where}: {how}"
                )
            unit = replace(unit, lost=(*unit.lost, (key, f"the worker process was lost: {how}")))
        else:
            suspects |= {key}
        fresh = self._hire()
        fresh.suspects = suspects
        self._workers[self._workers.index(worker)] = fresh
        self._give(fresh, unit)


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
