"""linux-2.6: the FPU's registers change hands when somebody wants them, not with the task."""

import pytest
from classic import EXIT, run

from emu.lab.run import run_scenario
from emu.lab.shipped import find_scenario
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files

LAZY = "classic-lazy-fpu"
YIELDS = """
    movl $24, %eax
    syscall
"""


def broken(name, old, new):
    text = source_files("linux-2.6")[name]
    assert old in text
    return build_image("linux-2.6", Profile(), ((name, text.replace(old, new, 1)),))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("fpu.S", "    orq     $X86_CR0_TS, %rax\n", ""),
        ("fpu.S", "    fxsave64 (%rdi)\n", ""),
        ("fpu.S", "    fxrstor64 (%rdi)\n", ""),
        ("fpu.S", "    clts\n", ""),
        ("boot.S", "    call    stts\n", ""),
    ],
    ids=["TS stays clear", "not saved", "not restored", "TS stays set", "TS clear from the start"],
)
def test_a_break_of_lazy_switching_is_noticed(name, old, new):
    (report,) = run_scenario(find_scenario(LAZY), broken(name, old, new))
    assert not report.passed


def test_each_task_has_six_nms_before_it_gets_its_registers_at_the_switch():
    (report,) = run_scenario(find_scenario(LAZY))
    assert report.passed
    # fork takes the registers away, so the parent's first use of them is of no turn.
    assert report.facts.calls.count("do_device_not_available") == 1 + 2 * 6


def test_a_task_that_does_not_use_the_fpu_has_no_nm():
    facts = run(f"_start: movl $57, %eax\n syscall\n {YIELDS}{YIELDS} xorl %edi, %edi\n {EXIT}")
    assert facts.exit_code == 0
    assert "do_device_not_available" not in facts.calls
    assert "__switch_to" in facts.calls


SIGNAL = f"""
_start:
    {{use}}
    movl $13, %eax              # rt_sigaction(SIGUSR1, ...)
    movl $10, %edi
    leaq action(%rip), %rsi
    xorl %edx, %edx
    movl $8, %r10d
    syscall
    movl $39, %eax
    syscall
    movl %eax, %edi
    movl $10, %esi
    movl $62, %eax              # kill(getpid(), SIGUSR1)
    syscall
    movq seen(%rip), %rdi
    {{check}}
    {EXIT}
handler:
    movq 224(%rdx), %rax        # uc_mcontext.fpregs
    testq %rax, %rax
    setnz seen(%rip)
    {{spoil}}
    ret
restorer:
    movl $15, %eax
    syscall
.section .data,"aw",@progbits
    .balign 8
action: .quad handler, 0x04000004, restorer, 0
seen: .quad 0
"""


def test_a_signal_frame_has_no_fpu_state_of_a_program_that_never_had_one():
    facts = run(SIGNAL.format(use="", spoil="", check=""))
    assert facts.exit_code == 0
    assert "do_device_not_available" not in facts.calls


def test_what_a_handler_does_to_a_state_that_the_program_never_had_is_forgotten():
    check = "movq %xmm0, %rax\n orq %rax, %rdi"
    facts = run(SIGNAL.format(use="", spoil="movq %rsp, %xmm0", check=check))
    assert facts.exit_code == 0
    assert facts.calls.count("do_device_not_available") == 2


def test_a_signal_frame_has_the_state_and_the_handler_begins_without_it():
    use = "movl $0x77, %eax\n movq %rax, %xmm0"
    spoil = "movq %xmm0, %rax\n addq %rax, seen(%rip)\n movq %rsp, %xmm0"
    check = "movq %xmm0, %rax\n subq $0x77, %rax\n orq %rax, %rdi"
    assert run(SIGNAL.format(use=use, spoil=spoil, check=check)).exit_code == 1


def test_nm_of_a_task_that_has_its_registers_is_the_kernels_mistake():
    (report,) = run_scenario(find_scenario(LAZY), broken("fpu.S", "    clts\n    fxrstor64 (%rdi)\n", "    nop\n"))
    assert report.facts.end == "crashed"
    assert "unexpected #NM" in report.facts.text
