"""Machines that have booted up to the program, and one seed's calls on one of them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

from asm import assemble_text
from calls.draw import encoded
from calls.program import TEXT
from emu.lab.invariants import Judge
from emu.lab.view import View
from emu.lab.violation import Violation
from emu.machine.end import End, EndKind
from emu.machine.profile import Profile
from kernel_stubs import mm, uaccess
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.context import Cpu
from kernel_stubs.elf import UserProgram, program_from_image
from kernel_stubs.kernel_image import build_image
from kernel_stubs.rlimit import max_tasks

BUDGET = 60_000
"""Instructions of a run: some calls wait, and children may go on for ever."""
MAX_OUTPUT = 32 << 20
GOOD = (EndKind.LIMIT, EndKind.FINISHED, EndKind.HALTED)


@dataclass(frozen=True)
class Variant:
    """A machine that seeds run on."""

    kernel: str
    ram_mib: int = 8
    cpus: int = 1
    vendor: str = "intel"


VARIANTS = (
    Variant("linux-6"), Variant("linux-2.6"), Variant("linux-6", ram_mib=2), Variant("linux-2.6", ram_mib=2),
    Variant("linux-6", cpus=2, vendor="amd"), Variant("linux-2.6", cpus=2, vendor="amd"),
)  # fmt: skip


class WrongEnd(Exception):
    """A seed's calls were more than a kernel can bear."""


@dataclass
class Ready:
    """A system before the program's first instruction."""

    system: System
    program: UserProgram
    saved: Any  # the machine's snapshot: its type is the machine's own business
    kept: dict[str, object] = field(default_factory=dict)


@functools.cache
def ready(variant: Variant) -> Ready:
    """Boot a variant, once."""
    profile = Profile(vendor=variant.vendor)  # type: ignore[arg-type]  # one of its literals
    program = program_from_image(assemble_text(TEXT, name="calls.S", base=0x40_0000, entry="_start"), "user")
    options = BootOptions(
        build_image(variant.kernel, profile), profile, program, argv=(b"user",), stdin=b"one\ntwo\n",
        ram_bytes=variant.ram_mib << 20, cpus=variant.cpus,
    )  # fmt: skip
    system = boot(options)
    core = system.machine.cores[0]
    core.set_breakpoints({program.entry})
    _, end = system.machine.advance(1_000_000)
    assert end.kind is EndKind.BREAKPOINT, end
    core.set_breakpoints(set())
    return Ready(system, program, system.machine.snapshot())


def run(variant: Variant, seed: int) -> End:
    """One seed's calls: how the run ended; WrongEnd if a kernel gave up, an invariant broke, or a bound was passed."""
    it = ready(variant)
    system, machine = it.system, it.system.machine
    machine.restore(it.saved)
    system.binding.go_back(())
    system.kernel.output.clear()
    machine.observers.clear()
    judge = Judge(View(system, None, it.program.symbols), "", frozenset())
    machine.observers.append(judge)
    core = machine.cores[0]
    uaccess.copy_to_user(Cpu(system.kernel, core), it.program.symbols["list"], encoded(seed, it.program.symbols))
    _, end = machine.advance(core.clock + BUDGET)
    if end.kind not in GOOD:
        raise WrongEnd(f"{end.kind.value}: {end.text}")
    found = [one for one in judge.finish(end) if not _is_known(variant, end, one)]
    if found:
        raise WrongEnd("\n".join(found[0].lines()))
    _check_bounds(system)
    return end


def _is_known(variant: Variant, end: End, found: Violation) -> bool:
    """That nobody gets on: all processes may wait, or go on for ever. And a hole of linux-2.6's time: INT 0x80 saves no
    R8 to R11, so 64-bit code finds there what was on the kernel's stack (CVE-2009-2910).
    """
    if found.invariant == "progress":
        return end.kind is not EndKind.FINISHED
    registers = set(re.findall(r"(\w+) is 0x", found.message))
    return variant.kernel == "linux-2.6" and found.invariant == "frames" and registers <= {"r8", "r9", "r10", "r11"}


def _check_bounds(system: System) -> None:
    memory = system.machine.memory
    tasks, most = mm.kernel_data(memory).nr_tasks, max_tasks(system.kernel)
    if tasks > most or len(system.binding.running) > most + 8:
        raise WrongEnd(f"{tasks} tasks, {len(system.binding.running)} C functions in flight")
    if sum(len(data) for _, data in system.kernel.output) > MAX_OUTPUT:
        raise WrongEnd("the output grows without end")
