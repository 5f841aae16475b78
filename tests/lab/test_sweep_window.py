"""The window of a sweep: which boundaries have cases, and what their verdicts are."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from sweep_runs import rows, swept, text

from emu.cli import main
from emu.lab.sweep.case import PENDING
from emu.lab.sweep.scene import Options, Scene

ENTRY = "entry_SYSCALL_64..entry_SYSCALL_64+0x3"
EXIT = "entry_SYSRETQ_unsafe_stack..entry_SYSRETQ_end"


def test_the_window_limits_the_first_event():
    found = rows(text(), "nmi", window="entry_SYSCALL_64..entry_SYSCALL_64_safe_stack")
    assert {row.place.partition("+")[0] for row in found} == {"entry_SYSCALL_64", "entry_SYSCALL_64_safe_stack"}


def test_a_case_has_the_verdict_that_it_has_without_a_window():
    everywhere = {row.events: row for row in rows(text(), "irq", "nmi")}
    inside = {row.events: row for row in rows(text(), "irq", "nmi", window=ENTRY)}
    assert {row.verdict for row in inside.values() if row.events.startswith("irq")} == {PENDING}
    places = {row.place for row in inside.values()}
    assert set(inside) == {key for key, row in everywhere.items() if row.place in places}
    assert all(row.verdict == everywhere[key].verdict for key, row in inside.items())
    assert all(row.merged in inside for row in inside.values() if row.merged)


def test_several_ranges_are_one_window():
    both = rows(text(), "nmi", window=f"{EXIT}, {ENTRY}")
    assert sorted(both) == sorted([*rows(text(), "nmi", window=ENTRY), *rows(text(), "nmi", window=EXIT)])


@pytest.mark.parametrize("depth", [1, 2])
def test_work_without_cases_is_not_handed_out(depth):
    scene = Scene("t.toml", text(), Options(("nmi",), depth, ENTRY))
    units = scene.units(0)
    assert scene.boundaries > 250
    assert sum(unit.end - unit.first for unit in units) == (128 if depth == 1 else 4)


def test_a_range_where_the_scenario_never_is_is_reported():
    result = swept(text(), "nmi", window=f"{ENTRY},asm_exc_nmi..nested_nmi")
    assert result.unreached == ("asm_exc_nmi..nested_nmi",)


def check(path, window: str):
    path.write_text(f'{text()}[sweep]\nevents = ["nmi"]\nwindow = "{window}"\n')
    return CliRunner().invoke(main, ["check", str(path), "--jobs", "1"])


def test_a_declared_window_that_is_never_reached_fails_the_check(tmp_path):
    done = check(tmp_path / "a.toml", f"{ENTRY}, paranoid_entry..paranoid_exit")
    assert done.exit_code == 1
    assert "a.toml:15: the scenario is never at paranoid_entry..paranoid_exit" in done.output


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("entry_SYSCALL_65..entry_SYSRETQ_end", "a.toml:15: no symbol 'entry_SYSCALL_65'"),
        (f"{ENTRY},", "a.toml:15: '' is no range; give one such as entry_SYSCALL_64..entry_SYSCALL_64:call"),
        ("entry_SYSRETQ_end..entry_SYSCALL_64", "a.toml:15: entry_SYSCALL_64 does not follow entry_SYSRETQ_end"),
    ],
)
def test_a_declared_window_that_is_wrong_is_named_with_its_line(tmp_path, window, message):
    done = check(tmp_path / "a.toml", window)
    assert done.exit_code == 2
    assert message in done.output
