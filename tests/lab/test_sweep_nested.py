"""Nested events: which come first, and what takes three of them."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from sweep_runs import rows, text

from emu.cli import main
from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.sweep.case import CLEAN, PENDING
from emu.lab.sweep.command import Swept, text_lines
from emu.lab.sweep.store import Store

ONE = "entry_SYSCALL_64..entry_SYSCALL_64"


def test_events_that_do_not_come_first_are_nested_only():
    everything = rows(text(), "nmi", "mce", depth=2, window=ONE)
    found = rows(text(), "nmi", "mce", first=("nmi",), depth=2, window=ONE)
    assert found == [row for row in everything if row.events.startswith("nmi@")]
    assert {row.events.split(" ")[-1].partition("+")[0] for row in found if " " in row.events} == {"nmi", "mce"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--event", "nmi", "--first", "mce"), "--first mce: mce is not among the events, which are nmi"),
        (("--event", "nmi", "--first", "smi"), "--first smi: there are nmi, irq, timer"),
    ],
)
def test_a_first_event_that_is_none_is_one_message_and_status_2(arguments, message):
    done = CliRunner().invoke(main, ["sweep", "syscall-getpid", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.splitlines()) == 1


def test_a_declared_first_event_is_one_of_the_events(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(f'{text()}[sweep]\nevents = ["nmi"]\nfirst = ["mce"]\n')
    done = CliRunner().invoke(main, ["check", str(path)])
    assert done.exit_code == 2
    assert "a.toml:13" in done.output
    assert "first: each must be one of events" in done.output


EXIT = """
title = "exit"
[user]
asm = '''
_start:
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""


def test_three_nmis_are_clean_and_equal_states_are_explored_once():
    found = rows(EXIT + "[options]\nnmi_touches_memory = true\n", "nmi", depth=3, window=ONE)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    third = [row for row in found if row.events.count("+") == 2]
    assert sum(row.verdict == CLEAN for row in third) > 50
    merged = [row for row in third if row.merged]
    assert len(merged) > 700
    assert {row.merged for row in merged} <= {row.events for row in found if not row.merged}
    store = Store(None)
    store.add("key", 0, found)
    _, line, *_ = text_lines(Swept("t.toml", "key", 1, store.counts("key"), (), ()))
    assert line.startswith(f"  {sum(bool(row.merged) for row in found):,} merged with a case of the same state, ")


def test_a_hole_that_takes_three_events_is_found_at_depth_3():
    """A machine check in an NMI's entry, and another NMI meanwhile: the check's IRETQ lets it in too early."""
    found = rows(EXIT, "nmi", "mce", first=("nmi",), depth=3, window=ONE)
    holes = [row for row in found if row.verdict not in (CLEAN, PENDING)]
    assert {re.sub(r"\W\d+", "", row.events) for row in holes} == {"nmi mce nmi", "nmi nmi mce"}
    assert {row.invariant for row in holes} == {"stacks"}
    (report,) = run_scenario(parse_scenario(holes[0].reproducer, "finding.toml"))
    first = report.facts.violations[0]
    assert (first.invariant, first.where) == (holes[0].invariant, holes[0].location)


def test_the_run_within_an_event_has_the_scenarios_own_injections():
    source = text() + '[[inject]]\nat = "asm_exc_debug"\nevent = "nmi"\n'
    found = rows(source, "db", "mce", first=("db",), depth=2, window=ONE)
    inside = [row.place.rpartition(" > ")[2].partition("+")[0] for row in found if " mce+" in row.events]
    assert "asm_exc_nmi" in inside
    assert {row.verdict for row in found} == {CLEAN}
