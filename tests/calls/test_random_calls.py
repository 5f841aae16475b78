"""Some of the seeds of `make fuzz`, and that it would notice what it is there for."""

from __future__ import annotations

import pytest

from calls import run as runner
from calls.draw import rows
from calls.program import ROWS, Way
from calls.run import VARIANTS, WrongEnd, ready, run
from emu.events import SystemCall
from emu.lab.violation import Violation
from emu.machine.end import End, EndKind
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.syscalls import table


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_random_calls_are_no_error_of_ours(variant):
    for seed in range(100_000, 100_004):
        run(variant, seed)


def test_seeds_mix_ways_calls_and_results():
    symbols = ready(VARIANTS[0]).program.symbols
    drawn = [row for seed in range(50) for row in rows(seed, symbols)]
    assert len(drawn) == 50 * ROWS
    assert {row[1] for row in drawn} == set(Way)
    assert len({row[0] for row in drawn if row[1] == Way.SYSCALL}) > 80
    assert any(word for row in drawn for word in row[3::2])


def test_a_seed_is_the_same_whatever_ran_before():
    def events(seed):
        found = []
        it = ready(VARIANTS[0])
        original = runner.Judge

        class Recording(original):
            def __call__(self, event):
                if type(event) is SystemCall:
                    found.append((event.clock, event.number))
                super().__call__(event)

        runner.Judge = Recording
        try:
            end = run(VARIANTS[0], seed)
        finally:
            runner.Judge = original
        return found, end, it.system.machine.cores[0].clock

    first = events(7)
    run(VARIANTS[0], 17)
    assert events(7) == first
    assert len(first[0]) > 5


def replace_rt_sigaction(monkeypatch, body):
    """What half of the seeds begin with does something else."""
    number = next(number for number, name in table.implemented().items() if name == "rt_sigaction")
    monkeypatch.setitem(table._table, number, table.SystemCallEntry(number, "rt_sigaction", body, 0))


def run_some():
    for seed in range(10):
        run(VARIANTS[0], seed)


@pytest.fixture
def fresh_machine_afterwards():
    yield
    ready.cache_clear()


def test_a_python_error_in_a_call_is_noticed(monkeypatch, fresh_machine_afterwards):
    def broken(cpu: Cpu) -> int:
        raise KeyError(cpu.number)

    replace_rt_sigaction(monkeypatch, broken)
    with pytest.raises(KeyError):
        run_some()


def test_an_oops_in_a_call_is_noticed(monkeypatch, fresh_machine_afterwards):
    def broken(cpu: Cpu) -> int:
        raise KernelOops("kernel BUG")

    replace_rt_sigaction(monkeypatch, broken)
    with pytest.raises(WrongEnd, match=r"crashed: .*kernel BUG"):
        run_some()


def test_work_that_is_left_undone_is_noticed(monkeypatch, fresh_machine_afterwards):
    def nothing(cpu: Cpu, regs: PtRegs) -> Steps:
        return None
        yield

    monkeypatch.setattr(table, "exit_to_user_mode_loop", nothing)
    with pytest.raises(WrongEnd, match=r"^work: "):
        run_some()


def test_too_many_tasks_are_noticed(monkeypatch, fresh_machine_afterwards):
    monkeypatch.setattr(runner, "max_tasks", lambda _kernel: 0)
    with pytest.raises(WrongEnd, match=r"^\d+ tasks, "):
        run_some()


def test_only_the_hole_of_its_time_is_let_pass_in_linux_26():
    def found(message):
        return Violation("frames", message, 0, "", 0, 0, (), {}, "")

    leak, other = (
        found("IRETQ restores what was not saved: r8 is 0x5, was 0x0"),
        found("r8 is 0x5, was 0x0, bx is 0x1, was 0x2"),
    )
    end = End(EndKind.FINISHED, 0)
    known = runner._is_known
    assert known(VARIANTS[1], end, leak)
    assert not known(VARIANTS[1], end, other)
    assert not known(VARIANTS[0], end, leak)
