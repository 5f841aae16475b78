# Kernel image "linux-2.6": the entry code of x86-64 Linux up to 2.6.28, with the per-CPU PDA at %gs:0.
#
# A reading order: calling.inc (frames), entry_64.S (system calls, both ways out), irq.S (interrupts, and the common way
# out to user mode), traps.S (exceptions), paranoid.S (what may hit between a SWAPGS and the next instruction), ptregs.S
# (system calls that want the whole frame), process.S, ia32entry.S, then boot.S and data.S.
#
# How it differs from linux-6: assembly decides (flags of thread_info, system-call tables), enables interrupts itself
# and saves no more registers than it has to; each return path checks for work on its own; no page-table isolation, no
# trampoline stack: TSS.sp0 is the end of the task stack.  The CPU must run without CR4.SMEP, SMAP and FSGSBASE.
#
# Holes that it had, and has here:
#   - NMI: an IRETQ inside the handler (a page fault, a breakpoint) unblocks NMIs; the next one overwrites the frame.
#   - #DB and #BP move their IST stack down while C runs, so that they nest once; a second level, or one before the
#     move, overwrites a frame.  #MC has no such care.
#   - SYSCALL keeps NT (IRETQ then faults) and AC; SYSENTER and INT 0x80 keep both too, SYSENTER even TF.
#   - Returns to 16-bit stacks show bits 31:16 of the kernel's RSP: no espfix.
#   - The 32-bit entries do not save R8 to R11: SYSEXIT and SYSRETL leave the kernel's there, IRETQ what the stack had.
#
# C functions that the assembly calls.  "partial" is a pt_regs whose words below R11 are not written.  IF is what it is
# at the call; C returns with the same, unless noted.
#   void start_kernel(CpuBoot *)                                        IF=0, on the first task's stack
#   long sys_*(up to six arguments)                                     IF=1; by the tables; long sys_ni_syscall(void)
#   long syscall_trace_enter(regs)                                      IF=1; -> the number to call, or -1
#   void syscall_trace_leave(regs)                                      IF=1
#   void schedule(void)                                                 IF=1
#   void do_notify_resume(regs, void *unused, u32 thread_info_flags)    IF=1; whole regs
#   void preempt_schedule_irq(void)                                     IF=0
#   unsigned do_IRQ(partial regs)                                       IF=0; vector = ~regs->orig_ax, on the IRQ stack
#   void smp_apic_timer_interrupt, smp_error_interrupt, smp_spurious_interrupt, smp_reschedule_interrupt,
#        smp_call_function_interrupt, smp_call_function_single_interrupt, smp_invalidate_interrupt,
#        smp_thermal_interrupt, mce_threshold_interrupt(partial regs)   as do_IRQ
#   void do_*(regs, long error_code)                                    IF=0; exceptions; may return with IF=1
#   void do_nmi, do_machine_check, do_debug, do_int3, do_double_fault, do_stack_segment(regs, long error_code)
#                                                                       IF=0; on their IST stacks
#   pt_regs *sync_regs(regs)                                            IF=0; moves them from an IST to the task stack
#   void __do_softirq(void)                                             IF=0; on the IRQ stack
#   task *__switch_to(prev, next)                                       IF=0; on next's stack; returns prev
#   void schedule_tail(prev)                                            IF as kernel_eflags says
#   long do_fork(flags, stack_start, regs, stack_size, int *parent_tid, int *child_tid)
#   void do_exit(long code)                                             does not return
#   long sys_execve(name, argv, envp, regs), sys_clone(flags, sp, parent_tid, child_tid, regs), sys_fork(regs),
#        sys_vfork(regs), sys_sigaltstack(new, old, regs), sys_iopl(level, regs), sys_rt_sigreturn(regs)
#   long sys32_execve(name, argv, envp, regs), sys32_clone(flags, sp, regs), sys32_sigaltstack(new, old, regs),
#        sys32_sigreturn(regs), sys32_rt_sigreturn(regs)
# Exceptions in kernel mode look for their RIP between __start___ex_table and __stop___ex_table first.

.include "calling.inc"

# The order of the sections; those with different rights share no page.
.section .text,"ax",@progbits
    .balign 4096
.section .text.c_stubs,"ax",@progbits
    .balign 4096
.section .rodata,"a",@progbits
    .balign 4096
.section __ex_table,"a",@progbits
    .balign 8
.globl __start___ex_table
__start___ex_table:

.section .text,"ax",@progbits
.globl __entry_text_start
__entry_text_start:
.include "entry_64.S"
.include "irq.S"
.include "traps.S"
.include "paranoid.S"
.include "ptregs.S"
.include "ia32entry.S"
.include "process.S"
.include "fpu.S"
.include "debugreg.S"
.globl __entry_text_end
__entry_text_end:
.include "boot.S"
.include "c_stubs.S"
.include "data.S"
