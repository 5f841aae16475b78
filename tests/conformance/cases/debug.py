"""Debug exceptions: TF, DR0-3, DR6, GD, ICEBP, RF, shadows (SDM volume 3B, 17.2-17.3; volume 3A, 6.8.3)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.fields import DEFAULT_CR4
from conformance.layout import kernel, user
from conformance.model import Case, Value, on_user
from conformance.tables import gate, stub
from emu.arch import Cr4

TF, RF, IF = 0x100, 0x10000, 0x200
DATA = kernel(layout.KDATA)
AT = DATA + 0x40
UDATA = user(layout.UDATA)
EXECUTE, WRITE, IO, ACCESS = range(4)
LENGTH = {1: 0, 2: 1, 4: 3, 8: 2}


def dr7(number: int, kind: int, size: int = 1, *, both: int = 2, more: int = 0) -> int:
    """DR7 with one breakpoint enabled (globally by default)."""
    return 0x400 | both << 2 * number | kind << 16 + 4 * number | LENGTH[size] << 18 + 4 * number | more


STEPPED = {
    "nop": "nop\n nop",
    "mov": "movl $1, %eax\n nop",
    "jump": "jmp @t\n@t: nop\n nop",
    "taken_branch_to_self_end": "xorl %eax, %eax\n jz @t\n nop\n@t: nop",
    "pushf": "pushfq\n popq %rax\n nop",
    "popf_clears": "pushq $2\n popfq\n nop\n nop",
    "mov_ss": "movl %ss, %eax\n movl %eax, %ss\n nop\n nop",
    "pop_ss_like_mov_ds": "movl $0x2b, %eax\n movl %eax, %ds\n nop",
    "rep_movsb": "leaq -64(%rsp), %rdi\n movq %rdi, %rsi\n movl $3, %ecx\n rep movsb\n nop",
    "int3": "int3",
    "int_n": "int $0x40",
    "ud2": "ud2",
    "icebp": ".byte 0xf1",
    "syscall": "syscall",
    "sti": "sti\n nop\n nop",
    "divide": "xorl %ecx, %ecx\n divl %ecx",
    "page_fault": "movl 0x123456, %eax",
    "rdmsr": "rdmsr",
    "wrmsr": "wrmsr",
    "swapgs": "swapgs\n nop",
    "out": "outb %al, $0x80\n nop",
    "mov_from_dr7": "movq %dr7, %rax\n nop",
    "mov_cr3": "movq %cr3, %rax\n movq %rax, %cr3\n nop",
    "pause": "pause\n nop",
    "lock_add": ".byte 0xf0\n addl %eax, (%rbx)\n nop",
    "pushf_in_frame": "pushfq\n nop",
}


def _single_step() -> Iterator[Case]:
    for name, code in STEPPED.items():
        state: dict[str, Value] = {"rflags": 2 | TF, "rcx": 0xC0000081, "rbx": DATA}
        gates = {0x40: gate(stub(0x40), level=3), 3: gate(stub(3), level=3)}
        yield Case(f"tf_{name}_kernel", code, set=state, idt=gates)
        yield Case(f"tf_{name}_user", code, 3, set={**state, "rbx": UDATA}, idt=gates)
        yield Case(
            f"tf_after_nop_{name}", f"pushq $0x102\n popfq\n {code}", set={"rcx": 0xC0000081, "rbx": DATA}, idt=gates
        )
    yield Case("tf_set_by_popf", "pushq $0x102\n popfq\n nop\n nop")
    yield Case("tf_set_by_popf_user", "pushq $0x102\n popfq\n nop\n nop", 3)
    yield Case("tf_popf_clears_while_stepping", "pushq $2\n popfq\n nop", set={"rflags": 2})
    yield Case("tf_set_by_iretq", "iretq\n@target: nop\n nop", memory=_frame("@target", 0x10, 2 | TF, 0x18))
    yield Case(
        "tf_set_by_iretq_to_user", "iretq\n@target: nop\n nop", memory=_frame(on_user("@target"), 0x33, 2 | TF, 0x2B)
    )
    yield Case(
        "tf_cleared_by_iretq", "iretq\n@target: nop", set={"rflags": 2 | TF}, memory=_frame("@target", 0x10, 2, 0x18)
    )
    yield Case(
        "tf_kept_by_iretq", "iretq\n@target: nop", set={"rflags": 2 | TF}, memory=_frame("@target", 0x10, 2 | TF, 0x18)
    )
    yield Case(
        "tf_sysretq", ".byte 0x48, 0x0f, 0x07\n@target: nop\n nop", set={"rcx": on_user("@target"), "r11": 2 | TF}
    )
    yield Case("tf_before_sysretq", ".byte 0x48, 0x0f, 0x07\n@target: nop\n nop",
               set={"rcx": on_user("@target"), "r11": 2, "rflags": 2 | TF})  # fmt: skip
    yield Case("tf_rf_together", "nop\n nop", set={"rflags": 2 | TF | RF})
    yield Case("tf_with_old_dr6", "nop", set={"rflags": 2 | TF, "dr6": 0xFFFF0FF3})
    yield Case("tf_dr6_bd_stays", "nop", set={"rflags": 2 | TF, "dr6": 0xFFFF2FF0})
    yield Case("icebp_keeps_dr6", ".byte 0xf1", set={"dr6": 0xFFFF4FF1})
    yield Case("icebp_user_dpl_0", ".byte 0xf1", 3)
    yield Case("icebp_bad_gate", ".byte 0xf1", idt={1: gate(stub(1), present=False)})
    yield Case("btf_without_debugctl", "jmp @t\n@t: nop", set={"rflags": 2 | TF})


def _frame(ip: Value, cs: int, flags: int, ss: int) -> dict[int, Value]:
    at = kernel(layout.KSTACK) - 0x100
    sp = user(layout.USTACK) + 0x400 if cs & 3 else at - 0x108
    return {at + 8 * n: word for n, word in enumerate((ip, cs, flags, sp, ss))}


def _execution() -> Iterator[Case]:
    for number in range(4):
        yield Case(
            f"execute_dr{number}", "nop\n@bp: nop\n nop", set={f"dr{number}": "@bp", "dr7": dr7(number, EXECUTE)}
        )
    one: dict[str, Value] = {"dr0": "@bp", "dr7": dr7(0, EXECUTE)}
    yield Case("execute_user", "nop\n@bp: nop", 3, set={**one, "dr0": on_user("@bp")})
    yield Case("execute_local_enable", "nop\n@bp: nop", set={**one, "dr7": dr7(0, EXECUTE, both=1)})
    yield Case("execute_disabled", "nop\n@bp: nop", set={**one, "dr7": 0x400})
    yield Case("execute_first_instruction", "@bp: nop", set=one)
    yield Case("execute_rf_suppresses", "@bp: nop\n nop", set={**one, "rflags": 2 | RF})
    yield Case("execute_rf_only_for_one", "nop\n@bp: nop", set={**one, "rflags": 2 | RF})
    yield Case("execute_middle_of_instruction", "nop\n .byte 0xb8\n@bp: .byte 1, 2, 3, 4", set=one)
    yield Case("execute_on_fault", "nop\n@bp: ud2", set=one)
    yield Case("execute_on_int3", "nop\n@bp: int3", set=one)
    yield Case("execute_on_syscall", "nop\n@bp: syscall", 3, set={**one, "dr0": on_user("@bp")})
    yield Case("execute_on_iretq", "@bp: iretq\n@target: nop", set=one, memory=_frame("@target", 0x10, 2, 0x18))
    yield Case("execute_on_rdmsr", "nop\n@bp: rdmsr", set={**one, "rcx": 0xC0000081})
    yield Case(
        "execute_two_match", "nop\n@bp: nop", set={**one, "dr3": "@bp", "dr7": dr7(0, EXECUTE) | dr7(3, EXECUTE)}
    )
    yield Case("execute_disabled_one_matches_too", "nop\n@bp: nop", set={**one, "dr3": "@bp"})
    yield Case("execute_after_mov_ss", "movl %ss, %eax\n movl %eax, %ss\n@bp: nop\n nop", set=one)
    yield Case("execute_and_tf", "nop\n@bp: nop\n nop", set={**one, "rflags": 2 | TF})
    yield Case("execute_on_handler", "ud2", set={"dr0": kernel(layout.STUBS) + 0x60, "dr7": dr7(0, EXECUTE)})
    yield Case("execute_iretq_with_rf", "iretq\n@bp: nop\n nop", set=one, memory=_frame("@bp", 0x10, 2 | RF, 0x18))
    yield Case("execute_iretq_without_rf", "iretq\n@bp: nop\n nop", set=one, memory=_frame("@bp", 0x10, 2, 0x18))
    yield Case("execute_jump_onto", "jmp @bp\n nop\n@bp: nop", set=one)
    yield Case("execute_rep", "movq %rsp, %rdi\n movl $3, %ecx\n subq $64, %rdi\n@bp: rep stosb", set=one)


ACCESSES = {
    "write_1": "movb %al, (%rbx)",
    "write_4": "movl %eax, (%rbx)",
    "write_8": "movq %rax, (%rbx)",
    "read_1": "movb (%rbx), %al",
    "read_8": "movq (%rbx), %rax",
    "modify": "addl %eax, (%rbx)",
    "push": "leaq 8(%rbx), %rsp\n pushq %rax",
    "pop": "movq %rbx, %rsp\n popq %rax",
    "stos": "movq %rbx, %rdi\n cld\n stosl",
    "rep_stos": "leaq -2(%rbx), %rdi\n movl $4, %ecx\n cld\n rep stosb",
    "below": "movl %eax, -4(%rbx)",
    "above": "movl %eax, 8(%rbx)",
    "overlap_below": "movl %eax, -2(%rbx)",
    "fault_after": "movl 0x123456, %eax",
    "call": "leaq 8(%rbx), %rsp\n call @t\n@t: nop",
    "xchg": "xchgl %eax, (%rbx)",
    "movs": "movq %rbx, %rsi\n leaq 16(%rbx), %rdi\n cld\n movsb",
    "sse": "movups (%rbx), %xmm0",
    "rdmsr_only": "rdmsr",
}


def _data() -> Iterator[Case]:
    for name, code in ACCESSES.items():
        for kind, word in ((WRITE, "write"), (ACCESS, "access")):
            yield Case(f"watch_{word}_4_{name}", f"nop\n {code}\n nop\n nop",
                       set={"rbx": AT, "dr1": AT, "dr7": dr7(1, kind, 4), "rcx": 0xC0000081})  # fmt: skip
    for size in (1, 2, 4, 8):
        for at in sorted({-1, 0, size - 1, size}):
            yield Case(f"watch_size_{size}_at_{at}", "movb %al, (%rbx)\n nop",
                       set={"rbx": DATA + 0x40 + at, "dr0": DATA + 0x40, "dr7": dr7(0, WRITE, size)})  # fmt: skip
    yield Case("watch_misaligned_address", "movb %al, (%rbx)\n nop",
               set={"rbx": DATA + 0x40, "dr0": DATA + 0x42, "dr7": dr7(0, WRITE, 4)})  # fmt: skip
    yield Case("watch_user", "movb %al, (%rbx)\n nop", 3, set={"rbx": UDATA, "dr0": UDATA, "dr7": dr7(0, WRITE)})
    yield Case("watch_and_tf", "movb %al, (%rbx)\n nop",
               set={"rbx": DATA, "dr0": DATA, "dr7": dr7(0, WRITE), "rflags": 2 | TF})  # fmt: skip
    both = dr7(0, WRITE, 4) | dr7(2, ACCESS, 4)
    yield Case("watch_two", "movq %rax, (%rbx)\n nop", set={"rbx": DATA, "dr0": DATA, "dr2": DATA + 4, "dr7": both})
    yield Case("watch_and_disabled_match", "movq %rax, (%rbx)\n nop",
               set={"rbx": DATA, "dr0": DATA, "dr2": DATA, "dr7": dr7(0, WRITE, 4) | WRITE << 24})  # fmt: skip
    yield Case("watch_rf_does_not_suppress", "movb %al, (%rbx)\n nop",
               set={"rbx": DATA, "dr0": DATA, "dr7": dr7(0, WRITE), "rflags": 2 | RF})  # fmt: skip
    yield Case("watch_write_then_branch", "movb %al, (%rbx)\n jmp @t\n@t: nop",
               set={"rbx": DATA, "dr0": DATA, "dr7": dr7(0, WRITE)})  # fmt: skip
    yield Case("watch_faulting_write", "movb %al, (%rbx)",
               set={"rbx": 0x123456, "dr0": 0x123456, "dr7": dr7(0, WRITE)})  # fmt: skip
    yield Case("watch_frame_push", "ud2", set={"dr0": kernel(layout.KSTACK) - 0x108, "dr7": dr7(0, WRITE, 8)})
    yield Case("watch_enabled_by_code", "movq %rbx, %dr0\n movq %rcx, %dr7\n movb %al, (%rbx)\n nop",
               set={"rbx": DATA, "rcx": dr7(0, WRITE)})  # fmt: skip
    shadowed: dict[str, Value] = {"rbx": UDATA, "dr0": UDATA, "dr7": dr7(0, ACCESS, 2)}
    words = {kernel(layout.UDATA): 0x2B}
    gates = {3: gate(stub(3), level=3), 0x80: gate(stub(0x80), level=3)}
    for name, code in (
        ("syscall", "syscall"), ("int3", "int3"), ("int_0x80", "int $0x80"), ("nop", "nop\n nop"), ("ud2", "ud2"),
        ("icebp", ".byte 0xf1"), ("page_fault", "movl 0x123456, %eax"), ("another_mov_ss", "movw (%rbx), %ss\n nop"),
    ):  # fmt: skip
        yield Case(
            f"mov_ss_watched_then_{name}", f"movw (%rbx), %ss\n {code}", 3, set=shadowed, memory=words, idt=gates
        )
        in_kernel = {**shadowed, "rbx": DATA, "dr0": DATA}
        yield Case(f"mov_ss_watched_then_{name}_kernel", f"movw (%rbx), %ss\n {code}", set=in_kernel,
                   memory={DATA: 0x18}, idt=gates)  # fmt: skip
    yield Case("mov_ss_watched_then_syscall_tf", "movw (%rbx), %ss\n syscall", 3,
               set={**shadowed, "rflags": 2 | TF}, memory=words)  # fmt: skip
    yield Case("mov_ss_watched_then_iretq", "movw (%rbx), %ss\n iretq\n@t: nop",
               set={**shadowed, "rbx": DATA, "dr0": DATA},
               memory={DATA: 0x18, **_frame("@t", 0x10, 2, 0x18)})  # fmt: skip


def _registers() -> Iterator[Case]:
    gd: dict[str, Value] = {"dr7": 0x400 | 1 << 13}
    for name, code in (
        ("read_dr7", "movq %dr7, %rax"), ("write_dr7", "movq %rax, %dr7"), ("read_dr0", "movq %dr0, %rax"),
        ("write_dr6", "movq %rax, %dr6"),
    ):  # fmt: skip
        yield Case(f"gd_{name}", f"nop\n {code}\n nop", set=gd)
    de = DEFAULT_CR4 | int(Cr4.DE)
    for number in (4, 5):
        for name, opcode in (("read", 0x21), ("write", 0x23)):
            code = f".byte 0x0f, {opcode:#x}, {0xC0 | number << 3:#x}\n nop"
            yield Case(f"dr{number}_{name}", code, set={"rax": 0})
            yield Case(f"dr{number}_{name}_de", code, set={"rax": 0, "cr4": de})
    yield Case("dr8_is_ud", ".byte 0x4c, 0x0f, 0x21, 0xc0")
    for name, value in (
        ("zero", 0),
        ("ones", 0xFFFF_FFFF),
        ("bit_11", 0x800),
        ("bit_10", 0x400),
        ("bits_14_15", 0xC000),
    ):
        yield Case(f"dr7_{name}", "movq %rax, %dr7\n movq %dr7, %rbx\n movl $0x400, %eax\n movq %rax, %dr7",
                   set={"rax": value & ~0x20FF if value else 0})  # fmt: skip
        yield Case(f"dr6_{name}", "movq %rax, %dr6\n movq %dr6, %rbx", set={"rax": value})
    for register in ("dr6", "dr7"):
        yield Case(f"{register}_high_half", f"movq %rax, %{register}", set={"rax": 1 << 32})
    yield Case("dr0_holds_any_value", "movq %rax, %dr0\n movq %dr0, %rbx", set={"rax": 0x1234_5678_9ABC_DEF0})
    yield Case("io_breakpoint_without_de", "outb %al, $0x80\n nop", set={"dr0": 0x80, "dr7": dr7(0, IO)})
    yield Case("io_breakpoint", "outb %al, $0x80\n nop", set={"dr0": 0x80, "dr7": dr7(0, IO), "cr4": de})
    yield Case("io_breakpoint_elsewhere", "outb %al, $0x80\n nop", set={"dr0": 0x81, "dr7": dr7(0, IO), "cr4": de})
    yield Case("io_breakpoint_wide_out", "movl $0x80, %edx\n outl %eax, %dx\n nop",
               set={"dr0": 0x82, "dr7": dr7(0, IO), "cr4": de})  # fmt: skip


CASES = (*_single_step(), *_execution(), *_data(), *_registers())
