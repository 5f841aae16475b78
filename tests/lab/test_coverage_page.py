"""The shipped scenarios execute all entry code, and docs/coverage.md says truly which scenario goes where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from emu.cli import main
from emu.lab.coverage import as_dict, cover
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import FOLDER

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
KERNELS = ("linux-6", "linux-2.6")
Rows = list[tuple[list[str], list[str]]]


def rows(text: str, kernel: str) -> Rows:
    """(labels, scenarios) of each row of a kernel's table."""
    section = text.partition(f"## `{kernel}`\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return [(re.findall("`([^`]+)`", first), re.findall("`([^`]+)`", second)) for first, second, _ in cells]


def wrong(table: Rows, instructions: list[dict[str, Any]]) -> list[str]:
    """What a table says that is not so, or leaves out. Any: as JSON has it."""
    by: dict[str, set[str]] = {}
    listed: dict[str, bool] = {}
    for one in instructions:
        label = one["where"].partition("+")[0]
        by.setdefault(label, set()).update(name.removesuffix(".toml") for name in one["scenarios"])
        listed[label] = listed.get(label, True) and bool(one["reason"])
    found = [f"{label} has no row" for label in sorted(by.keys() - {label for labels, _ in table for label in labels})]
    for labels, scenarios in table:
        for label in labels:
            if not scenarios and not listed.get(label, False):
                found.append(f"{label} has no scenario, nor a reason in the list")
            elif scenarios and not by.get(label, set()) & set(scenarios):
                found.append(f"{label} is executed by none of {', '.join(scenarios)}")
        reached = set().union(*(by.get(label, ()) for label in labels))
        found += [f"{name} executes none of {labels}" for name in scenarios if name not in reached]
    return found


@pytest.fixture(scope="module", params=KERNELS)
def covered(request: pytest.FixtureRequest) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["coverage", request.param, "--json"])
    (kernel,) = json.loads(result.stdout)
    return {**kernel, "status": result.exit_code}


def test_the_shipped_scenarios_execute_all_of_a_kernel_or_the_list_says_why(covered: dict[str, Any]) -> None:
    missing = [one["where"] for one in covered["instructions"] if not one["executed"] and not one["reason"]]
    assert (missing, covered["stale"], covered["status"]) == ([], [], 0)


def test_the_page_has_each_entry_with_scenarios_that_execute_it(covered: dict[str, Any]) -> None:
    table = rows(PAGE.read_text("utf-8"), covered["kernel"])
    assert len(table) > 40
    assert wrong(table, covered["instructions"]) == []


def test_a_scenario_that_goes_elsewhere_now_is_noticed() -> None:
    text = (FOLDER / "divide-error-sigfpe.toml").read_text("utf-8")
    assert "xorl    %ecx, %ecx" in text
    changed = parse_scenario(text.replace("xorl    %ecx, %ecx", "movl    $1, %ecx"), "divide-error-sigfpe.toml")
    (one,) = cover([changed], ["linux-6"])
    complaints = wrong(rows(PAGE.read_text("utf-8"), "linux-6"), as_dict(one)["instructions"])
    assert "divide-error-sigfpe executes none of ['asm_exc_divide_error']" in complaints


INSTRUCTIONS = [
    {"where": "nmi", "scenarios": ["one.toml"], "reason": None},
    {"where": "nmi+0x2", "scenarios": [], "reason": "never"},
    {"where": "debug", "scenarios": ["two.toml"], "reason": None},
    {"where": "gap", "scenarios": [], "reason": "a gap"},
]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("| `nmi` | `one` | |\n| `gap` | - | |", "debug has no row"),
        ("| `nmi` `debug` | `one` | |\n| `gap` | - | |", "debug is executed by none of one"),
        ("| `nmi` | `one` `two` | |\n| `debug` | `two` | |\n| `gap` | - | |", "two executes none of ['nmi']"),
        ("| `nmi` | `one` | |\n| `debug` | - | |\n| `gap` | - | |", "debug has no scenario, nor a reason in the list"),
        ("| `nmi` | `one` | |\n| `debug` | `two` `three` | |\n| `gap` | - | |", "three executes none of ['debug']"),
    ],
)
def test_a_page_that_is_not_true_is_noticed(page: str, complaint: str) -> None:
    assert wrong(rows(f"## `linux-6`\n{page}\n", "linux-6"), INSTRUCTIONS) == [complaint]


def test_what_the_list_has_needs_no_scenario() -> None:
    page = "## `linux-6`\n| `nmi` | `one` | |\n| `debug` | `two` | |\n| `gap` | - | |\n"
    assert wrong(rows(page, "linux-6"), INSTRUCTIONS) == []
