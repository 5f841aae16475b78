"""All decoders of arguments, by the names that the table of calls (`calls`) uses."""

from __future__ import annotations

from emu.lab.observers.strace.call import Decode
from emu.lab.observers.strace.numbers import NUMBERS
from emu.lab.observers.strace.pointers import POINTERS
from emu.lab.observers.strace.rare import RARE

DECODERS: dict[str, Decode] = NUMBERS | POINTERS | RARE
