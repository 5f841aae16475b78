"""What becomes of a fault in kernel mode: the end of the machine, or of the task (oops_end(), make_task_dead())."""

from __future__ import annotations

from kernel_stubs import mm
from kernel_stubs.abi import THREAD_SIZE
from kernel_stubs.binding import Call, Leave
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.linux26.thread_info import pda
from kernel_stubs.signal import Sig


def die(cpu: Cpu, text: str) -> KernelOops:
    """The oops of an exception in kernel mode.

    With kernel.panic_on_oops=1, as entry64 boots unless told otherwise, it ends the run. Else the task ends as if by
    SIGSEGV, on a stack that is rewound, unless an interrupt or the idle task was at work, or init.
    """
    data = mm.kernel_data(cpu.memory)
    if not data.oops_is_survived:
        return KernelOops(text)
    task = cpu.current
    if pda(cpu).irqcount >= 0 if cpu.kernel.classic else cpu.percpu.preempt_count:
        return KernelOops(f"{text}; Kernel panic - not syncing: Fatal exception in interrupt")
    if cpu.percpu.current_task == cpu.percpu.idle_task:
        return KernelOops(f"{text}; Kernel panic - not syncing: Attempted to kill the idle task!")
    if task.group_leader == data.init_task:
        return KernelOops(
            f"{text}; Kernel panic - not syncing: Attempted to kill init! exitcode={int(Sig.SIGSEGV):#010x}"
        )
    cpu.note(text)
    if cpu.kernel.classic:
        return KernelOops(text, Call("do_exit", (int(Sig.SIGSEGV),)))
    stack = (task.stack, task.stack + THREAD_SIZE)
    return KernelOops(text, Leave("rewind_stack_and_make_dead", (int(Sig.SIGSEGV),), stack))
