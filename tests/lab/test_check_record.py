"""The page of a full sweep."""

from __future__ import annotations

from emu.lab.check.record import page
from emu.lab.scenario import read_scenario
from emu.lab.shipped import FOLDER

SWEPT = """PASS a.toml: the program exited with status 0
PASS a.toml: sweep nmi,irq on CPU 0 1: 1,450 boundaries, 3,000 cases: 1,990 clean, 1,000 pending, 9 violation, \
1 crash, 750 of them merged
"""
RUN = "PASS b.toml: the program exited with status 0\n"


def test_the_page_has_a_line_for_each_sweep_and_their_sum():
    text = page(SWEPT + SWEPT.replace("a.toml", "c.toml"))
    assert "| `a` | 1,450 | 3,000 | 750 | 1,990 | 1,000 | 10 |\n" in text
    assert text.splitlines()[-1] == "| **2 scenarios** | 2,900 | 6,000 | 1,500 | 3,980 | 2,000 | 20 |"


def test_the_page_says_what_failed_and_what_is_not_swept():
    text = page(SWEPT.replace("PASS", "FAIL") + "    tests/x.toml: details of the failure\n" + RUN)
    assert "| **`a` fails** | 1,450 |" in text
    assert text.endswith("Not swept, for the reason that their files give: `b`.\n")


def test_each_shipped_scenario_declares_its_sweep_or_says_why_it_has_none():
    scenarios = {path.stem: read_scenario(path, path.name).scenario for path in FOLDER.glob("*.toml")}
    assert len(scenarios) > 130
    assert sorted(name for name, scenario in scenarios.items() if scenario.sweep is None) == []
