"""#DB and #BP (arch/x86/kernel/traps.c, hw_breakpoint.c)."""

from __future__ import annotations

from emu.arch import Rflags, Vector
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import cond_local_irq_enable, irqentry_exit, irqentry_nmi_enter, irqentry_nmi_exit
from kernel_stubs.hw_breakpoint import DR6_RESERVED, DR_STEP, DR_TRAP_BITS, triggered
from kernel_stubs.signal import SI_KERNEL, TRAP_BRKPT, TRAP_HWBKPT, TRAP_TRACE, Sig, force_sig
from kernel_stubs.text_poke import poke_int3_handler
from kernel_stubs.traps import do_trap


def debug_read_reset_dr6(cpu: Cpu) -> int:
    """What DR6 reports, with 1 for yes; the CPU never clears it, so we do."""
    engine = cpu.core.cpu
    dr6 = int(engine.state.dr[6])
    engine.state.dr[6] = DR6_RESERVED
    engine.mark_dirty()
    return (dr6 ^ DR6_RESERVED) & 0xFFFF_FFFF


@c_function
def exc_debug_user(cpu: Cpu, regs: PtRegs) -> Steps:
    """#DB from user mode, on the task stack: single step, breakpoint, watchpoint, or ICEBP if DR6 has nothing."""
    dr6 = debug_read_reset_dr6(cpu)
    task = cpu.current
    task.trap_nr, task.error_code = Vector.DB, 0
    triggered(task, regs, dr6)
    yield from cond_local_irq_enable(regs)
    if dr6 & (DR_STEP | DR_TRAP_BITS) or not dr6:
        code = TRAP_TRACE if dr6 & DR_STEP else TRAP_HWBKPT if dr6 & DR_TRAP_BITS else TRAP_BRKPT
        force_sig(cpu, Sig.SIGTRAP, code, regs.ip)
    yield from irqentry_exit(cpu, regs)
    return None


def _is_sysenter_singlestep(cpu: Cpu, regs: PtRegs) -> bool:
    """SYSENTER keeps TF, so its first instructions trap; the entry saves and clears it itself, for the user's sake."""
    symbols = cpu.kernel.image.symbols
    first, end = (symbols.get(f"__{edge}_SYSENTER_singlestep_region", 0) for edge in ("begin", "end"))
    return first <= regs.ip < end


@c_function
def exc_debug(cpu: Cpu, regs: PtRegs) -> None:
    """#DB from kernel mode, on its IST stack. A step that user mode began must not go on in the kernel."""
    irqentry_nmi_enter(cpu)
    dr6 = debug_read_reset_dr6(cpu)
    if dr6 & DR_STEP and not _is_sysenter_singlestep(cpu, regs):
        regs.flags &= ~Rflags.TF
    cpu.note(f"#DB in the kernel at {cpu.kernel.image.symbolize(regs.ip)}, DR6 {dr6:#x}")
    irqentry_nmi_exit(cpu)


@c_function
def exc_int3(cpu: Cpu, regs: PtRegs) -> Steps:
    """#BP, vector 3: of user mode's, or where kernel code is being patched."""
    if not regs.user_mode and poke_int3_handler(cpu, regs):
        return None
    return (yield from do_trap(cpu, regs, Vector.BP, Sig.SIGTRAP, "int3", 0, SI_KERNEL, 0))
