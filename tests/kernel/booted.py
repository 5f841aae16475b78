"""A booted kernel for tests: small user programs in assembly, run to their end or to their first instruction."""

from __future__ import annotations

from dataclasses import dataclass, field

from asm import Image, assemble_text
from emu.events import Event, Note
from emu.machine.core import Core
from emu.machine.end import End, EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.context import Cpu
from kernel_stubs.elf import UserProgram, program_from_image
from kernel_stubs.kernel_image import build_image

LIMIT = 5_000_000
USER_BASE = 0x40_0000
SPIN = "_start: jmp _start"


def user_image(text: str) -> Image:
    return assemble_text(text, name="user.S", base=USER_BASE, entry="_start")


def user_program(text: str) -> UserProgram:
    return program_from_image(user_image(text), "user")


@dataclass
class Booted:
    """A system with what tests look at."""

    system: System
    program: UserProgram
    events: list[Event] = field(default_factory=list)

    @property
    def core(self) -> Core:
        return self.system.machine.cores[0]

    @property
    def cpu(self) -> Cpu:
        return Cpu(self.system.kernel, self.core)

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    @property
    def stdout(self) -> bytes:
        return b"".join(data for fd, data in self.system.kernel.output if fd == 1)

    def run(self, limit: int = LIMIT) -> End:
        return self.core.advance(self.core.clock + limit)

    def to(self, *symbols: str) -> Booted:
        """Run until the CPU is before one of these instructions (`name` or `name+0x3`, kernel or program)."""
        places = set()
        for symbol in symbols:
            name, _, offset = symbol.partition("+")
            table = self.program.symbols if name in self.program.symbols else self.system.kernel.image.symbols
            places.add(table[name] + int(offset or "0", 0))
        self.core.set_breakpoints(places)
        end = self.run()
        assert end.kind is EndKind.BREAKPOINT, end
        self.core.set_breakpoints(set())
        return self


def start(program: str | UserProgram = SPIN, profile: Profile | None = None, **options: object) -> Booted:
    """Boot; nothing has run."""
    profile = profile or Profile()
    started = user_program(program) if isinstance(program, str) else program
    settings = {"argv": (b"user",)} | options
    system = boot(BootOptions(build_image("linux-6", profile), profile, started, **settings))
    it = Booted(system, started)
    system.machine.observers.append(it.events.append)
    return it


def in_user(program: str = SPIN, **options: object) -> Booted:
    """Boot and run to the program's first instruction."""
    return start(program, **options).to("_start")
