"""System calls of 32-bit programs: every invariant judges them, and each break of their entries is noticed."""

import pytest

from emu.errors import ScenarioError
from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files

FILE = "entry_64_compat.S"
INT80 = """
title = "t"
[user]
asm = '''
_start:
    movabsq $0x1234567800000014, %rax
    int     $0x80
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""


def first_violation(source, profile, entry, old, new):
    text = source_files("linux-6")[FILE]
    start = text.index(f"\n{entry}:")
    assert old in text[start:], f"{entry}: no {old!r}"
    image = build_image("linux-6", Profile(profile), ((FILE, text[:start] + text[start:].replace(old, new, 1)),))
    (report,) = run_scenario(source, image)
    return report.facts.violations[0].invariant if report.facts.violations else report.facts.end


@pytest.mark.parametrize(
    ("scenario", "entry", "old", "new", "noticed"),
    [
        ("ia32-sysenter", "entry_SYSENTER_compat", "    swapgs\n", "    nop\n", "GS nesting"),
        ("ia32-sysenter", "entry_SYSENTER_compat", "    pushq   $__USER32_CS\n", "    pushq   $__USER_CS\n", "frames"),
        ("ia32-sysenter", "entry_SYSENTER_compat", "    pushq   $0\n", "    pushq   $8\n", "frames"),
        ("ia32-sysenter", "entry_SYSENTER_compat", "ax=$-ENOSYS", "ax=$-ENOSYS, cx=%rbp", "frames"),
        ("ia32-syscall-amd", "entry_SYSCALL_compat", "    swapgs\n", "    nop\n", "GS nesting"),
        ("ia32-syscall-amd", "entry_SYSCALL_compat", "    pushq   %rcx\n", "    pushq   %rdx\n", "frames"),
        ("ia32-syscall-amd", "entry_SYSCALL_compat", "    pushq   %r11\n", "    pushfq\n", "frames"),
        ("ia32-syscall-amd", "sysret32_from_system_call", "PT_REGS_FLAGS-", "PT_REGS_SP-", "frames"),
        ("ia32-syscall-amd", "sysret32_from_system_call", "    swapgs\n", "    nop\n", "GS nesting"),
    ],
)
def test_a_break_is_noticed(scenario, entry, old, new, noticed):
    profile = "amd" if scenario.endswith("amd") else "intel"
    assert first_violation(find_scenario(scenario), profile, entry, old, new) == noticed


def test_an_eax_that_is_not_zero_extended_is_noticed():
    source = parse_scenario(INT80, "t.toml")
    assert first_violation(source, "intel", "entry_INT80_compat", "    movl    %eax, %eax\n", "") == "C interface"


def test_the_path_names_i386_calls():
    (report,) = run_scenario(find_scenario("ia32-sysenter"))
    path = "\n".join(report.facts.path)
    assert "--SYSENTER 20 (getpid, 32-bit)--> entry_SYSENTER_compat -> entry stack -> SWAPGS -> " in path
    assert "-> task stack -> do_SYSENTER_32 -> entry stack -> user CR3 -> SWAPGS -> SYSRETL --> user" in path
    assert "INT 0x80, 1 (exit)" in path


@pytest.mark.parametrize("line", ["movq %rax, %rbx", "leaq here(%rip), %rax", "movl $1, (%r8)", "syscall\n incq %rcx"])
def test_an_instruction_that_32_bit_code_lacks_is_named_with_its_line(line):
    source = parse_scenario(f'title = "t"\n[user]\nbits = 32\nasm = """\n_start: nop\nhere: {line}\n"""\n', "t.toml")
    with pytest.raises(ScenarioError, match=r"t\.toml:[67]: .* is no 32-bit instruction \(t\.toml:3 "):
        list(run_scenario(source))


@pytest.mark.parametrize(
    ("scenario", "old", "new"),
    [
        ("classic-ia32-program-sysenter", "    movl    ARG_IP(%rsp), %edx\n", ""),
        ("classic-ia32-program-sysenter", "    pushq   TI_SYSENTER_RETURN(%r10)\n", "    pushq   $0\n"),
        ("classic-ia32-program-syscall", "    movl    ARG_SP(%rsp), %esp\n", ""),
    ],
)
def test_a_break_of_linux_26s_fast_calls_is_noticed(scenario, old, new):
    text = source_files("linux-2.6")["ia32entry.S"]
    assert old in text
    profile = Profile(vendor="amd" if scenario.endswith("syscall") else "intel")
    image = build_image("linux-2.6", profile, (("ia32entry.S", text.replace(old, new)),))
    (report,) = run_scenario(find_scenario(scenario), image)
    assert not report.passed


USERS_OWN_IRETQ = """
title = "user mode's own IRETQ"
[user]
asm = '''
_start:
    movq    %ss, %rax
    pushq   %rax
    leaq    8(%rsp), %rax
    pushq   %rax
    pushfq
    movq    %cs, %rax
    pushq   %rax
    leaq    there(%rip), %rax
    pushq   %rax
    iretq
there:
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
[expect]
exit = 0
"""


def test_an_iretq_of_user_mode_is_no_return_from_the_kernel():
    (report,) = run_scenario(parse_scenario(USERS_OWN_IRETQ, "t.toml"))
    assert report.passed, report.violations


BAD_STACK = """
title = "t"
[user]
asm = "_start: movl $SYS_getpid, %eax\\nsyscall"
[[inject]]
event = "memory"
at = "do_syscall_64+0x4"
address = "regs:ss"
value = 0xf
[expect]
signal = "SIGSEGV"
"""
"""A selector of the LDT, which is empty: IRETQ goes by espfix64, and faults there."""


def test_a_refused_return_by_espfix_is_a_signal():
    (report,) = run_scenario(parse_scenario(BAD_STACK, "t.toml"))
    assert report.passed, (report.violations, report.unmet)


@pytest.mark.parametrize(
    ("old", "invariant"),
    [("    SWITCH_TO_USER_CR3 scratch=%rdi\n    popq    %rdi\n    swapgs\n    movq    %rax, %rsp\n", "page tables"),
     ("    pushq   %rdi\n    swapgs\n    SWITCH_TO_KERNEL_CR3 scratch=%rdi\n", "GS nesting")],
)  # fmt: skip
def test_a_break_of_espfix_is_noticed(old, invariant):
    text = source_files("linux-6")["entry_64.S"]
    assert text.count(old) == 1
    gone = "    SWITCH_TO_USER_CR3 scratch=%rdi\n" if invariant == "page tables" else "    swapgs\n"
    image = build_image("linux-6", Profile(), (("entry_64.S", text.replace(old, old.replace(gone, "", 1))),))
    (report,) = run_scenario(parse_scenario(BAD_STACK, "t.toml"), image)
    assert report.violations[0].invariant == invariant
