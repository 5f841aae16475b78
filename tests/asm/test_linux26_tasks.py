"""linux-2.6: fork, kernel threads, execve, the switch of tasks and stacks, with C stubs."""

from __future__ import annotations

from linux26 import Lab, new_stack, new_task, read_words, start

from emu.arch import PAGE_SIZE, Rflags
from emu.machine.core import EndKind
from kernel_stubs import abi26
from kernel_stubs.abi import INIT_PGD, PtRegs, TaskStruct
from kernel_stubs.abi26 import ThreadInfo26, Tif26
from kernel_stubs.binding import Call, Window

LOOP = """
_start:
    movl    $0x100, %ebx
    movl    $0x108, %r15d
before:
    {what}
done:
    jmp     done
"""
GETPID = LOOP.format(what="movl $39, %eax\n    syscall")


# --- tasks ------------------------------------------------------------------------------------------------------------
def copy_thread(lab: Lab, regs: int, stack_start: int) -> tuple[int, int]:
    """What fork does: a task with a copy of the frame on a stack of its own."""
    end = new_stack(lab)
    task = new_task(lab, end)
    at = end - PtRegs.SIZE
    lab.core.write_linear(at, lab.core.read_linear(regs, PtRegs.SIZE))
    frame = lab.regs(at)
    frame.ax = 0
    if frame.cs == 0x10 and stack_start == 2**64 - 1:
        frame.sp = at
    lab.view(TaskStruct, task).sp = at
    lab.view(ThreadInfo26, end - abi26.abi.THREAD_SIZE).flags |= 1 << Tif26.FORK
    return task, end


def switch_stubs(lab_tasks: dict[int, int]):
    def __switch_to(lab, cpu, prev, new):
        lab.pda.pcurrent = new
        lab.pda.kernelstack = lab_tasks[new] - abi26.PDA_STACKOFFSET
        lab.percpu.tss.sp0 = lab.stack = lab_tasks[new]
        return prev

    return {"__switch_to": __switch_to}


def test_fork_and_switch_reach_user_mode_in_the_child():
    tasks: dict[int, int] = {}
    order: list[object] = []

    def sys_fork(lab, cpu, regs, b, c, d, e, f):
        task, end = copy_thread(lab, regs, 0)
        tasks[task] = end
        order.append(lab.pda.pcurrent)
        yield Call("switch_to", (lab.pda.pcurrent, task))
        return 0

    def schedule_tail(lab, cpu, prev):
        order.append(prev)

    stubs = {"sys_fork": sys_fork, "schedule_tail": schedule_tail, **switch_stubs(tasks)}
    lab = start(GETPID.replace("$39", "$57"), **stubs).to("before")
    first = lab.pda.pcurrent
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert order == [first, first]
    cpu = lab.core.cpu
    assert (cpu.register(0), cpu.register(3), cpu.register(15), cpu.sp) == (0, 0x100, 0x108, 0x60_0000)
    assert (lab.returns, lab.problems) == (["sysretq"], [])
    assert not lab.thread_info.flags
    left = lab.view(TaskStruct, first).sp
    assert read_words(lab, left + 56, 1) == (lab.symbol("sys_fork") + 6,)


def test_a_kernel_thread_calls_its_function_and_exits():
    tasks: dict[int, int] = {}
    seen: list[object] = []

    def do_fork(lab, cpu, flags, stack_start, regs, size, parent, child):
        assert flags == 0x1234 | abi26.CLONE_VM | abi26.CLONE_UNTRACED
        assert (lab.regs(regs).cs, stack_start) == (0x10, 2**64 - 1)
        task, end = copy_thread(lab, regs, stack_start)
        tasks[task] = end
        seen.append("fork")
        return 77

    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        pid = yield Call("kernel_thread", (lab.symbol("sys_gettid"), 0x5555, 0x1234))
        seen.append(pid)
        (task,) = tasks
        yield Call("switch_to", (lab.pda.pcurrent, task))
        return 0

    def sys_gettid(lab, cpu, argument, *more):
        raise AssertionError

    def thread(lab, cpu, argument, b, c, d, e, f):
        seen.append((argument, lab.pda.pcurrent in tasks))
        return 9

    def do_exit(lab, cpu, code):
        cpu.core.finish(f"exit {code}")

    stubs = {"sys_getpid": sys_getpid, "sys_gettid": thread, "do_fork": do_fork, "do_exit": do_exit}
    lab = start(GETPID, **stubs, **switch_stubs(tasks)).to("before")
    assert lab.finish().text == "exit 9"
    assert seen == ["fork", 77, (0x5555, True)]
    assert lab.problems == []


def test_kernel_execve_ends_in_user_mode_or_returns_an_error():
    results = []

    def sys_execve(lab, cpu, name, argv, envp, regs, e, f):
        results.append((name, argv, envp))
        if len(results) == 1:
            return 2**64 - 2
        frame = lab.regs(regs)
        frame.ip, frame.cs, frame.ss = lab.symbol("done"), 0x33, 0x2B
        frame.sp, frame.flags = 0x60_0000, Rflags.IF | 2
        return 0

    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        results.append((yield Call("kernel_execve", (1, 2, 3))))
        yield Call("kernel_execve", (4, 5, 6))
        raise AssertionError

    lab = start(GETPID, sys_getpid=sys_getpid, sys_execve=sys_execve).to("before")
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert results == [(1, 2, 3), 2**64 - 2, (4, 5, 6)]
    assert (lab.returns, lab.problems) == (["iretq"], [])


def test_softirqs_run_on_the_irq_stack():
    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        yield Call("call_softirq")
        assert lab.pda.irqcount == -1
        return 42

    def __do_softirq(lab, cpu):
        assert lab.pda.irqcount == 0
        assert read_words(lab, lab.pda.irqstackptr - 8, 1)[0] > lab.stack - PAGE_SIZE
        cpu.core.raise_interrupt(0x30)
        yield Window()

    lab = start(GETPID, sys_getpid=sys_getpid, __do_softirq=__do_softirq).to("before")
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert (lab.names(), lab.problems) == (["sys_getpid", "__do_softirq", "do_IRQ"], [])
    assert lab.core.cpu.register(0) == 42


def test_there_is_one_set_of_page_tables():
    lab = start(GETPID).to("before")
    assert lab.core.cpu.state.cr[3] == INIT_PGD
    lab.finish()
    assert lab.core.cpu.state.cr[3] == INIT_PGD
