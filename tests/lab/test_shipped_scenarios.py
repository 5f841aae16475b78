from __future__ import annotations

import pytest

from emu.cli import TOUR
from emu.lab.run import run_scenario
from emu.lab.shipped import FOLDER, find_scenario, shipped_names


@pytest.mark.parametrize("name", shipped_names())
def test_scenario_passes(name: str) -> None:
    reports = run_scenario(find_scenario(name))
    assert [(report.case, report.unmet, report.violations) for report in reports if not report.passed] == []


@pytest.mark.parametrize("name", shipped_names())
def test_scenario_says_what_it_shows_and_how_it_was_checked(name: str) -> None:
    header = (FOLDER / f"{name}.toml").read_text().partition("\n\n")[0]
    assert all(f"# {key}:" in header for key in ("Hypothesis", "Shows", "Checked against"))


def test_titles_differ() -> None:
    titles = [find_scenario(name).scenario.title for name in shipped_names()]
    assert len(set(titles)) == len(titles) >= 14


@pytest.mark.parametrize("name", TOUR)
def test_stations_of_the_tour_explain_themselves(name: str) -> None:
    assert find_scenario(name).scenario.shows.strip()


def test_the_syscall_entry_is_covered_up_to_its_call() -> None:
    reports = run_scenario(find_scenario("nmi-every-syscall-instruction"))
    assert len(reports) > 30
    assert len({report.case for report in reports}) == len(reports)
    assert all(len(report.facts.fired) == 1 for report in reports)
