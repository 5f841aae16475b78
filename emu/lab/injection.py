"""Injections: what a scenario puts at an instruction boundary, resolved before the run and fired during it.

All injections of a boundary fire there in the order of the file, before its instruction executes. An event that
the CPU cannot take yet (IF clear, NMIs blocked) stays pending as on hardware. An instruction that was interrupted or
faulted and is begun again has arrived once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from emu.arch import FIRST_EXTERNAL_VECTOR, LOCAL_TIMER_VECTOR, PAGE_SIZE, Rflags, is_canonical
from emu.errors import ScenarioError
from emu.events import Delivered, Event, EventType
from emu.lab.chain import vector_name
from emu.lab.places import Boundary, Places
from emu.lab.scenario import Inject
from emu.machine.core import Core
from emu.machine.paging import ADDRESS_MASK, PageTables, Pte
from emu.machine.registers import REGISTER_NAMES
from kernel_stubs.abi import INIT_PGD, PTI_USER_PGTABLE, TASK_SIZE_MAX, MmStruct, PerCpu, TaskStruct, Tif
from kernel_stubs.context import Kernel, KernelOops, percpu_address
from kernel_stubs.linux26.thread_info import show_work
from kernel_stubs.pgtable import PROTNONE
from kernel_stubs.signal import signal_name
from kernel_stubs.text_poke import begin_text_poke

SYSTEM_REGISTERS = ("rip", "rflags", "fs_base", "gs_base", "kernel_gs_base", "cr2")
_FLAGS = sum(flag for flag in Rflags if flag not in (Rflags.VM, Rflags.VIF, Rflags.VIP))
"""RFLAGS bits that exist in 64-bit mode."""


class CannotInject(Exception):
    """The state at that moment does not allow it (no page at the address, no task yet): an unmet expectation."""


Fire = Callable[[Kernel, Core], None]


@dataclass(frozen=True, slots=True)
class Injection:
    """One `[[inject]]`, resolved: what, and the boundary or the instruction count."""

    number: int
    what: str
    fire: Fire
    cpu: int
    boundary: Boundary | None
    hit: int
    instruction: int | None

    def __str__(self) -> str:
        if self.boundary is None:
            return f"{self.what} before instruction {self.instruction}"
        times = f", arrival {self.hit}" if self.hit > 1 else ""
        return f"{self.what} at {self.boundary.name}{times}"


def resolve(
    specs: Sequence[Inject], where: Callable[[int, str], str], places: Places, cpus: int
) -> list[list[Injection]]:
    """The injections of each case: one case, or one for each boundary of an `each`.

    `where(index, key)` says where a message's subject stands.
    """
    cases: list[list[Injection]] = [[]]
    for index, spec in enumerate(specs):
        here = partial(where, index)
        if spec.cpu >= cpus:
            raise ScenarioError(f"{here('cpu')}: no CPU {spec.cpu}; the machine has {cpus}, counted from 0")
        boundaries: list[Boundary | None] = [None]
        if spec.at is not None:
            boundaries = [places.boundary(spec.at, here("at"))]
        elif spec.each is not None:
            boundaries = [*places.boundaries(spec.each, here("each"))]
        actions = [(*_action(one, places, here), one.hit) for one in spec.single()]
        cases = [
            [
                *case,
                *(
                    Injection(index + 1, what, action, spec.cpu, boundary, hit, spec.instruction)
                    for what, action, hit in actions
                ),
            ]
            for boundary in boundaries
            for case in cases
        ]
    return cases


@dataclass
class Plan:
    """The injections of one run that are still to come."""

    waiting: list[Injection]
    arrivals: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number and hit of an injection -> how often its boundary was reached."""
    _last: dict[int, tuple[int, int]] = field(default_factory=dict)
    """CPU -> clock and address of its last arrival at a boundary."""
    _resuming: set[tuple[int, int]] = field(default_factory=set)
    """(CPU, boundary) that an event interrupted: coming back to one is no new arrival."""

    def __call__(self, event: Event) -> None:
        """Observe deliveries."""
        if isinstance(event, Delivered) and self._last.get(event.cpu) == (event.clock, event.ip):
            self._resuming.add((event.cpu, event.ip))

    def copy(self) -> Plan:
        """An independent copy, for a snapshot."""
        return Plan(list(self.waiting), dict(self.arrivals), dict(self._last), set(self._resuming))

    def load(self, saved: Plan) -> None:
        """Back to what `copy` gave."""
        fresh = saved.copy()
        self.waiting, self.arrivals, self._last, self._resuming = (
            fresh.waiting, fresh.arrivals, fresh._last, fresh._resuming,
        )  # fmt: skip

    def breakpoints(self, cpu: int) -> set[int]:
        """Addresses where this CPU has to stop."""
        return {a for i in self.waiting if i.cpu == cpu and i.boundary is not None for a in i.boundary.addresses}

    def next_counts(self) -> dict[int, int]:
        """CPU -> the clock at which its next injection by instruction count is due."""
        counts: dict[int, int] = {}
        for injection in self.waiting:
            if injection.instruction is not None:
                counts[injection.cpu] = min(injection.instruction, counts.get(injection.cpu, injection.instruction))
        return counts

    def due(self, core: Core, *, arrived: bool) -> list[Injection]:
        """What is to be fired now; `arrived`: the CPU stopped before an instruction because of a boundary."""
        ip = core.cpu.ip
        if arrived:
            self._last[core.index] = (core.clock, ip)
            if (core.index, ip) in self._resuming:
                self._resuming.remove((core.index, ip))
                arrived = False
        ready = [i for i in self.waiting if i.cpu == core.index and self._is_due(i, core, arrived)]
        self.waiting = [i for i in self.waiting if i not in ready]
        return ready

    def _is_due(self, injection: Injection, core: Core, arrived: bool) -> bool:
        if injection.instruction is not None:
            return core.clock >= injection.instruction
        if not arrived or injection.boundary is None or core.cpu.ip not in injection.boundary.addresses:
            return False
        key = injection.number, injection.hit
        count = self.arrivals[key] = self.arrivals.get(key, 0) + 1
        return count == injection.hit


# --- what an event does -----------------------------------------------------------------------------------------------
Where = Callable[[str], str]


def _action(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    match spec.event:
        case "nmi":
            return "NMI", lambda kernel, core: core.raise_nmi()
        case "machine-check":
            return "machine check", lambda kernel, core: core.raise_machine_check()
        case "timer":
            return "timer interrupt", lambda kernel, core: core.raise_interrupt(kernel.timer_vector)
        case "irq":
            return _irq(spec, where)
        case "exception":
            return _exception(spec, places, where)
        case "page-not-present":
            return _page_not_present(spec, places, where)
        case "register":
            return _register(spec, places, where)
        case "memory":
            return _memory(spec, places, where)
        case "signal":
            return _signal(spec)
        case "thread-flag":
            return _thread_flag(spec, where)
        case "text-poke":
            return _text_poke(spec, places, where)


def _irq(spec: Inject, where: Where) -> tuple[str, Fire]:
    vector = spec.vector
    if vector is None:
        assert spec.line is not None
        vector = FIRST_EXTERNAL_VECTOR + spec.line
        if vector >= LOCAL_TIMER_VECTOR:
            last = LOCAL_TIMER_VECTOR - FIRST_EXTERNAL_VECTOR - 1
            raise ScenarioError(f"{where('line')}: no interrupt line {spec.line}; there are 0 to {last}")
    number = vector
    return f"interrupt {number:#x}", lambda kernel, core: core.raise_interrupt(number)


def _exception(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    vector = spec.vector
    assert vector is not None
    address = places.address(spec.address, where("address")) if spec.address is not None else None

    def fire(kernel: Kernel, core: Core) -> None:
        core.raise_exception(vector, spec.error_code, address(kernel, core) if address else None)

    return vector_name(vector, EventType.HWEXC), fire


def _page_not_present(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    assert spec.address is not None
    find = places.address(spec.address, where("address"))

    def fire(kernel: Kernel, core: Core) -> None:
        address, tables = find(kernel, core), _tables(kernel)
        for root in _roots(kernel, core, address):
            entry = tables.entry(root, address)
            if entry & Pte.P:
                # The frame stays with the page, as for a NUMA hinting fault: a handler finds it and nothing is lost.
                tables.set_entry(root, address, entry & ~Pte.P | PROTNONE)
        kernel.machine.flush_tlb()

    return f"page of {spec.address} not present", fire


def _register(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    assert spec.register_ is not None
    assert spec.value is not None
    name = spec.register_.lower()
    find = places.address(spec.value, where("value"))
    if name not in REGISTER_NAMES and name not in SYSTEM_REGISTERS:
        known = ", ".join((*REGISTER_NAMES, *SYSTEM_REGISTERS))
        raise ScenarioError(f"{where('register')}: no register {spec.register_!r}; there are {known}")

    def fire(kernel: Kernel, core: Core) -> None:
        value, cpu = find(kernel, core), core.cpu
        if name in REGISTER_NAMES:
            cpu.set_register(REGISTER_NAMES.index(name), value)
        elif name == "rflags":
            cpu.flags = value & _FLAGS
        elif name.endswith("_base") and not is_canonical(value):
            raise CannotInject(f"{value:#x} is not canonical: {name} cannot hold it")
        else:
            setattr(cpu, "ip" if name == "rip" else name, value)

    return f"{name} = {spec.value}", fire


def _memory(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    assert spec.address is not None
    assert spec.value is not None
    find = places.address(spec.address, where("address"))
    find_value = places.address(spec.value, where("value"))
    size = spec.size or 8

    def fire(kernel: Kernel, core: Core) -> None:
        address = find(kernel, core)
        data = (find_value(kernel, core) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        for offset, byte in enumerate(data):
            kernel.memory.write(_physical(kernel, core, address + offset), bytes((byte,)))

    return f"{size} bytes at {spec.address} = {spec.value}", fire


def _text_poke(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    assert spec.address is not None
    find = places.address(spec.address, where("address"))

    def fire(kernel: Kernel, core: Core) -> None:
        address = find(kernel, core)
        try:
            begin_text_poke(kernel, address)
        except ValueError as error:
            raise CannotInject(str(error)) from None

    return f"INT3 of text patching at {spec.address}", fire


def _signal(spec: Inject) -> tuple[str, Fire]:
    number = spec.signal
    assert number is not None

    def fire(kernel: Kernel, core: Core) -> None:
        task = _task(kernel, core)
        task.pending |= 1 << (number - 1)
        task.thread_info.flags |= Tif.SIGPENDING
        _show_work(kernel, task)

    return f"{signal_name(number)} pending", fire


def _thread_flag(spec: Inject, where: Where) -> tuple[str, Fire]:
    assert spec.flag is not None
    name = spec.flag.upper().removeprefix("TIF_")
    if name not in Tif.__members__:
        raise ScenarioError(f"{where('flag')}: no thread flag {spec.flag!r}; there are {', '.join(Tif.__members__)}")

    def fire(kernel: Kernel, core: Core) -> None:
        task = _task(kernel, core)
        task.thread_info.flags |= Tif[name]
        _show_work(kernel, task)

    return f"TIF_{name} set", fire


# --- the guest's state ------------------------------------------------------------------------------------------------
def _task(kernel: Kernel, core: Core) -> TaskStruct:
    current = kernel.view(PerCpu, percpu_address(kernel, core.index)).current_task
    if not current:
        raise CannotInject("there is no task yet")
    return kernel.view(TaskStruct, current)


def _show_work(kernel: Kernel, task: TaskStruct) -> None:
    """The assembly of linux-2.6 looks for work in another place than C does."""
    if kernel.classic:
        show_work(kernel, task)


def _mm(kernel: Kernel, core: Core) -> MmStruct:
    mm = _task(kernel, core).mm
    if not mm:
        raise CannotInject("the current task has no address space yet")
    return kernel.view(MmStruct, mm)


def _tables(kernel: Kernel) -> PageTables:
    def no_frame() -> int:
        raise CannotInject("there is no page table for this address")

    return PageTables(kernel.memory, no_frame)


def _roots(kernel: Kernel, core: Core, address: int) -> tuple[int, ...]:
    """The PGDs that lead to an address: tables of the user half are shared, those of the kernel half are not."""
    if not is_canonical(address):
        raise CannotInject(f"{address:#x} is not canonical")
    if address < TASK_SIZE_MAX:
        return (_mm(kernel, core).pgd,)
    return (INIT_PGD, INIT_PGD + PTI_USER_PGTABLE)


def _physical(kernel: Kernel, core: Core, address: int) -> int:
    """Where a byte lies, whoever may access it."""
    entry = _tables(kernel).entry(_roots(kernel, core, address)[0], address)
    if not entry & (Pte.P | PROTNONE):
        raise CannotInject(f"no page at {address:#x}")
    return (entry & ADDRESS_MASK) + address % PAGE_SIZE


def fire(injection: Injection, kernel: Kernel, core: Core) -> str | None:
    """Do it now; what prevented it, in words."""
    try:
        injection.fire(kernel, core)
    except (CannotInject, KernelOops) as problem:
        return f"injection {injection.number} ({injection}): {problem}"
    return None
