"""Binding Python functions to C symbols.

    @c_function
    def exc_page_fault(cpu: Cpu, regs: PtRegs, error_code: int) -> None: ...

The name is the C symbol. Parameters after `cpu` are System V integer arguments (RDI RSI RDX RCX R8 R9): `int` is the
unsigned 64-bit register, a Struct class a pointer to one. The result goes to RAX. Like compiled C, a function leaves
nothing in the caller-saved registers that anybody may rely on: they are poisoned.

A plain function is atomic. A generator function can be interrupted:

    yield Window()                 the guest runs STI, two NOPs, CLI in the stub slot: events land there
    yield Call("symbol", a, b)     calls guest code with arguments; the expression's value is its RAX
    yield Unwind(stack)            says that no C function further up this stack is returned to

Around a call the function is like compiled C, too: its caller's values of the registers that a callee must keep lie in
its stack frame, its own are in the registers, and observers are told which of them the callee lost.

The guest returns from the function by executing the slot's own RET.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Generator
from ctypes import c_uint64
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from emu.arch import PAGE_SIZE
from emu.events import CCalled, CReturned, NotPreserved
from emu.machine.core import Core
from emu.machine.descriptors import CpuFault
from emu.machine.memory import PhysicalAddressError
from emu.machine.paging import PageFaultError
from emu.machine.registers import R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI
from kernel_stubs.context import Cpu, Kernel, KernelOops
from kernel_stubs.errno import OutOfMemoryError
from kernel_stubs.layout import Struct, evaluated

ARGUMENT_REGISTERS = (RDI, RSI, RDX, RCX, R8, R9)
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


@dataclass(frozen=True, slots=True)
class Window:
    """Let interrupts in: the guest enables them, runs two instructions, disables them."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call guest code at a symbol, with integer arguments."""

    symbol: str
    args: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave(Call):
    """Jump to guest code for good: this stack and every C function in flight on it are done."""

    stack: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Unwind:
    """The guest will not come back to the C functions in flight on this stack, but for the one that says so."""

    stack: tuple[int, int]


Steps = Generator[Window | Call | Unwind, int, int | None]
"""What a C function that can be interrupted returns."""


@dataclass(frozen=True, slots=True)
class CFunction:
    """A Python function with a C symbol and signature."""

    name: str
    function: Callable[..., Any]  # any mix of int and Struct parameters: checked at registration
    parameters: tuple[type, ...]
    interruptible: bool


DEFAULT_KERNEL = "linux-6"
_registry: dict[str, CFunction] = {}
_registries: dict[str, dict[str, CFunction]] = {DEFAULT_KERNEL: _registry}
F = TypeVar("F", bound=Callable[..., Any])  # as above


@overload
def c_function(function: F) -> F: ...
@overload
def c_function(*, kernel: str) -> Callable[[F], F]: ...
def c_function(function: F | None = None, *, kernel: str = DEFAULT_KERNEL) -> F | Callable[[F], F]:
    """Register a C function under its own name, of one kernel image."""
    if function is None:
        return lambda function: _register(function, kernel)
    return _register(function, kernel)


def _register(function: F, kernel: str) -> F:
    name = function.__name__
    hints = evaluated(function.__annotations__, inspect.unwrap(function).__globals__)
    hints.pop("return", None)
    parameters = list(hints.items())
    if not parameters or parameters[0][1] is not Cpu:
        raise TypeError(f"{name}: the first parameter must be cpu: Cpu")
    kinds = tuple(kind for _, kind in parameters[1:])
    for kind in kinds:
        if kind is not int and not (isinstance(kind, type) and issubclass(kind, Struct)):
            raise TypeError(f"{name}: {kind} is neither int nor a Struct")
    register(CFunction(name, function, kinds, inspect.isgeneratorfunction(function)), kernel)
    return function


def register(function: CFunction, kernel: str = DEFAULT_KERNEL) -> None:
    """Register a C function whose parameters are known to be int or Structs."""
    table, name = _registries.setdefault(kernel, {}), function.name
    if name in table and table[name].function is not function.function:
        raise ValueError(f"C function {name} is defined twice")
    if len(function.parameters) > len(ARGUMENT_REGISTERS):
        raise TypeError(f"{name}: more than {len(ARGUMENT_REGISTERS)} arguments")
    table[name] = function


def registered(kernel: str = DEFAULT_KERNEL) -> dict[str, CFunction]:
    """All C functions of a kernel image, by name, in order of name."""
    return dict(sorted(_registries.get(kernel, {}).items()))


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
            sp = engine.sp
            try:
                return_to = kernel.memory.read_u64(kernel.physical(sp))
                core.emit(
                    CCalled(
                        core.clock, core.index, engine.ip, function.name, raw, sp, return_to,
                        engine.cpl, engine.flags, engine.gs_base, engine.kernel_gs_base, engine.cr3,
                    )
                )  # fmt: skip
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
        engine.ip = slot + SLOT_RET
        core.emit(CReturned(core.clock, core.index, engine.ip, name, value))


assert PAGE_SIZE % SLOT_SIZE == 0  # a slot never straddles pages
