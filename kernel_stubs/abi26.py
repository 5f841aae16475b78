"""What `linux-2.6` has otherwise than `linux-6`: the PDA, thread_info on the stack, flags, vectors, IST stacks, tables.

The image is that of 2.6.28, the last whose entry code was made of `errorentry`, `paranoidentry` and the PDA. pt_regs,
the TSS, CpuBoot and idt_source are those of `kernel_stubs.abi`; so is PerCpu, as the per-CPU data area.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from asm import Image
from emu.arch import INT80_VECTOR, KERNEL_SYMBOLS, PAGE_SIZE, Cr0, Rflags
from kernel_stubs import abi
from kernel_stubs.layout import S32, U32, U64, Struct, constants, layout

LINUX_26 = "linux-2.6"
"""The image's name."""


def is_linux26(image: Image) -> bool:
    """Whether an image is this kernel, under whatever name: it finds its per-CPU data by the PDA."""
    return "_cpu_pda" in image.symbols


EXCEPTION_STKSZ = PAGE_SIZE
"""How far the IST entry of the debug stack moves down while it is in use; that stack holds two of these."""
TS_USEDFPU = 1
"""thread_info.status: the FPU's registers are this task's. TS_COMPAT is that of linux-6."""
PDA_STACKOFFSET = 40
"""pda.kernelstack is this far below the end of the task stack: SYSCALL pushes no frame, but gets the room for one."""
SYSCALL_MASK_VALUE = int(Rflags.TF | Rflags.DF | Rflags.IF | Rflags.IOPL)
"""RFLAGS bits that SYSCALL clears. NT and AC are not among them: user mode brings them along into the kernel."""


# --- per CPU --------------------------------------------------------------------------------------------------------
@layout()
class X8664Pda(Struct):
    """`struct x8664_pda`, at GS_BASE while the kernel runs (arch: include/asm-x86/pda.h)."""

    pcurrent: U64
    """The current task."""
    data_offset: U64
    """Linear address of this CPU's data area, an abi.PerCpu."""
    kernelstack: U64
    """End of the current task's stack, less PDA_STACKOFFSET."""
    oldrsp: U64
    """RSP of user mode, from SYSCALL to SYSRET. __switch_to keeps it for each task."""
    irqcount: S32
    """-1, and one more for each interrupt or softirq under way: 0 is the first, which goes to the IRQ stack."""
    cpunumber: U32
    irqstackptr: U64
    """Where the IRQ stack begins, 64 bytes below its end."""
    nodenumber: U32
    softirq_pending: U32
    nmi_count: U32
    pad0: U32


@layout()
class ThreadInfo26(Struct):
    """`struct thread_info`, at the lowest address of the task stack."""

    task: U64
    exec_domain: U64
    flags: U32
    status: U32
    cpu: U32
    preempt_count: S32
    """0: the kernel may be preempted. Interrupts do not count; do_IRQ counts HARDIRQ_OFFSET itself."""
    addr_limit: U64
    """KERNEL_DS while system calls may get pointers into the kernel, else USER_DS."""
    sysenter_return: U64
    """Where SYSEXIT returns: the vDSO's landing pad."""
    usersp: U64
    """pda.oldrsp while the task does not run."""


KERNEL_DS, USER_DS = 0xFFFF_FFFF_FFFF_FFFF, abi.TASK_SIZE_MAX
"""Of thread_info.addr_limit; not the selectors."""


class Tif26(IntEnum):
    """Bit numbers of thread_info.flags."""

    SYSCALL_TRACE = 0
    NOTIFY_RESUME = 1
    SIGPENDING = 2
    NEED_RESCHED = 3
    SINGLESTEP = 4
    SYSCALL_AUDIT = 7
    SECCOMP = 8
    MCE_NOTIFY = 10
    IA32 = 17
    FORK = 18


_SYSCALL_WORK = 1 << Tif26.SYSCALL_TRACE | 1 << Tif26.SYSCALL_AUDIT
TIF_WORK_SYSCALL_ENTRY = _SYSCALL_WORK | 1 << Tif26.SECCOMP | 1 << Tif26.SINGLESTEP
"""What makes a system call go by `tracesys`."""
TIF_WORK_SYSCALL_EXIT = _SYSCALL_WORK | 1 << Tif26.SINGLESTEP
TIF_ALLWORK_MASK = 0xFFFF & ~(1 << Tif26.SECCOMP)
"""Work before a system call returns."""
TIF_WORK_MASK = TIF_ALLWORK_MASK & ~TIF_WORK_SYSCALL_EXIT
"""Work before any return to user mode."""
TIF_DO_NOTIFY_MASK = 1 << Tif26.SIGPENDING | 1 << Tif26.MCE_NOTIFY | 1 << Tif26.NOTIFY_RESUME
"""That part of it which do_notify_resume does."""
CLONE_VM, CLONE_UNTRACED = 0x100, 0x80_0000


class Ist26(IntEnum):
    """IST index of a gate."""

    STACKFAULT = 1
    DOUBLEFAULT = 2
    NMI = 3
    DEBUG = 4
    MCE = 5


class Vector26(IntEnum):
    """Vectors of the local APIC (include/asm-x86/irq_vectors.h)."""

    LOCAL_TIMER = 0xEF
    INVALIDATE_TLB_START = 0xF0
    THRESHOLD_APIC = 0xF9
    THERMAL_APIC = 0xFA
    CALL_FUNCTION_SINGLE = 0xFB
    CALL_FUNCTION = 0xFC
    RESCHEDULE = 0xFD
    ERROR_APIC = 0xFE
    SPURIOUS_APIC = 0xFF


NUM_INVALIDATE_TLB_VECTORS = 8

# --- C functions and system calls -----------------------------------------------------------------------------------
C_FUNCTIONS = (
    "____call_usermodehelper",
    "__do_softirq", "__switch_to", "do_IRQ", "do_alignment_check", "do_bounds", "do_coprocessor_error",
    "do_coprocessor_segment_overrun", "do_debug", "do_device_not_available", "do_divide_error", "do_double_fault",
    "do_exit", "do_fork", "do_general_protection", "do_int3", "do_invalid_TSS", "do_invalid_op", "do_machine_check",
    "do_nmi", "do_notify_resume", "do_overflow", "do_page_fault", "do_segment_not_present",
    "do_simd_coprocessor_error", "do_spurious_interrupt_bug", "do_stack_segment", "kernel_init", "khelper", "ksoftirqd",
    "mce_threshold_interrupt", "preempt_schedule_irq", "schedule", "schedule_tail", "smp_apic_timer_interrupt",
    "smp_call_function_interrupt", "smp_call_function_single_interrupt", "smp_error_interrupt",
    "smp_invalidate_interrupt", "smp_reschedule_interrupt", "smp_spurious_interrupt", "smp_thermal_interrupt",
    "start_kernel", "sync_regs", "sys_clone", "sys_execve", "sys_fork", "sys_iopl", "sys_ni_syscall",
    "sys_rt_sigreturn", "sys_sigaltstack", "sys_vfork", "sys32_clone", "sys32_execve", "sys32_rt_sigreturn",
    "sys32_sigaltstack", "sys32_sigreturn", "syscall_trace_enter", "syscall_trace_leave",
    "wait_for_helper",
)  # fmt: skip
"""What the assembly calls by name. The image has a slot for each of them and for every sys_* of its tables."""

PARTIAL_FRAME = frozenset({
    "do_IRQ", "smp_apic_timer_interrupt", "smp_error_interrupt", "smp_spurious_interrupt", "smp_reschedule_interrupt",
    "smp_call_function_interrupt", "smp_call_function_single_interrupt", "smp_invalidate_interrupt",
    "smp_thermal_interrupt", "mce_threshold_interrupt",
})  # fmt: skip
"""C functions that get pt_regs whose words below R11 are not written."""
INTERRUPTS_ON = frozenset({
    "schedule", "do_notify_resume", "syscall_trace_enter", "syscall_trace_leave", "do_exit", "schedule_tail",
    "do_fork", "kernel_init", "ksoftirqd", "khelper", "wait_for_helper", "____call_usermodehelper",
})  # fmt: skip
"""C functions that are called with interrupts on, beside the system calls."""
INTERRUPTS_WANTED = frozenset({"schedule", "do_notify_resume", "syscall_trace_enter", "syscall_trace_leave"})
"""Those of them that are never called otherwise, beside the system calls."""
NOT_IN_26 = frozenset({"clone3", "execveat", "rseq"})
"""System calls that came later, and that the entry code (the first two need pt_regs) or the C library's use of them
(rseq registers with a kernel that restarts sequences) would have to know of: -ENOSYS, so that nobody relies on them."""

STUBS = {
    15: "stub_rt_sigreturn", 56: "stub_clone", 57: "stub_fork", 58: "stub_vfork", 59: "stub_execve",
    131: "stub_sigaltstack", 172: "stub_iopl",
}  # fmt: skip
"""System calls whose C function gets the pt_regs: number -> the assembly in between."""
STUBS_32 = {
    2: "stub32_fork", 11: "stub32_execve", 110: "stub32_iopl", 119: "stub32_sigreturn", 120: "stub32_clone",
    173: "stub32_rt_sigreturn", 186: "stub32_sigaltstack", 190: "stub32_vfork",
}  # fmt: skip
SYS32 = frozenset({
    "fstat64", "ftruncate64", "lstat64", "mmap2", "pread64", "pwrite64", "rt_sigaction", "rt_sigqueueinfo", "sigaction",
    "stat64", "truncate64", "waitpid",
})  # fmt: skip
"""i386 system calls whose C function Linux 2.6.28 calls `sys32_*`; it calls others of its own `compat_sys_*`."""


def syscall_rows(implemented: dict[int, str]) -> dict[int, str]:
    """Number -> symbol in sys_call_table; `implemented` are number and name (without sys_) of what C has."""
    rows = {number: f"sys_{name}" for number, name in implemented.items() if name not in NOT_IN_26}
    return dict(sorted((rows | STUBS).items()))


def ia32_syscall_rows(functions: dict[int, str]) -> dict[int, str]:
    """Number -> symbol in ia32_sys_call_table; `functions`: number -> `compat_sys_*` or `sys_*` of what C has."""
    rows = {}
    for number, function in functions.items():
        name = function.removeprefix("compat_sys_")
        if function.removeprefix("sys_") not in NOT_IN_26:
            rows[number] = f"sys32_{name}" if name in SYS32 else function
    return dict(sorted((rows | STUBS_32).items()))


def c_function_slots(rows: Iterable[str]) -> tuple[str, ...]:
    """All C functions that the image needs a slot for, given the symbols in its tables."""
    stubs = {*STUBS.values(), *STUBS_32.values()}
    return tuple(sorted({*C_FUNCTIONS, *(name for name in rows if name not in stubs)}))


def asm_constants() -> dict[str, int]:
    """Name -> value for the assembly sources."""
    table = {
        "PAGE_SIZE": PAGE_SIZE,
        "THREAD_SIZE": abi.THREAD_SIZE,
        "MAX_CPUS": abi.MAX_CPUS,
        "EXCEPTION_STKSZ": EXCEPTION_STKSZ,
        "PDA_STACKOFFSET": PDA_STACKOFFSET,
        "TS_COMPAT": abi.TS_COMPAT,
        "KERNEL_THREAD_FLAGS": CLONE_VM | CLONE_UNTRACED,
        "X86_CR0_TS": int(Cr0.TS),
        "IA32_SYSCALL_VECTOR": INT80_VECTOR,
        "NUM_INVALIDATE_TLB_VECTORS": NUM_INVALIDATE_TLB_VECTORS,
        "_TIF_WORK_SYSCALL_ENTRY": TIF_WORK_SYSCALL_ENTRY,
        "_TIF_WORK_SYSCALL_EXIT": TIF_WORK_SYSCALL_EXIT,
        "_TIF_ALLWORK_MASK": TIF_ALLWORK_MASK,
        "_TIF_WORK_MASK": TIF_WORK_MASK,
        "_TIF_DO_NOTIFY_MASK": TIF_DO_NOTIFY_MASK,
    }
    for prefix, cls in (
        ("PT_REGS", abi.PtRegs),
        ("PERCPU", abi.PerCpu),
        ("CPU_BOOT", abi.CpuBoot),
        ("MSR_SETTING", abi.MsrSetting),
        ("IDT_SOURCE", abi.IdtSource),
        ("TASK", abi.TaskStruct),
        ("PDA", X8664Pda),
        ("TI", ThreadInfo26),
    ):
        table |= constants(prefix, cls)
    for flag in Tif26:
        table |= {f"TIF_{flag.name}": flag.value, f"_TIF_{flag.name}": 1 << flag}
    table |= {f"{ist.name}_STACK": ist.value for ist in Ist26}
    return table | KERNEL_SYMBOLS | {f"{vector.name}_VECTOR": vector.value for vector in Vector26}
