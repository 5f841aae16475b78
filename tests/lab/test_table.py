"""[[cell]] and entry64 table: what is measured, what a broken machine changes, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from emu.cli import main
from emu.errors import ScenarioError
from emu.events import EventType
from emu.lab.check.regression import How, check
from emu.lab.outcome import Outcome
from emu.lab.run import prepare
from emu.lab.scenario import ScenarioFile, parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.table import measure, tables
from emu.machine import delivery, semantics
from emu.machine.registers import RAX, RCX
from emu.machine.stop import StopKind
from tests import lab_runs

GETPID = 39
ALL = '{ event = "x", saved = "x", rf = "0", signal = "x", then = "x" }'


def cell(at: str = "user:subject", row: str = "r", expected: str = ALL, more: str = "", table: str = "t") -> str:
    return f'[[cell]]\ntable = "{table}"\nrow = "{row}"\nat = "{at}"\nis = {expected}\nmanual = "m"\n{more}\n'


def outcome(asm: str, rest: str = "") -> Outcome:
    (found,) = lab_runs.run(rest + cell(), "\n_start:\n" + asm).facts.outcomes
    assert found is not None
    return found


# --- what is measured -------------------------------------------------------------------------------------------------
def test_a_fault_saves_the_instruction() -> None:
    assert outcome("subject:\n ud2\n") == Outcome("#UD", "this", "1", "SIGILL", "end")


def test_a_trap_saves_the_next_instruction() -> None:
    assert outcome("subject:\n int3\n") == Outcome("#BP", "next", "0", "SIGTRAP", "end")


def test_a_system_call_goes_on_at_the_next_instruction() -> None:
    assert outcome("movl $SYS_getpid, %eax\nsubject:\n syscall\n ud2\n") == Outcome("SYSCALL", "next", "0", "-", "next")


def test_a_fault_of_the_next_instruction_is_not_this_ones() -> None:
    assert outcome("subject:\n nop\n ud2\n") == Outcome("executes", "-", "-", "-", "next")


def test_a_fetch_of_the_next_instruction_that_faults_is_not_this_ones() -> None:
    assert outcome("jmp subject\n .balign 4096\n nop\n .fill 4094, 1, 0x90\nsubject:\n nop\n ud2\n").event == "executes"


def test_an_interrupt_behind_the_instruction_is_its_event() -> None:
    rest = lab_runs.inject(event="nmi", at="user:behind")
    assert outcome("subject:\n nop\nbehind:\n nop\n ud2\n", rest) == Outcome("NMI", "next", "0", "-", "next")


def test_an_instruction_that_is_never_reached_is_an_unmet_expectation() -> None:
    report = lab_runs.run(cell(), "\n_start:\n ud2\nsubject:\n nop\n")
    assert "table t, r: the instruction at user:subject was never reached" in report.unmet


# --- a broken machine -------------------------------------------------------------------------------------------------
def _saved_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = delivery.deliver

    def broken(core: Any, event: Any) -> bool:  # a Core and an Interruption
        if event.type is EventType.HWEXC and event.vector == 0:
            event = replace(event, ip=event.ip + 2)
        return whole(core, event)

    monkeypatch.setattr(delivery, "deliver", broken)


def _rcx_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(core: Any, stop: Any) -> None:  # a Core and a Stop
        semantics.syscall(core, stop)
        if core.cpu.register(RAX) == GETPID:  # not each: the program would not get far
            core.cpu.set_register(RCX, core.cpu.register(RCX) - 2)

    monkeypatch.setitem(semantics.AFTER, StopKind.SYSCALL, broken)


def _ports_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantics, "_bitmap_allows", lambda core, port, size: True)


@pytest.mark.parametrize(
    ("breakage", "scenario", "table", "row", "column", "right", "wrong"),
    [
        (_saved_wrong, "table-rip-1-faults", "rip", "DIV by 0", "saved RIP", "this", "next"),
        (_saved_wrong, "table-rip-1-faults", "rip", "DIV by 0", "goes on at", "this", "next"),
        (_rcx_wrong, "table-rip-5-steps", "rip", "SYSCALL under TF", "saved RIP", "next", "this"),
        (_ports_open, "table-ring-cpl-3", "ring", "IN", "CPL 3", "#GP(0)", "executes"),
    ],
)
def test_a_broken_machine_changes_the_table_and_fails(
    monkeypatch: pytest.MonkeyPatch, breakage: Callable[[pytest.MonkeyPatch], None], scenario: str, table: str,
    row: str, column: str, right: str, wrong: str,
) -> None:  # fmt: skip
    files = [(scenario, find_scenario(scenario))]
    before = measure(table, files)
    assert (before.rows[row][column], before.passed) == (right, True)
    breakage(monkeypatch)
    after = measure(table, files)
    assert (after.rows[row][column], after.passed) == (wrong, False)


def test_check_fails_when_a_value_of_a_table_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    _ports_open(monkeypatch)
    (result,) = check([("s", find_scenario("table-ring-cpl-3"))], How())
    assert [problem.message for problem in result.problems] == [
        "table ring, IN, CPL 3: expected event '#GP(0)', measured 'executes'",
        "table ring, OUT, CPL 3: expected event '#GP(0)', measured 'executes'",
    ]


# --- the command ------------------------------------------------------------------------------------------------------
def _write(folder: Path, text: str) -> str:
    (folder / "s.toml").write_text(text)
    return str(folder)


def test_a_table_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    expected = '{ event = "#UD" }\ncolumn = "here"'
    text = lab_runs.text("[expect]\nsignal = 'SIGILL'\n" + cell(expected=expected), "\n_start:\nsubject:\n ud2\n")
    result = CliRunner().invoke(main, ["table", "t", "--scenarios", _write(tmp_path, text)])
    assert (result.output, result.exit_code) == ("   here  manual\nr  #UD   m\nt: 1 rows, 1 scenarios: PASS\n", 0)


def test_json_of_a_table_that_is_not_as_expected(tmp_path: Path) -> None:
    text = lab_runs.text(cell(), "\n_start:\nsubject:\n ud2\n")
    result = CliRunner().invoke(main, ["table", "t", "--json", "--scenarios", _write(tmp_path, text)])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["passed"]) == (1, False)
    assert document["rows"][0] == {
        "row": "r", "event": "#UD", "saved RIP": "this", "RF": "1", "signal": "SIGILL", "goes on at": "end",
        "manual": "m",
    }  # fmt: skip
    assert "table t, r: expected event 'x', measured '#UD'" in document["unmet"]


def test_an_unknown_table_is_the_users_mistake() -> None:
    result = CliRunner().invoke(main, ["table", "rin"])
    assert (result.exit_code, "near: ring" in result.output) == (2, True)


# --- refused ----------------------------------------------------------------------------------------------------------
def _file(rest: str) -> ScenarioFile:
    return parse_scenario(lab_runs.text(rest, "\n_start:\nsubject:\n nop\n .byte 0xce\nbehind:\n nop\n"), "s.toml")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (cell(expected='{ event = "x" }'), "a row shows all that is measured: is needs saved, rf, signal, then"),
        (
            cell(more='column = "c"'),
            "a cell in a column shows the event only: is must not have saved, rf, signal, then",
        ),
        (cell(table="A b"), "[[cell]] table"),
        (lab_runs.inject(event="nmi", each="user:subject..user:behind") + cell(), "no [[inject]] may have each"),
    ],
)
def test_a_cell_that_makes_no_sense(rest: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        _file(rest)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (cell(at="user:nowhere"), "nowhere"),
        (cell(at="user:subject+1"), "is not the start of an instruction"),
        (cell(at="user:behind", more='behind = "user:subject"'), "is not the end of an instruction that begins at"),
    ],
)
def test_a_cell_without_an_instruction(rest: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        prepare(_file(rest))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (cell(), "has this cell already: s.toml:"),
        (cell(row="q", expected='{ event = "x" }', more='column = "c"'), "have a column, or have none"),
    ],
)
def test_cells_that_do_not_fit_together(second: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        tables([("s.toml", _file(cell() + second))])
    assert message in str(caught.value)
