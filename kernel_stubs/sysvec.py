"""The local APIC's other vectors: what its error sources raise, and rare IPIs (arch/x86/kernel/irq.c).

Nobody queues work for them yet, so each but the last counts itself in its vector's descriptor and tells the APIC.
"""

from __future__ import annotations

from kernel_stubs.abi import PtRegs, SystemVector
from kernel_stubs.binding import Call, Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import interrupt_exit, irq_enter_rcu, sysvec_enter, sysvec_exit
from kernel_stubs.irq import irq_desc

_NAMES: dict[int, str] = {
    SystemVector.IRQ_WORK: "irq_work",
    SystemVector.X86_PLATFORM_IPI: "x86_platform_ipi",
    SystemVector.IRQ_MOVE_CLEANUP: "irq_move_cleanup",
    SystemVector.THERMAL_APIC: "thermal_apic",
    SystemVector.THRESHOLD_APIC: "threshold_apic",
    SystemVector.DEFERRED_ERROR: "deferred_error_apic",
}
"""Of the tracepoints; Linux has none for irq_move_cleanup."""


def _acknowledge(cpu: Cpu, regs: PtRegs, vector: int) -> Steps:
    name = _NAMES[vector]
    sysvec_enter(cpu, name, vector)
    irq_desc(cpu.kernel, vector).count += 1
    cpu.core.apic.eoi()
    sysvec_exit(cpu, name, vector)
    yield from interrupt_exit(cpu, regs)
    return None


@c_function
def sysvec_irq_work(cpu: Cpu, regs: PtRegs) -> Steps:
    """Work that an NMI left for a context with ordinary rules."""
    return (yield from _acknowledge(cpu, regs, SystemVector.IRQ_WORK))


@c_function
def sysvec_x86_platform_ipi(cpu: Cpu, regs: PtRegs) -> Steps:
    """The platform's own."""
    return (yield from _acknowledge(cpu, regs, SystemVector.X86_PLATFORM_IPI))


@c_function
def sysvec_irq_move_cleanup(cpu: Cpu, regs: PtRegs) -> Steps:
    """A device's vector has moved to another CPU."""
    return (yield from _acknowledge(cpu, regs, SystemVector.IRQ_MOVE_CLEANUP))


@c_function
def sysvec_thermal(cpu: Cpu, regs: PtRegs) -> Steps:
    """The CPU is too hot."""
    return (yield from _acknowledge(cpu, regs, SystemVector.THERMAL_APIC))


@c_function
def sysvec_threshold(cpu: Cpu, regs: PtRegs) -> Steps:
    """Corrected memory errors have passed a threshold."""
    return (yield from _acknowledge(cpu, regs, SystemVector.THRESHOLD_APIC))


@c_function
def sysvec_deferred_error(cpu: Cpu, regs: PtRegs) -> Steps:
    """An uncorrected error that nobody has used yet (AMD)."""
    return (yield from _acknowledge(cpu, regs, SystemVector.DEFERRED_ERROR))


@c_function
def sysvec_reboot(cpu: Cpu, regs: PtRegs) -> Steps:
    """Another CPU shuts the system down: this one stops for good (arch/x86/kernel/smp.c)."""
    irq_enter_rcu(cpu)
    cpu.core.apic.eoi()
    cpu.note(f"CPU {cpu.number} stops")
    yield Call("stop_this_cpu")
    return None
