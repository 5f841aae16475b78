"""Makes ready for scenarios of linux-2.6."""

from emu.lab.sweep.warm import warm

warm("linux-2.6")
