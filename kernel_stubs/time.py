"""The APIC timer's tick, and the clocks (arch/x86/kernel/apic, kernel/time). One instruction is one nanosecond."""

from __future__ import annotations

from emu.arch import LOCAL_TIMER_VECTOR
from kernel_stubs import mm
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import irq_enter_rcu, irq_exit_rcu, irqentry_exit
from kernel_stubs.sched import set_need_resched

NSEC_PER_SEC = 1_000_000_000
BOOT_TIME = 1_700_000_000
"""CLOCK_REALTIME at the first instruction, in seconds since 1970."""


def start_tick(cpu: Cpu) -> None:
    """Set this CPU's APIC timer to the period that the boot options ask for."""
    apic = cpu.core.apic
    period = mm.kernel_data(cpu.memory).timer_period
    if period:
        apic.divide_configuration = 0xB  # by 1
        apic.start_timer(cpu.core.clock, LOCAL_TIMER_VECTOR, period, periodic=True)


def monotonic_ns(cpu: Cpu) -> int:
    """CLOCK_MONOTONIC."""
    return cpu.core.clock


def realtime_ns(cpu: Cpu) -> int:
    """CLOCK_REALTIME."""
    return BOOT_TIME * NSEC_PER_SEC + cpu.core.clock


@c_function
def sysvec_apic_timer_interrupt(cpu: Cpu, regs: PtRegs) -> Steps:
    """The local APIC's timer. Every tick ends the current task's turn."""
    irq_enter_rcu(cpu)
    cpu.core.apic.eoi()
    percpu = cpu.percpu
    percpu.timer_ticks += 1
    if percpu.current_task:
        set_need_resched(cpu)
    irq_exit_rcu(cpu)
    yield from irqentry_exit(cpu, regs)
    return None
