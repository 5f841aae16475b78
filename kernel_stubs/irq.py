"""Device interrupts: vector, descriptor, chain of handlers, EOI (arch/x86/kernel/irq.c, kernel/irq).

`request_irq` puts a handler's id into the vector's chain in guest memory; the handlers themselves are Python functions,
registered by name when their module is imported.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.arch import ERROR_APIC_VECTOR, FIRST_EXTERNAL_VECTOR, LOCAL_TIMER_VECTOR, SPURIOUS_APIC_VECTOR
from kernel_stubs.abi import IRQ_TABLE, MAX_IRQ_ACTIONS, IrqDesc, IrqTable, PtRegs
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.entry_common import interrupt_exit, irq_enter_rcu, irq_exit_rcu, sysvec_enter, sysvec_exit
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.trace import trace_irq_handler_entry, trace_irq_handler_exit

Handler = Callable[[Cpu, int], bool]
"""handler(cpu, vector): whether the interrupt was its device's (IRQ_HANDLED)."""

_handlers: dict[str, Handler] = {}


def irq_handler(function: Handler) -> Handler:
    """Register a handler under its own name. Its id is its place in the order of registration, counted from 1."""
    name = function.__name__
    if name in _handlers:
        raise ValueError(f"interrupt handler {name} is defined twice")
    _handlers[name] = function
    return function


def handler_names() -> tuple[str, ...]:
    """Names of all handlers, in order of their ids."""
    return tuple(_handlers)


def irq_desc(kernel: Kernel, vector: int) -> IrqDesc:
    """The descriptor of a vector."""
    desc: IrqDesc = IrqTable.from_buffer(kernel.memory.ram, IRQ_TABLE).desc[vector]
    return desc


def request_irq(kernel: Kernel, vector: int, name: str) -> None:
    """Add a handler at the end of a vector's chain."""
    if name not in _handlers:
        raise ValueError(f"no interrupt handler {name!r}; there are {', '.join(_handlers)}")
    if not FIRST_EXTERNAL_VECTOR <= vector < LOCAL_TIMER_VECTOR:
        raise SyscallError(Errno.EINVAL)
    actions = irq_desc(kernel, vector).actions
    for slot in range(MAX_IRQ_ACTIONS):
        if not actions[slot]:
            actions[slot] = list(_handlers).index(name) + 1
            return
    raise SyscallError(Errno.EBUSY)


def free_irq(kernel: Kernel, vector: int, name: str) -> None:
    """Take a handler out of a vector's chain."""
    actions = irq_desc(kernel, vector).actions
    gone = list(_handlers).index(name) + 1
    left = [a for a in actions if a and a != gone]
    for slot in range(MAX_IRQ_ACTIONS):
        actions[slot] = left[slot] if slot < len(left) else 0


def _handle_irq(cpu: Cpu, vector: int) -> None:
    desc = irq_desc(cpu.kernel, vector)
    desc.count += 1
    known = list(_handlers.items())
    chain = [known[action - 1] for action in desc.actions if action]
    if not chain:
        cpu.percpu.spurious_count += 1
        cpu.note(f"no irq handler for vector {vector:#x}")
    else:
        handled = [_call_handler(cpu, vector, name, handler) for name, handler in chain]
        if not any(handled):
            desc.unhandled += 1
    cpu.core.apic.eoi()


def _call_handler(cpu: Cpu, vector: int, name: str, handler: Handler) -> bool:
    trace_irq_handler_entry(cpu, vector, name)
    handled = handler(cpu, vector)
    trace_irq_handler_exit(cpu, vector, handled=handled)
    return handled


@c_function
def common_interrupt(cpu: Cpu, regs: PtRegs, vector: int) -> Steps:
    """A device interrupt, on the IRQ stack unless it came from user mode."""
    irq_enter_rcu(cpu)
    _handle_irq(cpu, vector & 0xFF)
    irq_exit_rcu(cpu)
    yield from interrupt_exit(cpu, regs)
    return None


@c_function
def spurious_interrupt(cpu: Cpu, regs: PtRegs, vector: int) -> Steps:
    """A system vector that nobody uses."""
    irq_enter_rcu(cpu)
    _handle_spurious(cpu, vector & 0xFF)
    irq_exit_rcu(cpu)
    yield from interrupt_exit(cpu, regs)
    return None


def _handle_spurious(cpu: Cpu, vector: int) -> None:
    cpu.percpu.spurious_count += 1
    # A real interrupt is in service and wants its EOI; one that the APIC made up is not.
    if cpu.core.apic.isr >> vector & 1:
        cpu.core.apic.eoi()
    cpu.note(f"spurious interrupt on vector {vector:#x}")


@c_function
def sysvec_spurious_apic_interrupt(cpu: Cpu, regs: PtRegs) -> Steps:
    """The APIC's spurious vector, 0xff."""
    sysvec_enter(cpu, "spurious_apic", SPURIOUS_APIC_VECTOR)
    cpu.percpu.spurious_apic_count += 1
    _handle_spurious(cpu, SPURIOUS_APIC_VECTOR)
    sysvec_exit(cpu, "spurious_apic", SPURIOUS_APIC_VECTOR)
    yield from interrupt_exit(cpu, regs)
    return None


@c_function
def sysvec_error_interrupt(cpu: Cpu, regs: PtRegs) -> Steps:
    """The APIC reports an error of its own."""
    sysvec_enter(cpu, "error_apic", ERROR_APIC_VECTOR)
    cpu.percpu.apic_error_count += 1
    status, cpu.core.apic.esr = cpu.core.apic.esr, 0
    cpu.note(f"APIC error, ESR {status:#x}")
    cpu.core.apic.eoi()
    sysvec_exit(cpu, "error_apic", ERROR_APIC_VECTOR)
    yield from interrupt_exit(cpu, regs)
    return None


@irq_handler
def null_device(cpu: Cpu, vector: int) -> bool:
    """A device that always says that the interrupt was its own."""
    return True


@irq_handler
def silent_device(cpu: Cpu, vector: int) -> bool:
    """A device that shares a line and never was the one that interrupted."""
    return False
