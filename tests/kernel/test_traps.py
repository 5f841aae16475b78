"""Exceptions: the signal that Linux sends, and its siginfo; oopses in kernel mode."""

import subprocess

import pytest
from booted import in_user, start, user_image

from emu.arch import Msr, Vector
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from emu.machine.registers import RDI
from kernel_stubs.siginfo import (
    BUS_ADRALN,
    BUS_OBJERR,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_ACCERR,
    SEGV_CPERR,
    SEGV_MAPERR,
    SI_KERNEL,
    TRAP_BRKPT,
    TRAP_TRACE,
    Sig,
)

AT_FAULT = object()
"""The signal's address is that of the label `bad`."""

CASES = {
    "divide": ("xorl %ecx, %ecx\nbad: divl %ecx", Sig.SIGFPE, FPE_INTDIV, AT_FAULT, Vector.DE),
    "int3": ("bad: int3", Sig.SIGTRAP, SI_KERNEL, 0, Vector.BP),
    "overflow": ("bad: int $4", Sig.SIGSEGV, SI_KERNEL, 0, Vector.OF),
    "undefined": ("bad: ud2", Sig.SIGILL, ILL_ILLOPN, AT_FAULT, Vector.UD),
    "privileged": ("bad: hlt", Sig.SIGSEGV, SI_KERNEL, 0, Vector.GP),
    "int 0x81": ("bad: int $0x81", Sig.SIGSEGV, SI_KERNEL, 0, Vector.GP),
    "non-canonical": ("movabsq $1 << 63, %rax\nbad: movq (%rax), %rax", Sig.SIGSEGV, SI_KERNEL, 0, Vector.GP),
    "stack": ("movabsq $0x8000000000000000, %rsp\nbad: pushq %rax", Sig.SIGBUS, SI_KERNEL, 0, Vector.SS),
    "null": ("bad: movq 0, %rax", Sig.SIGSEGV, SEGV_MAPERR, 0, Vector.PF),
    "write to text": ("bad: movq %rax, _start(%rip)", Sig.SIGSEGV, SEGV_ACCERR, "_start", Vector.PF),
    "execute data": ("jmp value\nbad:\n.data\nvalue: nop", Sig.SIGSEGV, SEGV_ACCERR, "value", Vector.PF),
    "kernel address": (
        "movabsq $0xffffffff81000000, %rax\nbad: movq (%rax), %rax", Sig.SIGSEGV, SEGV_MAPERR, 0xFFFFFFFF81000000,
        Vector.PF,
    ),
    "jump to null": ("xorl %eax, %eax\nbad: jmp *%rax", Sig.SIGSEGV, SEGV_MAPERR, 0, Vector.PF),
    "x87 division": (
        "pushq $0x37b\nfldcw (%rsp)\nfld1\nfldz\nfdivrp\nbad: fwait", Sig.SIGFPE, FPE_FLTDIV, AT_FAULT, Vector.MF,
    ),
    "single step": ("pushfq\norl $0x100, (%rsp)\npopfq\nnop\nbad: nop", Sig.SIGTRAP, TRAP_TRACE, AT_FAULT, Vector.DB),
    "icebp": (".byte 0xf1\nbad: nop", Sig.SIGTRAP, TRAP_BRKPT, AT_FAULT, Vector.DB),
}  # fmt: skip


@pytest.mark.parametrize("smap", [True, False], ids=["smap", "no-smap"])
@pytest.mark.parametrize("name", CASES)
def test_user_exceptions_send_their_signal(name, smap):
    text, signal, code, address, vector = CASES[name]
    it = start(f"_start: {text}\n", profile=Profile(smap=smap))
    end = it.run()
    assert (end.kind, end.text) == (EndKind.FINISHED, f"killed by {signal.name}")
    task = it.cpu.current
    if address is AT_FAULT:
        address = "bad"
    if isinstance(address, str):
        address = it.program.symbols[address]
    assert (task.last_signal, task.last_si_code, task.last_si_addr) == (signal, code, address)
    assert task.trap_nr == vector
    assert task.exit_code == signal


@pytest.mark.parametrize("name", CASES)
def test_the_host_kills_the_same_program_the_same_way(name, tmp_path):
    text, signal, *_ = CASES[name]
    path = tmp_path / "prog"
    path.write_bytes(user_image(f"_start: {text}\n").to_elf())
    path.chmod(0o755)
    assert -subprocess.run([path], check=False).returncode == signal


INJECTED = {
    Vector.BR: (Sig.SIGSEGV, SI_KERNEL),
    Vector.OLD_MF: (Sig.SIGFPE, SI_KERNEL),
    Vector.TS: (Sig.SIGSEGV, SI_KERNEL),
    Vector.NP: (Sig.SIGBUS, SI_KERNEL),
    Vector.VE: (Sig.SIGSEGV, SI_KERNEL),
    Vector.AC: (Sig.SIGBUS, BUS_ADRALN),  # the engine checks no alignment
    Vector.CP: (Sig.SIGSEGV, SEGV_CPERR),
    Vector.VC: (Sig.SIGBUS, BUS_OBJERR),
}


@pytest.mark.parametrize("vector", INJECTED)
def test_exceptions_that_user_code_cannot_raise_here(vector):
    signal, code = INJECTED[vector]
    it = in_user()
    it.core.raise_exception(vector)
    assert it.run().text == f"killed by {signal.name}"
    assert it.cpu.current.last_si_code == code


@pytest.mark.parametrize(
    ("vector", "mxcsr", "code"), [(Vector.XF, 0x1D84, FPE_FLTDIV), (Vector.XF, 0x1F01, FPE_FLTINV)]
)
def test_the_fpu_says_which_exception_it_was(vector, mxcsr, code):
    it = in_user(f"_start: pushq ${mxcsr}\nldmxcsr (%rsp)\nwait: jmp wait").to("wait")
    it.core.raise_exception(vector)
    assert it.run().text == "killed by SIGFPE"
    assert it.cpu.current.last_si_code == code


@pytest.mark.parametrize("vector", [Vector.SPURIOUS, Vector.MC, Vector.MF, Vector.XF])
def test_harmless_ones_go_back(vector):
    it = in_user("_start: movl $60, %eax\nmovl $7, %edi\nsyscall")
    if vector == Vector.MC:
        it.core.raise_machine_check()
    else:
        it.core.raise_exception(vector)
    assert it.run().text == "exited with status 7"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0b101, "exited with status 7"),
        (0b111, "exited with status 7"),
        (0b110, "killed by SIGBUS"),
        (0b100, "Neither restart nor error IP"),
    ],
)
def test_a_machine_check_in_user_mode_ends_what_cannot_go_on(status, text):
    """IA32_MCG_STATUS: RIPV, EIPV, MCIP. MCIP is cleared, or the next machine check would be a shutdown."""
    it = in_user("_start: movl $60, %eax\nmovl $7, %edi\nsyscall")
    it.core.write_msr(Msr.MCG_STATUS, status)
    it.core.raise_machine_check()
    assert text in it.run().text
    assert it.core.msrs[Msr.MCG_STATUS] == (status if "IP" in text else 0)


@pytest.mark.parametrize(
    ("vector", "text"),
    [
        (Vector.DE, "divide error"),
        (Vector.UD, "invalid opcode"),
        (Vector.GP, "general protection fault"),
        (Vector.NM, "unexpected #NM"),
        (Vector.BP, "int3"),
        (Vector.SS, "stack segment"),
        (Vector.DF, "double fault"),
        (Vector.VC, "#VC"),
    ],
)
def test_kernel_exceptions_are_oopses(vector, text):
    it = in_user("_start: syscall").to("entry_SYSCALL_64_after_hwframe")
    it.core.raise_exception(vector)
    end = it.run()
    assert end.kind is EndKind.CRASHED
    assert text in end.text
    assert "\n" not in end.text


def test_the_exception_table_has_a_way_on():
    it = in_user("_start: movl $39, %eax\nsyscall").to("do_syscall_64")
    core, image = it.core, it.system.kernel.image
    core.cpu.set_register(RDI, 0x4000)  # no such selector
    core.cpu.ip = image.symbol("asm_load_gs_index")
    back = int.from_bytes(core.read_linear(core.cpu.sp, 8), "little")
    before = core.cpu.gs_base
    core.set_breakpoints({back})
    end = it.run()
    assert (end.kind, core.cpu.ip) == (EndKind.BREAKPOINT, back)
    assert core.cpu.gs_base == before


def test_a_bad_pointer_in_the_kernel_is_an_oops_with_linux_words():
    it = in_user("_start: syscall").to("entry_SYSCALL_64_after_hwframe")
    it.core.raise_exception(Vector.PF, 0, 0xFFFF_8881_2345_6789)
    end = it.run()
    assert end.kind is EndKind.CRASHED
    assert "unable to handle page fault for address: ffff888123456789" in end.text
    assert "entry_SYSCALL_64_after_hwframe" in end.text


def test_a_step_into_the_kernel_ends_there():
    it = in_user("_start: movl $60, %eax\nmovl $7, %edi\nsyscall").to("entry_SYSCALL_64_after_hwframe")
    it.core.raise_exception(Vector.DB)
    assert it.run().text == "exited with status 7"
    assert any("#DB in the kernel" in note for note in it.notes)


def test_the_stack_grows_to_its_limit_and_no_further():
    it = start("_start: movl $2000, %ecx\n1: subq $4096, %rsp\nmovq $1, (%rsp)\nloop 1b\nmovl $60, %eax\nsyscall")
    assert it.run().text == "exited with status 0"
    it = start("_start: movl $2100, %ecx\n1: subq $4096, %rsp\nmovq $1, (%rsp)\nloop 1b\nmovl $60, %eax\nsyscall")
    assert it.run().text == "killed by SIGSEGV"
    assert it.cpu.current.last_si_code == SEGV_MAPERR


def test_running_out_of_memory_kills_the_process():
    it = start("""
    _start: movl $2, %ebp
    2:  movl $9, %eax
        xorl %edi, %edi
        movl $0x180000, %esi
        movl $3, %edx
        movl $0x22, %r10d
        movl $-1, %r8d
        xorl %r9d, %r9d
        syscall
        movl $0x180, %ecx
    1:  movq $1, (%rax)
        addq $4096, %rax
        loop 1b
        jmp 2b
    """, ram_bytes=4 << 20)  # fmt: skip
    assert it.run().text == "killed by SIGKILL"
    assert any("Out of memory" in note for note in it.notes)


def test_a_refused_return_frame_becomes_the_users_fault():
    it = start().to("swapgs_restore_regs_and_return_to_usermode")
    top = it.cpu.percpu.top_of_stack
    it.core.write_linear(top - 40, (0x8000_0000_0000_0000).to_bytes(8, "little"))
    end = it.run()
    assert end.text == "killed by SIGSEGV"
    assert any("IRETQ to user mode failed" in note for note in it.notes)
