"""Each exception's cause, class, saved RIP, RF and error code (SDM volume 3A, 6.15)."""

from __future__ import annotations

from conformance.model import Case

CASES = (
    Case("nothing", "nop"),
    Case("divide_by_zero", "xorl %edx, %edx\n xorl %ecx, %ecx\n divl %ecx"),
    Case("ud2", "nop\n ud2"),
    Case("ud2_user", "nop\n ud2", cpl=3),
    Case("int3", "nop\n int3"),
    Case("int3_user_gate_dpl_0", "nop\n int3", cpl=3),
    Case("hlt_user", "hlt", cpl=3),
    Case("load_non_canonical", "movabsq $0x800000000000, %rax\n movq (%rax), %rbx"),
    Case("pf_read_not_present", "movq 0x123456, %rax"),
    Case("syscall", "syscall", cpl=3),
)
