"""#MC (arch/x86/kernel/cpu/mce). This machine has no error banks, so a machine check is counted, unless it says that
the interrupted code cannot go on."""

from __future__ import annotations

from emu.arch import Msr
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.entry_common import irqentry_exit, irqentry_nmi_enter, irqentry_nmi_exit

MCG_STATUS_RIPV = 1 << 0
MCG_STATUS_MCIP = 1 << 2


def _do_machine_check(cpu: Cpu) -> None:
    cpu.percpu.mce_count += 1
    status = cpu.core.msrs[Msr.MCG_STATUS]
    if not status & MCG_STATUS_MCIP:
        cpu.note("unexpected machine check")
        return
    if not status & MCG_STATUS_RIPV:
        raise KernelOops("Kernel panic - not syncing: Fatal local machine check: no restart RIP")
    # With MCIP set a second machine check would shut the CPU down.
    cpu.core.write_msr(Msr.MCG_STATUS, 0)


@c_function
def exc_machine_check(cpu: Cpu, regs: PtRegs) -> None:
    """#MC from kernel mode, on its IST stack."""
    irqentry_nmi_enter(cpu)
    _do_machine_check(cpu)
    irqentry_nmi_exit(cpu)


@c_function
def exc_machine_check_user(cpu: Cpu, regs: PtRegs) -> Steps:
    """#MC from user mode, on the task stack."""
    _do_machine_check(cpu)
    yield from irqentry_exit(cpu, regs)
    return None
