"""What fuzzing found, each in its smallest form."""

import pytest
from bare import CODE, KERNEL, bare

from emu.events import Delivered, EventType
from emu.machine.core import EndKind

CMP = "cmpq $0x7f, %rdx\n"
RDX, FLAGS = 0x6530_B8D4, 0x16
"""CMP with it sets AF and PF."""


def after(text, steps):
    """The machine some instructions on, all at once or one at a time."""
    it = bare(text)
    it.core.cpu.set_register(2, RDX)
    it.put64(0x5008, 0xFEC0_0000 | 0x93)
    if steps == 1:
        for _ in range(12):
            it.run(1)
    else:
        it.run(steps)
    return it


@pytest.mark.parametrize("steps", [50, 1])
@pytest.mark.parametrize(
    "text",
    [
        f"{CMP} movq %rbx, (%rdi)",
        f"{CMP} movq (%rdi), %rbx",
        f"{CMP} nop\n movq %rbx, (%rdi)",
        f"{CMP} divl %ecx",
        f"cmpq $5, %rdx\n {CMP} lock incl (%rdi)",
        f"{CMP} ud2",
        f"{CMP} int3",
        f"{CMP} int $0x80",
        f"movl $0x68, %ecx\n {CMP} movl %ecx, %ds",
        f"movl $1, %ecx\n {CMP} rep stosb",
    ],
)
def test_a_fault_behind_a_compare_pushes_the_flags_of_the_compare(text, steps):
    """The engine lost CF, AF and OF when the instruction right behind the one that set them faulted."""
    it = after(f"movabsq $0x123456789000, %rdi\n {text}", steps)
    assert it.of(Delivered)[0].frame.flags & 0xFFFF == FLAGS


@pytest.mark.parametrize("steps", [50, 1])
@pytest.mark.parametrize(
    "text",
    [
        f"{CMP} movl %eax, 0(%rbx)", f"{CMP} movl 0(%rbx), %ecx", f"movl $0x80, %edx\n movl ${RDX}, %ecx\n"
        " cmpq $0x7f, %rcx\n outb %al, %dx", f"movl ${RDX}, %ecx\n cmpq $0x7f, %rcx\n inb $0x80, %al",
        "xorl %eax, %eax\n movq %rdx, %r8\n cmpq $0x7f, %r8\n cpuid", "movq %rdx, %r8\n cmpq $0x7f, %r8\n rdtsc",
        f"movl $0xc0000102, %ecx\n {CMP} swapgs", "movl $0xc0000102, %ecx\n movq %rdx, %r8\n cmpq $0x7f, %r8\n rdmsr",
        f"{CMP} sti", f"movl $0x18, %ecx\n {CMP} movl %ecx, %ss",
    ],
)  # fmt: skip
def test_what_stops_behind_a_compare_keeps_its_flags(text, steps):
    it = after(f"movabsq ${KERNEL + 0x20_0000}, %rbx\n {text}\n pushfq\n popq %r9\n hlt", steps)
    assert it.core.halted
    assert it.core.cpu.register(9) & 0xFF == FLAGS


@pytest.mark.parametrize("steps", [50, 1])
@pytest.mark.parametrize("before", ["", "nop\n", "jmp 1f\n .org 0xffc\n 1:"])
def test_syscall_behind_a_compare_saves_its_flags(before, steps):
    it = after(f"{before} {CMP} syscall", steps)
    assert it.core.cpu.register(11) == FLAGS


@pytest.mark.parametrize("vector", range(32))
@pytest.mark.parametrize("user", [False, True])
def test_int_n_is_a_software_interrupt_for_every_vector(vector, user):
    """The engine took INT 6 for an invalid instruction."""
    it = bare(f"nop\n .byte 0xcd, {vector}", user=user)
    it.set_gate(vector, kind=0xEE)
    it.run(20)
    event = it.of(Delivered)[0]
    assert (event.vector, event.type, event.error_code) == (vector, EventType.SWINT, None)
    assert event.frame.ip == it.code.segments[0].end
    assert not event.frame.flags & 0x10000


def test_a_single_step_passes_an_instruction_that_writes_to_its_own_page():
    """The engine begins such an instruction again and counts it twice: a step of one never passed it."""
    it = bare("movb $0x90, 1f(%rip)\n 1: nop\n incl %eax\n hlt")
    for _ in range(4):
        it.run(1)
    assert (it.core.cpu.ip, it.core.cpu.register(0), it.core.clock) == (CODE + 11, 1, 4)


def test_a_step_of_an_instruction_that_jumps_to_itself_is_one():
    it = bare("1: jmp 1b")
    it.run(1)
    assert (it.core.cpu.ip, it.core.clock) == (CODE, 1)


def test_an_instruction_with_semantics_that_touches_no_memory_ends_the_run():
    """It was tried for ever."""
    it = bare("movabsq $0xffffffff80200000, %rsp\n popfq")
    it.put64(0x5008, 0x4000_0000 | 0x93)
    it.core.raise_interrupt(0x40)
    end = it.run(50)
    assert end.kind is EndKind.CRASHED
    assert "outside RAM" in end.text


def test_a_device_gets_what_a_single_stepped_instruction_writes():
    it = bare(f"movabsq ${KERNEL + 0x20_0000}, %rbx\n pushq $0x102\n popfq\n movl $0x1b, 0(%rbx)\n hlt")
    it.put64(0x5008, 0xFEC0_0000 | 0x93)
    it.run(50)
    assert it.entered() == 1
    assert it.machine.ioapic.state.select == 0x1B


@pytest.mark.parametrize(
    "operation", ["rol", "ror", "rcl", "rcr", "shl", "add", "not", "cmpxchg8b", "bts $1,", "xchg %eax,"]
)
def test_a_read_modify_write_of_an_absent_page_faults_as_a_write(operation):
    """The decoder takes rotations for reads."""
    operand = "(%rdi)" if operation == "cmpxchg8b" else "$1, (%rdi)" if operation == "add" else "(%rdi)"
    suffix = "" if operation == "cmpxchg8b" else "l"
    name, _, rest = operation.partition(" ")
    it = after(f"movabsq $0x123456789000, %rdi\n {name}{suffix} {rest} {operand}", 50)
    event = it.of(Delivered)[0]
    assert (event.vector, event.error_code) == (14, 2)
