"""linux-2.6: helpers in user mode, which kernel threads become by kernel_execve."""

import pytest
from classic import EXIT, run

from asm import assemble_text
from emu.lab.run import run_scenario
from emu.lab.shipped import find_scenario
from emu.machine.profile import Profile
from kernel_stubs.abi import TaskStruct
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.context import Cpu, InputFile
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image, source_files
from kernel_stubs.kmod import MAX_KMOD_CONCURRENT
from kernel_stubs.mm import kernel_data
from kernel_stubs.sched import all_tasks

EXECUTE = f"""
_start:
    movl $59, %eax
    leaq strange(%rip), %rdi
    leaq none(%rip), %rsi
    leaq none(%rip), %rdx
    syscall
    leal 8(%rax), %edi          # ENOEXEC
    {EXIT}
strange: .asciz "/strange"
    .balign 8
none: .quad 0
"""
STRANGE = InputFile("strange", b"\x7f\1\2\3", 0o755)
TEXT = InputFile("strange", b"Hello", 0o755)


def files(*given):
    return {"files": given}


def threads(facts):
    return facts.calls.count("wait_for_helper")


def test_text_of_no_known_format_asks_for_no_module():
    facts = run(EXECUTE, **files(TEXT))
    assert facts.exit_code == 0
    assert "do_fork" not in facts.calls


def test_a_helper_that_asks_for_itself_is_stopped():
    facts = run(EXECUTE, **files(STRANGE, InputFile("sbin/modprobe", b"\x7f\5\6\7", 0o755)))
    assert facts.exit_code == 0
    assert threads(facts) == MAX_KMOD_CONCURRENT
    assert "request_module: runaway loop modprobe binfmt-0706" in facts.notes


def test_a_helper_that_may_not_be_executed_is_no_helper():
    facts = run(EXECUTE, **files(STRANGE, InputFile("sbin/modprobe", b"\x7f\5\6\7", 0o644)))
    assert (facts.exit_code, threads(facts)) == (0, 1)


def _booted_with_modprobe():
    program = program_from_image(assemble_text(EXECUTE, name="u.S", base=0x40_0000, entry="_start"), "user")
    modprobe = InputFile("sbin/modprobe", b"#!/user\n", 0o755)
    image = build_image("linux-2.6", Profile())
    return boot(BootOptions(image, Profile(), program, argv=(b"user",), files=(STRANGE, modprobe)))


def test_what_called_kernel_execve_is_forgotten_and_the_helper_is_a_process():
    """The script /sbin/modprobe has the program run again, which asks for a helper of its own, and so on: at the first
    instruction of the first of them in user mode all C functions on its stack are gone."""
    system = _booted_with_modprobe()
    kernel, core = system.kernel, system.machine.cores[0]
    core.set_breakpoints({kernel.image.symbol("kernel_execve")})
    core.advance(100_000)
    stack = kernel.view(TaskStruct, _current(system)).stack
    assert [running.name for running in _running_on(system, stack)] == ["____call_usermodehelper"]
    core.set_breakpoints({0x40_0000})
    core.advance(200_000)
    task = kernel.view(TaskStruct, _current(system))
    assert (task.stack, task.comm, task.kthread) == (stack, b"modprobe", 0)
    assert _running_on(system, stack) == []
    parent = kernel.view(TaskStruct, task.parent)
    assert (parent.kthread, parent.comm) == (1, b"khelper")


def _current(system):
    return Cpu(system.kernel, system.machine.cores[0]).percpu.current_task


def _running_on(system, stack):
    return [running for key, running in system.binding.running.items() if stack <= key[2] < stack + 0x4000]


def test_nothing_is_left_of_helpers():
    system = _booted_with_modprobe()
    data = kernel_data(system.machine.memory)
    core = system.machine.cores[0]
    core.set_breakpoints({system.kernel.image.symbol("kernel_execve")})
    core.advance(100_000)
    assert (data.kmod_concurrent, data.helper_queue) == (1, 0)
    core.set_breakpoints(set())
    assert core.advance(10_000_000).text == "exited with status 0"
    assert (data.kmod_concurrent, data.helper_queue) == (0, 0)
    assert sorted(task.comm for _, task in all_tasks(system.kernel)) == [b"khelper", b"user"]


@pytest.mark.parametrize(
    ("scenario", "old", "new"),
    [
        ("classic-kernel-execve", "    jz      int_ret_from_sys_call\n    RESTORE_ARGS\n", "    RESTORE_ARGS\n"),
        ("classic-kernel-execve", "    movq    %rsp, %rcx\n    call    sys_execve\n", "    call    sys_execve\n"),
        (
            "classic-kernel-execve",
            "    movq    %rax, PT_REGS_AX(%rsp)\n    RESTORE_REST\n    testq",
            "    movq    %rax, PT_REGS_AX(%rsp)\n    RESTORE_REST\n    movl $1, %ebx\n    testq",
        ),
        (
            "classic-kernel-execve-fails",
            "    RESTORE_ARGS\n    UNFAKE_STACK_FRAME\n    ret\n\n# void call_softirq",
            "    RESTORE_ARGS\n    ret\n\n# void call_softirq",
        ),
    ],
    ids=["no way to user mode", "no frame", "a register changes", "the frame stays"],
)
def test_a_break_of_kernel_execve_is_noticed(scenario, old, new):
    text = source_files("linux-2.6")["process.S"]
    assert old in text
    image = build_image("linux-2.6", Profile(), (("process.S", text.replace(old, new, 1)),))
    (report,) = run_scenario(find_scenario(scenario), image)
    assert not report.passed
