"""New tasks and their end: what is copied, what is shared, what is given back, and what keeps their number down."""

from booted import start

from emu.machine.core import EndKind
from kernel_stubs import mm

EXIT = """
exit:
    movl $60, %eax
    syscall
"""
FORKS = (
    """
_start:
    movl ${count}, %ebx
again:
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
    decl %ebx
    jnz again
    xorl %edi, %edi
    jmp exit
child:
    movq $1, value(%rip)
    movl $3, %edi
"""
    + EXIT
    + """
.data
value: .quad 0
"""
)
BOMB = """
_start:
    movl $57, %eax
    syscall
    jmp _start
"""
UNTIL_REFUSED = (
    """
_start:
    movl $57, %eax
    syscall
    testq %rax, %rax
    js refused
    jnz _start
    movl $34, %eax
    syscall
refused:
    negl %eax
    movl %eax, %edi
"""
    + EXIT
)
EAT_MEMORY = """
_start:
    movl $9, %eax
    xorl %edi, %edi
    movl $0x400000, %esi
    movl $3, %edx
    movl $0x22, %r10d
    movq $-1, %r8
    xorl %r9d, %r9d
    syscall
    movl $0x400, %ecx
touch:
    movb $1, (%rax)
    addq $0x1000, %rax
    loop touch
    jmp _start
"""


def frames(it):
    return mm.memory_info(it.system.machine.memory).allocated


def test_children_give_back_what_they_had():
    few, many = start(FORKS.format(count=3)), start(FORKS.format(count=40))
    for it in (few, many):
        assert it.run().text == "exited with status 0"
        assert mm.kernel_data(it.system.machine.memory).nr_tasks == 1
        assert it.system.binding.at_rest
    assert frames(few) == frames(many)


def test_a_fork_bomb_stays_within_its_bounds():
    it = start(BOMB)
    it.system.machine.observers.clear()
    end = it.run(1_000_000)
    assert end.kind is EndKind.LIMIT
    assert mm.kernel_data(it.system.machine.memory).nr_tasks == 128
    assert len(it.system.binding.running) <= 128


def test_fork_fails_when_there_are_enough():
    assert start(UNTIL_REFUSED).run().text == "exited with status 11"


def test_a_process_that_eats_all_memory_is_killed():
    it = start(EAT_MEMORY, ram_bytes=8 << 20)
    it.system.machine.observers.clear()
    assert it.run().text == "killed by SIGKILL"


def test_a_child_with_thread_local_storage_above_user_memory_is_refused():
    it = start("""
    _start: movl $56, %eax
        movl $0x80011, %edi
        xorl %esi, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        movq $-1, %r8
        btrq $63, %r8
        syscall
        negl %eax
        movl %eax, %edi
    """ + EXIT)  # fmt: skip
    assert it.run().text == "exited with status 1"
    assert mm.kernel_data(it.system.machine.memory).nr_tasks == 1
