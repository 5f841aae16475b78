"""Interrupts and NMIs that a CPU sends itself: shadows, priorities, blocking, HLT, TPR (SDM 3A, 6.7-6.9, 10.8)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.layout import KERNEL_CS, KERNEL_DS, USER_CS, USER_DS, kernel, user
from conformance.model import Case, Value, on_user
from conformance.tables import gate

IF, TF = 0x200, 0x100
SEND, SEND_LOW, NMI = "movl $0x50, ICR", "movl $0x30, ICR", "movl $0x400, ICR"
"""Fixed interrupts 0x50 and 0x30 to CPU 0 (physical destination 0), and an NMI."""
SETTLE = "jmp 91f\n91: nop\n jmp 92f\n92: nop\n"
"""Time for a simulator that looks at interrupts between blocks only."""
SPIN = "93: jmp 93b"


def case(name: str, code: str, *, memory: dict[int, Value] | None = None, handler: str = "", vector: int = 2,
         **state: Value) -> Case:  # fmt: skip
    idt = {vector: gate(kernel(layout.HANDLER))} if handler else {}
    text = f"{code}\n int $0xff\n{handler and f'@handler: {handler}'}"
    extra: dict[str, Value] = {"handler": "@handler"} if handler else {}
    return Case(name, text, set={"apic": 1, **extra, **state}, idt=idt, memory=memory or {})


def frame(ip: Value, cs: int, flags: int, ss: int) -> dict[int, Value]:
    at = kernel(layout.KSTACK) - 0x100
    sp = user(layout.USTACK) + 0x400 if cs & 3 else at - 0x108
    return {at + 8 * n: word for n, word in enumerate((ip, cs, flags, sp, ss))}


def _maskable() -> Iterator[Case]:
    yield case("taken_with_if", f"{SEND}\n{SPIN}", rflags=2 | IF)
    yield case("held_without_if", f"{SEND}\n{SETTLE}")
    held = f"{SEND}\n{SETTLE}"
    yield case("sti_shadow", f"{held} sti\n nop\n nop\n{SETTLE}")
    yield case("sti_cli", f"{held} sti\n cli\n{SETTLE}")
    yield case("sti_sti", f"{held} sti\n sti\n nop\n nop\n{SETTLE}")
    yield case("sti_with_if_set_has_no_shadow", f"{SEND_LOW}\n sti\n nop\n nop\n{SETTLE}", rflags=2 | IF, cr8=15)
    yield case("sti_mov_ss", f"movl %ss, %eax\n{held} sti\n movl %eax, %ss\n nop\n nop\n{SETTLE}")
    yield case("mov_ss_popf", f"movl %ss, %eax\n pushq ${2 | IF}\n{held} movl %eax, %ss\n popfq\n nop\n{SETTLE}")
    yield case("popf_sets_if", f"pushq ${2 | IF}\n{held} popfq\n nop\n nop\n{SETTLE}")
    yield case("iretq_sets_if", f"{held} iretq\n@target: nop\n{SETTLE}",
               memory=frame("@target", KERNEL_CS, 2 | IF, KERNEL_DS))  # fmt: skip
    yield case("iretq_to_user_sets_if", f"{held} iretq\n@target: nop\n{SETTLE}",
               memory=frame(on_user("@target"), USER_CS, 2 | IF, USER_DS))  # fmt: skip
    yield case("iretq_sets_if_and_tf", f"{held} iretq\n@target: nop\n{SETTLE}",
               memory=frame("@target", KERNEL_CS, 2 | IF | TF, KERNEL_DS))  # fmt: skip
    yield case("sysretq_sets_if", f"{held} .byte 0x48, 0x0f, 0x07\n@target: nop\n{SETTLE}",
               rcx=on_user("@target"), r11=2 | IF)  # fmt: skip
    yield case("sysretq_sets_if_and_tf", f"{held} .byte 0x48, 0x0f, 0x07\n@target: nop\n{SETTLE}",
               rcx=on_user("@target"), r11=2 | IF | TF)  # fmt: skip
    yield case("highest_first", f"{SEND_LOW}\n{SEND}\n{SETTLE} sti\n nop\n nop\n{SETTLE}")
    yield case("tf_before_interrupt", f"pushq ${2 | TF}\n{held} popfq\n sti\n nop\n nop\n{SETTLE}")
    yield case("breakpoint_after_interrupt", f"pushq ${2 | IF}\n{held} popfq\n@bp: nop\n{SETTLE}", dr0="@bp", dr7=0x402)
    yield case("sti_then_fault", f"{held} sti\n ud2")
    yield case("sti_then_int3", f"{held} sti\n int3")
    yield case("sti_then_syscall", f"{held} sti\n syscall\n{SETTLE}", fmask=IF)
    yield case("sti_then_rep", f"leaq -64(%rsp), %rdi\n movl $8, %ecx\n{held} sti\n rep stosb\n nop\n{SETTLE}")
    yield case("rep_under_interrupt",
               f"leaq -64(%rsp), %rdi\n movl $8, %ecx\n pushq ${2 | IF}\n{held} popfq\n rep stosb")  # fmt: skip
    for cr8 in (3, 4, 5, 6, 15):
        yield case(f"cr8_{cr8}", f"{SEND}\n{SETTLE} sti\n nop\n nop\n{SETTLE}", cr8=cr8)
    yield case("cr8_lowered", f"{held} sti\n nop\n movq %rbx, %cr8\n@t: jmp @t", cr8=15, rbx=0)
    yield case("tpr_lowered", f"{held} sti\n nop\n movl $0, APIC_PAGE + 0x80\n@t: jmp @t", cr8=15)
    yield case("tpr_is_cr8", "movl $0x7f, APIC_PAGE + 0x80\n movq %cr8, %rax\n movl $0, APIC_PAGE + 0x80")
    yield case("cr8_is_tpr", "movl $9, %eax\n movq %rax, %cr8\n movl APIC_PAGE + 0x80, %ebx\n xorl %eax, %eax\n"
               " movq %rax, %cr8")  # fmt: skip
    yield case("irr_while_held", f"{SEND}\n{SETTLE} movl APIC_PAGE + 0x220, %eax\n movl APIC_PAGE + 0x120, %ebx")
    yield case("isr_in_handler", f"{SEND}\n{SPIN}", rflags=2 | IF, vector=0x50,
               handler="movl APIC_PAGE + 0x220, %eax\n movl APIC_PAGE + 0x120, %ebx\n movl APIC_PAGE + 0xa0, %ecx\n"
               " int $0xff")  # fmt: skip
    yield case("lower_waits_for_eoi", f"{SEND}\n{SPIN}", rflags=2 | IF, vector=0x50,
               handler=f"{SEND_LOW}\n sti\n nop\n {SETTLE} movl $7, %edx\n movl $0, APIC_PAGE + 0xb0\n"
               "@w: jmp @w")  # fmt: skip
    yield case("higher_nests", f"{SEND_LOW}\n{SPIN}", rflags=2 | IF, vector=0x30, handler=f"{SEND}\n sti\n@w: jmp @w")
    yield case("hlt_wakes", f"{held} sti\n hlt\n nop")
    yield case("timer_one_shot", "movl $0x60, APIC_PAGE + 0x320\n movl $0xb, APIC_PAGE + 0x3e0\n"
               f" movl $100, APIC_PAGE + 0x380\n{SPIN}", rflags=2 | IF)  # fmt: skip
    yield case("timer_wakes_hlt", "movl $0x60, APIC_PAGE + 0x320\n movl $0xb, APIC_PAGE + 0x3e0\n"
               " movl $5000, APIC_PAGE + 0x380\n sti\n hlt\n nop")  # fmt: skip


def _nmi() -> Iterator[Case]:
    yield case("nmi", f"{NMI}\n{SPIN}")
    yield case("nmi_with_if", f"{NMI}\n{SPIN}", rflags=2 | IF)
    yield case("nmi_ignores_tpr", f"{NMI}\n{SPIN}", cr8=15)
    count = "incq KDATA\n cmpq $2, KDATA\n je @twice\n"
    twice = "@twice: int $0xff"
    yield case("nmi_blocked_in_handler", f"{NMI}\n{SPIN}", handler=f"{count}{NMI}\n{SETTLE} int $0xff\n{twice}")
    yield case("nmi_after_iretq", f"{NMI}\n@wait: cmpq $1, KDATA\n jb @wait\n@back: jmp @back",
               handler=f"{count}{NMI}\n{SETTLE} iretq\n{twice}")  # fmt: skip
    yield case("nmi_one_pending", f"{NMI}\n@wait: cmpq $2, KDATA\n jb @wait\n{SETTLE}",
               handler=f"incq KDATA\n cmpq $1, KDATA\n jne @out\n{NMI}\n{SETTLE}{NMI}\n jmp @s3\n@s3: {NMI}\n"
               " jmp @out\n@out: iretq")  # fmt: skip
    yield case("nmi_unblocked_by_faulting_iretq", f"{NMI}\n{SPIN}",
               handler=f"{count}{NMI}\n{SETTLE} movq $0x1000, 8(%rsp)\n iretq\n{twice}")  # fmt: skip
    yield case("nmi_unblocked_by_iretq_with_nt", f"{NMI}\n{SPIN}",
               handler=f"{count}{NMI}\n{SETTLE} pushq $0x4002\n popfq\n iretq\n{twice}")  # fmt: skip
    yield case("nmi_int_2_does_not_block", f"int $2\n{SPIN}", handler=f"{count}{NMI}\n{SPIN}\n{twice}")
    yield case("nmi_lretq_does_not_unblock", f"{NMI}\n{SPIN}",
               handler=f"{count}{NMI}\n{SETTLE} leaq @lret(%rip), %rax\n pushq $0x10\n pushq %rax\n .byte 0x48, 0xcb\n"
               f"@lret: {SETTLE} int $0xff\n{twice}")  # fmt: skip
    yield case("nmi_before_interrupt", f"{NMI}\n{SPIN}",
               handler=f"{count}{SEND}\n{NMI}\n{SETTLE} orq $0x200, 16(%rsp)\n iretq\n{twice}")  # fmt: skip
    yield case("nmi_frame_of_user", f"{SEND}\n{SETTLE} iretq\n@target: nop\n jmp @target",
               memory=frame(on_user("@target"), USER_CS, 2 | IF, USER_DS), vector=0x50,
               handler=f"{NMI}\n{SPIN}")  # fmt: skip


CASES = (*_maskable(), *_nmi())
