"""A bare machine for tests: identity-like tables, GDT, IDT and TSS in RAM, and assembled code at three places.

Linear map: KERNEL + p -> p supervisor (RAM below 2 MiB), USER.. -> 2-4 MiB user. Handlers of all vectors are one HLT
each at HANDLERS + 16 * vector, so a run ends with RIP telling which one was entered.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from asm import Image, assemble_text
from emu.arch import Cr4
from emu.events import Event
from emu.machine.core import Core
from emu.machine.end import End
from emu.machine.machine import Machine
from emu.machine.profile import Profile
from emu.machine.schedule import Interleaving

KERNEL = 0xFFFF_FFFF_8000_0000
CODE = KERNEL + 0x10_0000
HANDLERS = KERNEL + 0x11_0000
IDT = 0x7000
GDT = 0x6000
TSS = 0x6800
PML4 = 0x1000
USER = 0x20_0000
USER_STACK = 0x30_0000
KSTACK = KERNEL + 0x8_0000
SP0 = KERNEL + 0x9_0000
IST1 = KERNEL + 0xA_0000
USER_CS, USER_DS, KERNEL_CS, KERNEL_DS = 0x33, 0x2B, 0x10, 0x18

GDT_WORDS = (
    0,
    0x00CF9B000000FFFF,
    0x00AF9B000000FFFF,
    0x00CF93000000FFFF,
    0x00CFFB000000FFFF,
    0x00CFF3000000FFFF,
    0x00AFFB000000FFFF,
)


def gate(handler: int, *, selector: int = KERNEL_CS, ist: int = 0, kind: int = 0x8E) -> bytes:
    return struct.pack("<HHBBHII", handler & 0xFFFF, selector, ist, kind, handler >> 16 & 0xFFFF, handler >> 32, 0)


@dataclass
class Bare:
    """The machine with what tests look at."""

    machine: Machine
    events: list[Event] = field(default_factory=list)
    code: Image | None = None

    @property
    def core(self) -> Core:
        return self.machine.cores[0]

    def put64(self, physical: int, *values: int) -> None:
        for n, value in enumerate(values):
            self.machine.memory.write_u64(physical + 8 * n, value)

    def set_gate(self, vector: int, **kind: int) -> None:
        self.machine.memory.write(IDT + 16 * vector, gate(HANDLERS + 16 * vector, **kind))

    def run(self, limit: int = 1000) -> End:
        return self.core.advance(self.core.clock + limit)

    def frame(self, *, error_code: bool) -> tuple[int, ...]:
        """Words on the stack at RSP: [error code,] RIP CS RFLAGS RSP SS."""
        count = 6 if error_code else 5
        return struct.unpack(f"<{count}Q", self.core.read_linear(self.core.cpu.sp, 8 * count))

    def entered(self) -> int:
        """Vector of the handler that halted."""
        assert self.core.halted, f"no handler was entered: RIP {self.core.cpu.ip:#x}"
        return (self.core.cpu.ip - HANDLERS) // 16

    def of(self, kind: type) -> list[Event]:
        return [e for e in self.events if isinstance(e, kind)]


def bare(
    text: str,
    *,
    user: bool = False,
    profile: Profile | None = None,
    flags: int = 2,
    cpus: int = 1,
    interleaving: Interleaving | None = None,
) -> Bare:
    """Code at CPL 0 (CODE) or CPL 3 (USER), ready to run; further CPUs wait for a startup IPI."""
    machine = Machine(8 << 20, cpus, profile or Profile(), interleaving)
    it = Bare(machine)
    machine.observers.append(it.events.append)
    it.put64(PML4, 0x2007)
    it.put64(PML4 + 511 * 8, 0x4003)
    it.put64(0x2000, 0x3007)
    it.put64(0x4000 + 510 * 8, 0x5003)
    it.put64(0x3000, 0, 0x200087)
    it.put64(0x5000, 0x83)
    it.put64(GDT, *GDT_WORDS, 0, 0x00008B0068000067 | (TSS & 0xFFFFFF) << 16, 0xFFFFFFFF)
    it.machine.memory.write(TSS, struct.pack("<IQQQQ7Q", 0, SP0, 0, 0, 0, IST1, 0, 0, 0, 0, 0, 0))
    it.machine.memory.write(TSS + 102, b"\x68\x00")
    for vector in range(256):
        it.set_gate(vector)
        machine.memory.write((HANDLERS - KERNEL) + 16 * vector, b"\xf4")
    base = USER if user else CODE
    it.code = assemble_text(text, name="test.S", base=base)
    for segment in it.code.segments:
        machine.memory.write(segment.address - (0 if user else KERNEL), segment.data)
    machine.memory.reach(4 << 20)
    prepare(it.core, base, profile or Profile(), flags)
    if user:
        cpu = it.core.cpu
        cpu.load_code_segment(USER_CS, 0xAFFB00, 3)
        cpu.load_stack_segment(USER_DS, 0xCFF300)
        cpu.sp = USER_STACK
    machine.memory.write(HANDLERS - KERNEL + 16 * 0x100, b"\xf4")
    if not user:
        machine.observe_instructions(it.code.instructions())
    return it


def prepare(core: Core, entry: int, features: Profile, flags: int = 2) -> None:
    """One CPU at `entry` at CPL 0, with the tables above and a stack of its own."""
    core.reset_long_mode(PML4, entry, core.index)
    cpu = core.cpu
    cpu.set_control(
        cr4=int(Cr4.PAE | Cr4.OSFXSR | Cr4.MCE)
        | (Cr4.SMAP if features.smap else 0)
        | (Cr4.SMEP if features.smep else 0)
        | (Cr4.FSGSBASE if features.fsgsbase else 0)
    )
    state = cpu.state
    state.gdt.base, state.gdt.limit = KERNEL + GDT, 0x7F
    state.idt.base, state.idt.limit = KERNEL + IDT, 0xFFF
    state.tr.selector, state.tr.base, state.tr.limit, state.tr.flags = 0x40, KERNEL + TSS, 0x67, 0x8B00
    state.star, state.lstar, state.fmask = KERNEL_CS << 32 | 0x23 << 48, HANDLERS + 16 * 0x100, 0x700
    cpu.sp = KSTACK - 0x4000 * core.index
    cpu.flags = flags
    cpu.mark_dirty()


def xapic(code: str) -> Bare:
    """Code with RDX at the local APIC's page."""
    it = bare(f"movabsq ${KERNEL + 0x1F_F000}, %rdx\n{code}")
    it.put64(0x5000, 0x6083 & ~0xFFF | 0x83)
    # A 4 KiB mapping of the APIC page in place of the last page of the kernel's 2 MiB.
    it.put64(0x5000, 0xA000 | 3)
    for page in range(512):
        it.put64(0xA000 + 8 * page, page << 12 | 3)
    it.put64(0xA000 + 8 * 0x1FF, 0xFEE0_0000 | 0x13)
    it.machine.flush_tlb()
    return it
