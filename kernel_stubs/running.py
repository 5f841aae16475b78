"""Running C functions on a machine: it stops at their stub slots, and Python takes the place of what would be compiled.

The guest returns from a function by executing the slot's own RET. One that has yielded is in flight until the guest
comes to the slot's resume point; Python cannot copy it, and no snapshot of the machine has it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import c_uint64
from dataclasses import dataclass, field

from emu.arch import PAGE_SIZE
from emu.events import CCalled, CReturned, NotPreserved
from emu.machine.core import Core
from emu.machine.descriptors import CpuFault
from emu.machine.memory import PhysicalAddressError
from emu.machine.paging import PageFaultError
from emu.machine.registers import R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI
from kernel_stubs.binding import ARGUMENT_REGISTERS, Call, CFunction, Leave, Steps, Unwind, Window, registered
from kernel_stubs.context import Cpu, Kernel, KernelOops
from kernel_stubs.errno import OutOfMemoryError

CALLER_SAVED = (RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11)
POISON = 0xDEAD_4EAD_0000_0000
"""What a caller-saved register holds after a C function: non-canonical, so that using it as a pointer faults."""
_POISONED: tuple[tuple[int, list[c_uint64 | int]], ...] = tuple(
    (run[0], [POISON | register << 8 | 0xFF for register in run])
    for run in ((RAX, RCX, RDX), (RSI, RDI, R8, R9, R10, R11))
)
"""Caller-saved registers whose encodings follow each other: the first, and what each holds."""
CALLEE_SAVED = (RBX, RBP, R12, R13, R14, R15)
"""What a function must give back as it was (System V ABI, 3.2.1, besides RSP)."""
IN_USE = 0xC0DE_0000_0000_0000
"""What C keeps in those across a call, with its RSP and the register: no two functions in flight the same."""
_FRAME = struct.Struct("<6Q")

# Offsets in a stub slot (asm/*/c_stubs.S: macro C_FUNCTION).
SLOT_RET = 1
SLOT_WINDOW = 2
SLOT_RESUME = 6
SLOT_SIZE = 16

GUEST_FAULTS = (KernelOops, PageFaultError, PhysicalAddressError, CpuFault, OutOfMemoryError)
"""What a C function meets when the kernel around it is broken (a stray RSP, a bad pointer): the end of that kernel."""


def _missing(name: str) -> Callable[[Core], None]:
    """The body of a C function that the image calls and nobody has written."""

    def crash(core: Core) -> None:
        core.crash(f"{name}: this C function is not implemented")

    return crash


@dataclass(slots=True)
class _Running:
    """A C function that has yielded: it goes on when the guest reaches its slot's resume point at this RSP."""

    name: str
    slot: int
    steps: Steps
    sp: int
    """At its return address."""
    called: str = ""
    """The guest's function that it waits for."""
    turns: int = 0
    """How often it has gone on; -1 when the guest has left it for good."""

    @property
    def resume_sp(self) -> int:
        """RSP when it goes on."""
        return self.sp - _FRAME.size if self.called else self.sp


InFlight = tuple[tuple[tuple[int, int, int], _Running, int], ...]
"""C functions in flight at some moment, each with its turns then."""


def _in_use(sp: int) -> tuple[tuple[int, int], ...]:
    """(register, value) that a C function with its return address there has while it waits for a callee."""
    own = IN_USE | (sp & 0xFFFF_FFFF) << 12
    return tuple((register, own | register) for register in CALLEE_SAVED)


@dataclass
class Binding:
    """C functions of one kernel on one machine."""

    kernel: Kernel
    running: dict[tuple[int, int, int], _Running] = field(default_factory=dict)
    """By CPU, slot and RSP: interrupted functions in flight, which no snapshot of the machine has (see `in_flight`)."""

    @property
    def at_rest(self) -> bool:
        """Whether no C function is in flight, so that RAM and registers are all there is to know."""
        return not self.running

    def in_flight(self) -> InFlight:
        """The functions in flight, to go back to after a machine snapshot of this moment is restored.

        Python cannot copy a function that runs, so that is possible only until one of them has gone on.
        """
        return tuple((key, running, running.turns) for key, running in self.running.items())

    def can_go_back(self, saved: InFlight) -> bool:
        """Whether these functions are all where they were."""
        return all(running.turns == turns for _, running, turns in saved)

    def go_back(self, saved: InFlight) -> None:
        """These functions are in flight again, and no others; `can_go_back` must hold. (): none is."""
        self.running.clear()  # no function has a `finally` around a yield, which would run some time, in other memory
        self.running.update((key, running) for key, running, _ in saved)

    def attach(self, functions: dict[str, CFunction] | None = None) -> None:
        """Stop the machine at every slot of the image that has a function, and run it there."""
        image, machine = self.kernel.image, self.kernel.machine
        functions = registered(self.kernel.name) if functions is None else functions
        first, last = image.symbol("__c_stubs_start"), image.symbol("__c_stubs_end") - 1
        sites: dict[int, Callable[[Core], None]] = {}
        for name, slot in image.symbols.items():
            if not first <= slot <= last:
                continue  # assembly of this image, perhaps with the name of a C function of another
            function = functions.get(name)
            if function is None:
                sites.setdefault(slot, _missing(name))
                continue
            sites[slot] = self._entry(function, slot)
            if function.interruptible:
                sites[slot + SLOT_RESUME] = self._resume(slot)
        machine.bind(sites, (first, last))

    def _entry(self, function: CFunction, slot: int) -> Callable[[Core], None]:
        kernel, registers = self.kernel, ARGUMENT_REGISTERS[: len(function.parameters)]

        def enter(core: Core) -> None:
            engine = core.cpu
            raw = tuple(map(engine.register, registers))
            sp, ip, *rest = engine.glance()
            try:
                return_to = kernel.memory.read_u64(kernel.physical(sp))
                core.emit(CCalled(core.clock, core.index, ip, function.name, raw, sp, return_to, *rest))
                args = [
                    value if kind is int else kernel.view(kind, value)
                    for kind, value in zip(function.parameters, raw, strict=True)
                ]
                result = function.function(Cpu(kernel, core), *args)
            except GUEST_FAULTS as fault:
                core.crash(f"{function.name}: {fault}")
                return
            if function.interruptible:
                self._advance(core, _Running(function.name, slot, result, sp), None)
            else:
                self._leave(core, function.name, slot, result)

        return enter

    def _resume(self, slot: int) -> Callable[[Core], None]:
        def resume(core: Core) -> None:
            engine = core.cpu
            running = self.running.pop((core.index, slot, engine.sp), None)
            if running is None:
                core.crash(f"nothing to resume at {self.kernel.image.symbolize(engine.ip)} with RSP {engine.sp:#x}")
                return
            value = engine.register(RAX) if running.called else 0
            if running.called:
                try:
                    self._returned(core, running)
                except GUEST_FAULTS as fault:
                    core.crash(f"{running.name}: {fault}")
                    return
            self._advance(core, running, value)

        return resume

    def _returned(self, core: Core, running: _Running) -> None:
        """Guest code that a C function called is back: see what it kept, and leave the stack frame."""
        engine = core.cpu
        lost = tuple(
            (register, engine.register(register), value)
            for register, value in _in_use(running.sp)
            if engine.register(register) != value
        )
        if lost:
            core.emit(NotPreserved(core.clock, core.index, engine.ip, running.name, running.called, lost))
        saved = core.linear.read(running.resume_sp, _FRAME.size)
        engine.set_registers(tuple(zip(CALLEE_SAVED, _FRAME.unpack(saved), strict=True)))
        engine.sp = running.sp

    def _advance(self, core: Core, running: _Running, value: int | None) -> None:
        running.turns += 1
        try:
            step = next(running.steps) if value is None else running.steps.send(value)
        except StopIteration as end:
            self._leave(core, running.name, running.slot, end.value)
            return
        except GUEST_FAULTS as fault:
            if not isinstance(fault, KernelOops) or not isinstance(fault.instead, Call):
                core.crash(f"{running.name}: {fault}")
                return
            step = fault.instead
        if isinstance(step, Unwind):
            self._forget_stack(*step.stack)
            self._advance(core, running, 0)
            return
        engine = core.cpu
        if isinstance(step, Leave):
            running.steps.close()
            self._forget_stack(*step.stack)
        running.called = step.symbol if isinstance(step, Call) else ""
        if not isinstance(step, Leave):
            self.running[core.index, running.slot, running.resume_sp] = running
        if isinstance(step, Window):
            engine.ip = running.slot + SLOT_WINDOW
            return
        for register, argument in zip(ARGUMENT_REGISTERS, step.args, strict=False):
            engine.set_register(register, argument)
        sp = running.resume_sp - 8
        try:
            core.write_linear(running.resume_sp, _FRAME.pack(*(engine.register(r) for r in CALLEE_SAVED)))
            core.write_linear(sp, (running.slot + SLOT_RESUME).to_bytes(8, "little"))
        except PageFaultError as fault:
            core.crash(f"{running.name}: {fault}")
            return
        engine.set_registers(_in_use(running.sp))
        engine.sp = sp
        engine.ip = self.kernel.image.symbol(step.symbol)

    def _forget_stack(self, low: int, high: int) -> None:
        for key in [key for key in self.running if low <= key[2] < high]:
            gone = self.running.pop(key)
            gone.turns = -1
            gone.steps.close()

    def _leave(self, core: Core, name: str, slot: int, value: int | None) -> None:
        engine = core.cpu
        for first, values in _POISONED:
            engine.set_run(first, values)
        if value is not None:
            engine.set_register(RAX, int(value))
        engine.ip = back = slot + SLOT_RET
        core.emit(CReturned(core.clock, core.index, back, name, value))


assert PAGE_SIZE % SLOT_SIZE == 0  # a slot never straddles pages
