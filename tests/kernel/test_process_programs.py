"""C programs with many processes, threads, pipes and files: the same output from the host's kernel and from ours."""

import subprocess

import pytest
from booted import start
from c_programs import HAS_GCC, compiled

from kernel_stubs.elf import load_elf
from kernel_stubs.syscalls.table import unknown_syscalls

ARGUMENTS = {"files": (b"/tmp",)}
PROGRAM_NAMES = ["processes", "threads", "pipeline", "files"]
LIMIT = 50_000_000

pytestmark = pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")


def run(path, argv=None, **options):
    it = start(
        load_elf(path.read_bytes(), path.name),
        argv=argv or (path.name.encode(), *ARGUMENTS.get(path.name, ())),
        **options,
    )
    end = it.run(LIMIT)
    return it, end


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_output_is_that_of_a_native_run(name, tmp_path):
    path = compiled(name)
    it, end = run(path)
    arguments = [tmp_path] if name in ARGUMENTS else []
    host = subprocess.run([path, *arguments], capture_output=True, check=False, timeout=20)
    assert it.stdout.decode().splitlines() == host.stdout.decode().splitlines()
    assert end.text == f"exited with status {host.returncode}"
    assert unknown_syscalls(it.system.kernel) == {}


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_a_timer_interrupt_every_997_instructions_changes_nothing(name):
    quiet, _ = run(compiled(name))
    busy, end = run(compiled(name), timer_period=997)
    assert end.text.startswith("exited with status")
    assert sorted(busy.stdout.splitlines()) == sorted(quiet.stdout.splitlines())


def test_runs_are_repeatable():
    one, _ = run(compiled("threads"))
    two, _ = run(compiled("threads"))
    assert one.events == two.events
