"""Interrupts: do_IRQ and the vectors of the local APIC, with partial frames (arch/x86/kernel/irq_64.c, apic_64.c)."""

from __future__ import annotations

from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import registered
from kernel_stubs.context import Cpu
from kernel_stubs.linux26.calls import register26
from kernel_stubs.smp import smp_invalidate_interrupt

SAME_AS = {
    "smp_apic_timer_interrupt": "sysvec_apic_timer_interrupt",
    "smp_error_interrupt": "sysvec_error_interrupt",
    "smp_spurious_interrupt": "sysvec_spurious_apic_interrupt",
    "smp_reschedule_interrupt": "sysvec_reschedule_ipi",
    "smp_call_function_interrupt": "sysvec_call_function",
    "smp_call_function_single_interrupt": "sysvec_call_function_single",
    "smp_thermal_interrupt": "sysvec_thermal",
    "mce_threshold_interrupt": "sysvec_threshold",
}
"""C function -> that of linux-6 for the same interrupt."""


def _do_irq(cpu: Cpu, regs: PtRegs) -> object:
    """A device interrupt. The stub has pushed the complement of its vector."""
    return registered()["common_interrupt"].function(cpu, regs, ~regs.orig_ax & 0xFF)


def register_all() -> None:
    """Register the interrupts' C functions."""
    newer = registered()
    register26("do_IRQ", _do_irq, (PtRegs,))
    register26("smp_invalidate_interrupt", smp_invalidate_interrupt, (PtRegs,))
    for name, same in SAME_AS.items():
        register26(name, newer[same].function, (PtRegs,))
