"""The sweep: clean on the image as it is, finds what is broken on purpose, and loses nothing when it is killed."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.sweep import pool
from emu.lab.sweep.case import CLEAN, LOST, PENDING
from emu.lab.sweep.command import Swept, sweep, text_lines
from emu.lab.sweep.events import EVENTS, events_named
from emu.lab.sweep.pool import Job, Pool, Workshop
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.store import Store
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files

GETPID = """
title = "getpid"
cpu = {{ fsgsbase = {fsgsbase} }}
[user]
asm = '''
_start:
    movl    $SYS_getpid, %eax
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""


def text(*, fsgsbase: bool = True) -> str:
    return GETPID.format(fsgsbase=str(fsgsbase).lower())


def rows(source: str, *events: str, depth: int = 1, window: str = "", image=None):
    """All rows of a sweep in this process."""
    options = Options(events, depth, window, image=image)
    scene = Scene("t.toml", source, options)
    workshop = Workshop(Job((("t.toml", source),), options))
    return [row for unit in scene.units(0) for row in workshop.rows(unit, lambda key: None)]


def swept(source: str, *events: str, depth: int = 1, window: str = "", image=None) -> Swept:
    """A sweep with one worker, findings included."""
    file = parse_scenario(source, "t.toml")
    (result,) = sweep([file], Options(events, depth, window, image=image), 1, Store(None), lambda *_: None)
    return result


def broken(name: str, old: str, new: str, *, fsgsbase: bool = True):
    source = source_files("linux-6")[name]
    assert source.count(old) == 1, f"{name}: {old!r} stands there {source.count(old)} times"
    return build_image("linux-6", Profile(fsgsbase=fsgsbase), ((name, source.replace(old, new)),))


# --- clean ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fsgsbase", [True, False])
def test_every_event_at_every_boundary_of_getpid_is_clean(fsgsbase):
    found = rows(text(fsgsbase=fsgsbase), *EVENTS)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    by_event = {name: [row for row in found if row.events.startswith(f"{name}@")] for name in EVENTS}
    assert all(len(by_event[name]) > 250 for name in ("nmi", "mce", "irq", "timer", "resched", "db"))
    assert len(by_event["pf"]) > 100
    # What the CPU always takes is hardly ever pending, and what IF masks nearly always, in kernel mode.
    assert sum(row.verdict == PENDING for row in by_event["mce"]) == 0
    assert sum(row.verdict == CLEAN for row in by_event["irq"]) < 30
    # Almost every state comes back to the baseline's, so nothing has to run to the end.
    assert sum(row.to_end for row in found) < 40


def test_an_nmi_inside_an_nmi_a_check_a_trap_and_a_fault_is_clean():
    found = rows(text(), "nmi", "mce", "db", "pf", depth=2, window="entry_SYSCALL_64..entry_SYSCALL_64_safe_stack")
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert sum(" nmi+" in row.events for row in found) > 1_000


def test_the_lazy_page_in_the_nmi_handler_unblocks_nmis_early_and_that_is_clean():
    source = text() + "[options]\nnmi_touches_memory = true\n"
    window = "entry_SYSCALL_64..entry_SYSCALL_64+0x3"
    found = rows(source, "nmi", depth=2, window=window)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert sum(row.verdict == CLEAN and " nmi+" in row.events for row in found) > 50, "no NMI came in early"


def test_a_pending_event_is_the_case_of_the_boundary_where_it_comes_in():
    found = {row.events: row for row in rows(text(), "irq")}
    merged = [row for row in found.values() if row.merged]
    assert len(merged) > 250
    for row in merged:
        assert row.verdict == PENDING
        # The first boundary behind it where the interrupt comes in, or the last of that unit of work.
        assert int(row.merged.removeprefix("irq@")) > int(row.events.removeprefix("irq@"))
        assert not found[row.merged].merged


def test_the_window_limits_the_first_event():
    found = rows(text(), "nmi", window="entry_SYSCALL_64..entry_SYSCALL_64_safe_stack")
    assert {row.place.partition("+")[0] for row in found} == {"entry_SYSCALL_64", "entry_SYSCALL_64_safe_stack"}


def test_a_scenario_keeps_its_own_injections():
    source = find_scenario("syscall-iretq").text
    found = rows(source, "nmi", window="swapgs_restore_regs_and_return_to_usermode..native_irq_return_iret")
    assert found
    assert {row.verdict for row in found} == {CLEAN}


@pytest.mark.parametrize("name", ["signal-at-exit", "nmi-nested"])
def test_an_injection_of_the_scenario_happens_once_in_every_case(name):
    found = rows(find_scenario(name).text, "nmi", "timer", window="do_syscall_64..do_syscall_64+0x6")
    assert len(found) >= 12
    assert {row.verdict for row in found} <= {CLEAN, PENDING}


# --- finds ------------------------------------------------------------------------------------------------------------
NO_SWAPGS = ("paranoid.S", "    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n")


def test_a_missing_swapgs_is_found_minimised_and_reproduced():
    image = broken(*NO_SWAPGS, fsgsbase=False)
    result = swept(text(fsgsbase=False), "nmi", image=image)
    (finding,) = result.findings
    assert not result.clean
    assert finding.invariant == "GS nesting"
    assert finding.where.startswith("end_repeat_nmi+")
    assert "(nmi.S:" in finding.where
    assert "exc_nmi is called with GS_BASE 0x0 (the user's base)" in finding.message
    assert finding.reproduced
    assert finding.scenario.count("[[inject]]") == 1
    assert "exit_group" not in finding.scenario, "the second system call is not needed"
    (report,) = run_scenario(parse_scenario(finding.scenario, "finding.toml"), image)
    assert not report.passed
    first = report.facts.violations[0]
    assert (first.invariant, first.where, first.message) == (finding.invariant, finding.where, finding.message)


def test_a_hole_that_takes_two_events_is_found_at_depth_2():
    """Without the look at NMI executing, an NMI that nests overwrites the frames of the first."""
    image = broken("nmi.S", "    je      nested_nmi\n", "    nop\n    nop\n")
    source = text() + "[options]\nnmi_touches_memory = true\n"
    window = "entry_SYSCALL_64..entry_SYSCALL_64+0x3"
    assert swept(source, "nmi", window=window, image=image).clean
    result = swept(source, "nmi", depth=2, window=window, image=image)
    assert result.findings
    assert result.findings[0].events.count("nmi") == 2
    assert result.findings[0].reproduced


def test_a_scenario_that_fails_by_itself_is_not_swept():
    result = swept(find_scenario("swapgs-skipped").text, "nmi")
    assert not result.clean
    assert result.broken[0].invariant == "GS nesting"


def test_unknown_events_are_named():
    with pytest.raises(Exception, match=r"there are nmi, irq, timer, resched, mce, db, pf, and all"):
        events_named("nmi,smi")


# --- keeps ------------------------------------------------------------------------------------------------------------
def table(db: Path) -> list[tuple]:
    connection = sqlite3.connect(db)
    found = connection.execute("SELECT * FROM cases ORDER BY sweep, events").fetchall()
    connection.close()
    return found


def command(db: Path, jobs: int) -> list[str]:
    return [
        sys.executable, "-m", "emu.cli", "sweep", "syscall-getpid", "--event", "nmi", "--depth", "2",
        "--window", "entry_SYSCALL_64..entry_SYSCALL_64+0xc", "--db", str(db), "--jobs", str(jobs),
    ]  # fmt: skip


def run_command(db: Path, jobs: int) -> None:
    subprocess.run(command(db, jobs), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def interrupted(db: Path, units: int, how: Callable[[int], None]) -> tuple[int, str]:
    """Exit status and stderr of the command, ended like this as soon as it has done so many more units."""
    units += units_done(db)
    process = subprocess.Popen(
        command(db, 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
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
    assert interrupted(db, 143, lambda pid: os.kill(pid, signal.SIGKILL))[0] == -signal.SIGKILL
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


def _killed_once(job, connection, current):
    def at(key: str) -> None:
        if key == "nmi@5" and not Path(os.environ["ENTRY64_TEST_MARK"]).exists():
            Path(os.environ["ENTRY64_TEST_MARK"]).touch()
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


def test_a_worker_that_somebody_kills_costs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTRY64_TEST_MARK", str(tmp_path / "killed"))
    job = Job((("t.toml", text()),), Options(("nmi",)))
    ((_, found),) = Pool(job, 2, _killed_once).run([Unit(0, 0, 8)])
    assert (tmp_path / "killed").exists()
    assert [row.verdict for row in found] == [CLEAN] * 8


def test_a_case_that_never_ends_costs_that_case_only(monkeypatch):
    monkeypatch.setattr(pool, "SILENCE", 1.5)
    job = Job((("t.toml", text()),), Options(("nmi",)))
    ((_, found),) = Pool(job, 1, _hangs_at).run([Unit(0, 0, 8)])
    assert [row.verdict for row in found] == [*[CLEAN] * 5, LOST, *[CLEAN] * 2]
    assert found[5].message == "the worker process was lost: no answer for 1.5 seconds"


def test_the_classic_image_is_clean_too():
    found = rows('kernel = "linux-2.6"\n' + text(), "nmi", "mce", "db", "irq", "timer")
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert len(found) > 600
    assert sum(row.to_end for row in found) < len(found) // 10  # the others meet the baseline again
