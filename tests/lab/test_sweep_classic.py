"""Sweeps of linux-2.6 at places where invariants once took sound states for broken ones."""

from __future__ import annotations

import pytest
from sweep_runs import rows

from emu.lab.shipped import find_scenario
from emu.lab.sweep.case import CLEAN, VIOLATION


def verdicts(name: str, event: str, window: str) -> list[str]:
    """Those of the cases in the window, which there must be."""
    found = rows(find_scenario(name).text, event, window=window)
    assert found
    return [row.verdict for row in found]


@pytest.mark.parametrize("event", ["nmi", "mce"])
def test_between_the_load_of_a_users_gs_and_its_swapgs_the_new_base_is_the_users(event):
    assert set(verdicts("classic-segments-across-switches", event, "gs_change..gs_change+0x11")) == {CLEAN}


def test_pt_regs_that_c_has_moved_off_an_ist_stack_and_changed_are_not_on_it_any_more():
    name = "classic-schedule-after-int3"
    assert set(verdicts(name, "db", "paranoid_swapgs..paranoid_swapgs, paranoid_restore..paranoid_restore")) == {CLEAN}
    assert set(verdicts(name, "db", "paranoid_exit..paranoid_exit")) == {VIOLATION}, "not moved yet"
