"""linux-2.6: the first program by way of a kernel thread (`init_thread`)."""

import pytest
from classic import EXIT, run, run_program

from asm import assemble_text
from emu.errors import Entry64Error, ScenarioError
from emu.lab.run import prepare
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import FOLDER
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image

# Writes its registers' OR and all of its stack from argc to the strings' end.
SHOW = f"""
_start:
    movq %rsp, %r15
    .irp register, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14
    orq %\\register, %rax
    .endr
    pushq %rax
    movl $1, %eax
    movl $1, %edi
    movq %rsp, %rsi
    movabsq $0x7ffffffff000, %rdx
    subq %rsp, %rdx
    syscall
    xorl %edi, %edi
    {EXIT}
"""
SUM = f"""
_start:
    movl $39, %eax
    syscall
    movl %eax, %edi
    addl (%rsp), %edi           # argc
    {EXIT}
"""
PATH = ("do_fork", "schedule_tail", "kernel_init", "sys_execve")


def from_kernel(facts):
    return [name for name in facts.calls if name in PATH]


def test_the_program_is_a_kernel_thread_first_and_has_pid_1():
    facts = run(SUM, init_thread=True, argv=(b"user", b"one"))
    assert facts.exit_code == 3
    assert from_kernel(facts) == list(PATH)


def test_the_program_begins_as_if_the_kernel_had_started_it_itself():
    options = {"argv": (b"user", b"", b"three"), "envp": (b"HOME=/",)}
    direct, thread = (run(SHOW, init_thread=by_thread, **options) for by_thread in (False, True))
    assert from_kernel(direct) == []
    assert b"three\0HOME=/\0/user\0" in direct.stream(1)
    assert thread.stream(1)[:8] == bytes(8)
    assert thread.stream(1) == direct.stream(1)


def test_other_cpus_are_started_by_process_1():
    facts = run(SUM.replace("_start:", "_start: movl $5000, %ecx\n loop ."), init_thread=True, cpus=2)
    assert facts.exit_code == 2
    assert facts.calls.count("start_kernel") == 2
    assert facts.calls.index("kernel_init") < len(facts.calls) - 1 - facts.calls[::-1].index("start_kernel")


@pytest.mark.parametrize(("texts", "why"), [(16, "error -12"), (30, "ENOMEM")])
def test_a_program_that_cannot_be_started_is_a_panic(texts, why):
    """Memory ends in execve, or before."""
    image = assemble_text(SUM, name="user.S", base=0x40_0000, entry="_start")
    argv = (b"user", *(b"x" * 60000 for _ in range(texts)))
    facts = run_program(program_from_image(image, "user"), init_thread=True, ram_bytes=2 << 20, argv=argv)
    assert facts.end == "crashed"
    assert "No init found" in facts.text
    assert why in facts.text


def test_linux_6_has_no_such_start():
    text = (FOLDER / "syscall-getpid.toml").read_text() + "\n[options]\ninit_thread = true\n"
    file = parse_scenario(text, "mine.toml")
    line = text.splitlines().index("init_thread = true") + 1
    with pytest.raises(ScenarioError, match=rf"mine\.toml:{line}: init_thread is for kernel = 'linux-2\.6'"):
        prepare(file)
    profile = Profile()
    program = program_from_image(assemble_text("nop", name="user.S", base=0x40_0000), "user")
    with pytest.raises(Entry64Error, match=r"only linux-2\.6 has kernel_execve"):
        boot(BootOptions(build_image("linux-6", profile), profile, program, (b"user",), init_thread=True))
