"""Several CPUs: how they start, where tasks go, what CPUs tell each other; programs on two of them."""

import subprocess

import pytest
from booted import start
from c_programs import HAS_GCC, compiled

from emu.machine.core import EndKind
from emu.machine.schedule import Interleaving
from kernel_stubs.abi import SystemVector, TaskStruct
from kernel_stubs.elf import load_elf
from kernel_stubs.irq import irq_desc
from kernel_stubs.sched import percpu_of

LIMIT = 50_000_000
ON_EACH_CPU = """
_start:
    movl $57, %eax
    syscall
    testl %eax, %eax
    jz child
    movl $61, %eax
    movq $-1, %rdi
    xorl %esi, %esi
    xorl %edx, %edx
    xorl %r10d, %r10d
    syscall
    xorl %edi, %edi
    jmp exit
child:
    xorl %edi, %edi
exit:
    movl $231, %eax
    syscall
"""


def run(it):
    return it.system.machine.advance(LIMIT)[1]


def test_the_first_cpu_starts_the_others():
    it = start(cpus=4)
    assert [core.waits_for_startup for core in it.system.machine.cores] == [False, True, True, True]
    it.system.machine.advance(20_000)
    assert not any(core.waits_for_startup for core in it.system.machine.cores)
    for number in range(1, 4):
        percpu = percpu_of(it.system.kernel, number)
        assert percpu.current_task == percpu.idle_task != 0
        assert it.system.kernel.view(TaskStruct, percpu.idle_task).comm == f"swapper/{number}".encode()
        assert it.system.machine.cores[number].halted


def test_new_tasks_go_to_the_cpus_in_turn():
    it = start(ON_EACH_CPU, cpus=2)
    assert run(it).text == "exited with status 0"
    assert percpu_of(it.system.kernel, 1).nr_switches == 2
    assert irq_desc(it.system.kernel, SystemVector.RESCHEDULE).count >= 1


UNMAP = """
_start:
    movl $56, %eax
    movl $0x50f00, %edi
    leaq stack_end(%rip), %rsi
    xorl %edx, %edx
    xorl %r10d, %r10d
    xorl %r8d, %r8d
    syscall
    testl %eax, %eax
    jz thread
wait: cmpl $0, started(%rip)
    je wait
    movl $11, %eax
    leaq page(%rip), %rdi
    movl $4096, %esi
    syscall
spin: jmp spin
thread:
    movl page(%rip), %eax
    movl $1, started(%rip)
again: movl page(%rip), %eax
    jmp again
.data
started: .long 0
    .balign 4096
    .fill 4096, 1, 0
stack_end:
page: .fill 4096, 1, 0
"""


def test_an_unmapped_page_is_gone_on_all_cpus():
    it = start(UNMAP, cpus=2)
    assert run(it).text == "killed by SIGSEGV"
    assert irq_desc(it.system.kernel, SystemVector.CALL_FUNCTION).count == 1


@pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")
@pytest.mark.parametrize("interleaving", [None, Interleaving(70, 1), Interleaving(5000, 2)], ids=str)
@pytest.mark.parametrize("name", ["processes", "threads", "pipeline"])
def test_two_cpus_print_what_the_host_prints(name, interleaving):
    path = compiled(name)
    program = load_elf(path.read_bytes(), name)
    it = start(program, argv=(name.encode(),), cpus=2, interleaving=interleaving)
    it.system.machine.observers.clear()
    end = run(it)
    host = subprocess.run([path], capture_output=True, check=False, timeout=20)
    assert end.kind is EndKind.FINISHED
    assert end.text == f"exited with status {host.returncode}"
    assert it.stdout.decode().splitlines() == host.stdout.decode().splitlines()
