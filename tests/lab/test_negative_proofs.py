"""The checks can fail: the entry code is broken on purpose, and the invariants name the instruction.

Each break is a change of the real sources; the same scenario passes on the unbroken image.
"""

import pytest
from lab_runs import FORK_AND_WAIT

from emu.lab.run import prepare, run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.machine.profile import Profile
from kernel_stubs import entry_common
from kernel_stubs.abi import Tif
from kernel_stubs.kernel_image import build_image, source_files

SYSCALL = """
title = "t"
cpu = {{ fsgsbase = {fsgsbase} }}
[user]
asm = '''
start:
    movl    $SYS_getpid, %eax
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
[[inject]]
{inject}
"""
GAP = 'event = "nmi"\nat = "entry_SYSCALL_64"'
IN_C = 'event = "irq"\nvector = 0x30\nat = "do_syscall_64+0x3"'


def broken(name: str, old: str, new: str, *, fsgsbase: bool):
    """The image with one place of one source changed; the text must stand there exactly once."""
    source = source_files("linux-6")[name]
    assert source.count(old) == 1, f"{name}: {old!r} stands there {source.count(old)} times"
    return build_image("linux-6", Profile(fsgsbase=fsgsbase), ((name, source.replace(old, new)),))


def violations(image, inject: str, *, fsgsbase: bool):
    file = parse_scenario(SYSCALL.format(fsgsbase=str(fsgsbase).lower(), inject=inject), "t.toml")
    (report,) = run_scenario(file, image)
    return report.facts.violations


@pytest.mark.parametrize("fsgsbase", [False, True])
@pytest.mark.parametrize("inject", [GAP, IN_C])
def test_the_unbroken_image_is_clean(inject, fsgsbase):
    image = build_image("linux-6", Profile(fsgsbase=fsgsbase))
    assert violations(image, inject, fsgsbase=fsgsbase) == ()


def test_without_the_swapgs_of_paranoid_entry_the_nmi_handler_is_called_on_the_users_gs():
    image = broken("paranoid.S", "    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n", fsgsbase=False)
    first, *_ = violations(image, GAP, fsgsbase=False)
    assert first.invariant == "GS nesting"
    assert first.where.startswith("end_repeat_nmi+")
    assert "(nmi.S:" in first.where
    call = image.instruction_at(first.ip)
    assert (call.mnemonic, call.operands) == ("callq", hex(image.symbol("exc_nmi")))
    assert "exc_nmi" in first.message
    assert "user's base" in first.message
    assert any(line.startswith("NMI at entry_SYSCALL_64") for line in first.chain)


def test_a_swapgs_too_many_on_error_entrys_kernel_path_is_named():
    image = broken(
        "entry_64.S",
        ".Lerror_entry_from_kernel:\n",
        ".Lerror_entry_from_kernel:\n    swapgs\n",
        fsgsbase=True,
    )
    first, *_ = violations(image, IN_C, fsgsbase=True)
    assert first.invariant == "GS nesting"
    assert first.where.startswith("error_entry+")
    assert image.instruction_at(first.ip).mnemonic == "swapgs"
    assert "interrupted the kernel after its SWAPGS" in first.message


CHEAP_TEST = """    PUSH_AND_CLEAR_REGS
    SAVE_AND_SWITCH_TO_KERNEL_CR3 scratch=%rax, save=%r14
    testb   $3, PT_REGS_CS(%rsp)
    jz      .Lcheap_kernel
    swapgs
    movl    $1, %ebx
.Lcheap_kernel:
"""


def test_an_nmi_entry_that_trusts_the_saved_cs_fails_in_the_syscall_gap():
    image = broken("nmi.S", "    call    paranoid_entry\n", CHEAP_TEST, fsgsbase=False)
    first, *_ = violations(image, GAP, fsgsbase=False)
    assert first.invariant == "GS nesting"
    assert image.instruction_at(first.ip).operands == hex(image.symbol("exc_nmi"))
    assert "(nmi.S:" in first.where
    # Where CS tells the truth, the cheap test is good enough.
    inside = 'event = "nmi"\nat = "entry_SYSCALL_64_after_hwframe"'
    assert violations(image, inside, fsgsbase=False) == ()


def test_an_nmi_without_its_ist_stack_lands_on_the_users_stack():
    image = broken("data.S", "GATE X86_TRAP_NMI, asm_exc_nmi, IST_NMI", "GATE X86_TRAP_NMI, asm_exc_nmi", fsgsbase=True)
    found = violations(image, GAP, fsgsbase=True)
    assert found, "an NMI frame on the user's stack went unnoticed"


def test_a_missing_cr3_switch_ends_the_first_system_call():
    image = broken(
        "entry_64.S",
        "    movq    %rsp, %gs:PERCPU_TSS_SP2\n    SWITCH_TO_KERNEL_CR3 scratch=%rsp\n",
        "    movq    %rsp, %gs:PERCPU_TSS_SP2\n",
        fsgsbase=True,
    )
    found = violations(image, 'event = "nmi"\nat = "user:start"', fsgsbase=True)
    assert found
    assert any("entry_SYSCALL_64" in text for violation in found for text in (violation.where, *violation.chain))


SWITCH = f"""
title = "two tasks"
kernel = "{{kernel}}"
[user]
asm = '''
{FORK_AND_WAIT}child:
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""


@pytest.mark.parametrize(
    ("kernel", "source", "function"),
    [("linux-6", "switch_to.S", "__switch_to_asm"), ("linux-2.6", "process.S", "switch_to")],
)
def test_a_task_that_comes_back_without_its_registers_is_named(kernel, source, function):
    text = source_files(kernel)[source]
    right, wrong = "    pushq   %rbx\n    pushq   %r12\n", "    pushq   %r12\n    pushq   %rbx\n"
    assert text.count(right) == 1
    file = parse_scenario(SWITCH.format(kernel=kernel), "t.toml")
    assert run_scenario(file)[0].facts.violations == ()
    image = build_image(kernel, Profile(), ((source, text.replace(right, wrong)),))
    first = run_scenario(file, image)[0].facts.violations[0]
    assert (first.invariant, first.ip) == ("C interface", image.symbol(function))
    assert f"{function} returns to C function" in first.message
    assert "RBX is" in first.message
    assert "R12 is" in first.message
    assert "R13 is" not in first.message


def test_a_reproducer_command_reproduces_the_violation():
    image = broken("paranoid.S", "    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n", fsgsbase=False)
    first, *_ = violations(image, GAP, fsgsbase=False)
    assert first.reproduce.startswith("entry64 run ")
    text = SYSCALL.format(fsgsbase="false", inject=GAP)
    again = run_scenario(parse_scenario(text, "t.toml"), image)[0].facts.violations[0]
    assert again == first


def test_prepare_takes_the_image_it_is_given():
    image = broken("data.S", "GATE 0, 0", "GATE 0, 0", fsgsbase=True)
    file = parse_scenario(SYSCALL.format(fsgsbase="true", inject=GAP), "t.toml")
    assert prepare(file, image).options.image is image


@pytest.mark.parametrize("flag", ["NOTIFY_SIGNAL", "NOTIFY_RESUME", "UPROBE", "PATCH_PENDING"])
def test_a_last_step_that_forgets_a_flag_leaves_work(monkeypatch, flag):
    forgetful = entry_common.EXIT_TO_USER_MODE_WORK & ~int(Tif[flag])
    monkeypatch.setattr(entry_common, "EXIT_TO_USER_MODE_WORK", forgetful)
    (report,) = run_scenario(find_scenario("exit-work"))
    first = report.violations[0]
    assert first.invariant == "work"
    assert first.message.endswith(f"to user mode with work left: {flag}")
