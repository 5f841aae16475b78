"""The FPU as linux-2.6 has it: a task's registers stay in the CPU until another task wants them (i387.c, process_64.c).

CR0.TS is set while the registers are not the current task's, so that its first use of them is #NM, which brings its
own. The guest sets and clears TS where it saves and restores them (asm/linux-2.6/fpu.S).

    thread_info.status TS_USEDFPU   the registers are this task's and TS is clear; else TS is set
    task.used_math                  the task has a state at all: in the registers, or else in its area
"""

from __future__ import annotations

from kernel_stubs.abi import FXSAVE_SIZE, TASK_FPU, TaskStruct
from kernel_stubs.abi26 import TS_USEDFPU, ThreadInfo26
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu

MANY_SLICES = 5
"""A task that has used the FPU in more turns on end gets its registers at the switch, without #NM ..."""
_COUNTER_MASK = 0xFF
"""... until the counter wraps."""


def _info(cpu: Cpu, task: TaskStruct) -> ThreadInfo26:
    return cpu.view(ThreadInfo26, task.stack)


def owns_fpu(cpu: Cpu, task: TaskStruct) -> bool:
    """Whether the CPU's registers are this task's."""
    return bool(_info(cpu, task).status & TS_USEDFPU)


def unlazy_fpu(cpu: Cpu, address: int) -> Steps:
    """If the registers are this task's, they go to its area, and TS is set."""
    task = cpu.view(TaskStruct, address)
    if not owns_fpu(cpu, task):
        task.fpu_counter = 0
        return None
    yield Call("save_fpregs", (address + TASK_FPU,))
    _info(cpu, task).status &= ~TS_USEDFPU
    return None


def math_state_restore(cpu: Cpu) -> Steps:
    """The current task gets its registers, or what a program begins with, and TS is cleared."""
    task = cpu.current
    area = cpu.percpu.current_task + TASK_FPU
    yield from _load(cpu, area if task.used_math else cpu.kernel.image.symbol("init_fpstate"))
    task.fpu_counter = (task.fpu_counter + 1) & _COUNTER_MASK
    return None


def _load(cpu: Cpu, source: int) -> Steps:
    yield Call("restore_fpregs", (source,))
    cpu.current.used_math = 1
    _info(cpu, cpu.current).status |= TS_USEDFPU
    return None


def preload(cpu: Cpu) -> Steps:
    """At the end of a switch: spare the current task the #NM that it has always had."""
    task = cpu.current
    if task.used_math and task.fpu_counter > MANY_SLICES:
        yield from math_state_restore(cpu)
    return None


def clear_fpu(cpu: Cpu) -> Steps:
    """The current task has no state any more."""
    task = cpu.current
    if owns_fpu(cpu, task):
        _info(cpu, task).status &= ~TS_USEDFPU
        yield Call("stts")
    task.used_math = 0
    return None


def use_state(cpu: Cpu, state: bytes) -> Steps:
    """The current task's state is this one, in the registers (restore_i387)."""
    area = cpu.percpu.current_task + TASK_FPU
    cpu.memory.write(cpu.kernel.physical(area), state)
    yield from _load(cpu, area)
    return None


def copy_fpu(cpu: Cpu, child: int) -> Steps:
    """fork(2): both have the state, and neither the registers."""
    parent = cpu.percpu.current_task
    yield from unlazy_fpu(cpu, parent)
    physical = cpu.kernel.physical
    cpu.memory.write(physical(child + TASK_FPU), cpu.memory.read(physical(parent + TASK_FPU), FXSAVE_SIZE))
    cpu.view(TaskStruct, child).used_math = cpu.current.used_math
    return None
