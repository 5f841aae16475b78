"""linux-2.6 booted with programs in assembly, run to their end by the laboratory, all invariants on."""

from __future__ import annotations

from asm import assemble_text
from emu.lab.rig import Facts, Rig
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions
from kernel_stubs.elf import UserProgram, program_from_image
from kernel_stubs.kernel_image import build_image

EXIT = """
    movl $231, %eax
    syscall
"""


def run_program(program: UserProgram, budget: int = 3_000_000, **options: object) -> Facts:
    profile = Profile()
    settings = {"argv": (b"user",)} | options
    image = build_image("linux-2.6", profile)
    return Rig(BootOptions(image, profile, program, **settings)).run((), budget, "", log=True)


def run(text: str, **options: object) -> Facts:
    """Run an assembled program; nothing may be violated."""
    image = assemble_text(text, name="user.S", base=0x40_0000, entry="_start")
    facts = run_program(program_from_image(image, "user"), **options)
    assert not facts.violations, facts.violations[0].lines()
    return facts
