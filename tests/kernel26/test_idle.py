"""linux-2.6: a CPU whose idle loop looks at nothing hears of every task that it is to run."""

from __future__ import annotations

from asm import assemble_text
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.abi import SystemVector, TaskState
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.context import Cpu
from kernel_stubs.elf import program_from_image
from kernel_stubs.ipi import send_ipi
from kernel_stubs.kernel_image import build_image
from kernel_stubs.sched import all_tasks, enqueue, percpu_of

CHILD_PAUSES = """
_start: movl $57, %eax
    syscall
    testl %eax, %eax
    jnz spin
    movl $34, %eax
    syscall
spin: jmp spin
"""


def test_a_task_that_came_while_the_cpu_went_idle_is_run_after_the_ipi():
    program = program_from_image(assemble_text(CHILD_PAUSES, name="u.S", base=0x40_0000, entry="_start"), "user")
    system = boot(BootOptions(build_image("linux-2.6", Profile()), Profile(), program, argv=(b"user",), cpus=2))
    machine, kernel = system.machine, system.kernel
    assert machine.advance(200_000)[1].kind is EndKind.LIMIT
    address, child = next((address, task) for address, task in all_tasks(kernel) if task.pid == 2)
    here = Cpu(kernel, machine.cores[1 - child.thread_info.cpu])
    assert child.state == TaskState.INTERRUPTIBLE
    assert machine.cores[child.thread_info.cpu].halted
    # As wake_up_state does it when the idle task is not the current one yet.
    child.state = TaskState.RUNNING
    child.wait_channel = 0
    enqueue(kernel, address)
    send_ipi(here, child.thread_info.cpu, SystemVector.RESCHEDULE)
    percpu = percpu_of(kernel, child.thread_info.cpu)
    before = percpu.nr_switches
    machine.advance(machine.cores[0].clock + 5_000)
    assert percpu.nr_switches == before + 2  # to the task, which goes on waiting, and back
