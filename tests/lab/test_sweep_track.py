"""The way of a sweep along its baseline: every boundary, and the state there, however it came to be known."""

import pytest

from emu.lab.shipped import find_scenario
from emu.lab.sweep.bench import Bench
from emu.lab.sweep.pool import Job, Workshop
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.state import _REGISTERS
from emu.lab.sweep.store import Row
from emu.lab.sweep.track import Track
from emu.machine.memory import Memory


def track(name: str, *, glides: bool = True) -> Track:
    file = find_scenario(name)
    scene = Scene(file.name, file.text, Options(("nmi",)))
    bench = scene.start()
    if not glides:
        bench.glide = lambda boundaries, look: True
    saved, here, arrivals = scene._start
    return Track(bench, saved, (), here, dict(arrivals))


def states(along: Track):
    """What is known of each boundary: the state to compare with, and the one to go back to."""
    while True:
        machine = along.saved.machine
        (core,) = machine.cores
        registers = _REGISTERS.unpack_from(core.context)
        yield (
            along.where,
            along.reference,
            len(along.origin.recipe),
            core.clock,
            core.nmi_blocked,
            registers,
            machine.ram.data,
        )
        if not along.advance():
            return


@pytest.mark.parametrize(
    "name",
    [
        "syscall-getpid",
        "classic-getpid",
        "classic-own-segments",
        "classic-kernel-thread-returns",
        "page-fault-and-timer",
        "classic-segments-across-switches",
    ],
)
def test_what_is_learned_in_one_run_is_what_single_steps_show(name):
    number = -1
    both = zip(states(track(name)), states(track(name, glides=False)), strict=True)
    for number, (one, other) in enumerate(both):  # noqa: B007
        assert one == other
    assert number > 100


def test_the_first_instruction_of_an_interrupt_of_the_scenarios_own_is_a_boundary():
    along = track("device-irq")
    places = [along.bench.view.where(state[0].boundary.ip).partition(" ")[0] for state in states(along)]
    entries = [at for at, place in enumerate(places) if place.startswith("irq_entries_start")]
    assert [places[at] for at in entries[:2]] == ["irq_entries_start+0x10", "irq_entries_start+0x12"]


@pytest.mark.parametrize("name", ["syscall-getpid", "classic-getpid", "page-fault-and-timer", "classic-two-cpus"])
def test_going_back_from_a_state_that_matched_copies_little_and_restores_all(name, monkeypatch):
    restore, whole, partly = Memory.restore, [], []

    def checked(memory, snapshot, where=None):
        restore(memory, snapshot, where)
        assert memory.ram[: memory.used] == snapshot.data
        little = where is not None and sum(high - low for low, high in where) < len(snapshot.data) // 3
        (partly if little and not memory._holds_code(where) else whole).append(where)

    monkeypatch.setattr(Memory, "restore", checked)
    file = find_scenario(name)
    scene = Scene(file.name, file.text, Options(("nmi", "irq", "pf", "mce", "db")))
    cases = sum(1 for _ in scene.cases(Unit(0, 100, 140)))
    assert len(partly) > len(whole) > 0
    assert cases > 100


@pytest.mark.parametrize("name", ["classic-traced-fork", "traced-system-calls", "segments-across-switches"])
def test_going_back_to_c_functions_in_flight_is_the_same_as_coming_from_a_state_without_any(name, monkeypatch):
    file = find_scenario(name)

    def found() -> list[Row]:
        job = Job(((file.name, file.text),), Options(("nmi", "irq", "pf")))
        return list(Workshop(job).rows(Unit(0, 500, 560), lambda key: None))

    replays = 0

    def load(bench, saved, original=Bench.load):
        nonlocal replays
        replays += not saved.functions
        original(bench, saved)

    monkeypatch.setattr(Bench, "load", load)
    there_at_once, few, replays = found(), replays, 0
    monkeypatch.setattr(Bench, "can_load", lambda bench, saved: not saved.functions)
    assert found() == there_at_once
    assert few < replays


def test_which_instructions_are_plain_does_not_depend_on_the_hooks_that_a_case_has_left(monkeypatch):
    def plain() -> list[bool]:
        along = track("syscall-getpid")
        return [along.plain for _ in range(200) if along.advance()]

    expected = plain()
    enter, calls = Track.enter, 0

    def enter_behind_a_case(along: Track) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            core = along.bench.core  # as a data breakpoint leaves it
            core.cpu.watch_memory(True)
            core.debug._armed = True
        enter(along)

    monkeypatch.setattr(Track, "enter", enter_behind_a_case)
    assert plain() == expected
    assert expected.count(True) > 100
