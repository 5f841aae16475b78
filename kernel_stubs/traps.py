"""Exceptions: from user mode a signal, from kernel mode an oops (arch/x86/kernel/traps.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE, Cr0, Vector, is_canonical
from kernel_stubs.abi import THREAD_SIZE, PtRegs
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.entry_common import cond_local_irq_enable, irqentry_exit
from kernel_stubs.espfix import is_espfix
from kernel_stubs.extable import fixup_exception
from kernel_stubs.fpu import exception_code, save_user_fpu, saved_fpu
from kernel_stubs.oops import die
from kernel_stubs.signal import (
    BUS_ADRALN,
    BUS_OBJERR,
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_CPERR,
    SI_KERNEL,
    Sig,
    force_sig,
)


def describe(cpu: Cpu, regs: PtRegs, text: str, error_code: int = 0) -> str:
    """Linux's words for an exception in kernel mode, on one line."""
    return f"{text}: {error_code & 0xFFFF:04x}, RIP {cpu.kernel.image.symbolize(regs.ip)}"


def do_trap(
    cpu: Cpu, regs: PtRegs, vector: int, signal: int, text: str, error_code: int = 0, code: int = SI_KERNEL,
    address: int = 0,
) -> Steps:  # fmt: skip
    """The whole life of an exception that ends in a signal."""
    if not regs.user_mode:
        if fixup_exception(cpu, regs):
            return None
        raise die(cpu, describe(cpu, regs, text, error_code))
    task = cpu.current
    task.trap_nr, task.error_code = vector, error_code
    yield from cond_local_irq_enable(regs)
    force_sig(cpu, signal, code, address)
    yield from irqentry_exit(cpu, regs)
    return None


@c_function
def exc_divide_error(cpu: Cpu, regs: PtRegs) -> Steps:
    """#DE, vector 0."""
    return (yield from do_trap(cpu, regs, Vector.DE, Sig.SIGFPE, "divide error", 0, FPE_INTDIV, regs.ip))


@c_function
def exc_overflow(cpu: Cpu, regs: PtRegs) -> Steps:
    """#OF, vector 4."""
    return (yield from do_trap(cpu, regs, Vector.OF, Sig.SIGSEGV, "overflow"))


@c_function
def exc_bounds(cpu: Cpu, regs: PtRegs) -> Steps:
    """#BR, vector 5."""
    return (yield from do_trap(cpu, regs, Vector.BR, Sig.SIGSEGV, "bounds"))


@c_function
def exc_invalid_op(cpu: Cpu, regs: PtRegs) -> Steps:
    """#UD, vector 6."""
    return (yield from do_trap(cpu, regs, Vector.UD, Sig.SIGILL, "invalid opcode", 0, ILL_ILLOPN, regs.ip))


@c_function
def exc_device_not_available(cpu: Cpu, regs: PtRegs) -> Steps:
    """#NM, vector 7. FPU state is switched eagerly, so CR0.TS should never be set: clear it, and let the code go on."""
    cr0 = cpu.core.cpu.cr0
    if not cr0 & Cr0.TS:
        raise die(cpu, describe(cpu, regs, "unexpected #NM exception"))
    cpu.note("unexpected #NM exception: CR0.TS was set")
    cpu.core.cpu.set_control(cr0=cr0 & ~Cr0.TS)
    yield from irqentry_exit(cpu, regs)
    return None


@c_function
def exc_coproc_segment_overrun(cpu: Cpu, regs: PtRegs) -> Steps:
    """Vector 9, which no CPU since the 386 raises."""
    return (yield from do_trap(cpu, regs, Vector.OLD_MF, Sig.SIGFPE, "coprocessor segment overrun"))


@c_function
def exc_invalid_tss(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#TS, vector 10."""
    return (yield from do_trap(cpu, regs, Vector.TS, Sig.SIGSEGV, "invalid TSS", error_code))


@c_function
def exc_segment_not_present(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#NP, vector 11."""
    return (yield from do_trap(cpu, regs, Vector.NP, Sig.SIGBUS, "segment not present", error_code))


@c_function
def exc_stack_segment(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#SS, vector 12."""
    return (yield from do_trap(cpu, regs, Vector.SS, Sig.SIGBUS, "stack segment", error_code))


@c_function
def exc_general_protection(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#GP, vector 13."""
    return (yield from do_trap(cpu, regs, Vector.GP, Sig.SIGSEGV, "general protection fault", error_code))


@c_function
def exc_spurious_interrupt_bug(cpu: Cpu, regs: PtRegs) -> Steps:
    """Vector 15, reserved: nothing raises it."""
    cpu.percpu.spurious_count += 1
    cpu.note("vector 15 should never come")
    yield from irqentry_exit(cpu, regs)
    return None


def math_error(cpu: Cpu, regs: PtRegs, vector: int, text: str) -> Steps:
    """#MF and #XF: the FPU says which exception it was. If none is left, the instruction is tried again."""
    if not regs.user_mode:
        if fixup_exception(cpu, regs):
            return None
        raise die(cpu, describe(cpu, regs, text))
    yield from cond_local_irq_enable(regs)
    task = cpu.current
    task.trap_nr, task.error_code = vector, 0
    yield from save_user_fpu(cpu)
    code = exception_code(saved_fpu(cpu), simd=vector == Vector.XF)
    if code:
        force_sig(cpu, Sig.SIGFPE, code, regs.ip)
    yield from irqentry_exit(cpu, regs)
    return None


@c_function
def exc_coprocessor_error(cpu: Cpu, regs: PtRegs) -> Steps:
    """#MF, vector 16."""
    return (yield from math_error(cpu, regs, Vector.MF, "fpu exception"))


@c_function
def exc_alignment_check(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#AC, vector 17."""
    return (yield from do_trap(cpu, regs, Vector.AC, Sig.SIGBUS, "alignment check", error_code, BUS_ADRALN))


@c_function
def exc_simd_coprocessor_error(cpu: Cpu, regs: PtRegs) -> Steps:
    """#XF, vector 19."""
    return (yield from math_error(cpu, regs, Vector.XF, "simd exception"))


@c_function
def exc_virtualization_exception(cpu: Cpu, regs: PtRegs) -> Steps:
    """#VE, vector 20: we are no guest that can have one."""
    return (yield from do_trap(cpu, regs, Vector.VE, Sig.SIGSEGV, "VE fault"))


@c_function
def exc_control_protection(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#CP, vector 21."""
    return (yield from do_trap(cpu, regs, Vector.CP, Sig.SIGSEGV, "control protection fault", error_code, SEGV_CPERR))


@c_function
def user_exc_vmm_communication(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#VC from user mode: no hypervisor to talk to."""
    return (yield from do_trap(cpu, regs, Vector.VC, Sig.SIGBUS, "VMM communication", error_code, BUS_OBJERR))


@c_function
def kernel_exc_vmm_communication(cpu: Cpu, regs: PtRegs, error_code: int) -> None:
    """#VC from kernel mode."""
    raise KernelOops(f"PANIC: unhandled #VC exception in kernel space (error code {error_code:#x})")


def _espfix_repair(cpu: Cpu, regs: PtRegs) -> bool:
    """The return to user mode failed on a stack where nothing can be pushed: raise the #GP that user mode is to have.

    That entry finds the frame on the trampoline stack, and the GS and CR3 that the IRETQ had: the user's.
    """
    iret = cpu.kernel.image.symbols.get("native_irq_return_iret")
    if regs.user_mode or regs.ip != iret or not is_espfix(regs.sp):
        return False
    at = cpu.percpu.tss.sp0 - (PtRegs.SIZE - PtRegs.offset("orig_ax"))
    frame = cpu.core.read_linear(regs.sp, PtRegs.SIZE - PtRegs.offset("ip"))
    cpu.core.write_linear(at, bytes(8) + frame)
    regs.ip, regs.sp = cpu.kernel.image.symbol("asm_exc_general_protection"), at
    cpu.note("IRETQ failed on the espfix stack: the exception is made the user's #GP")
    return True


@c_function
def exc_double_fault(cpu: Cpu, regs: PtRegs, error_code: int, address: int) -> None:
    """#DF, vector 8, on its IST stack; `address` is CR2. There is no way back, but for a refused IRETQ of espfix64."""
    if _espfix_repair(cpu, regs):
        return
    where = f"RIP {cpu.kernel.image.symbolize(regs.ip)}"
    top = cpu.percpu.top_of_stack
    guard = top - THREAD_SIZE - PAGE_SIZE
    if guard <= address < guard + PAGE_SIZE:
        raise KernelOops(
            f"BUG: TASK stack guard page was hit at {address:016x} "
            f"(stack is {top - THREAD_SIZE:016x}..{top - 1:016x}), {where}"
        )
    canonical = "" if is_canonical(regs.sp) else " (non-canonical)"
    raise KernelOops(
        f"PANIC: double fault, error_code: {error_code:#x}, {where}, RSP {regs.sp:#x}{canonical}, CR2 {address:#x}"
    )


@c_function
def fixup_bad_iret(cpu: Cpu, bad_regs: int) -> int:
    """The IRETQ to user mode faulted: make it look as if the exception had come one instruction later, in user mode.

    `bad_regs` is the pt_regs of that exception, on the trampoline stack; its RSP is at the frame that IRETQ refused.
    Returns the address of the new pt_regs, at the end of the task stack.
    """
    bad = cpu.view(PtRegs, bad_regs)
    tail = PtRegs.SIZE - PtRegs.offset("ip")
    general = cpu.core.read_linear(bad_regs, PtRegs.SIZE - tail)
    refused = cpu.core.read_linear(bad.sp, tail)
    new = cpu.percpu.top_of_stack - PtRegs.SIZE
    cpu.core.write_linear(new, general + refused)
    if not cpu.view(PtRegs, new).user_mode:
        raise KernelOops(f"kernel BUG: fixup_bad_iret with a frame that returns to CS {cpu.view(PtRegs, new).cs:#x}")
    cpu.note("IRETQ to user mode failed: the exception is made the user's")
    return new
