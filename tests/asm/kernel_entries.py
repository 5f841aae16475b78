"""A booted kernel with some C functions replaced, and a sweep: one event at every boundary of a stretch of its run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import CO_GENERATOR
from unittest.mock import patch

from asm import assemble_text
from emu.events import Event
from emu.lab.invariants import Judge
from emu.lab.view import View
from emu.lab.violation import Violation
from emu.machine.core import Core
from emu.machine.end import End, EndKind
from emu.machine.profile import Profile
from kernel_stubs import binding
from kernel_stubs.binding import CFunction
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image

USER_BASE = 0x40_0000
LIMIT = 100_000

Hit = Callable[[Core], None]
EVENTS: dict[str, Hit] = {
    "nmi": lambda core: core.raise_nmi(),
    "mce": lambda core: core.raise_machine_check(),
    "irq": lambda core: core.raise_interrupt(0x30),
}
SYSCALL32_FROM_64 = """\
    .byte   0xff, 0x2d                      # ljmp *pointer(%rip)
    .long   pointer - (. + 4)
pointer:
    .long   before
    .word   0x23
before:
    .byte   0xb8, 0x14, 0, 0, 0             # movl $20, %eax
    .byte   0xbd, 0x99, 0, 0, 0             # movl $0x99, %ebp
    .byte   0x0f, 0x05
after:
    .byte   0x90
done:
    .byte   0xeb, 0xfe
"""
"""A 64-bit program goes to 32-bit code and makes a system call there by AMD's SYSCALL."""


def _integers(name: str, function: Callable[..., object]) -> CFunction:
    """A C function of integers."""
    code = function.__code__
    return CFunction(name, function, (int,) * (code.co_argcount - 1), bool(code.co_flags & CO_GENERATOR))


@dataclass
class Lab:
    """A system that starts again and again at the program's first instruction."""

    system: System
    symbols: dict[str, int]
    events: list[Event] = field(default_factory=list)
    judge: Judge | None = None

    @property
    def core(self) -> Core:
        return self.system.machine.cores[0]

    def symbol(self, name: str) -> int:
        return self.symbols.get(name) or self.system.kernel.image.symbol(name)

    def to(self, *names: str) -> Lab:
        """Run until the CPU stands before one of these."""
        self.core.set_breakpoints({self.symbol(name) for name in names})
        end = self.system.machine.run(self.core.clock + LIMIT)
        self.core.set_breakpoints(set())
        assert end.kind is EndKind.BREAKPOINT, end
        return self

    def finish(self) -> End:
        """Run to the breakpoint `done` of the program, or to whatever ends the run before."""
        self.core.set_breakpoints({self.symbol("done")})
        end = self.system.machine.run(self.core.clock + LIMIT)
        self.core.set_breakpoints(set())
        return end

    def registers(self) -> tuple[int, ...]:
        cpu = self.core.cpu
        return (cpu.ip, cpu.flags, cpu.cpl, cpu.gs_base, *(cpu.register(n) for n in range(16)))

    def watched(self) -> Lab:
        """Have the invariants look on from here."""
        self.judge = Judge(View(self.system))
        self.system.machine.observers[:] = [self.events.append, self.judge]
        return self

    def sweep(self, hit: Hit) -> Iterator[tuple[int, End, tuple[int, ...], list[Violation]]]:
        """`hit` at every boundary from here to `done`: (RIP of the boundary, end, registers at the end, violations)."""
        machine = self.system.machine
        saved = machine.snapshot()
        assert self.finish().kind is EndKind.BREAKPOINT
        last = self.core.clock
        machine.restore(saved)
        assert self.core.clock < last
        for clock in range(self.core.clock, last):
            machine.restore(saved)
            self.watched()
            machine.run(clock)
            at = self.core.cpu.ip
            hit(self.core)
            end = self.finish()
            assert self.judge is not None
            yield at, end, self.registers(), self.judge.violations
        machine.restore(saved)


def start(
    program: str, profile: Profile | None = None, missing: tuple[str, ...] = (), **functions: Callable[..., object]
) -> Lab:
    """linux-6, booted, at `_start` of an assembled user program, with C functions of integers in place of its own, and
    without those that are `missing`."""
    profile = profile or Profile()
    image = assemble_text(program, name="user.S", base=USER_BASE, entry="_start")
    user = program_from_image(image, "user")
    stubs = {name: _integers(name, function) for name, function in functions.items()}
    kernel = build_image("linux-6", profile)
    with patch.dict(binding._registry, stubs):
        for name in missing:
            binding._registry.pop(name, None)
        system = boot(BootOptions(kernel, profile, user, argv=(b"user",)))
    return Lab(system, dict(image.symbols)).to("_start")
