"""start_kernel, and what is left to do before user mode (init/main.c, arch/x86/kernel/signal_64.c, nmi.c)."""

from __future__ import annotations

from kernel_stubs import init
from kernel_stubs.abi import THREAD_SIZE, CpuBoot, PtRegs, Tif
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.linux26.first import rest_init
from kernel_stubs.linux26.thread_info import init_thread_info, pda, set_current
from kernel_stubs.mm import kernel_data
from kernel_stubs.page_fault import vfree_lazy
from kernel_stubs.process import do_exit
from kernel_stubs.rseq import rseq_handle_notify_resume
from kernel_stubs.signal_frame import do_signal
from kernel_stubs.trace import trace_nmi_handler


@c_function26
def start_kernel(cpu: Cpu, boot: CpuBoot) -> Steps:
    """Make this CPU's first task. The first CPU's executes the program, or makes the one that will; the others idle."""
    if cpu.number == 0 and kernel_data(cpu.memory).init_thread:
        yield from rest_init(cpu, boot)
    yield from init.start_kernel(cpu, boot)
    address = cpu.percpu.current_task
    init_thread_info(cpu, address)
    set_current(cpu, address)
    return None


@c_function26
def do_notify_resume(cpu: Cpu, regs: PtRegs, unused: int, flags: int) -> Steps:
    """Signals, and what else TIF_DO_NOTIFY_MASK says; the assembly asks again afterwards."""
    task = cpu.current
    task.ret_count += 1
    if flags & Tif.SIGPENDING and not task.exit_state:
        yield from do_signal(cpu, regs)
    if flags & Tif.NOTIFY_RESUME:
        task.thread_info.flags &= ~Tif.NOTIFY_RESUME
        rseq_handle_notify_resume(cpu)
    if task.exit_state:
        yield from do_exit(cpu)
    return None


@c_function26
def do_nmi(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """NMI, on its IST stack. Nothing guards against another one, nor keeps CR2: nothing in here was to fault."""
    percpu, begun = cpu.percpu, cpu.core.clock
    percpu.nmi_count += 1
    pda(cpu).nmi_count += 1
    if percpu.nmi_scratch:
        vfree_lazy(cpu.kernel, percpu.nmi_scratch)
        yield Call("nmi_touch_scratch")
    trace_nmi_handler(cpu, "do_nmi", begun)
    return None


@c_function26
def sync_regs(cpu: Cpu, regs: int) -> int:
    """User mode's registers, from an IST stack to where they belong: their new address."""
    new = cpu.current.stack + THREAD_SIZE - PtRegs.SIZE
    if regs != new:
        cpu.core.write_linear(new, cpu.core.read_linear(regs, PtRegs.SIZE))
    return new
