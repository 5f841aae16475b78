"""REP instructions that begin with RF set, as after the return from a fault of theirs."""

import pytest
from bare import CODE, KERNEL, bare

from emu.arch import Rflags
from emu.machine.registers import RBX, RCX

RF = int(Rflags.RF)


def engine_runs(it, limit=5000):
    """How often the engine is started, until HLT or the limit."""
    runs = []
    execute = it.core.cpu.run
    it.core.cpu.run = lambda count, **options: (runs.append(count), execute(count, **options))[1]
    it.run(limit)
    return len(runs)


@pytest.mark.parametrize("string", ["rep stosb", "rep stosq", "rep movsb", "rep lodsb", "rep movsl"])
def test_rf_does_not_make_a_repeat_slow_and_ends_with_it(string):
    text = f"""
        movl $1000, %ecx
        movq ${KERNEL + 0x180000}, %rdi
        movq ${KERNEL + 0x190000}, %rsi
        pushq $0x18
        leaq -8(%rsp), %rax
        pushq %rsp
        pushq ${2 | RF:#x}
        pushq $0x10
        leaq 1f(%rip), %rdx
        pushq %rdx
        iretq
    1:  {string}
        movq %rcx, %rbx
        pushfq
        popq %rdx
        hlt
    """
    it, plain = bare(text), bare(text.replace(f"{2 | RF:#x}", "0x202"))
    assert engine_runs(it) < 20
    plain.run(5000)
    assert (it.core.clock, it.core.cpu.ip) == (plain.core.clock, plain.core.cpu.ip)
    assert it.core.cpu.register(RBX) == 0
    assert not it.core.cpu.flags & RF


def test_a_repeat_that_may_end_early_is_stepped():
    it = bare(f"movq ${KERNEL + 0x180000}, %rdi\n movl $5, %ecx\n 1: repe scasb\n movl $7, %ebx\n hlt", flags=2)
    core = it.core
    it.run(2)
    core.cpu.flags |= RF
    core.cpu.set_register(0, 1)  # AL differs from the first byte
    it.run(1000)
    assert (core.cpu.register(RCX), core.cpu.register(RBX)) == (4, 7)
    assert not core.cpu.flags & RF
    assert core.cpu.ip > CODE


@pytest.mark.parametrize("branch", ["jmp 1b", "loop 1b", "jz 1b"])
def test_rf_ends_with_a_branch_to_itself(branch):
    """An event that comes later pushes RF as 0 (SDM volume 3B, 17.3.1.1), and the branch is not stepped for ever."""
    it = bare(f"movl $900, %ecx\n xorl %eax, %eax\n 1: {branch}\n hlt")
    it.run(2)
    branch_at = it.core.cpu.ip
    it.core.cpu.flags |= RF
    assert engine_runs(it, 500) < 20
    assert (it.core.clock, it.core.cpu.ip) == (502, branch_at)
    assert not it.core.cpu.flags & RF


@pytest.mark.parametrize(
    ("branch", "flags"), [("loop 1b", "nop"), ("loope 1b", "cmpl %ecx, %ecx"), ("loopne 1b", "testl %ecx, %ecx")]
)
def test_each_round_of_a_loop_of_one_instruction_is_a_boundary(branch, flags):
    it = bare(f"movl $9, %ecx\n {flags}\n 1: {branch}\n hlt")
    it.run(2)
    rounds = []
    for _ in range(4):
        it.run(1)
        rounds.append((it.core.clock, it.core.cpu.register(RCX)))
    assert rounds == [(3, 8), (4, 7), (5, 6), (6, 5)]
