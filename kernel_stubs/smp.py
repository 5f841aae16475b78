"""Several CPUs: starting them, and asking them to do something (arch/x86/kernel/smpboot.c, smp.c, kernel/smp.c).

The first CPU starts the others by INIT and startup IPIs; `machine.startup` stands in for the real-mode trampoline and
puts a CPU at `startup_64` with its own CpuBoot.
"""

from __future__ import annotations

from collections.abc import Iterator

from emu.arch import SPURIOUS_APIC_VECTOR
from emu.machine.apic import ENABLED, SPURIOUS, Delivery
from kernel_stubs.abi import PerCpu, PtRegs, SystemVector, TaskStruct
from kernel_stubs.abi26 import NUM_INVALIDATE_TLB_VECTORS, Vector26
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import interrupt_exit, sysvec_enter, sysvec_exit
from kernel_stubs.ipi import send_ipi
from kernel_stubs.irq import irq_desc
from kernel_stubs.ldt import load_ldt
from kernel_stubs.sched import percpu_of, set_need_resched
from kernel_stubs.tick import arm_timer

TRAMPOLINE_PAGE = 0x9A
"""Vector of the startup IPI: the page where Linux often has its trampoline."""


def setup_local_apic(cpu: Cpu) -> None:
    """INIT leaves a CPU's APIC switched off."""
    cpu.core.write_apic(SPURIOUS, ENABLED | SPURIOUS_APIC_VECTOR)


def smp_init(cpu: Cpu) -> None:
    """Start all other CPUs."""
    for number in range(1, len(cpu.kernel.machine.cores)):
        send_ipi(cpu, number, 0, Delivery.INIT)
        send_ipi(cpu, number, TRAMPOLINE_PAGE, Delivery.STARTUP)


def others(cpu: Cpu) -> Iterator[tuple[int, PerCpu]]:
    """(number, per-CPU area) of the other CPUs that run tasks already."""
    for number in range(len(cpu.kernel.machine.cores)):
        percpu = percpu_of(cpu.kernel, number)
        if number != cpu.number and percpu.current_task:
            yield number, percpu


def flush_tlb_mm(cpu: Cpu) -> None:
    """The current address space lost pages or rights: CPUs that use it are told, to forget their translations.

    They must not use them a moment longer, so the machine forgets them at once; the interrupt is what software sees.
    """
    call_users_of_mm(cpu)


def call_users_of_mm(cpu: Cpu) -> None:
    """Interrupt the other CPUs that use the current address space: they look at it anew."""
    for number, percpu in others(cpu):
        if cpu.view(TaskStruct, percpu.current_task).mm == cpu.current.mm:
            percpu.call_function_pending |= 1 << cpu.number
            send_ipi(cpu, number, _shootdown_vector(cpu))


def _shootdown_vector(cpu: Cpu) -> int:
    """linux-2.6 has eight vectors for it, which senders share by their numbers."""
    if cpu.kernel.classic:
        return Vector26.INVALIDATE_TLB_START + cpu.number % NUM_INVALIDATE_TLB_VECTORS
    return SystemVector.CALL_FUNCTION


def smp_invalidate_interrupt(cpu: Cpu, regs: PtRegs) -> Steps:
    """linux-2.6: another CPU took pages or rights away. The stub has pushed the complement of its vector."""
    return (yield from _call_function(cpu, regs, ~regs.orig_ax & 0xFF))


def _acknowledge(cpu: Cpu, vector: int) -> None:
    irq_desc(cpu.kernel, vector).count += 1
    cpu.core.apic.eoi()


def _call_function(cpu: Cpu, regs: PtRegs, vector: int) -> Steps:
    name = "call_function_single" if vector == SystemVector.CALL_FUNCTION_SINGLE else "call_function"
    sysvec_enter(cpu, name, vector)
    _acknowledge(cpu, vector)
    percpu = cpu.percpu
    if percpu.call_function_pending:
        percpu.call_function_pending = 0
        cpu.core.cpu.flush_tlb()
        if cpu.current.mm:
            yield from load_ldt(cpu)
    sysvec_exit(cpu, name, vector)
    yield from interrupt_exit(cpu, regs)
    return None


@c_function
def sysvec_call_function(cpu: Cpu, regs: PtRegs) -> Steps:
    """Another CPU wants a function run on several CPUs."""
    return (yield from _call_function(cpu, regs, SystemVector.CALL_FUNCTION))


@c_function
def sysvec_call_function_single(cpu: Cpu, regs: PtRegs) -> Steps:
    """Another CPU wants a function run here."""
    return (yield from _call_function(cpu, regs, SystemVector.CALL_FUNCTION_SINGLE))


@c_function
def sysvec_reschedule_ipi(cpu: Cpu, regs: PtRegs) -> Steps:
    """Another CPU made a task runnable here, or sent one a signal: the ways out of here look at both."""
    sysvec_enter(cpu, "reschedule", SystemVector.RESCHEDULE)
    _acknowledge(cpu, SystemVector.RESCHEDULE)
    percpu = cpu.percpu
    if percpu.current_task:
        idle = percpu.current_task == percpu.idle_task
        arm_timer(cpu, idle=idle)
        if cpu.kernel.classic and idle and percpu.rq_head:
            # The task came while this CPU was on its way to the idle loop, which does not look at the queue.
            set_need_resched(cpu)
    sysvec_exit(cpu, "reschedule", SystemVector.RESCHEDULE)
    yield from interrupt_exit(cpu, regs)
    return None
