"""A booted linux-2.6 for tests: before the first instruction of a program that only spins."""

from asm import assemble_text
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image


def booted():
    image = assemble_text("_start: jmp _start", name="user.S", base=0x40_0000, entry="_start")
    options = BootOptions(
        build_image("linux-2.6", Profile()), Profile(), program_from_image(image, "user"), argv=(b"user",)
    )
    system = boot(options)
    core = system.machine.cores[0]
    core.set_breakpoints({0x40_0000})
    core.advance(100_000)
    return system, core
