"""Holes that history knows, put back into the sources: the sweeps of docs/holes.md find them, told nothing of them."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from emu.cli import main
from emu.errors import ImageError
from emu.lab.minimise import findings, size
from emu.lab.shipped import find_scenario
from emu.lab.sweep.case import CLEAN, PENDING
from emu.lab.sweep.pool import Job, Workshop
from emu.lab.sweep.scene import Options, Scene
from emu.lab.sweep.store import Row
from kernel_stubs.holes import Change, Hole, holes, sources_with
from kernel_stubs.kernel_image import source_files

PAGE = Path(__file__).parents[2] / "docs" / "holes.md"
_CELLS = re.compile(r"\| `(?P<hole>[\w-]+)` \| .* \| `entry64 sweep (?P<command>[^`]+)` \| (?P<found>[^|]+) \|")
TABLE = {match["hole"]: match for line in PAGE.read_text().splitlines() if (match := _CELLS.fullmatch(line))}


def asked(command: str) -> tuple[str, Options]:
    """The scenario of a command of the page, and its options without the hole."""
    scenario, *words = shlex.split(command)
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert set(given) <= {"--event", "--depth", "--window", "--sources"}
    return scenario, Options((given["--event"],), int(given.get("--depth", 1)), given.get("--window", ""))


def bad(scenario: str, options: Options) -> list[Row]:
    """The cases that are not fine, the smallest first, as the command prints them."""
    text = find_scenario(scenario).text
    scene = Scene(scenario, text, options)
    assert not scene.baseline.violations, "not even the run without any event is fine"
    workshop = Workshop(Job(((scenario, text),), options))
    rows = (row for unit in scene.units(0) for row in workshop.rows(unit, lambda key: None))
    return sorted((row for row in rows if row.verdict not in (CLEAN, PENDING)), key=size)


@cache
def sound(scenario: str, options: Options) -> list[Row]:
    return bad(scenario, options)


def test_the_page_has_every_hole_and_no_other():
    assert list(TABLE) == list(holes())
    assert len(TABLE) == 10


@pytest.mark.parametrize("hole", holes())
def test_the_sweep_is_clean_without_the_hole_and_finds_it_where_the_page_says(hole):
    scenario, options = asked(TABLE[hole]["command"])
    assert f"--sources hole:{hole}" in TABLE[hole]["command"]
    assert sound(scenario, options) == []
    row, *_ = bad(scenario, Options(options.events, options.depth, options.window, sources_with(hole)))
    assert f"{row.invariant} at {row.location}" == TABLE[hole]["found"]


@pytest.mark.parametrize(("hole", "events"), [("nmi-not-nested", " nmi+"), ("no-clac", " timer+0")])
def test_what_is_found_is_shown_again_by_a_scenario(hole, events):
    """One whose scenario injects something later, which never happens; one where two things happen at one boundary."""
    scenario, options = asked(TABLE[hole]["command"])
    options = Options(options.events, options.depth, options.window, sources_with(hole))
    row = next(row for row in bad(scenario, options) if events in row.events)
    (finding,) = findings([row], Scene(scenario, find_scenario(scenario).text, options))
    assert finding.reproduced
    assert finding.scenario.count("[[inject]]") == 2


@pytest.mark.parametrize("hole", holes())
def test_nothing_but_the_hole_is_another_than_in_the_image(hole):
    with_hole, without = dict(sources_with(hole)), source_files("linux-6")
    assert {name for name in without if with_hole[name] != without[name]} == {c.file for c in holes()[hole].changes}


def test_a_change_whose_text_is_gone_is_an_error():
    hole = Hole("gone", "", (Change("nmi.S", "    je      nowhere_at_all\n", ""),))
    with pytest.raises(ImageError, match=r"hole gone: nmi.S has 'je      nowhere_at_all' 0 times, not once"):
        hole.sources()


def test_an_unknown_hole_is_named_with_the_nearest():
    result = CliRunner().invoke(main, ["run", "syscall-getpid", "--sources", "hole:no-clack"])
    assert result.exit_code == 2
    assert "--sources hole:no-clack: there is no such hole; near: no-clac" in result.output


def test_a_hole_of_another_image_than_the_scenarios_is_one_clear_message():
    result = CliRunner().invoke(main, ["run", "classic-getpid", "--sources", "hole:no-clac"])
    assert result.exit_code == 2
    assert result.output == "classic-getpid.toml:11: no-clac is a hole of linux-6, not of linux-2.6\n"
