"""C programs that use signals: compiled here, run by the host's kernel and by ours, with the same output."""

import pytest
from booted import start
from c_programs import HAS_GCC, compiled
from programs import native

from kernel_stubs.elf import load_elf

PROGRAM_NAMES = ["signals", "faults", "sigreturn", "step", "fpu", "fsgs", "family"]
LIMIT = 5_000_000_000

pytestmark = pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")


def outcome(path, **options):
    """(how it ended, standard output) under our kernel."""
    it = start(load_elf(path.read_bytes(), path.name), argv=(path.name.encode(),), **options)
    _, end = it.system.machine.advance(LIMIT)
    return end.text, it.stdout.decode().splitlines()


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_output_is_that_of_a_native_run(name):
    path = compiled(name)
    text, lines = outcome(path)
    expected = native(path)
    assert lines == expected[1]
    assert text == expected[0]


@pytest.mark.parametrize(
    ("name", "period"), [("signals", 211), ("sigreturn", 211), ("fpu", 211), ("family", 1_000_003)]
)
def test_a_busy_timer_changes_nothing(name, period):
    assert outcome(compiled(name), timer_period=period) == native(compiled(name))


@pytest.mark.parametrize("name", ["signals"])  # family, which sleeps much: make matrix
def test_two_cpus_change_nothing(name):
    assert outcome(compiled(name), cpus=2) == native(compiled(name))
