"""C programs with many processes, threads, pipes and files: the same output from the host's kernel and from ours."""

import shutil
import subprocess
from pathlib import Path

import pytest
from booted import start

from kernel_stubs.elf import load_elf
from kernel_stubs.syscalls.table import unknown_syscalls

PROGRAMS = Path(__file__).parents[1] / "programs"
ARGUMENTS = {"files": (b"/tmp",)}
PROGRAM_NAMES = ["processes", "threads", "pipeline", "files"]
LIMIT = 50_000_000

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Name of a program -> path of its static executable."""
    folder = tmp_path_factory.mktemp("programs")

    def compile_program(name):
        target = folder / name
        if not target.exists():
            source = PROGRAMS / f"{name}.c"
            subprocess.run(["gcc", "-static", "-O1", "-w", "-pthread", "-o", target, source], check=True)
        return target

    return compile_program


def run(path, argv=None, **options):
    it = start(
        load_elf(path.read_bytes(), path.name),
        argv=argv or (path.name.encode(), *ARGUMENTS.get(path.name, ())),
        **options,
    )
    end = it.run(LIMIT)
    return it, end


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_output_is_that_of_a_native_run(compiled, name, tmp_path):
    path = compiled(name)
    it, end = run(path)
    arguments = [tmp_path] if name in ARGUMENTS else []
    host = subprocess.run([path, *arguments], capture_output=True, check=False, timeout=20)
    assert it.stdout.decode().splitlines() == host.stdout.decode().splitlines()
    assert end.text == f"exited with status {host.returncode}"
    assert unknown_syscalls(it.system.kernel) == {}


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_a_timer_interrupt_every_997_instructions_changes_nothing(compiled, name):
    quiet, _ = run(compiled(name))
    busy, end = run(compiled(name), timer_period=997)
    assert end.text.startswith("exited with status")
    assert sorted(busy.stdout.splitlines()) == sorted(quiet.stdout.splitlines())


def test_runs_are_repeatable(compiled):
    one, _ = run(compiled("threads"))
    two, _ = run(compiled("threads"))
    assert one.events == two.events
