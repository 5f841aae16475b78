"""linux-2.6: interrupts, exceptions, IST events, preemption, tasks and softirqs, with C stubs."""

from __future__ import annotations

import pytest
from linux26 import EVENTS, Lab, new_stack, new_task, read_words, start

from emu.arch import PAGE_SIZE, Rflags
from emu.machine.core import EndKind
from kernel_stubs import abi26, mm
from kernel_stubs.abi import INIT_PGD, PtRegs, TaskStruct
from kernel_stubs.abi26 import Ist26, ThreadInfo26, Tif26, Vector26
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


def in_kernel(hit, **stubs) -> Lab:
    """A system call in whose C code, with interrupts on, `hit(lab)` is done first."""

    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        hit(lab)
        yield Window()
        return 42

    return start(GETPID, sys_getpid=sys_getpid, **stubs).to("before")


# --- interrupts -------------------------------------------------------------------------------------------------------
def seeing(into: list, eoi: bool = True):
    def stub(lab, cpu, regs):
        frame = lab.regs(regs)
        percpu, sp = lab.percpu, cpu.core.cpu.sp
        on_irq_stack = percpu.hardirq_stack_ptr - 128 < sp < percpu.hardirq_stack_ptr
        into.append((~frame.orig_ax & 0xFF, frame.cs, frame.ip, on_irq_stack, lab.pda.irqcount))
        if eoi:
            cpu.core.apic.eoi()

    return stub


@pytest.mark.parametrize("vector", [0x20, 0x30, 0x7F, 0x81, 0xEE])
def test_a_device_interrupt_of_user_mode(vector):
    seen: list = []
    lab = start(LOOP.format(what="nop"), do_IRQ=seeing(seen)).to("before")
    before = lab.state()
    lab.core.raise_interrupt(vector)
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert seen == [(vector, 0x33, lab.symbol("before"), True, 0)]
    assert (lab.returns, lab.problems, lab.pda.irqcount) == (["iretq"], [], -1)
    assert lab.state()[1:] == before[1:]


def test_a_nested_interrupt_stays_on_the_irq_stack():
    seen: list = []
    outer = seeing(seen)

    def do_irq(lab, cpu, regs):
        outer(lab, cpu, regs)
        if len(seen) == 1:
            cpu.core.raise_interrupt(0x40)
            yield Window()
        return 1

    lab = start(LOOP.format(what="nop"), do_IRQ=do_irq).to("before")
    lab.core.raise_interrupt(0x30)
    lab.finish()
    assert [(row[0], row[4]) for row in seen] == [(0x30, 0), (0x40, 1)]
    assert (lab.problems, lab.pda.irqcount) == ([], -1)


APIC = {
    Vector26.LOCAL_TIMER: "smp_apic_timer_interrupt",
    Vector26.THRESHOLD_APIC: "mce_threshold_interrupt",
    Vector26.THERMAL_APIC: "smp_thermal_interrupt",
    Vector26.CALL_FUNCTION_SINGLE: "smp_call_function_single_interrupt",
    Vector26.CALL_FUNCTION: "smp_call_function_interrupt",
    Vector26.RESCHEDULE: "smp_reschedule_interrupt",
    Vector26.ERROR_APIC: "smp_error_interrupt",
    Vector26.SPURIOUS_APIC: "smp_spurious_interrupt",
    **{Vector26.INVALIDATE_TLB_START + n: "smp_invalidate_interrupt" for n in range(8)},
}


@pytest.mark.parametrize("vector", APIC, ids=hex)
def test_each_apic_vector_reaches_its_c_function(vector):
    seen: list = []
    stub = seeing(seen)
    lab = in_kernel(lambda lab: lab.core.raise_interrupt(vector), **{APIC[vector]: stub})
    lab.core.raise_interrupt(vector)
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert [(row[0], row[1], row[3]) for row in seen] == [(vector, 0x33, True), (vector, 0x10, True)]
    assert (lab.problems, lab.core.cpu.register(0)) == ([], 42)


def test_work_after_an_interrupt_of_user_mode():
    def do_irq(lab, cpu, regs):
        cpu.core.apic.eoi()
        lab.set_flag(Tif26.NEED_RESCHED)
        lab.set_flag(Tif26.SIGPENDING)

    def do_notify_resume(lab, cpu, regs, unused, work):
        frame = lab.regs(regs)
        assert (regs, frame.bx, frame.r15, frame.orig_ax) == (lab.task_regs, 0x100, 0x108, 2**64 - 1)
        frame.bx = 0x200
        lab.clear_flag(Tif26.SIGPENDING)

    stubs = {"schedule": lambda lab, cpu: lab.clear_flag(Tif26.NEED_RESCHED), "do_notify_resume": do_notify_resume}
    lab = start(LOOP.format(what="nop"), do_IRQ=do_irq, **stubs).to("before")
    lab.core.raise_interrupt(0x30)
    lab.finish()
    assert lab.names() == ["do_IRQ", "schedule", "do_notify_resume"]
    assert (lab.problems, lab.core.cpu.register(3)) == ([], 0x200)


@pytest.mark.parametrize(("preempt_count", "preempted"), [(0, 1), (1, 0)])
def test_the_kernel_is_preempted_only_where_it_may_be(preempt_count, preempted):
    def hit(lab):
        lab.core.raise_interrupt(0x30)
        lab.set_flag(Tif26.NEED_RESCHED)
        lab.thread_info.preempt_count = preempt_count

    def clear(lab, cpu):
        lab.clear_flag(Tif26.NEED_RESCHED)

    lab = in_kernel(hit, preempt_schedule_irq=clear, schedule=clear)
    lab.finish()
    assert lab.names().count("preempt_schedule_irq") == preempted
    assert lab.names().count("schedule") == 1 - preempted
    assert lab.problems == []


# --- exceptions -------------------------------------------------------------------------------------------------------
EXCEPTIONS = {
    "ud2": ("do_invalid_op", 0),
    "xorl %ecx, %ecx\n    divl %ecx": ("do_divide_error", 0),
    "movl 0x1000, %eax": ("do_page_fault", 4),
    "movl %ebx, %ds": ("do_general_protection", 0x100),
    "hlt": ("do_general_protection", 0),
}


@pytest.mark.parametrize("code", EXCEPTIONS)
def test_an_exception_of_user_mode(code):
    name, error = EXCEPTIONS[code]
    seen = []

    def stub(lab, cpu, regs, error_code):
        frame = lab.regs(regs)
        seen.append((regs, error_code, frame.cs, frame.bx, frame.r15, frame.orig_ax, cpu.core.cpu.flags & Rflags.IF))
        frame.ip, frame.di = lab.symbol("done"), 0x77

    lab = start(LOOP.format(what=code), **{name: stub}).to("before")
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert seen == [(lab.task_regs, error, 0x33, 0x100, 0x108, 2**64 - 1, 0)]
    assert (lab.returns, lab.problems, lab.core.cpu.register(7)) == (["iretq"], [], 0x77)


def test_a_page_fault_of_the_kernel_goes_on_without_swapgs():
    def do_page_fault(lab, cpu, regs, error_code):
        frame = lab.regs(regs)
        assert (frame.cs, error_code, cpu.core.cpu.cr2) == (0x10, 0, lab.percpu.nmi_scratch)
        mm.map_kernel(cpu.memory, lab.percpu.nmi_scratch, mm.take_frame(cpu.memory), mm.PAGE_KERNEL)
        cpu.kernel.machine.flush_tlb()

    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        yield Call("nmi_touch_scratch")
        return 42

    lab = start(GETPID, sys_getpid=sys_getpid, do_page_fault=do_page_fault).to("before")
    lab.percpu.nmi_scratch = 0xFFFF_C940_0000_0000
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert (lab.names(), lab.problems) == (["sys_getpid", "do_page_fault"], [])


# --- IST events -------------------------------------------------------------------------------------------------------
def test_int3_moves_the_debug_stack_while_c_runs():
    entries = []

    def do_int3(lab, cpu, regs, error_code):
        entries.append(lab.percpu.tss.ist[Ist26.DEBUG - 1])

    lab = start(LOOP.format(what="int3"), do_int3=do_int3).to("before")
    top = lab.percpu.tss.ist[Ist26.DEBUG - 1]
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert entries == [top - abi26.EXCEPTION_STKSZ]
    assert (lab.percpu.tss.ist[Ist26.DEBUG - 1], lab.problems, lab.returns) == (top, [], ["iretq"])


@pytest.mark.parametrize("event", ["nmi", "mce"])
def test_an_ist_event_of_user_mode_does_its_work_on_the_task_stack(event):
    def sync_regs(lab, cpu, regs):
        cpu.core.write_linear(lab.task_regs, cpu.core.read_linear(regs, PtRegs.SIZE))
        return lab.task_regs

    def do_notify_resume(lab, cpu, regs, unused, work):
        assert (regs, lab.regs(regs).bx, lab.regs(regs).ip) == (lab.task_regs, 0x100, lab.symbol("before"))
        lab.clear_flag(Tif26.SIGPENDING)

    stubs = {
        "sync_regs": sync_regs,
        "do_notify_resume": do_notify_resume,
        "schedule": lambda lab, cpu: lab.clear_flag(Tif26.NEED_RESCHED),
    }
    lab = start(LOOP.format(what="nop"), **stubs).to("before")
    lab.set_flag(Tif26.NEED_RESCHED)
    lab.set_flag(Tif26.SIGPENDING)
    EVENTS[event](lab.core)
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert lab.names()[1:] == ["sync_regs", "schedule", "sync_regs", "do_notify_resume"]
    assert (lab.problems, lab.core.cpu.register(3)) == ([], 0x100)


def test_a_double_fault_is_told_with_its_error_code():
    def do_double_fault(lab, cpu, regs, error_code):
        cpu.core.finish(f"#DF {error_code} {lab.where(lab.regs(regs).ip)}")

    lab = start(GETPID, do_double_fault=do_double_fault).to("system_call").to("sys_getpid")
    lab.core.cpu.sp = 0x1000
    lab.core.raise_exception(14, 2, 0x1000)
    assert lab.finish().text == "#DF 0 sys_getpid"


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_at_any_boundary_of_an_exception_and_of_an_interrupt(event):
    def do_invalid_op(lab, cpu, regs, error_code):
        lab.regs(regs).ip += 2
        cpu.core.raise_interrupt(0x50)
        yield Window()

    lab = start(LOOP.format(what="ud2"), do_invalid_op=do_invalid_op).to("before")
    results = set()
    for where, end in lab.sweep(EVENTS[event]):
        assert end.kind is EndKind.BREAKPOINT, where
        assert lab.problems == [], where
        results.add(lab.state())
    assert len(results) == 1


def test_an_nmi_after_an_early_iret_overwrites_the_frame():
    """The era's hole: a page fault in the handler unblocks NMIs, and the next one starts at the same stack top."""
    sps = []

    def do_nmi(lab, cpu, regs, error_code):
        sps.append(regs)
        if len(sps) == 1:
            yield Call("nmi_touch_scratch")
            cpu.core.raise_nmi()
            yield Window()
        return 0

    def do_page_fault(lab, cpu, regs, error_code):
        mm.map_kernel(cpu.memory, lab.percpu.nmi_scratch, mm.take_frame(cpu.memory), mm.PAGE_KERNEL)
        cpu.kernel.machine.flush_tlb()

    lab = start(GETPID, do_nmi=do_nmi, do_page_fault=do_page_fault).to("system_call")
    lab.percpu.nmi_scratch = 0xFFFF_C940_0000_0000
    lab.core.raise_nmi()
    lab.finish()
    assert sps[0] == sps[1]


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
