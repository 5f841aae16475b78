"""Makes ready for scenarios of linux-6."""

from emu.lab.sweep.warm import warm

warm("linux-6")
