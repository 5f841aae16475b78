"""Softirqs, ksoftirqd, tasklets, and the network card's way through all of them to a process."""

import pytest
from booted import SPIN, in_user, start
from c_programs import HAS_GCC, compiled

from emu.events import CCalled
from emu.machine.end import EndKind
from kernel_stubs import irq, netdev
from kernel_stubs.abi import TaskStruct
from kernel_stubs.elf import load_elf
from kernel_stubs.irq import irq_handler
from kernel_stubs.softirq import SOFTIRQ_OFFSET, Softirq, open_softirq, raise_softirq, softirq_action
from kernel_stubs.tasklet import Tasklet, tasklet_function, tasklet_init, tasklet_schedule

VECTOR = 0x36
served = []


@softirq_action
def test_once(cpu):
    served.append((cpu.percpu.preempt_count, cpu.core.cpu.sp, cpu.current.pid))


@softirq_action
def test_again(cpu):
    served.append(cpu.current.pid)
    raise_softirq(cpu, Softirq.BLOCK)


@irq_handler
def test_raises(cpu, vector):
    raise_softirq(cpu, Softirq.BLOCK)
    return True


@tasklet_function
def test_tasklet(cpu, data):
    served.append(data)


for function in (test_once, test_again, test_raises, test_tasklet):
    function.__test__ = False


@pytest.fixture(autouse=True)
def nothing_served():
    served.clear()


def with_action(name, program=SPIN):
    it = in_user(program)
    kernel = it.system.kernel
    open_softirq(kernel, Softirq.BLOCK, name)
    irq.request_irq(kernel, VECTOR, "test_raises")
    it.core.raise_interrupt(VECTOR)
    return it


def test_a_softirq_runs_after_its_interrupt_on_the_irq_stack():
    it = with_action("test_once")
    it.run(2000)
    top = it.cpu.percpu.hardirq_stack_ptr
    ((count, sp, pid),) = served
    assert (count, pid) == (SOFTIRQ_OFFSET, 1)
    assert top - 16384 < sp <= top
    assert it.cpu.percpu.softirq_pending == it.cpu.percpu.preempt_count == it.cpu.percpu.hardirq_stack_inuse == 0


def test_an_interrupt_in_a_softirq_starts_no_second_one():
    it = with_action("test_once").to("__do_softirq")
    it.to("__do_softirq+0x3")
    it.core.raise_interrupt(VECTOR)
    it.run(2000)
    assert len(served) == 2
    assert [e.name for e in it.events if isinstance(e, CCalled)].count("__do_softirq") == 1


def test_what_does_not_end_is_left_to_ksoftirqd():
    it = with_action("test_again", "_start: incq %rbx\n jmp _start")
    it.run(600_000)
    percpu = it.cpu.percpu
    task = it.cpu.view(TaskStruct, percpu.ksoftirqd)
    assert task.comm == b"ksoftirqd/0"
    assert served[:10] == [1] * 10
    assert task.pid in served
    assert percpu.nr_switches >= 4  # the program has its turns too


def test_a_softirq_nobody_opened_is_noted():
    it = in_user()
    irq.request_irq(it.system.kernel, VECTOR, "test_raises")
    it.core.raise_interrupt(VECTOR)
    it.run(2000)
    assert "softirq 4 has no action" in it.notes
    with pytest.raises(ValueError, match="no softirq action"):
        open_softirq(it.system.kernel, Softirq.BLOCK, "nonsense")


def test_tasklets_run_once_for_each_time_they_are_scheduled():
    it = in_user()
    kernel, cpu = it.system.kernel, it.cpu
    one, two = (tasklet_init(kernel, "test_tasklet", data) for data in (1, 2))
    cpu.percpu.preempt_count += 1  # as if in an interrupt
    for tasklet in (one, one, two):
        tasklet_schedule(cpu, tasklet)
    tasklet_schedule(cpu, tasklet_init(kernel, "test_tasklet", 3), high=True)
    cpu.percpu.preempt_count -= 1
    it.core.raise_interrupt(VECTOR)
    it.run(2000)
    assert served == [3, 1, 2]
    tasklet_schedule(cpu, one)
    it.run(60_000)
    assert served == [3, 1, 2, 1]


def test_a_disabled_tasklet_waits():
    it = in_user()
    tasklet = tasklet_init(it.system.kernel, "test_tasklet", 7)
    it.cpu.view(Tasklet, tasklet).disabled = 1
    tasklet_schedule(it.cpu, tasklet)
    it.run(15_000)
    assert served == []
    it.cpu.view(Tasklet, tasklet).disabled = 0
    while not served and it.core.clock < 400_000:
        it.run(5_000)
    assert served == [7]


@pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")
def test_packets_reach_a_process_as_sigio():
    it = start(load_elf(compiled("packets").read_bytes(), "packets"), argv=(b"packets",))
    while it.stdout != b"ready\n":
        assert it.run(1000).kind is EndKind.LIMIT
        assert it.core.clock < 1_000_000
    for _ in range(5):
        it.core.raise_interrupt(netdev.NET_VECTOR)
        it.run(5000)
    assert it.run().text == "exited with status 5"
    assert it.stdout == b"ready\n" + b"".join(b"packet %d\n" % number for number in range(1, 6))
    calls = [event.name for event in it.events if isinstance(event, CCalled)]
    assert calls.count("__do_softirq") == 5


def test_a_reader_waits_for_a_packet():
    it = start("""
    _start: movl $2, %eax
        leaq name(%rip), %rdi
        xorl %esi, %esi
        syscall
        movl %eax, %edi
        xorl %eax, %eax
        leaq buffer(%rip), %rsi
        movl $100, %edx
        syscall
        movl %eax, %edi
        movl $60, %eax
        syscall
    name: .asciz "/dev/net"
    .data
    buffer: .fill 100, 1, 0
    """)
    it.run(100_000)
    assert it.core.halted
    it.core.raise_interrupt(netdev.NET_VECTOR)
    assert it.run().text == "exited with status 9"
