"""A sweep on a Dask cluster of worker processes: the same table as here, also if workers die meanwhile."""

from __future__ import annotations

import os
import signal
import sys

import dask.config
import distributed
import pytest
import sweep_runs
from click.testing import CliRunner
from sweep_runs import text

from emu.cli import main
from emu.errors import Entry64Error
from emu.lab.scenario import parse_scenario
from emu.lab.sweep import cluster
from emu.lab.sweep.command import sweep
from emu.lab.sweep.scene import Options
from emu.lab.sweep.store import Store

OPTIONS = Options(("nmi", "irq"))


def rows(jobs: int = 1, hire=None, progress=lambda *_: None):
    store = Store(None)
    (result,) = sweep([parse_scenario(text(), "t.toml")], OPTIONS, jobs, store, progress, hire=hire)
    return [tuple(row) for row in store.rows(result.key)]


@pytest.fixture(scope="module")
def address():
    """A cluster that gives a task up as soon as one worker has died with it: the sweep must hand it out again."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as local,
    ):
        yield local.scheduler_address


def test_this_process_two_jobs_and_a_cluster_that_loses_a_worker_give_the_same_table(address):
    killed = []
    with cluster.connected(address) as client:

        def progress(done: int, total: int, cases: int, found: int) -> None:
            if 0 < done < total and not killed:
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                killed.append(client.run(os.getpid)[busy])
                os.kill(killed[0], signal.SIGKILL)  # as a machine that is gone

        found = rows(hire=lambda job: cluster.Cluster(client, job), progress=progress)
        assert set(client.run(os.getpid).values()).isdisjoint(killed)
    assert killed
    assert len(found) > 500
    assert found == sorted(sweep_runs.rows(text(), *OPTIONS.events))
    assert found == rows(2)


def test_workers_with_another_version_of_entry64_are_refused(address, monkeypatch):
    monkeypatch.setattr(cluster, "code_digest", lambda: "another")
    with cluster.connected(address) as client, pytest.raises(Entry64Error, match="has another version of entry64"):
        rows(hire=lambda job: cluster.Cluster(client, job))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scheduler", "127.0.0.1:1"), "--scheduler 127.0.0.1:1: no Dask scheduler answers there: Timed out"),
        (("--scheduler", "nowhere"), "--scheduler nowhere: no Dask scheduler answers there: missing port number"),
        (("--scheduler", "x://y:1"), "unknown address scheme 'x'"),
        (("--scheduler", "127.0.0.1:1", "--jobs", "2"), "in processes here or on a cluster, not both"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_message_and_status_2(arguments, message, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER", 0.3)
    done = CliRunner().invoke(main, ["sweep", "syscall-getpid", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.splitlines()) == 1


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "emu.lab.sweep.cluster")
    monkeypatch.delattr("emu.lab.sweep.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = CliRunner().invoke(main, ["sweep", "syscall-getpid", "--scheduler", "127.0.0.1:1"])
    assert done.exit_code == 2
    assert "pip install 'entry64[cluster]'" in done.output
