"""Units of work on a Dask cluster (the extra `cluster`), whose workers may come, go and die meanwhile.

A task is a unit. A Dask worker does not run it itself: like a Pool it has a process for that, one for each of its
threads, so a case that crashes or hangs costs what it costs there, and nothing of Dask. If a Dask worker dies, its
tasks are done again elsewhere; a unit's rows do not depend on who runs it.

What workers need to know is a plugin of theirs, which workers that come later get, too.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

import distributed
from distributed.comm import get_address_host_port

from emu.errors import Entry64Error
from emu.lab.sweep.pool import Job, Pool
from emu.lab.sweep.scene import Unit
from emu.lab.sweep.store import Row
from emu.lab.sweep.version import code_digest

ANSWER = 10.0
"""Seconds that a scheduler has to answer."""
WORKERS_COME = 60.0
"""Seconds until a scheduler must have a worker: some start them when there is work."""
AHEAD = 4
"""Units under way for each thread of a worker; all at once would keep too many results waiting."""
MAX_MOVES = 3
"""How often a unit is handed out again of which Dask says that it kills workers (each time after several tries)."""


# --- in a Dask worker -------------------------------------------------------------------------------------------------
class Workplace(distributed.WorkerPlugin):  # type: ignore[misc]  # untyped base
    """A job's processes on one Dask worker."""

    def __init__(self, job: Job, code: str) -> None:
        self.name = _name(job)
        self._job = job
        self._code = code
        self._lock = threading.Lock()
        self._idle: list[Pool] = []
        self._over = False

    def __reduce__(self) -> tuple[type[Workplace], tuple[Job, str]]:
        """What goes over the network."""
        return Workplace, (self._job, self._code)

    def setup(self, worker: object) -> None:
        """Of Dask: the worker has the plugin."""
        if self._code != code_digest():
            raise Entry64Error(f"the Dask worker at {_address(worker)} has another version of entry64")
        # Dask's workers are daemon processes, which may have no children; ours end when the pipe to them closes.
        multiprocessing.current_process().daemon = False

    def teardown(self, worker: object) -> None:
        """Of Dask: the job is over, or the worker ends."""
        with self._lock:
            self._over = True
            idle, self._idle = self._idle, []
        for pool in idle:
            pool.close()

    def rows(self, unit: Unit) -> list[Row]:
        """The rows of a unit, by a process that nobody else uses meanwhile."""
        with self._lock:
            pool = self._idle.pop() if self._idle else Pool(self._job, 1)
        try:
            rows = pool.rows(unit)
        except BaseException:
            pool.close()
            raise
        with self._lock:
            if not self._over:
                self._idle.append(pool)
                return rows
        pool.close()
        return rows


def _run(name: str, unit: Unit) -> list[Row]:
    """A task."""
    workplace: Workplace = distributed.get_worker().plugins[name]
    return workplace.rows(unit)


def _name(job: Job) -> str:
    return f"entry64-{hashlib.sha256(pickle.dumps(job)).hexdigest()[:16]}"


def _address(worker: object) -> str:
    return str(getattr(worker, "address", "?"))


# --- at home ----------------------------------------------------------------------------------------------------------
@contextmanager
def connected(address: str) -> Iterator[distributed.Client]:
    """A client of the scheduler at an address; Entry64Error if there is none."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs what we report
    try:
        get_address_host_port(address)  # or the client would find out too late
        client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:  # no answer; no address
        why = str(error).partition("\n")[0] or type(error).__name__
        raise Entry64Error(f"--scheduler {address}: no Dask scheduler answers there: {why}") from None
    try:
        yield client
    finally:
        client.close(timeout=ANSWER)


class Cluster:
    """A Dask cluster for one job; used like a Pool."""

    def __init__(self, client: distributed.Client, job: Job) -> None:
        self._client = client
        self._job = job

    def run(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        """The rows of each unit, in the order in which they are done."""
        client, plugin = self._client, Workplace(self._job, code_digest())
        try:
            try:
                client.register_plugin(plugin, name=plugin.name)
            except ModuleNotFoundError as error:
                raise Entry64Error(f"the Dask workers of {self._where} do not have entry64: {error}") from None
            yield from self._run(plugin.name, list(reversed(units)))
        finally:
            if client.status == "running":  # else there is nobody to tell
                client.unregister_worker_plugin(plugin.name)

    @property
    def _where(self) -> str:
        return str(self._client.scheduler.address if self._client.scheduler else "the cluster")

    def _run(self, name: str, todo: list[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        client = self._client
        under_way: dict[distributed.Future, Unit] = {}
        moves: dict[Unit, int] = {}
        finished = distributed.as_completed(loop=client.loop)

        def submit(unit: Unit) -> None:
            future = client.submit(_run, name, unit, pure=False)
            under_way[future] = unit
            finished.add(future)

        def fill() -> None:
            threads = sum(client.nthreads().values())
            while todo and len(under_way) < AHEAD * max(threads, 1):
                submit(todo.pop())

        try:
            fill()
            try:
                client.wait_for_workers(1, timeout=WORKERS_COME)
            except TimeoutError:
                raise Entry64Error(f"--scheduler {self._where}: it has no workers") from None
            for future in finished:
                unit = under_way.pop(future)
                try:
                    rows = future.result()
                except distributed.KilledWorker:
                    moves[unit] = moves.get(unit, 0) + 1
                    if moves[unit] > MAX_MOVES:
                        raise Entry64Error(
                            f"{self._where}: boundaries {unit.first} to {unit.end - 1} of "
                            f"{self._job.scenarios[unit.scenario][0]}: every Dask worker that took them died"
                        ) from None
                    submit(unit)
                    continue
                except CancelledError:
                    raise Entry64Error(f"the Dask scheduler at {self._where} is gone") from None
                future.release()
                fill()
                yield unit, rows
        finally:
            if client.status == "running":
                client.cancel(list(under_way))
