"""Holes that history knows, each put back into the sources: the sweep finds them without being told where to look."""

from __future__ import annotations

import pytest

from asm import Image
from emu.lab.scenario import parse_scenario
from emu.lab.sweep.command import Swept, sweep
from emu.lab.sweep.scene import Options
from emu.lab.sweep.store import Store
from emu.machine.profile import Profile
from kernel_stubs.abi import CpuEntryArea, cpu_entry_area
from kernel_stubs.kernel_image import build_image, source_files

GETPID = """
_start:
    movl    $SYS_getpid, %eax
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
"""
ENTRY = "entry_SYSCALL_64..entry_SYSCALL_64_after_hwframe"


def changed(*edits: tuple[str, str, str], fsgsbase: bool = True) -> Image:
    """The image with (file, old, new) applied; each old text stands there exactly once."""
    sources = source_files("linux-6")
    for name, old, new in edits:
        assert sources[name].count(old) == 1, f"{name}: {old!r} stands there {sources[name].count(old)} times"
        sources[name] = sources[name].replace(old, new)
    overrides = tuple((name, sources[name]) for name in dict.fromkeys(edit[0] for edit in edits))
    return build_image("linux-6", Profile(fsgsbase=fsgsbase), overrides)


def swept(
    image: Image | None,
    *events: str,
    asm: str = GETPID,
    depth: int = 1,
    window: str = "",
    fsgsbase: bool = True,
    tables: str = "",
) -> Swept:
    text = f"title = 't'\ncpu = {{ fsgsbase = {str(fsgsbase).lower()} }}\n[user]\nasm = '''{asm}'''\n{tables}"
    (result,) = sweep(
        [parse_scenario(text, "t.toml")], Options(events, depth, window, image=image), 1, Store(None), lambda *_: None
    )
    return result


def test_an_nmi_that_trusts_cs_in_the_gap_of_syscall():
    cheap = """    PUSH_AND_CLEAR_REGS
    SAVE_AND_SWITCH_TO_KERNEL_CR3 scratch=%rax, save=%r14
    testb   $3, PT_REGS_CS(%rsp)
    jz      .Lcheap_kernel
    swapgs
    movl    $1, %ebx
.Lcheap_kernel:
"""
    image = changed(("nmi.S", "    call    paranoid_entry\n", cheap), fsgsbase=False)
    result = swept(image, "nmi", fsgsbase=False, window=ENTRY)
    (finding,) = result.findings
    assert (finding.invariant, finding.place) == ("GS nesting", "entry_SYSCALL_64")
    assert finding.reproduced


def test_a_debug_trap_that_trusts_cs():
    """What MOV SS makes of a watchpoint (CVE-2018-8897): #DB before the first instruction of the entry."""
    image = changed(("idtentry.S", "    call    paranoid_entry\n    movq    %rsp, %rdi\n    .if \\has_error_code\n",
                     "    call    error_entry\n    movq    %rsp, %rdi\n    .if \\has_error_code\n"))  # fmt: skip
    result = swept(image, "db", window=ENTRY)
    assert {finding.invariant for finding in result.findings} & {"GS nesting", "page tables", "progress"}
    assert result.findings[0].place.startswith("entry_SYSCALL_64")
    assert result.findings[0].reproduced


def test_an_iret_fault_that_keeps_the_users_gs():
    known = """    leaq    native_irq_return_iret(%rip), %rcx
    cmpq    %rcx, PT_REGS_IP(%rsp)
    je      .Lerror_entry_bad_iret
"""
    tables = "[[inject]]\nevent = 'memory'\nat = 'do_syscall_64+0x4'\naddress = 'regs:ss'\nvalue = 0x33\n"
    assert swept(None, "nmi", tables=tables, window=ENTRY).clean
    result = swept(changed(("entry_64.S", known, "")), "nmi", tables=tables, window=ENTRY)
    assert result.broken, "the baseline itself shows it"


def test_sysretq_to_a_non_canonical_address():
    check = """    movq    %rcx, %rax
    shlq    $16, %rax
    sarq    $16, %rax
    cmpq    %rcx, %rax
    jne     swapgs_restore_regs_and_return_to_usermode
"""
    tables = "".join(
        f"[[inject]]\nevent = 'memory'\nat = 'do_syscall_64+0x4'\naddress = 'regs:{field}'\nvalue = 0x800000000000\n"
        for field in ("cx", "ip")
    )
    assert swept(None, "nmi", tables=tables, window=ENTRY).clean
    assert swept(changed(("entry_64.S", check, "")), "nmi", tables=tables, window=ENTRY).broken


def test_an_nmi_that_an_early_iretq_lets_in():
    image = changed(("nmi.S", "    je      nested_nmi\n", "    nop\n    nop\n"))
    result = swept(
        image,
        "nmi",
        depth=2,
        window="entry_SYSCALL_64..entry_SYSCALL_64",
        tables="[options]\nnmi_touches_memory = true\n",
    )
    assert result.findings[0].events.count("nmi") == 2
    assert result.findings[0].reproduced


def test_a_forged_nmi_in_progress():
    """User mode takes an RSP on the NMI stack along through SYSCALL: without the look at DF the NMI is lost."""
    top = cpu_entry_area(0) + CpuEntryArea.offset("nmi_stack") + 4096
    asm = GETPID.replace("_start:\n", f"_start:\n    movabsq ${top:#x}, %rsp\n")
    image = changed(("nmi.S", "    testq   $X86_EFLAGS_DF, NMI_ORIG_FLAGS(%rsp)\n    jz      first_nmi\n", ""))
    assert swept(None, "nmi", asm=asm, window=ENTRY).clean
    result = swept(image, "nmi", asm=asm, window=ENTRY)
    assert result.findings
    assert result.findings[0].place.startswith("entry_SYSCALL_64")


def test_the_sign_of_a_gs_base_that_user_mode_may_write():
    """The image of a CPU without FSGSBASE on one that has it."""
    asm = GETPID.replace("_start:\n", "_start:\n    movabsq $0xffff888000001000, %rax\n    wrgsbase %rax\n")
    sources = source_files("linux-6")
    edits = [(name, sources[name]) for name in ("paranoid.S", "calling.inc")]
    image = build_image(
        "linux-6", Profile(), tuple((name, text.replace(".if CONFIG_FSGSBASE", ".if 0")) for name, text in edits)
    )
    assert swept(None, "nmi", asm=asm, window=ENTRY).clean
    result = swept(image, "nmi", asm=asm, window=ENTRY)
    assert result.findings[0].invariant == "GS nesting"
    assert result.findings[0].place.startswith("entry_SYSCALL_64")


def test_a_missing_clac():
    asm = GETPID.replace("_start:\n", "_start:\n    pushfq\n    orq $0x40000, (%rsp)\n    popfq\n")
    image = changed(("calling.inc", "    clac\n", ""))
    assert swept(None, "timer", asm=asm, window="user:_start+0x9..user:_start+0xf").clean
    result = swept(image, "timer", asm=asm, window="user:_start+0x9..user:_start+0xf")
    assert result.broken or result.findings[0].invariant == "flags"


INT80 = """
_start:
    movabsq $0x1234567800000014, %rax
    int     $0x80
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
"""


def test_a_32_bit_number_that_is_not_extended():
    old = "    movl    %eax, %eax\n    pushq   %rax\n    pushq   %rdi\n"
    assert swept(None, "nmi", asm=INT80, window="entry_INT80_compat..entry_INT80_compat").clean
    image = changed(("entry_64_compat.S", old, "    pushq   %rax\n    pushq   %rdi\n"))
    result = swept(image, "nmi", asm=INT80, window="entry_INT80_compat..entry_INT80_compat")
    assert result.broken
    assert "orig_ax" in result.broken[0].message


@pytest.mark.parametrize("touches", [False, True])
def test_a_push_before_the_nmi_knows_whether_it_is_nested(touches):
    """One word more over `NMI executing`: it takes an NMI that nests."""
    old, test = "    pushq   %rdx\n", "    testb   $3, NMI_ORIG_CS(%rsp)\n"
    image = changed(("nmi.S", old + test, old + "    pushq   %rax\n    popq    %rax\n" + test))
    tables = f"[options]\nnmi_touches_memory = {str(touches).lower()}\n"
    result = swept(image, "nmi", depth=2, window="entry_SYSCALL_64..entry_SYSCALL_64", tables=tables)
    assert result.clean is not touches
