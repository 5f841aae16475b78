"""linux-2.6: interrupts, exceptions, IST events and preemption, with C stubs."""

from __future__ import annotations

import pytest
from linux26 import EVENTS, Lab, start

from emu.arch import Rflags
from emu.machine.core import EndKind
from kernel_stubs import abi26, mm
from kernel_stubs.abi import PtRegs
from kernel_stubs.abi26 import Ist26, Tif26, Vector26
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
