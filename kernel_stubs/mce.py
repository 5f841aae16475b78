"""#MC (arch/x86/kernel/cpu/mce). This machine has no error banks: what MCG_STATUS says of the interrupted code decides.

An event that leaves nothing there is counted. If the code cannot go on, that is the end: of the task, if it was in user
mode and the error belongs to its instruction; else of the machine.
"""

from __future__ import annotations

from emu.arch import Msr
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.entry_common import irqentry_exit, irqentry_nmi_enter, irqentry_nmi_exit
from kernel_stubs.signal import SI_KERNEL, Sig, force_sig

MCG_STATUS_RIPV = 1 << 0
"""The interrupted code can go on at the RIP of the frame."""
MCG_STATUS_EIPV = 1 << 1
"""The error belongs to the instruction there."""
MCG_STATUS_MCIP = 1 << 2


def _do_machine_check(cpu: Cpu, regs: PtRegs) -> None:
    cpu.percpu.mce_count += 1
    status = cpu.core.msrs[Msr.MCG_STATUS]
    if not status & MCG_STATUS_MCIP:
        cpu.note("unexpected machine check")
        return
    if not status & MCG_STATUS_RIPV:
        if cpu.kernel.classic:
            raise KernelOops("Kernel panic - not syncing: Machine check")
        if not status & MCG_STATUS_EIPV:
            raise KernelOops("Kernel panic - not syncing: Fatal machine check: Neither restart nor error IP")
        if not regs.user_mode:
            raise KernelOops("Kernel panic - not syncing: Fatal machine check: In kernel and no restart IP")
        force_sig(cpu, Sig.SIGBUS, SI_KERNEL, 0)  # kill_me_now
    # With MCIP set a second machine check would shut the CPU down.
    cpu.core.write_msr(Msr.MCG_STATUS, 0)


@c_function
def exc_machine_check(cpu: Cpu, regs: PtRegs) -> None:
    """#MC from kernel mode, on its IST stack."""
    irqentry_nmi_enter(cpu)
    _do_machine_check(cpu, regs)
    irqentry_nmi_exit(cpu)


@c_function
def exc_machine_check_user(cpu: Cpu, regs: PtRegs) -> Steps:
    """#MC from user mode, on the task stack."""
    _do_machine_check(cpu, regs)
    yield from irqentry_exit(cpu, regs)
    return None
