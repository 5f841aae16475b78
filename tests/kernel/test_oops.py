"""An exception in kernel mode: the end of the run, or with panic_on_oops off of the task only."""

from __future__ import annotations

from tests.lab_runs import FORK_AND_WAIT, inject, run

SURVIVED = "[options]\npanic_on_oops = false\n"
OOPS = inject(event="exception", vector=6, at="do_syscall_64+0x4")
FORKS = f"""
_start:
{FORK_AND_WAIT}    movl    $SYS_exit_group, %eax
    movl    $5, %edi
    syscall
child:
    movl    $SYS_gettid, %eax
    syscall
    hlt
"""


def test_an_oops_ends_the_run_by_default() -> None:
    report = run(OOPS)
    assert report.facts.end == "crashed"


def test_an_oops_of_init_is_a_panic() -> None:
    report = run(SURVIVED + OOPS)
    assert report.facts.end == "crashed"
    assert "Attempted to kill init!" in report.facts.text


def test_an_oops_in_an_interrupt_is_a_panic() -> None:
    softirq = (
        inject(event="memory", at="after", address="percpu:softirq_pending", value=0x10)
        + inject(event="irq", at="after", vector=0x30)
        + inject(event="exception", vector=6, at="__do_softirq+0x4")
    ).replace('"after"', '"user:after"')
    report = run(SURVIVED + softirq)
    assert report.facts.end == "crashed"
    assert "Fatal exception in interrupt" in report.facts.text


def test_an_oops_of_a_child_ends_the_child() -> None:
    report = run(SURVIVED + inject(event="exception", vector=6, at="do_syscall_64+0x4", hit=2), FORKS)
    assert report.passed
    assert "make_task_dead" in report.facts.calls
    assert report.facts.exit_code == 5
