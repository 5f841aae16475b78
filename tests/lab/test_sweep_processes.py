"""Processes of a sweep: killed, interrupted or hanging ones lose nothing but the case that did it."""

from __future__ import annotations

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.spawn
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from sweep_runs import text

from emu.cli import main
from emu.errors import Entry64Error
from emu.lab.run import prepare
from emu.lab.scenario import parse_scenario
from emu.lab.sweep import pool
from emu.lab.sweep.case import CLEAN, LOST, PENDING
from emu.lab.sweep.command import sweep, text_lines
from emu.lab.sweep.pool import Job, Pool, Workshop, prepare_workers
from emu.lab.sweep.scene import Options, Unit
from emu.lab.sweep.store import Store
from kernel_stubs.kernel_image import assembled_image, kernel_names


def table(db: Path) -> list[tuple]:
    connection = sqlite3.connect(db)
    found = connection.execute("SELECT * FROM cases ORDER BY sweep, events").fetchall()
    connection.close()
    return found


def command(db: Path, jobs: int) -> list[str]:
    return [
        "sweep", "syscall-getpid", "--event", "nmi", "--depth", "2",
        "--window", "entry_SYSCALL_64..entry_SYSCALL_64_safe_stack", "--db", str(db), "--jobs", str(jobs),
    ]  # fmt: skip


def run_command(db: Path, jobs: int) -> None:
    assert CliRunner().invoke(main, command(db, jobs)).exit_code == 0


def interrupted(db: Path, units: int, how: Callable[[int], None]) -> tuple[int, str]:
    """Exit status and stderr of the command, ended like this as soon as it has done so many more units."""
    units += units_done(db)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's child would ignore it
    process = subprocess.Popen(
        [sys.executable, "-m", "emu.cli", *command(db, 2)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    while process.poll() is None and units_done(db) < units:
        time.sleep(0.01)
    how(process.pid)
    _, errors = process.communicate()
    return process.returncode, errors


def units_done(db: Path) -> int:
    connection = sqlite3.connect(db)
    try:
        return connection.execute("SELECT count(*) FROM units").fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # there are no tables yet
    finally:
        connection.close()


def test_two_jobs_that_were_killed_and_interrupted_give_the_table_of_one(tmp_path):
    run_command(tmp_path / "one.db", 1)
    wanted = table(tmp_path / "one.db")
    assert len(wanted) > 600
    db = tmp_path / "resumed.db"
    # kill -9 of the parent only: its workers must notice.
    assert interrupted(db, 3, lambda pid: os.kill(pid, signal.SIGKILL))[0] == -signal.SIGKILL
    status, errors = interrupted(db, 1, lambda pid: os.killpg(pid, signal.SIGINT))  # Ctrl-C in a terminal
    assert status == 130
    assert errors.splitlines()[-1] == f"interrupted; the same command goes on from {db}"
    assert "Traceback" not in errors
    assert units_done(db) < units_done(tmp_path / "one.db")
    run_command(db, 2)
    assert table(db) == wanted


def _serve(job, connection, current, at: Callable[[str], None]) -> None:
    """A worker to which something happens before its cases."""
    workshop = Workshop(job)

    def announce(key: str) -> None:
        current.value = key.encode()
        at(key)

    while True:
        try:
            unit = connection.recv()
        except EOFError:
            return
        connection.send(list(workshop.rows(unit, announce)))


def _dies_at(job, connection, current):
    def at(key: str) -> None:
        if key == "nmi@5":
            os.kill(os.getpid(), signal.SIGSEGV)

    _serve(job, connection, current, at)


def _killed_once(mark: Path, job, connection, current):
    def at(key: str) -> None:
        if key == "nmi@5" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _serve(job, connection, current, at)


def _hangs_at(job, connection, current):
    def at(key: str) -> None:
        if key == "nmi@5":
            time.sleep(1000)

    _serve(job, connection, current, at)


def test_a_case_that_kills_its_workers_costs_that_case_only_and_is_reported():
    file = parse_scenario(text(), "t.toml")
    options, store = Options(("nmi",)), Store(None)
    (result,) = sweep([file], options, 1, store, lambda *_: None, hire=lambda job: Pool(job, 1, _dies_at))
    found = list(store.rows(result.key))
    assert [row.events for row in found if row.verdict == LOST] == ["nmi@5"]
    assert {row.verdict for row in found if row.events != "nmi@5"} == {CLEAN, PENDING}
    assert len(found) > 250
    assert not result.clean
    (finding,) = result.findings
    assert finding.message == "the worker process was lost: killed by SIGSEGV"
    assert re.fullmatch(r"swapgs_restore_regs_and_return_to_usermode\+0x\w+ \(calling.inc:\d+\)", finding.where)
    assert 'event = "nmi"' in finding.scenario
    (line,) = (line for line in text_lines(result) if line.startswith("  lost at"))
    assert line == f"  lost at {finding.where}: {finding.message}"


def test_a_worker_that_somebody_kills_costs_nothing(tmp_path):
    job = Job((("t.toml", text()),), Options(("nmi",)))
    ((_, found),) = Pool(job, 2, partial(_killed_once, tmp_path / "killed")).run([Unit(0, 0, 8)])
    assert (tmp_path / "killed").exists()
    assert [row.verdict for row in found] == [CLEAN] * 8


def test_a_case_that_never_ends_costs_that_case_only(monkeypatch):
    monkeypatch.setattr(pool, "SILENCE", 1.5)
    job = Job((("t.toml", text()),), Options(("nmi",)))
    ((_, found),) = Pool(job, 1, _hangs_at).run([Unit(0, 0, 8)])
    assert [row.verdict for row in found] == [*[CLEAN] * 5, LOST, *[CLEAN] * 2]
    assert found[5].message == "the worker process was lost: no answer for 1.5 seconds"


def _tells_of_itself(job, connection, current):
    connection.recv()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    before = assembled_image.cache_info().misses
    for kernel in kernel_names():
        prepare(parse_scenario(text().replace("title", f'kernel = "{kernel}"\ntitle', 1), "t.toml"))
    connection.send((signal.SIGINT in blocked, assembled_image.cache_info().misses - before))


def tell_of_a_worker(*kernels: str) -> None:
    """In a process of its own, which has started none before: whether a worker would not hear of an interrupt, and how
    many images it has to assemble itself."""
    prepare_workers(kernels)
    print(*Pool(Job((), Options(())), 1, _tells_of_itself).rows(Unit(0, 0, 0)))


def told_of_a_worker(*kernels: str) -> list[str]:
    code = f"import test_sweep_processes; test_sweep_processes.tell_of_a_worker(*{kernels})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()


def test_workers_hear_nothing_of_an_interrupt():
    assert told_of_a_worker()[0] == "True"


@pytest.mark.parametrize("kernels", [(), ("linux-6",), kernel_names()])
def test_workers_begin_with_the_images_that_they_need(kernels):
    assert told_of_a_worker(*kernels)[1] == str(len(kernel_names()) - len(kernels))


def _ends_at_once(job, connection, current):
    os._exit(1)


def test_processes_that_die_before_they_begin_are_one_message():
    """However large the job is: what nobody reads of it must not block the parent."""
    job = Job((("t.toml", text()),), Options(("nmi",), sources=(("large.S", "x" * 1_000_000),)))
    with pytest.raises(Entry64Error, match="workers are lost at boundaries 0 to 7, the first case: exit status 1"):
        list(Pool(job, 2, _ends_at_once).run([Unit(0, 0, 8)]))


def test_processes_that_cannot_be_started_are_one_message(monkeypatch):
    server = multiprocessing.forkserver._forkserver
    multiprocessing.resource_tracker.ensure_running()  # with the right interpreter
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    server._stop()
    try:
        with pytest.raises(Entry64Error, match="no worker process can be started: "):
            list(Pool(Job((("t.toml", text()),), Options(("nmi",))), 2).run([Unit(0, 0, 8)]))
    finally:
        server._stop()
