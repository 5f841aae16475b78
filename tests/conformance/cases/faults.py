"""Each exception's cause, class, saved RIP, RF and error code (SDM volume 3A, 6.15)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conformance.fields import DEFAULT_CR0, DEFAULT_CR4
from conformance.model import Case, Value
from emu.arch import Cr0, Cr4, Rflags

NON_CANONICAL = 0x0000_8000_0000_0000
TS, EM, AM = int(Cr0.TS), int(Cr0.EM), int(Cr0.AM)

ANYWHERE: Mapping[str, str] = {
    "nothing": "nop",
    "divide_by_zero": "xorl %edx, %edx\n xorl %ecx, %ecx\n divl %ecx",
    "divide_overflow": "movl $2, %edx\n movl $1, %ecx\n xorl %eax, %eax\n divl %ecx",
    "idiv_overflow": "movl $0x80000000, %eax\n cltd\n movl $-1, %ecx\n idivl %ecx",
    "divb_overflow": "movl $0x1000, %eax\n movb $1, %cl\n divb %cl",
    "ud2": "nop\n ud2",
    "lock_nop": ".byte 0xf0, 0x90",
    "lock_add_register": ".byte 0xf0, 0x01, 0xc0",
    "mov_to_cs": ".byte 0x8e, 0xc8",
    "push_es": ".byte 0x06",
    "into": ".byte 0xce",
    "far_jump_immediate": ".byte 0xea, 0, 0, 0, 0, 0, 0",
    "aaa": ".byte 0x37",
    "salc": ".byte 0xd6",
    "mov_segment_6": ".byte 0x8e, 0xf0",
    "too_long": ".fill 15, 1, 0x66\n nop",
    "int3": "nop\n int3",
    "int_3_long": "nop\n .byte 0xcd, 3",
    "int_4": "int $4",
    "int_8": "int $8",
    "int_13": "int $13",
    "int_14": "int $14",
    "int_0x80": "int $0x80",
    "icebp": "nop\n .byte 0xf1",
    "load_non_canonical": "movabsq $0x800000000000, %rax\n movq (%rax), %rbx",
    "store_non_canonical": "movabsq $0x800000000000, %rax\n movq %rbx, (%rax)",
    "load_across_the_hole": "movabsq $0x7ffffffffffc, %rax\n movq (%rax), %rbx",
    "store_through_rbp_non_canonical": "movabsq $0x800000000000, %rbp\n movq %rbx, 8(%rbp)",
    "load_through_rbp_with_ds": "movabsq $0x800000000000, %rbp\n .byte 0x3e\n movq 8(%rbp), %rbx",
    "load_gs_non_canonical": "movabsq $0x800000000000, %rax\n movq %gs:(%rax), %rbx",
    "leave_non_canonical": "movabsq $0x800000000000, %rbp\n leave",
    "enter_through_rbp": "movabsq $0x800000000000, %rbp\n .byte 0xc8, 0, 0, 2",
    "jump_non_canonical": "movabsq $0x800000000000, %rax\n jmp *%rax",
    "call_non_canonical": "movabsq $0x800000000000, %rax\n call *%rax",
    "ret_non_canonical": "movabsq $0x800000000000, %rax\n pushq %rax\n ret",
    "jump_memory_non_canonical": "movabsq $0x800000000000, %rax\n pushq %rax\n jmp *(%rsp)",
    "movaps_misaligned": "movaps 8(%rsp), %xmm0",
    "movaps_misaligned_gp_before_pf": "movl $0x123458, %eax\n movaps (%rax), %xmm0",
    "cmpxchg16b_misaligned": "cmpxchg16b 8(%rsp)",
    "lss_null": "subq $16, %rsp\n movw $0, 4(%rsp)\n .byte 0x0f, 0xb2, 0x04, 0x24",
    "xlat_not_present": "movl $0x123456, %ebx\n xorl %eax, %eax\n xlatb",
    "rep_stos_into_a_hole": "leaq -16(%rsp), %rdi\n movl $0x2000, %ecx\n cld\n rep stosb",
    "rep_movs_backwards": "movl $0x123456, %esi\n movq %rsp, %rdi\n movl $3, %ecx\n std\n rep movsq",
    "cmpxchg_not_present": "movl $0x123456, %ebx\n movl %ecx, %eax\n cmpxchgl %eax, (%rbx)",
    "push_memory_not_present": "movl $0x123456, %ebx\n pushq (%rbx)",
    "pop_memory_not_present": "movl $0x123456, %ebx\n popq (%rbx)",
    "sti_like_flags": "stc\n std\n ud2",
}
"""Code that is tried at CPL 0 and at CPL 3."""

WITH_STATE: tuple[tuple[str, str, Mapping[str, Value]], ...] = (
    ("fpu_task_switched", "fld1", {"cr0": DEFAULT_CR0 | TS}),
    ("fpu_emulated", "fld1", {"cr0": DEFAULT_CR0 | EM}),
    ("wait_task_switched", "fwait", {"cr0": DEFAULT_CR0 | TS}),
    ("wait_task_switched_without_mp", "fwait", {"cr0": (DEFAULT_CR0 | TS) & ~int(Cr0.MP)}),
    ("sse_task_switched", "movaps %xmm0, %xmm1", {"cr0": DEFAULT_CR0 | TS}),
    ("sse_emulated", "movaps %xmm0, %xmm1", {"cr0": DEFAULT_CR0 | EM}),
    ("sse_without_osfxsr", "movaps %xmm0, %xmm1", {"cr4": DEFAULT_CR4 & ~int(Cr4.OSFXSR)}),
    ("fxsave_task_switched", ".byte 0x0f, 0xae, 0x03", {"cr0": DEFAULT_CR0 | TS, "rbx": "@start"}),
    ("simd_divide", "pushq $0\n ldmxcsr (%rsp)\n xorps %xmm0, %xmm0\n divss %xmm0, %xmm0", {}),
    (
        "simd_divide_without_osxmmexcpt",
        "pushq $0\n ldmxcsr (%rsp)\n xorps %xmm0, %xmm0\n divss %xmm0, %xmm0",
        {"cr4": DEFAULT_CR4 & ~int(Cr4.OSXMMEXCPT)},
    ),
    (
        "x87_divide",
        "pushq $0x0000\n fninit\n fldcw (%rsp)\n fld1\n fldz\n fdivrp\n nop\n fwait",
        {},
    ),
    ("rdfsbase_not_enabled", "rdfsbase %rax", {"cr4": DEFAULT_CR4 & ~int(Cr4.FSGSBASE)}),
    ("misaligned_with_ac", "movl 1(%rsp), %eax", {"rflags": 2 | int(Rflags.AC)}),
    ("misaligned_with_ac_without_am", "movl 1(%rsp), %eax", {"rflags": 2 | int(Rflags.AC), "cr0": DEFAULT_CR0 & ~AM}),
    ("misaligned_word_store_with_ac", "movw %ax, 1(%rsp)", {"rflags": 2 | int(Rflags.AC)}),
    ("misaligned_push_with_ac", "subq $1, %rsp\n pushq %rax", {"rflags": 2 | int(Rflags.AC)}),
    ("misaligned_movups_with_ac", "movups 1(%rsp), %xmm0", {"rflags": 2 | int(Rflags.AC)}),
    ("rf_before_a_fault", "ud2", {"rflags": 2 | int(Rflags.RF)}),
    ("rf_gone_after_one", "nop\n int3", {"rflags": 2 | int(Rflags.RF)}),
    ("flags_kept_in_frame", "ud2", {"rflags": 2 | 0x3000 | int(Rflags.DF | Rflags.AC | Rflags.ID | Rflags.CF)}),
    ("nt_kept_in_frame", "ud2", {"rflags": 2 | int(Rflags.NT)}),
    ("if_cleared_in_handler", "ud2", {"rflags": 2 | int(Rflags.IF)}),
)
USER_ONLY = {
    "push_non_canonical": ("pushq %rax", {"rsp": NON_CANONICAL + 8}),
    "push_across_the_hole": ("pushq %rax", {"rsp": NON_CANONICAL + 4}),
    "pop_non_canonical": ("popq %rax", {"rsp": NON_CANONICAL}),
    "call_with_bad_stack": ("call @next\n@next: nop", {"rsp": NON_CANONICAL + 8}),
    "ret_with_bad_stack": ("ret", {"rsp": NON_CANONICAL}),
    "pushfq_with_bad_stack": ("pushfq", {"rsp": NON_CANONICAL + 8}),
    "load_through_rsp": ("movq 16(%rsp), %rax", {"rsp": NON_CANONICAL}),
    "enter_with_bad_stack": (".byte 0xc8, 0, 0, 0", {"rsp": NON_CANONICAL + 8}),
    "push_memory_bad_operand": ("pushq (%rax)", {"rax": NON_CANONICAL}),
    "pop_memory_bad_operand": ("popq (%rax)", {"rax": NON_CANONICAL}),
    "lret_with_bad_stack": (".byte 0x48, 0xcb", {"rsp": NON_CANONICAL}),
}


def _all() -> Iterator[Case]:
    for cpl in (0, 3):
        level = "user" if cpl else "kernel"
        for name, code in ANYWHERE.items():
            yield Case(f"{name}_{level}", code, cpl)
        for name, code, state in WITH_STATE:
            yield Case(f"{name}_{level}", code, cpl, set=state)
    for name, (code, state) in USER_ONLY.items():
        yield Case(f"{name}_user", code, 3, set=state)


CASES = tuple(_all())
