"""NMIs (arch/x86/kernel/nmi.c).

The assembly keeps NMIs from overwriting each other's frames on the NMI stack; an NMI that came from user mode runs on
the task stack, and there one more can interrupt its C code once an IRETQ has unblocked NMIs. `nmi_state` latches that.
"""

from __future__ import annotations

from kernel_stubs.abi import NmiState, PtRegs
from kernel_stubs.binding import Call, Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import irqentry_nmi_enter, irqentry_nmi_exit
from kernel_stubs.page_fault import vfree_lazy
from kernel_stubs.trace import trace_nmi_handler


@c_function
def exc_nmi(cpu: Cpu, regs: PtRegs) -> Steps:
    """NMI, vector 2. IF=0, NMIs blocked; kernel GS and CR3."""
    percpu = cpu.percpu
    if percpu.nmi_state != NmiState.NOT_RUNNING:
        percpu.nmi_state = NmiState.LATCHED
        return None
    percpu.nmi_state = NmiState.EXECUTING
    # A page fault in the handler must not lose the CR2 of one that we interrupted before it could read it.
    percpu.nmi_cr2 = cpu.core.cpu.cr2
    while True:
        irqentry_nmi_enter(cpu)
        begun = cpu.core.clock
        percpu.nmi_count += 1
        if percpu.nmi_scratch:
            vfree_lazy(cpu.kernel, percpu.nmi_scratch)
            yield Call("nmi_touch_scratch")
        trace_nmi_handler(cpu, "exc_nmi", begun)
        irqentry_nmi_exit(cpu)
        if cpu.core.cpu.cr2 != percpu.nmi_cr2:
            cpu.core.cpu.cr2 = percpu.nmi_cr2
        percpu.nmi_state -= 1
        if percpu.nmi_state == NmiState.NOT_RUNNING:
            return None
