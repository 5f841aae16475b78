"""How far a sweep is: a bar on a terminal, lines elsewhere; the rate is that of this run."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from emu.lab.sweep import progress
from emu.lab.sweep.progress import Bar, shown_progress


@pytest.fixture
def clock(monkeypatch):
    """The host's time, in seconds, as a list of one."""
    now = [1_000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(clock, capsys, *steps: tuple[float, int, int, int, int]) -> list[str]:
    with shown_progress(True) as told:
        for seconds, *state in steps:
            clock[0] += seconds
            told(*state)
    return capsys.readouterr().err.splitlines()


def test_off_a_terminal_a_line_every_ten_seconds_and_one_at_the_end(clock, capsys):
    steps = [(0, 0, 4, 0, 0), (4, 1, 4, 400, 0), (6, 2, 4, 900, 0), (1, 3, 4, 1_000, 1), (1, 4, 4, 1_200, 2)]
    assert lines(clock, capsys, *steps) == [
        "  0%  0 cases  0/s  0 violations",
        " 50%  900 cases  90/s  0 violations",
        "100%  1,200 cases  100/s  2 violations",
    ]


def test_cases_of_an_earlier_run_do_not_make_the_rate(clock, capsys):
    found = lines(clock, capsys, (0, 3, 4, 5_000, 1), (10, 4, 4, 5_010, 1))
    assert found == [" 75%  5,000 cases  0/s  1 violation", "100%  5,010 cases  1/s  1 violation"]


def test_another_sweep_has_a_rate_of_its_own(clock, capsys):
    found = lines(clock, capsys, (0, 0, 1, 0, 0), (1, 1, 1, 1_000, 0), (50, 0, 1, 0, 0), (10, 1, 1, 20, 0))
    assert found[-1] == "100%  20 cases  2/s  0 violations"


def test_off_nothing_is_said(capsys):
    with shown_progress(False) as told:
        told(1, 1, 10, 0)
    assert capsys.readouterr().err == ""


def drawn(width: int, *steps: tuple[int, int, int, int]) -> tuple[str, str]:
    """What a terminal gets until the last step, and until the bar is closed."""
    terminal = io.StringIO()
    bar = Bar(Console(file=terminal, force_terminal=True, width=width, color_system=None))
    for step in steps:
        bar(*step)
    before = terminal.getvalue()
    bar.close()
    return before, terminal.getvalue()


@pytest.mark.parametrize("width", [60, 120])
def test_the_bar_shows_cases_and_violations_and_is_gone_at_the_end(width):
    text, closed = drawn(width, (0, 2, 0, 0), (1, 2, 1_234, 1), (2, 2, 2_345, 1))
    assert "2,345 cases" in text
    assert "1 violation" in text
    # The last that is written shows the cursor again and erases the line.
    assert re.search(r"\x1b\[\?25h.*\x1b\[2K$", text, re.DOTALL)
    assert closed == text


def test_an_interrupted_sweep_gives_the_terminal_back():
    before, after = drawn(80, (0, 2, 0, 0))
    assert "\x1b[?25h" not in before
    assert "\x1b[?25h" in after
