"""linux-2.6: kernel threads, made by kernel_thread and begun at child_rip."""

import pytest
from spinning import booted

from emu.lab.run import run_scenario
from emu.lab.shipped import find_scenario
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs import irq
from kernel_stubs.abi import TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.irq import irq_handler
from kernel_stubs.kernel_image import build_image, source_files
from kernel_stubs.sched import all_tasks
from kernel_stubs.softirq import MAX_SOFTIRQ_RESTART, Softirq, open_softirq, raise_softirq, softirq_action

VECTOR = 0x37
served = []


@softirq_action
def again_and_again(cpu):
    served.append(cpu.current.comm)
    if len(served) < 3 * MAX_SOFTIRQ_RESTART:
        raise_softirq(cpu, Softirq.BLOCK)


@irq_handler
def raises_block(cpu, vector):
    raise_softirq(cpu, Softirq.BLOCK)
    return True


def test_softirqs_that_do_not_end_are_left_to_ksoftirqd():
    served.clear()
    system, core = booted()
    kernel = system.kernel
    core.set_breakpoints({kernel.image.symbol("child_rip")})
    open_softirq(kernel, Softirq.BLOCK, "again_and_again")
    irq.request_irq(kernel, VECTOR, "raises_block")
    core.raise_interrupt(VECTOR)
    assert core.advance(core.clock + 60_000).kind is EndKind.BREAKPOINT
    assert kernel.image.symbolize(core.cpu.ip) == "child_rip"
    core.set_breakpoints(set())
    core.advance(core.clock + 60_000)
    assert len(served) == 3 * MAX_SOFTIRQ_RESTART
    assert set(served) == {b"user", b"ksoftirqd/0"}
    percpu = Cpu(kernel, core).percpu
    assert percpu.ksoftirqd
    assert kernel.view(TaskStruct, percpu.ksoftirqd).kthread
    assert [task.comm for _, task in all_tasks(kernel)].count(b"ksoftirqd/0") == 1
    assert not percpu.softirq_pending


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    pushq   $__KERNEL_CS\n", "    pushq   $__USER_CS\n"),
        ("FAKE_STACK_FRAME $child_rip", "FAKE_STACK_FRAME $thread_return"),
        ("    RESTORE_ALL\n    UNFAKE_STACK_FRAME\n", "    RESTORE_ALL\n"),
    ],
)
def test_a_break_of_kernel_thread_is_noticed(old, new):
    text = source_files("linux-2.6")["process.S"]
    assert old in text
    image = build_image("linux-2.6", Profile(), (("process.S", text.replace(old, new, 1)),))
    (report,) = run_scenario(find_scenario("classic-ksoftirqd"), image)
    assert not report.passed
