"""What an injected event does to the machine, as one function for each kind of event."""

from __future__ import annotations

from collections.abc import Callable

from emu.arch import FIRST_EXTERNAL_VECTOR, LOCAL_TIMER_VECTOR, Msr, Rflags, is_canonical
from emu.errors import ScenarioError
from emu.events import EventType
from emu.lab.chain import vector_name
from emu.lab.injection.guest import CannotInject, current_task, page_roots, page_tables, physical, show_task_work
from emu.lab.injection.segments import SEGMENT_REGISTERS, load_segment
from emu.lab.places import Places
from emu.lab.scenario.inject import Inject
from emu.machine.core import Core
from emu.machine.paging import Pte
from emu.machine.registers import REGISTER_NAMES
from kernel_stubs.abi import Tif
from kernel_stubs.context import Kernel
from kernel_stubs.pgtable import PROTNONE
from kernel_stubs.signal import signal_name
from kernel_stubs.text_poke import begin_text_poke

USER_CPL = 3
SYSTEM_REGISTERS = ("rip", "rflags", "fs_base", "gs_base", "kernel_gs_base", "cr2")
_FLAGS = sum(flag for flag in Rflags if flag not in (Rflags.VM, Rflags.VIF, Rflags.VIP))
"""RFLAGS bits that exist in 64-bit mode."""

Fire = Callable[[Kernel, Core], None]
Where = Callable[[str], str]


def action(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    """An event in words, and what fires it. `where(key)` says where a message's subject stands."""
    match spec.event:
        case "nmi":
            return "NMI", lambda kernel, core: core.raise_nmi()
        case "machine-check":
            return _machine_check(spec, places, where)
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


def _machine_check(spec: Inject, places: Places, where: Where) -> tuple[str, Fire]:
    find = places.address(spec.value, where("value")) if spec.value is not None else None

    def fire(kernel: Kernel, core: Core) -> None:
        if find is not None:
            core.write_msr(Msr.MCG_STATUS, find(kernel, core))
        core.raise_machine_check()

    return "machine check", fire


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
        address, tables = find(kernel, core), page_tables(kernel)
        for root in page_roots(kernel, core, address):
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
    if name not in (*REGISTER_NAMES, *SYSTEM_REGISTERS, *SEGMENT_REGISTERS):
        known = ", ".join((*REGISTER_NAMES, *SYSTEM_REGISTERS, *SEGMENT_REGISTERS))
        raise ScenarioError(f"{where('register')}: no register {spec.register_!r}; there are {known}")

    def fire(kernel: Kernel, core: Core) -> None:
        value, cpu = find(kernel, core), core.cpu
        if name in REGISTER_NAMES:
            cpu.set_register(REGISTER_NAMES.index(name), value)
        elif name == "rflags":
            cpu.flags = value & _FLAGS
        elif name in SEGMENT_REGISTERS:
            if cpu.cpl != USER_CPL:
                raise CannotInject(f"{name} is changed as the program would: in user mode only")
            load_segment(core, name, value)
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
            kernel.memory.write(physical(kernel, core, address + offset), bytes((byte,)))

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
        task = current_task(kernel, core)
        task.pending |= 1 << (number - 1)
        task.thread_info.flags |= Tif.SIGPENDING
        show_task_work(kernel, task)

    return f"{signal_name(number)} pending", fire


def _thread_flag(spec: Inject, where: Where) -> tuple[str, Fire]:
    assert spec.flag is not None
    name = spec.flag.upper().removeprefix("TIF_")
    if name not in Tif.__members__:
        raise ScenarioError(f"{where('flag')}: no thread flag {spec.flag!r}; there are {', '.join(Tif.__members__)}")

    def fire(kernel: Kernel, core: Core) -> None:
        task = current_task(kernel, core)
        task.thread_info.flags |= Tif[name]
        show_task_work(kernel, task)

    return f"TIF_{name} set", fire
