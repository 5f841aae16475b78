"""The scenario file: TOML, read into frozen models. docs/scenarios.md is its reference for people.

values.py   signals, vectors and places, as a file may write them
inject.py   [[inject]]
cell.py     [[cell]]
tables.py   all other tables, and the whole
file.py     reading: what is wrong with a file is said with its line
"""

from emu.lab.scenario.cell import Cell
from emu.lab.scenario.file import ScenarioFile, parse_scenario, read_scenario, scenario_schema
from emu.lab.scenario.inject import Inject
from emu.lab.scenario.tables import Expect, Known, Scenario, Sweep, Vary

__all__ = [
    "Cell",
    "Expect",
    "Inject",
    "Known",
    "Scenario",
    "ScenarioFile",
    "Sweep",
    "Vary",
    "parse_scenario",
    "read_scenario",
    "scenario_schema",
]
