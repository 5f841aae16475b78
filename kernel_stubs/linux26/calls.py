"""What every C function of this kernel does beside its subject, for its callers in assembly.

- A body runs with interrupts off, but for its windows, as those of linux-6 do; at its end they are as at the call.
- Bodies of linux-6 switch tasks by `__switch_to_asm`; here that is `switch_to`, and a new task begins otherwise.
- Work for the way to user mode is noted in task_struct; the assembly looks for it in thread_info.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import wraps
from typing import Any

from emu.arch import Rflags
from kernel_stubs.abi26 import LINUX_26
from kernel_stubs.binding import Call, CFunction, Leave, Steps, Unwind, Window, c_function, register
from kernel_stubs.context import Cpu
from kernel_stubs.linux26.thread_info import prepare_first_run, show_work
from kernel_stubs.switch import finish_task_switch

Body = Callable[..., Any]
"""body(cpu, arguments) -> result, or Steps to it: any mix of int and Struct parameters."""
_U64 = 0xFFFF_FFFF_FFFF_FFFF


def adapted(body: Body) -> Callable[..., Steps]:
    """The C function of this kernel with that body."""

    @wraps(body)
    def run(cpu: Cpu, *args: Any) -> Steps:
        engine = cpu.core.cpu
        interrupts = engine.flags & Rflags.IF
        if interrupts:
            engine.flags &= ~Rflags.IF
        result = body(cpu, *args)
        if isinstance(result, Generator):
            result = yield from _switching(cpu, result)
        if cpu.percpu.current_task:
            show_work(cpu.kernel, cpu.current)
        if interrupts:
            engine.flags |= Rflags.IF
        return None if result is None else int(result) & _U64

    return run


def _switching(cpu: Cpu, steps: Steps) -> Generator[Window | Call | Unwind, int, object]:
    """The same steps, but for how one task is left for another."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Call) and step.symbol == "__switch_to_asm":
                prepare_first_run(cpu, step.args[1])
                prev = yield replace(step, symbol="switch_to")
                finish_task_switch(cpu.kernel, prev)
                step = steps.send(prev)
            else:
                step = steps.send((yield step))
    except StopIteration as end:
        return end.value


def c_function26(body: Body) -> Callable[..., Steps]:
    """Register a C function of this kernel under its own name; parameters as for `c_function`."""
    return c_function(kernel=LINUX_26)(adapted(body))


def register26(name: str, body: Body, parameters: tuple[type, ...]) -> None:
    """Register a body under another name than its own."""
    register(CFunction(name, adapted(body), parameters, interruptible=True), LINUX_26)


__all__ = ["Leave", "adapted", "c_function26", "register26"]
