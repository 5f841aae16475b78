"""linux-2.6: system calls, faults, interrupts and signals by its own C functions."""

import pytest
from classic import EXIT, run

from emu.machine.profile import Profile
from kernel_stubs.binding import registered
from kernel_stubs.kernel_image import build_image
from kernel_stubs.running import SLOT_SIZE


def test_unknown_system_calls_say_enosys():
    facts = run(f"_start: movl $180, %eax\n syscall\n leal 38(%rax), %edi\n {EXIT}")
    assert facts.exit_code == 0
    assert "sys_ni_syscall" in facts.calls
    assert facts.unknown_syscalls


@pytest.mark.parametrize("number", [334, 435, 322])
def test_system_calls_that_came_later_say_enosys(number):
    assert run(f"_start: movl ${number}, %eax\n syscall\n leal 38(%rax), %edi\n {EXIT}").exit_code == 0


@pytest.mark.parametrize(
    ("code", "signal", "function"),
    [
        ("ud2", 4, "do_invalid_op"),
        ("int3", 5, "do_int3"),
        ("movq 0, %rax", 11, "do_page_fault"),
        ("hlt", 11, "do_general_protection"),
        ("xorl %ecx, %ecx\n divl %ecx", 8, "do_divide_error"),
        ("movq $1 << 62, %rbp\n movq (%rbp), %rax", 7, "do_stack_segment"),
        ("pushfq\n orq $0x100, (%rsp)\n popfq\n nop\n nop", 5, "do_debug"),
    ],
)
def test_an_exception_ends_in_its_signal(code, signal, function):
    facts = run(f"_start: {code}\n{EXIT}")
    assert facts.signal == signal
    assert function in facts.calls
    assert "do_notify_resume" in facts.calls


def test_a_handler_runs_and_returns():
    facts = run(f"""
    _start:
        movl $13, %eax              # rt_sigaction(SIGUSR1, ...)
        movl $10, %edi
        leaq action(%rip), %rsi
        xorl %edx, %edx
        movl $8, %r10d
        syscall
        movl $39, %eax
        syscall
        movl %eax, %edi
        movl $10, %esi
        movl $62, %eax              # kill(getpid(), SIGUSR1)
        movl $0x1234, %ebx
        syscall
        movl %eax, %edi             # 0, though the handler had it otherwise
        cmpl $0x1234, %ebx
        jne bad
        cmpl $7, seen(%rip)
        jne bad
        {EXIT}
    bad: ud2
    handler:
        movl $7, seen(%rip)
        movl $0x55, %ebx
        movl $0x55, %eax
        ret
    restorer:
        movl $15, %eax
        syscall
    .section .data,"aw",@progbits
    action: .quad handler, 0x04000000, restorer, 0
    seen: .long 0
    """)
    assert facts.exit_code == 0
    assert "sys_rt_sigreturn" in facts.calls


def test_a_child_runs_and_is_waited_for():
    facts = run(f"""
    _start:
        movl $57, %eax
        syscall
        testl %eax, %eax
        jz child
        movl %eax, %ebx
        movl $-1, %edi
        leaq -64(%rsp), %rsi
        xorl %edx, %edx
        xorl %r10d, %r10d
        movl $61, %eax
        syscall
        subl %ebx, %eax
        movl -63(%rsp), %edi        # the child's exit status
        orl %eax, %edi
        {EXIT}
    child:
        movl $5, %edi
        {EXIT}
    """)
    assert facts.exit_code == 5
    assert {"sys_fork", "schedule_tail", "__switch_to"} <= set(facts.calls)


def test_sleeping_leaves_the_cpu_to_the_idle_task():
    facts = run(f"""
    _start:
        movl $35, %eax
        leaq time(%rip), %rdi
        xorl %esi, %esi
        syscall
        movl %eax, %edi
        {EXIT}
    time: .quad 0, 20000
    """)
    assert facts.exit_code == 0
    assert "preempt_schedule_irq" in facts.calls


def test_ticks_go_by_do_irqs_cousin():
    facts = run(f"_start: movl $3000, %ecx\n again: loop again\n xorl %edi, %edi\n {EXIT}", timer_period=500)
    assert facts.exit_code == 0
    assert facts.calls.count("smp_apic_timer_interrupt") > 3


@pytest.mark.parametrize(("level", "signal"), [(0, 11), (2, 11), (3, 0)])
def test_the_io_privilege_level_decides_over_cli_and_in(level, signal):
    facts = run(f"""
    _start:
        movl $172, %eax
        movl ${level}, %edi
        syscall
        movl %eax, %edi
        cli
        inb $0x61, %al
        {EXIT}
    """)
    assert (facts.signal or 0) == signal
    assert facts.calls.count("do_general_protection") == (signal != 0)


@pytest.mark.parametrize("kernel", ["linux-6", "linux-2.6"])
def test_every_c_function_that_an_image_has_a_slot_for_is_written(kernel):
    image = build_image(kernel, Profile())
    slots = range(image.symbol("__c_stubs_start"), image.symbol("__c_stubs_end"), SLOT_SIZE)
    named = {name for name, address in image.symbols.items() if address in slots} - {"__c_stubs_start"}
    assert len(named) > 20
    assert named <= set(registered(kernel))


def test_a_child_cloned_by_int_0x80_ends_by_itself():
    facts = run(f"""
    _start:
        movl $120, %eax             # clone(SIGCHLD), the i386 number
        movl $17, %ebx
        xorl %ecx, %ecx
        xorl %edx, %edx
        xorl %esi, %esi
        xorl %edi, %edi
        int $0x80
        testl %eax, %eax
        jz child
        movl %eax, %ebx
        movl $-1, %edi
        leaq -64(%rsp), %rsi
        xorl %edx, %edx
        xorl %r10d, %r10d
        movl $61, %eax
        syscall
        subl %ebx, %eax
        movl -63(%rsp), %edi
        orl %eax, %edi
        {EXIT}
    child:
        movl $5, %edi
        {EXIT}
    """)
    assert facts.exit_code == 5
    assert "sys32_clone" in facts.calls


def test_a_task_with_a_gs_base_gives_way_to_the_idle_task_that_an_interrupt_preempted():
    """The second CPU's first task comes by an IPI to the idle loop, and ends: `GS nesting` has no complaint."""
    facts = run(
        """
    _start: movl $158, %eax
        movl $0x1001, %edi
        movl $0x1000, %esi
        syscall
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
    child:
    """
        + EXIT,
        cpus=2,
    )
    assert facts.exit_code is not None


def test_a_child_that_dies_on_its_first_way_to_user_mode_leaves_nothing_to_the_next_child():
    """Neither has an entry, and `frames` must not take one's registers for the other's. The first has no stack for the
    frame of SIGUSR1, which becomes a SIGSEGV."""
    facts = run(
        """
    _start: movl $13, %eax
        movl $10, %edi
        leaq action(%rip), %rsi
        xorl %edx, %edx
        movl $8, %r10d
        syscall
        movl $24, %eax              # a turn of its own, in which neither child runs
        syscall
        movl $56, %eax
        movl $17, %edi
        movl $16, %esi
        syscall
        movl %eax, %edi
        movl $62, %eax
        movl $10, %esi
        syscall
        movl $57, %eax
        movl $0x1234, %ebp
        syscall
        testl %eax, %eax
        jz child
        movl %eax, %edi
        movl $62, %eax
        movl $10, %esi
        syscall
    next: movl $61, %eax
        movq $-1, %rdi
        leaq status(%rip), %rsi
        xorl %edx, %edx
        xorl %r10d, %r10d
        syscall
        testl %eax, %eax
        js done
        movl status(%rip), %eax
        addl %eax, total(%rip)
        jmp next
    child: movl $2, %edi
        jmp leave
    done: movl total(%rip), %edi
        shrl $4, %edi
    leave:
    """
        + EXIT
        + """
    restorer: movl $15, %eax
        syscall
    handler: ret
    .data
    action: .quad handler, 0x04000000, restorer, 0
    status: .quad 0
    total: .quad 0
    """
    )
    assert facts.exit_code == (11 + (2 << 8)) >> 4
