"""Running a test image in our machine."""

from __future__ import annotations

from dataclasses import replace

from conformance import layout
from conformance.decode import HUNG, SHUTDOWN, Answer, decode
from conformance.image import TestImage
from conformance.model import Vendor
from emu.machine.core import Core
from emu.machine.end import EndKind
from emu.machine.machine import Machine
from emu.machine.profile import Profile
from emu.machine.semantics import scan
from emu.machine.stop import Stop

RAM = 2 << 20
LIMIT = 4_000_000
"""Instructions that a boot may take."""
DEBUG_PORT, EXIT_PORT = 0xE9, 0xF4


def _boot(image: TestImage, vendor: Vendor, first: int) -> tuple[str, bool]:
    """The debug port's text from case `first` on, and whether the CPU shut down."""
    machine = Machine(RAM, 1, Profile(vendor))
    core, text = machine.cores[0], bytearray()

    def debug(_core: Core, stop: Stop) -> int:
        text.append(stop.value & 0xFF)
        return 0

    def power_off(core: Core, _stop: Stop) -> int:
        core.finish("the last case is done")
        return 0

    core.ports |= {DEBUG_PORT: debug, EXIT_PORT: power_off}
    machine.memory.write(layout.IMAGE, image.selecting(first, len(image.cases) - 1))
    machine.memory.reach(RAM)
    core.reset_long_mode(layout.PML4, image.entry, 0)
    _observe(machine, image)
    end = core.advance(LIMIT)
    return text.decode("ascii"), end.kind is EndKind.SHUTDOWN


def _observe(machine: Machine, image: TestImage) -> None:
    """Semantics for the kernel's and the user's view of the code; one hook spans each."""
    moved = layout.USER - layout.KERNEL
    views = [*image.instructions, *(replace(i, address=i.address + moved) for i in image.instructions)]
    special = scan(views)
    for base in (layout.KERNEL, layout.USER):
        machine.cores[0].cpu.stop_at(special, (base + layout.IMAGE, base + layout.CASES_END))
    machine.observe_instructions(views)


def answers(image: TestImage, vendor: Vendor) -> list[Answer]:
    """Our machine's answer to every case of an image."""
    found: dict[int, Answer] = {}
    first = 0
    while first < len(image.cases):
        text, shut_down = _boot(image, vendor, first)
        part, broken = decode(text, image, first)
        found |= part
        if broken is None:
            break
        found[broken] = dict(SHUTDOWN if shut_down else HUNG)
        first = broken + 1
    return [found[n] for n in range(len(image.cases))]
