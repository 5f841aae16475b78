"""Kernels with one instruction of their entry code removed: whatever they do, the C side never raises."""

import re

import pytest
from booted import user_program

from emu.errors import ImageError
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.kernel_image import build_image, source_files

PROGRAM = user_program("""
_start: movl $39, %eax
    syscall
    movq value(%rip), %rax
    movl $60, %eax
    syscall
.data
value: .quad 7
""")
INSTRUCTION = re.compile(r"\s+[a-z]{2,}\w*(\s|$)")
STRIDE = 12
"""Every so manieth instruction is tried: all of them take a minute."""


def places():
    sources = source_files("linux-6")
    found = [
        (name, number)
        for name in ("entry_64.S", "idtentry.S", "irq.S", "nmi.S", "paranoid.S", "calling.inc")
        for number, line in enumerate(sources[name].split("\n"))
        if INSTRUCTION.match(line)
    ]
    return found[::STRIDE]


@pytest.mark.parametrize(("name", "number"), places(), ids=lambda value: str(value))
def test_a_kernel_without_one_instruction_ends_in_a_result(name, number):
    lines = source_files("linux-6")[name].split("\n")
    lines[number] = "    nop"
    try:
        image = build_image("linux-6", Profile(), ((name, "\n".join(lines)),))
    except ImageError:
        return
    options = BootOptions(image, Profile(), PROGRAM, (b"user",), nmi_scratch=True, timer_period=997)
    system = boot(options)
    core = system.machine.cores[0]
    end = system.machine.run(5200)
    for _ in range(10):
        if end.kind is not EndKind.LIMIT:
            break
        core.raise_nmi()
        core.raise_interrupt(0x33)
        core.raise_machine_check()
        end = system.machine.run(core.clock + 29)
    if end.kind is EndKind.LIMIT:
        end = system.machine.run(core.clock + 8000)
    assert isinstance(end.kind, EndKind)
    assert "\n" not in end.text
