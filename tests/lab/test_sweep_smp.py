"""Sweeps of scenarios with several CPUs: events come on one of them, the others go on."""

from __future__ import annotations

import pytest
from lab_runs import FORK_AND_WAIT
from sweep_runs import broken, rows, text

from emu.errors import ScenarioError
from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.sweep.case import CLEAN, PENDING

FORK = f"""
title = "a child on the other CPU"
cpus = 2
cpu = {{ fsgsbase = false }}
[user]
asm = '''
_start:
{FORK_AND_WAIT}child:
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""


def test_an_nmi_on_the_second_cpu_is_clean():
    found = rows(find_scenario("classic-two-cpus").text, "nmi", cpu=1)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert len(found) > 100
    assert sum(row.to_end for row in found) < len(found) // 20, "the others wait, so the state is the baseline's again"


def test_a_cpu_in_hlt_gets_interrupts_and_nmis_but_no_exceptions():
    behind_hlt = "cpu_idle_loop+0x2..cpu_idle_loop+0x2"
    found = rows(find_scenario("classic-two-cpus").text, "nmi", "irq", "db", "pf", cpu=1, window=behind_hlt)
    assert {row.verdict for row in found} <= {CLEAN, PENDING}
    first = min(int(row.events.partition("@")[2]) for row in found)
    assert {row.events for row in found if row.events.endswith(f"@{first}")} == {f"nmi@{first}", f"irq@{first}"}


def test_a_missing_swapgs_is_found_on_the_second_cpu_and_its_scenario_shows_it_there():
    image = broken("paranoid.S", "    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n", fsgsbase=False)
    found = rows(FORK, "nmi", image=image, cpu=1, window="entry_SYSCALL_64..entry_SYSCALL_64")
    assert [(row.invariant, row.place) for row in found] == [("GS nesting", "entry_SYSCALL_64")]
    assert "cpu = 1\n" in found[0].reproducer
    (report,) = run_scenario(parse_scenario(found[0].reproducer, "found.toml"), image)
    assert (report.violations[0].invariant, report.violations[0].cpu) == ("GS nesting", 1)


@pytest.mark.parametrize(("source", "message"), [(text(), "there is one CPU, 0"), (FORK, "there are CPUs 0 to 1")])
def test_a_cpu_that_is_not_there_is_refused(source, message):
    with pytest.raises(ScenarioError, match=f"no CPU 2 to sweep; {message}"):
        rows(source, "nmi", cpu=2)
