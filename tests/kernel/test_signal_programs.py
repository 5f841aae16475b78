"""C programs that use signals: compiled here, run by the host's kernel and by ours, with the same output."""

import shutil
import subprocess
from pathlib import Path

import pytest
from booted import start
from programs import native

from kernel_stubs.elf import load_elf

PROGRAMS = Path(__file__).parents[1] / "programs"
PROGRAM_NAMES = ["signals", "faults", "sigreturn", "step", "fpu", "fsgs", "family"]
LIMIT = 5_000_000_000

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Name of a program -> path of its static executable."""
    folder = tmp_path_factory.mktemp("programs")

    def compile_program(name, *flags):
        target = folder / name
        if not target.exists():
            source = PROGRAMS / f"{name}.c"
            subprocess.run(["gcc", "-static", "-O1", "-w", "-pthread", *flags, "-o", target, source], check=True)
        return target

    return compile_program


def outcome(path, **options):
    """(how it ended, standard output) under our kernel."""
    it = start(load_elf(path.read_bytes(), path.name), argv=(path.name.encode(),), **options)
    _, end = it.system.machine.advance(LIMIT)
    return end.text, it.stdout.decode().splitlines()


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_output_is_that_of_a_native_run(compiled, name):
    path = compiled(name)
    text, lines = outcome(path)
    expected = native(path)
    assert lines == expected[1]
    assert text == expected[0]


@pytest.mark.parametrize(
    ("name", "period"), [("signals", 211), ("sigreturn", 211), ("fpu", 211), ("family", 1_000_003)]
)
def test_a_busy_timer_changes_nothing(compiled, name, period):
    assert outcome(compiled(name), timer_period=period) == native(compiled(name))


@pytest.mark.parametrize("name", ["signals"])  # family, which sleeps much: make matrix
def test_two_cpus_change_nothing(compiled, name):
    assert outcome(compiled(name), cpus=2) == native(compiled(name))
