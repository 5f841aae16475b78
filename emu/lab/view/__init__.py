"""What observers may see of a running system."""

from emu.lab.view.at_rest import PT_REGS_SIZE, Booted
from emu.lab.view.functions import MOVES_PT_REGS
from emu.lab.view.system import StackRange, View

__all__ = ["MOVES_PT_REGS", "PT_REGS_SIZE", "Booted", "StackRange", "View"]
