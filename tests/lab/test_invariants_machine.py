"""The invariants on the real image: silent on it whatever hits it, and naming the instruction when it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from asm import assemble_text
from emu.lab.invariants import Judge
from emu.lab.view import View
from emu.lab.violation import Violation
from emu.machine.core import Core
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image, source_files

PROGRAM = """
.globl _start
_start:
    movq $0x1111, %r8
    movq $0x2222, %r9
    movq $0x3333, %r14
    movq $0x4444, %r15
    std
    movl $39, %eax
    syscall
    cld
    pushq %rax
    xorl %edi, %edi
    movl $231, %eax
    syscall
"""
Raise = Callable[[Core], None]
EVENTS: dict[str, Raise] = {
    "nmi": Core.raise_nmi,
    "machine check": Core.raise_machine_check,
    "irq": lambda core: core.raise_interrupt(0x31),
    "timer": lambda core: core.raise_interrupt(0xEC),
}


class Rig:
    """A system that stands at the first user instruction, with a judge; it can go back there."""

    def __init__(self, profile: Profile, overrides: tuple[tuple[str, str], ...] = (), *, nmi_scratch: bool = False):
        image = build_image("linux-6", profile, overrides)
        user = assemble_text(PROGRAM, name="user.S", base=0x400000)
        program = program_from_image(user, "program")
        self.system: System = boot(BootOptions(image, profile, program, (b"program",), nmi_scratch=nmi_scratch))
        self.core = self.system.machine.cores[0]
        self.view = View(self.system, user)
        self.judge = Judge(self.view, "entry64 run it.toml")
        self.system.machine.observers.append(self.judge)
        self.go_to("swapgs_restore_regs_and_return_to_usermode")
        self.start = self.core.clock
        self._saved = self.system.machine.snapshot(), self.judge.save()

    def go_to(self, symbol: str) -> None:
        self.core.set_breakpoints({self.system.kernel.image.symbol(symbol)})
        assert self.system.machine.run(self.core.clock + 100_000).kind is EndKind.BREAKPOINT
        self.core.set_breakpoints(set())

    def back(self) -> None:
        self.system.machine.restore(self._saved[0])
        self.judge.load(self._saved[1])
        self.system.binding.go_back(())
        self.system.kernel.output.clear()

    def run_to(self, clock: int) -> bool:
        """False if the run ended before."""
        while self.core.clock < clock:
            if self.system.machine.run(clock).kind is not EndKind.LIMIT:
                return False
        return True

    def finish(self) -> list[Violation]:
        return self.judge.finish(self.system.machine.run(self.core.clock + 20_000))

    def sweep(self, event: Raise, step: int = 1) -> Iterator[list[Violation]]:
        """The violations of a run for each boundary that the event hits."""
        clock = self.start
        while True:
            self.back()
            if not self.run_to(clock):
                return
            event(self.core)
            yield self.finish()
            clock += step


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("fsgsbase", [True, False], ids=["fsgsbase", "sign-test"])
def test_clean_at_every_boundary(event: Raise, fsgsbase: bool) -> None:
    runs = list(Rig(Profile(fsgsbase=fsgsbase)).sweep(event))
    assert len(runs) > 150
    assert [found for found in runs if found] == []


@pytest.mark.parametrize("second", ["nmi", "machine check"])
@pytest.mark.parametrize("fsgsbase", [True, False], ids=["fsgsbase", "sign-test"])
def test_clean_when_an_event_hits_the_nmi_handler(fsgsbase: bool, second: str) -> None:
    """The NMI hits the SYSCALL gap and its handler takes a page fault, whose IRETQ unblocks NMIs."""
    rig = Rig(Profile(fsgsbase=fsgsbase), nmi_scratch=True)
    gap = _clock_of(rig, "entry_SYSCALL_64")
    for distance in range(3, 260, 5):
        rig.back()
        rig.run_to(gap)
        rig.core.raise_nmi()
        rig.run_to(gap + distance)
        EVENTS[second](rig.core)
        assert rig.finish() == [], f"{second} {distance} instructions after the NMI"


def _clock_of(rig: Rig, symbol: str) -> int:
    rig.go_to(symbol)
    return rig.core.clock


def broken(file: str, old: str, new: str) -> tuple[tuple[str, str], ...]:
    text = source_files("linux-6")[file]
    assert text.count(old) >= 1, f"{file} has changed: {old!r}"
    return ((file, text.replace(old, new, 1)),)


MUTANTS = {
    "no SWAPGS in paranoid_entry": (
        broken("paranoid.S", "    swapgs\n    movl    $1, %ebx", "    movl    $1, %ebx"),
        False, "nmi", "GS nesting", "end_repeat_nmi",
    ),
    "no WRGSBASE in paranoid_entry": (
        broken("paranoid.S", "    wrgsbase %rax\n", ""), True, "nmi", "GS nesting", "end_repeat_nmi",
    ),
    "no SWAPGS in paranoid_exit": (
        broken("calling.inc", "    swapgs\n.Lgs_stays_kernel", ".Lgs_stays_kernel"),
        False, "nmi", "GS nesting", "nmi_restore",
    ),
    "SWAPGS in error_entry's kernel path": (
        broken("entry_64.S", ".Lerror_entry_from_kernel:\n", ".Lerror_entry_from_kernel:\n    swapgs\n"),
        True, "irq", "GS nesting", "error_entry",
    ),
    "NMI not paranoid": (
        broken("nmi.S", "call    paranoid_entry\n", "call    error_entry\n"),
        True, "nmi", "GS nesting", "end_repeat_nmi",
    ),
    "no SWAPGS in entry_SYSCALL_64": (
        broken("entry_64.S", "entry_SYSCALL_64:\n    swapgs", "entry_SYSCALL_64:\n"), True, "irq", "GS nesting",
        "entry_SYSCALL_64",
    ),
    "no SWAPGS before SYSRETQ": (
        broken("entry_64.S", "    swapgs\n    sysretq", "    sysretq"), True, "irq", "GS nesting",
        "entry_SYSRETQ_unsafe_stack",
    ),
    "CR3 not restored": (
        broken("calling.inc", "    movq    \\save, %cr3\n.Lcr3_stays", ".Lcr3_stays"),
        True, "nmi", "page tables", "nmi_restore",
    ),
    "no CLD": (broken("calling.inc", "    cld\n", "    nop\n"), True, "irq", "flags", "asm_common_interrupt"),
    "registers popped in the wrong order": (
        broken("calling.inc", "r15, r14, r13, r12, rbp", "r14, r15, r13, r12, rbp"), True, "irq", "frames",
        "entry_SYSRETQ_unsafe_stack",
    ),
    "registers pushed in the wrong order": (
        broken("calling.inc", "    pushq   %r8\n    pushq   %r9", "    pushq   %r9\n    pushq   %r8"),
        True, "irq", "frames", "entry_SYSCALL_64_after_hwframe",
    ),
    "C on the trampoline": (
        broken("entry_64.S", "    movq    %gs:PERCPU_TOP_OF_STACK, %rsp\n    .irp", "    nop\n    .irp"), True, "irq",
        "stacks", "asm_common_interrupt",
    ),
    "IRQ stack stays in use": (
        broken("calling.inc", "    movq    $0, %gs:PERCPU_HARDIRQ_STACK_INUSE\n", ""), True, "irq", "stacks",
        "entry_SYSRETQ_unsafe_stack",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "fsgsbase", "event", "invariant", "symbol"), MUTANTS.values(), ids=MUTANTS)
def test_broken_image_is_noticed(
    overrides: tuple[tuple[str, str], ...], fsgsbase: bool, event: str, invariant: str, symbol: str
) -> None:
    rig = Rig(Profile(fsgsbase=fsgsbase), overrides)
    found = {
        (violation.invariant, violation.where.partition(" ")[0].partition("+")[0])
        for violations in rig.sweep(EVENTS[event], step=3)
        for violation in violations
    }
    assert (invariant, symbol) in found


def test_without_the_nested_protocol_a_frame_is_lost() -> None:
    """A nested NMI that restarts the handler from scratch leaves the first one without its way back."""
    overrides = broken("nmi.S", "    cmpq    $1, NMI_EXECUTING(%rsp)\n    je      nested_nmi\n", "")
    rig = Rig(Profile(), overrides, nmi_scratch=True)
    gap = _clock_of(rig, "entry_SYSCALL_64")
    found = set()
    for distance in range(100, 240, 5):
        rig.back()
        rig.run_to(gap)
        rig.core.raise_nmi()
        rig.run_to(gap + distance)
        rig.core.raise_nmi()
        found |= {violation.invariant for violation in rig.finish()}
    assert "frames" in found or "stacks" in found
