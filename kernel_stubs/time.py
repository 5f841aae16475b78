"""The APIC timer's tick, and the clocks (arch/x86/kernel/apic, kernel/time). One instruction is one nanosecond."""

from __future__ import annotations

from kernel_stubs.abi import PtRegs, WaitResult
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import interrupt_exit, sysvec_enter, sysvec_exit
from kernel_stubs.sched import all_tasks, set_need_resched, wake_up_process
from kernel_stubs.siginfo import SI_KERNEL, Sig, Siginfo
from kernel_stubs.signal import send_signal
from kernel_stubs.tick import MIN_GRANULARITY, TIMESLICE, arm_timer

NSEC_PER_SEC = 1_000_000_000
BOOT_TIME = 1_700_000_000
"""CLOCK_REALTIME at the first instruction, in seconds since 1970."""


def monotonic_ns(cpu: Cpu) -> int:
    """CLOCK_MONOTONIC."""
    return cpu.core.clock


def realtime_ns(cpu: Cpu) -> int:
    """CLOCK_REALTIME."""
    return BOOT_TIME * NSEC_PER_SEC + cpu.core.clock


def run_timers(cpu: Cpu) -> None:
    """Wake those whose sleep is over, and send the alarms that are due."""
    clock = cpu.core.clock
    for address, task in all_tasks(cpu.kernel):
        if task.thread_info.cpu != cpu.number:
            continue
        if task.wake_time and task.wake_time <= clock:
            wake_up_process(cpu, address, WaitResult.TIMEOUT)
        if task.alarm_time and task.alarm_time <= clock:
            interval = task.alarm_interval
            task.alarm_time = max(clock + 1, task.alarm_time + interval) if interval else 0
            send_signal(cpu, task, Siginfo(Sig.SIGALRM, SI_KERNEL))
    arm_timer(cpu, idle=cpu.percpu.current_task == cpu.percpu.idle_task)


@c_function
def sysvec_apic_timer_interrupt(cpu: Cpu, regs: PtRegs) -> Steps:
    """The local APIC's timer. A tick ends the current task's turn, unless it has hardly begun."""
    sysvec_enter(cpu, "local_timer", cpu.kernel.timer_vector)
    cpu.core.apic.eoi()
    percpu = cpu.percpu
    percpu.timer_ticks += 1
    percpu.timer_armed = 0
    if percpu.current_task:
        if cpu.core.clock >= percpu.slice_end - TIMESLICE + MIN_GRANULARITY:
            set_need_resched(cpu)
        run_timers(cpu)
    sysvec_exit(cpu, "local_timer", cpu.kernel.timer_vector)
    yield from interrupt_exit(cpu, regs)
    return None
