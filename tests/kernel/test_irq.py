"""Device interrupts, the timer, spurious vectors; NMIs and their CR2."""

import pytest
from booted import SPIN, in_user

from emu.arch import LOCAL_TIMER_VECTOR
from emu.machine.end import EndKind
from kernel_stubs import irq
from kernel_stubs.abi import VMALLOC_LAZY, NmiState, SystemVector
from kernel_stubs.errno import SyscallError

VECTOR = 0x31


def interrupt(it, vector, count=1):
    for _ in range(count):
        it.core.raise_interrupt(vector)
        it.run(2000)


def test_a_handler_is_called_and_the_apic_told():
    it = in_user()
    irq.request_irq(it.system.kernel, VECTOR, "null_device")
    interrupt(it, VECTOR, 3)
    desc = irq.irq_desc(it.system.kernel, VECTOR)
    assert (desc.count, desc.unhandled) == (3, 0)
    assert it.core.apic.isr == it.core.apic.irr == 0
    assert it.cpu.percpu.preempt_count == 0


def test_a_chain_is_asked_in_order_until_its_end():
    it = in_user()
    kernel = it.system.kernel
    irq.request_irq(kernel, VECTOR, "silent_device")
    interrupt(it, VECTOR)
    assert irq.irq_desc(kernel, VECTOR).unhandled == 1
    irq.request_irq(kernel, VECTOR, "null_device")
    interrupt(it, VECTOR)
    assert irq.irq_desc(kernel, VECTOR).unhandled == 1
    irq.free_irq(kernel, VECTOR, "null_device")
    interrupt(it, VECTOR)
    assert irq.irq_desc(kernel, VECTOR).unhandled == 2


def test_a_chain_can_be_full_and_vectors_reserved():
    it = in_user()
    for _ in range(4):
        irq.request_irq(it.system.kernel, VECTOR, "null_device")
    with pytest.raises(SyscallError):
        irq.request_irq(it.system.kernel, VECTOR, "null_device")
    with pytest.raises(SyscallError):
        irq.request_irq(it.system.kernel, LOCAL_TIMER_VECTOR, "null_device")
    with pytest.raises(ValueError, match="no interrupt handler 'other'"):
        irq.request_irq(it.system.kernel, VECTOR, "other")


@pytest.mark.parametrize("vector", [VECTOR, 0xED, 0xF3])
def test_interrupts_that_nobody_wants_are_counted(vector):
    it = in_user()
    interrupt(it, vector)
    assert it.cpu.percpu.spurious_count == 1
    assert it.core.apic.isr == 0


@pytest.mark.parametrize("vector", [v for v in SystemVector if v is not SystemVector.REBOOT])
def test_system_vectors_are_counted_and_acknowledged(vector):
    it = in_user()
    interrupt(it, vector, 2)
    assert irq.irq_desc(it.system.kernel, vector).count == 2
    assert it.core.apic.isr == it.core.apic.irr == 0
    assert it.cpu.percpu.preempt_count == 0


def test_apic_vectors():
    it = in_user()
    interrupt(it, 0xFE)
    interrupt(it, 0xFF)
    percpu = it.cpu.percpu
    assert (percpu.apic_error_count, percpu.spurious_apic_count) == (1, 1)
    assert it.core.apic.isr == 0


def test_the_timer_ticks_and_asks_for_a_reschedule_each_time():
    it = in_user(timer_period=1000)
    ticks = it.cpu.percpu.timer_ticks
    it.run(50_000)
    percpu, task = it.cpu.percpu, it.cpu.current
    assert abs(percpu.timer_ticks - ticks - 50) <= 1
    assert task.ret_count >= percpu.timer_ticks - 1


def test_the_timer_is_off_unless_asked_for():
    it = in_user()
    it.run(50_000)
    assert it.cpu.percpu.timer_ticks == 0


def test_an_interrupt_in_kernel_mode_runs_on_the_irq_stack_and_does_not_reschedule():
    it = in_user("_start: movl $39, %eax\nsyscall\njmp _start").to("do_syscall_64+0x3")
    it.core.raise_interrupt(LOCAL_TIMER_VECTOR)
    it.to("sysvec_apic_timer_interrupt")
    percpu = it.cpu.percpu
    assert percpu.hardirq_stack_ptr - 64 < it.core.cpu.sp < percpu.hardirq_stack_ptr
    before = it.cpu.current.ret_count
    it.to("do_syscall_64+0x6")
    assert it.cpu.current.ret_count == before
    it.to("entry_SYSCALL_64")
    assert it.cpu.current.ret_count == before + 1


def test_nmis_from_user_mode_are_counted():
    it = in_user()
    for _ in range(5):
        it.core.raise_nmi()
        it.run(1000)
    percpu = it.cpu.percpu
    assert (percpu.nmi_count, percpu.nmi_state, percpu.preempt_count) == (5, NmiState.NOT_RUNNING, 0)
    assert not it.core.nmi_blocked


def test_an_nmi_keeps_the_cr2_of_the_fault_that_it_interrupts():
    it = in_user("_start: movq 0x1230, %rax", nmi_scratch=True)
    it.to("asm_exc_page_fault", "asm_exc_page_fault+0x1")
    assert it.core.cpu.cr2 == 0x1230
    it.core.raise_nmi()
    it.to("nmi_touch_scratch")
    it.to("exc_page_fault")
    assert it.core.cpu.cr2 == VMALLOC_LAZY
    assert it.run().text == "killed by SIGSEGV"
    assert it.cpu.current.last_si_addr == 0x1230
    assert it.cpu.percpu.nmi_count == 1


def test_every_nmi_faults_on_the_scratch_page():
    it = in_user(SPIN, nmi_scratch=True)
    for _ in range(4):
        it.core.raise_nmi()
        it.to("nmi_touch_scratch").to("exc_page_fault")
        it.run(2000)
    assert it.cpu.percpu.nmi_count == 4


def test_an_nmi_inside_another_is_not_lost():
    it = in_user(SPIN, nmi_scratch=True)
    it.core.raise_nmi()
    it.to("nmi_touch_scratch")
    it.to("exc_page_fault")
    it.core.raise_nmi()  # pending until the fault's IRETQ unblocks NMIs
    end = it.run(5000)
    assert end.kind is EndKind.LIMIT
    percpu = it.cpu.percpu
    assert (percpu.nmi_count, percpu.nmi_state) == (2, NmiState.NOT_RUNNING)
