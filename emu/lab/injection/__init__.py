"""Injections: what a scenario puts at an instruction boundary.

guest.py     the guest's state as injections see and change it
segments.py  segment registers, loaded as user mode does
actions.py   what each event does
resolve.py   from [[inject]] tables to injections, and firing one
plan.py      which injections of a run are due
"""

from emu.lab.injection.actions import SYSTEM_REGISTERS, Fire
from emu.lab.injection.guest import CannotInject
from emu.lab.injection.plan import Plan
from emu.lab.injection.resolve import Injection, fire, resolve

__all__ = ["SYSTEM_REGISTERS", "CannotInject", "Fire", "Injection", "Plan", "fire", "resolve"]
