"""What assembly and Python must agree on: structures, the address-space map, thread flags. Defined once, here.

`asm_constants()` gives the names under which the assembly sources see all of it (`PT_REGS_CS`, `PERCPU_TOP_OF_STACK`,
`CPU_ENTRY_AREA_BASE`, ...). Structures have the meaning of their Linux 6 namesakes; the layout of `PtRegs` and of the
hardware's `Tss` is the real one, the others hold only what this laboratory uses.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Annotated

from emu.arch import INT80_VECTOR, KERNEL_SYMBOLS, PAGE_SIZE
from kernel_stubs.layout import S32, S64, U16, U32, U64, Struct, constants, layout
from kernel_stubs.ptrace_abi import TaskPtrace
from kernel_stubs.signal_abi import TaskSignals

# --- the address space (Documentation/arch/x86/x86_64/mm.rst) -------------------------------------------------------
TASK_SIZE_MAX = 0x0000_7FFF_FFFF_F000
MMAP_MIN_ADDR = 0x10000
"""vm.mmap_min_addr: nothing is mapped for user mode below it."""
PAGE_OFFSET = 0xFFFF_8880_0000_0000
"""The direct map: every allocated page frame, 4 KiB pages, writable, never executable."""
VMALLOC_START = 0xFFFF_C900_0000_0000
"""Task and IRQ stacks, each followed by a guard page."""
VMALLOC_LAZY = 0xFFFF_C940_0000_0000
"""Part of the vmalloc area whose pages are mapped only when the kernel touches them: #PF in kernel mode, no oops."""
VMALLOC_LAZY_SIZE = 0x1000_0000
CPU_ENTRY_AREA_BASE = 0xFFFF_FE00_0000_0000
"""One read-only page with the IDT, then one CpuEntryArea a CPU. Mapped in user tables too."""
KERNEL_BASE = 0xFFFF_FFFF_8100_0000
"""Where the kernel image is linked."""
KERNEL_PHYS = 0x0002_0000
"""Where it lies in physical memory."""

INIT_PGD = 0x0001_0000
"""Physical address of the kernel's own PGD (init_mm); its user PGD is the next page."""
MEMORY_INFO = 0x0000_8000
"""Physical address of the page allocator's MemoryInfo."""
KERNEL_DATA = 0x0000_9000
"""Physical address of KernelData: variables that every Linux has somewhere in its .data, whatever the image."""
SYSCALL_COUNTS = 0x0000_A000
"""Physical address of SyscallCounts."""
IRQ_TABLE = 0x0000_B000
"""Physical address of IrqTable."""

PTI_USER_PGTABLE = 1 << 12
"""The user PGD of a process is the page after its kernel PGD: CR3 bit 12 (page-table isolation)."""

THREAD_SIZE = 16384
"""A task stack."""
IRQ_STACK_SIZE = 16384
EXCEPTION_STACK_SIZE = 8192
MAX_CPUS = 8


def page_align(value: int) -> int:
    """Up to a multiple of the page size."""
    return -(-value // PAGE_SIZE) * PAGE_SIZE


# --- pt_regs and the hardware's frames ------------------------------------------------------------------------------
@layout()
class PtRegs(Struct):
    """`struct pt_regs` of x86-64: what every entry leaves on the stack for C."""

    r15: U64
    r14: U64
    r13: U64
    r12: U64
    bp: U64
    bx: U64
    r11: U64
    r10: U64
    r9: U64
    r8: U64
    ax: U64
    cx: U64
    dx: U64
    si: U64
    di: U64
    orig_ax: U64
    ip: U64
    cs: U64
    flags: U64
    sp: U64
    ss: U64

    @property
    def user_mode(self) -> bool:
        """Whether the interrupted code was not the kernel's: any CPL but 0, as the assembly tests too."""
        return bool(self.cs & 3)


@layout(pack=1)
class Tss(Struct):
    """64-bit task-state segment (SDM 8.7, figure 8-11)."""

    reserved0: U32
    sp0: U64
    sp1: U64
    sp2: U64
    reserved1: U64
    ist: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 7]
    reserved2: U64
    reserved3: U16
    io_bitmap_base: U16


class SystemVector(IntEnum):
    """Vectors that Linux 6 keeps for the local APIC (arch/x86/include/asm/irq_vectors.h), beside those in emu.arch."""

    IRQ_MOVE_CLEANUP = 0x20
    DEFERRED_ERROR = 0xF4
    IRQ_WORK = 0xF6
    X86_PLATFORM_IPI = 0xF7
    REBOOT = 0xF8
    THRESHOLD_APIC = 0xF9
    THERMAL_APIC = 0xFA
    CALL_FUNCTION_SINGLE = 0xFB
    CALL_FUNCTION = 0xFC
    RESCHEDULE = 0xFD


class Ist(IntEnum):
    """IST index of a gate (1-7), as Linux 6 assigns them."""

    DF = 1
    NMI = 2
    DB = 3
    MCE = 4
    VC = 5


# --- per CPU --------------------------------------------------------------------------------------------------------
@layout()
class PerCpu(Struct):
    """The per-CPU area, at GS_BASE while the kernel runs.

    Its first page holds the TSS only and is mapped in user tables (SYSCALL spills RSP into tss.sp2 before the CR3
    switch); the rest is the kernel's alone.
    """

    tss: Tss
    pad_page: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * (PAGE_SIZE - ctypes.sizeof(Tss))]
    this_cpu_off: U64
    """Linear address of this area: the value of GS_BASE in the kernel."""
    cpu_number: U32
    preempt_count: U32
    current_task: U64
    top_of_stack: U64
    """End of the current task's stack, where its user pt_regs end."""
    hardirq_stack_ptr: U64
    """Top of the hard-IRQ stack."""
    hardirq_stack_inuse: U64
    irq_count: U64
    timer_ticks: U64
    nmi_count: U64
    mce_count: U64
    spurious_count: U64
    softirq_pending: U64
    nmi_scratch: U64
    """For an NMI handler's guest code: an address to touch."""
    nmi_state: U64
    """NmiState, counted up by an NMI that arrives inside another's C code."""
    nmi_cr2: U64
    """CR2 as the first NMI found it."""
    apic_error_count: U64
    spurious_apic_count: U64
    espfix_stack: U64
    """Where a return to user mode with an LDT stack segment finds its frame: read-only, in both page tables, and that
    at every value of bits 31:16 (which are 0 here)."""
    espfix_waddr: U64
    """The same six words where the kernel may write them."""
    idle_task: U64
    """Runs when nothing else can."""
    next_task: U64
    """The task that this CPU is switching to, else 0: both stacks are live then."""
    rq_head: U64
    """Runnable tasks that wait for this CPU, first in first out, linked by run_next."""
    rq_tail: U64
    nr_running: U64
    """How many those are."""
    nr_switches: U64
    slice_end: U64
    """Clock at which the current task's turn is over if others wait."""
    timer_armed: U64
    """Clock for which the one-shot timer is set (when there is no periodic tick), else 0."""
    ksoftirqd: U64
    """The task that runs softirqs which do not end."""
    tasklet_head: U64
    """Scheduled tasklets, linked through their first word."""
    tasklet_hi_head: U64
    call_function_pending: U64
    """Bit n: CPU n waits for this one to run its function (kernel_stubs.smp)."""


@layout()
class CpuEntryArea(Struct):
    """cpu_entry_area of one CPU: what the hardware needs before the CR3 switch. Gaps are unmapped guard pages."""

    gdt: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    pad_guard0: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    entry_stack: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    """The entry trampoline stack; TSS.sp0 points at its end."""
    tss: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    """Read-only alias of PerCpu.tss; TR's base."""
    pad_guard1: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    df_stack: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * EXCEPTION_STACK_SIZE]
    pad_guard2: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    nmi_stack: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * EXCEPTION_STACK_SIZE]
    pad_guard3: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    db_stack: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * EXCEPTION_STACK_SIZE]
    pad_guard4: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    mce_stack: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * EXCEPTION_STACK_SIZE]
    pad_guard5: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]
    vc_stack: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * EXCEPTION_STACK_SIZE]
    pad_guard6: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * PAGE_SIZE]


def cpu_entry_area(cpu: int) -> int:
    """Linear address of a CPU's CpuEntryArea."""
    return CPU_ENTRY_AREA_BASE + PAGE_SIZE + cpu * ctypes.sizeof(CpuEntryArea)


@layout()
class MemoryInfo(Struct):
    """The page allocator: frames above `next_frame` are untouched, freed ones are linked through their first word."""

    next_frame: U64
    """Physical address."""
    end: U64
    """End of RAM."""
    free_list: U64
    """Physical address of the first freed frame, 0 for none."""
    allocated: U64
    mem_map: U64
    """Physical address of one U16 for each frame of RAM: its owners beyond the first."""


@layout()
class KernelData(Struct):
    """Kernel-wide variables."""

    vmalloc_next: U64
    """First linear address of the vmalloc area that nobody has used."""
    next_pid: S32
    pad0: U32
    random_counter: U64
    """How many blocks of random bytes were handed out: they are a function of this and of the seed."""
    stdin_position: U64
    """Read offset of the open file behind descriptor 0."""
    timer_period: U64
    """Instructions between two timer interrupts; 0: the timer is off."""
    task_list: U64
    """All tasks but the idle ones, linked by next_task."""
    nr_tasks: U64
    init_task: U64
    """The process that the run is about: pid 1."""
    free_stacks: U64
    """Task stacks that were given back, linked through their first word."""
    free_pgds: U64
    """Pairs of PGDs that were given back (physical), linked through their first word."""
    free_objects: U64
    """Small objects that were given back (kernel_stubs.slab), linked through their first word."""
    wait_counter: U64
    """How many waits there have been: who waits longest is woken first."""
    next_cpu: U64
    """Counts new tasks, which go to the CPUs in turn."""
    root_inode: U64
    next_inode: U64
    softirq_vec: Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * 16]
    """Id of the action of each softirq (kernel_stubs.softirq), 0 for none."""
    net_ring: U64
    """Packets that the network card has received and the softirq has not seen yet."""
    net_queue: U64
    """Those that wait to be read."""
    net_read: U64
    net_owner: S32
    """Process that gets SIGIO (F_SETOWN), 0 for none."""
    net_async: U32
    no_isolation: U64
    """Not 0: user mode runs on a process's first PGD, which has the kernel's half too; the second is not used."""
    poke_address: U64
    """Where text patching has put an INT3 for a moment (kernel_stubs.text_poke), 0 for nowhere."""
    poke_opcode: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 8]
    """The instruction that stood there."""
    oops_is_survived: U64
    """kernel.panic_on_oops=0: an oops ends the task, not the run."""
    khelper: U64
    """1 once there is the kernel thread that starts helpers in user mode (kernel_stubs.kmod)."""
    helper_queue: U64
    """Helpers that are asked for and that it has not started yet: a list of SubprocessInfo."""
    kmod_concurrent: U64
    """Helpers that request_module() waits for."""


MAX_SYSCALLS = 512


@layout()
class SyscallCounts(Struct):
    """How often each system call that we do not have was asked for; the last one stands for all numbers above it."""

    count: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * MAX_SYSCALLS]
    count32: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * MAX_SYSCALLS]
    """The same of i386 system calls."""


NR_VECTORS = 256
MAX_IRQ_ACTIONS = 4


@layout()
class IrqDesc(Struct):
    """`struct irq_desc` of one vector, with its chain of handlers."""

    count: U32
    """Interrupts on this vector."""
    unhandled: U32
    """Those that no handler of the chain owned up to."""
    actions: Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * MAX_IRQ_ACTIONS]
    """Handler ids (kernel_stubs.irq), 0 for none."""


@layout()
class IrqTable(Struct):
    """`vector_irq`, flattened: one page."""

    desc: Annotated[ctypes.Array[IrqDesc], IrqDesc * NR_VECTORS]


# --- boot -----------------------------------------------------------------------------------------------------------
@layout(pack=1)
class DescriptorPointer(Struct):
    """Operand of LGDT and LIDT, padded to 16 bytes."""

    limit: U16
    base: U64
    pad: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 6]


@layout()
class MsrSetting(Struct):
    """One WRMSR of the boot code."""

    index: U32
    low: U32
    high: U32
    pad: U32


MAX_BOOT_MSRS = 24


@layout()
class CpuBoot(Struct):
    """What `startup_64` finds at RDI: the tables and register values that this CPU is to load."""

    gdt: DescriptorPointer
    idt: DescriptorPointer
    cr0: U64
    cr4: U64
    stack: U64
    """End of the stack that the boot code runs on: this CPU's first task's."""
    cpu_number: U64
    msr_count: U64
    msrs: Annotated[ctypes.Array[MsrSetting], MsrSetting * MAX_BOOT_MSRS]


@layout()
class IdtSource(Struct):
    """One row of the image's `idt_source` table, from which boot code makes a gate; a row with handler 0 ends it."""

    handler: U64
    vector: U32
    ist: U16
    type_attr: U16
    """Present, DPL and type as in byte 5 of a gate (0x8e: interrupt gate DPL 0, 0xee: DPL 3)."""


@layout()
class ExTableEntry(Struct):
    """One row of the exception table, from `__start___ex_table` to `__stop___ex_table`."""

    insn: U64
    """An instruction of the kernel that may fault."""
    fixup: U64
    """Where it goes on then."""


# --- tasks ----------------------------------------------------------------------------------------------------------
class Tif(IntEnum):
    """thread_info.flags (arch/x86/include/asm/thread_info.h)."""

    NOTIFY_RESUME = 1 << 1
    SIGPENDING = 1 << 2
    NEED_RESCHED = 1 << 3
    SINGLESTEP = 1 << 4
    UPROBE = 1 << 12
    PATCH_PENDING = 1 << 13
    NOTIFY_SIGNAL = 1 << 17


EXIT_TO_USER_MODE_WORK = int(
    Tif.NOTIFY_RESUME | Tif.SIGPENDING | Tif.NEED_RESCHED | Tif.UPROBE | Tif.PATCH_PENDING | Tif.NOTIFY_SIGNAL
)


TS_COMPAT = 2
"""thread_info.status: the current system call is a 32-bit one."""


@layout()
class ThreadInfo(Struct):
    """The head of a task_struct."""

    flags: U64
    syscall_work: U64
    status: U32
    cpu: U32


GDT_ENTRY_TLS_MIN = 12
NR_TLS_ENTRIES = 3


@layout()
class TaskSegments(Struct):
    """The part of `struct thread_struct` about segments, while the task does not run; FS and GS are in task_struct."""

    ds: U16
    es: U16
    pad0: U32
    tls: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * NR_TLS_ENTRIES]
    """Descriptors that set_thread_area(2) made: the GDT's entries from GDT_ENTRY_TLS_MIN while the task runs."""


@layout()
class TaskStruct(Struct):
    """`struct task_struct`: one page of its own."""

    thread_info: ThreadInfo
    state: S64
    stack: U64
    """Lowest address of the task's stack."""
    sp: U64
    """Saved RSP while the task does not run."""
    mm: U64
    pid: S32
    tgid: S32
    fsbase: U64
    gsbase: U64
    fsindex: U16
    gsindex: U16
    pad0: U32
    cr2: U64
    trap_nr: U64
    error_code: U64
    exit_code: S32
    """As wait(2) reports it: status << 8, or the signal's number."""
    exit_state: U32
    pending: U64
    """Pending signals, bit n-1 for signal n."""
    blocked: U64
    clear_child_tid: U64
    robust_list: U64
    rseq: U64
    ret_count: U64
    """Returns to user mode that ran the work loop (for tests and reports)."""
    comm: Annotated[bytes, ctypes.c_char * 16]
    files: U64
    """FilesStruct."""
    last_signal: S32
    """The signal that was last forced on the task, with its siginfo's code and address."""
    last_si_code: S32
    last_si_addr: U64
    rseq_sig: U32
    pad1: U32
    signals: TaskSignals
    next_task: U64
    """All tasks (KernelData.task_list)."""
    run_next: U64
    """Run queue (PerCpu.rq_head)."""
    on_cpu: U32
    """Runs on a CPU, or has not left its stack yet."""
    exit_signal: S32
    """What the parent gets when the process ends."""
    group_leader: U64
    """The process: the task whose pid is its tgid."""
    parent: U64
    """Group leader of the parent process."""
    live_threads: U32
    """In a leader: threads of the group that have not ended."""
    group_exit: U32
    """In a leader: the whole group is ending, with group_exit_code."""
    group_exit_code: S32
    stop_code: S32
    """A stopped task's signal that no wait4 has reported yet (WUNTRACED); CODE_CONTINUED after SIGCONT."""
    set_child_tid: U64
    vfork_parent: U64
    """Sleeps until this task gives up the address space that it borrowed."""
    wait_channel: U64
    """What a sleeping task waits for: any number that sleepers and wakers agree on."""
    wait_space: U64
    """Second half of a futex's key."""
    wait_bits: U32
    wait_result: U32
    """WaitResult: why the last sleep ended."""
    wait_number: U64
    wake_time: U64
    """Clock at which a sleep ends by itself; 0: never."""
    alarm_time: U64
    """In a leader: clock at which SIGALRM is due; 0: never."""
    alarm_interval: U64
    fs: U64
    """FsStruct."""
    pgrp: S32
    session: S32
    used_math: U32
    """PF_USED_MATH, where the FPU is switched lazily: the task has used it, or has got a state."""
    fpu_counter: U32
    """Turns on end in which it did."""
    kthread: U64
    """1: a kernel thread."""
    segments: TaskSegments
    ptrace: TaskPtrace


FXSAVE_SIZE = 512
TASK_FPU = PAGE_SIZE - FXSAVE_SIZE
"""Offset in a task_struct's page of where its FPU registers are saved."""


@layout()
class InactiveTaskFrame(Struct):
    """What `__switch_to_asm` leaves on the stack of a task that does not run, at task.sp. A new task's returns to
    `ret_from_fork_asm`, with its pt_regs above."""

    r15: U64
    r14: U64
    r13: U64
    r12: U64
    """Argument of a new kernel thread's function."""
    bx: U64
    """That function; 0 for a user task."""
    bp: U64
    ret_addr: U64


NR_OPEN = 256


@layout()
class FilesStruct(Struct):
    """`struct files_struct`: what each descriptor stands for. A page of its own."""

    count: U32
    """Tasks that use it."""
    pad0: U32
    fd: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * NR_OPEN]
    """Address of a File, or 0; bit 0: close on exec."""


@layout()
class FsStruct(Struct):
    """`struct fs_struct`."""

    count: U32
    umask: U32
    cwd: U64
    """Inode."""


@layout()
class File(Struct):
    """`struct file`: an open file, which several descriptors may share."""

    count: U32
    flags: U32
    """O_ flags as open(2) got them."""
    inode: U64
    position: U64


class InodeKind(IntEnum):
    """What an inode is; the mode's file type follows from it."""

    REGULAR = 1
    DIRECTORY = 2
    SYMLINK = 3
    PIPE = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    NULL = 8
    ZERO = 9
    FULL = 10
    RANDOM = 11
    PROC_EXE = 12
    """/proc/self/exe: a link whose target is the program of whoever asks."""
    PROC_SELF = 13
    NET = 14
    """/dev/net: packets of the network card."""


@layout()
class Inode(Struct):
    """`struct inode`, with its directory's or pipe's part."""

    kind: U32
    mode: U32
    """Permission bits."""
    number: U64
    links: U32
    count: U32
    """Open files, working directories, and pipes' ends that keep it alive."""
    size: U64
    """Bytes; of a pipe: those that wait to be read."""
    input: U32
    """1 + index of its content among the run's files, as long as nobody has written to it; else 0."""
    read_only: U32
    """Lies in a folder that may not be changed."""
    index: U64
    """Physical address of the page of page addresses, 0 for none."""
    parent: U64
    """A directory's parent."""
    changed: U64
    """Clock of the last change."""
    head: U64
    """A pipe's: offset in the ring of the first byte that waits."""
    readers: U32
    writers: U32


class TaskState(IntEnum):
    """task.state (include/linux/sched.h)."""

    RUNNING = 0
    INTERRUPTIBLE = 1
    UNINTERRUPTIBLE = 2
    KILLABLE = 0x102
    """Uninterruptible, but not for what ends the task (TASK_WAKEKILL)."""
    STOPPED = 4
    TRACED = 8
    DEAD = 0x80


class ExitState(IntEnum):
    """task.exit_state. REQUESTED: the task will end instead of going to user mode."""

    ALIVE = 0
    REQUESTED = 1
    DEAD = 0x10
    ZOMBIE = 0x20


class WaitResult(IntEnum):
    """task.wait_result."""

    WOKEN = 0
    TIMEOUT = 1
    SIGNAL = 2


class NmiState(IntEnum):
    """PerCpu.nmi_state (arch/x86/kernel/nmi.c)."""

    NOT_RUNNING = 0
    EXECUTING = 1
    LATCHED = 2


@layout()
class MmStruct(Struct):
    """`struct mm_struct`: a page of its own, with its areas behind it."""

    pgd: U64
    """Physical address of the kernel PGD; the user PGD is the next page."""
    start_brk: U64
    brk: U64
    mmap_base: U64
    start_stack: U64
    area_count: U64
    minor_faults: U64
    arg_start: U64
    arg_end: U64
    vdso32: U64
    """Where a 32-bit program finds the vDSO; 0: the program is no 32-bit one."""
    users: U64
    """Tasks that live in it."""
    exe: U64
    """Inode of the program."""
    ldt_entries: U32
    """Size of the local descriptor table."""
    pad0: U32


class VmFlags(IntEnum):
    """vm_area_struct.vm_flags."""

    READ = 1
    WRITE = 2
    EXEC = 4
    SHARED = 8
    GROWSDOWN = 0x100


@layout()
class VmArea(Struct):
    """`struct vm_area_struct`; sorted by address in the mm's page."""

    start: U64
    end: U64
    flags: U64
    file: U64
    """0: anonymous; else 1 + index of the file among the machine's inputs."""
    file_offset: U64
    """Byte offset in the file of `start`."""
    file_bytes: U64
    """How many bytes from `start` come from the file; the rest is zero."""


MAX_AREAS = (PAGE_SIZE - ctypes.sizeof(MmStruct)) // ctypes.sizeof(VmArea)


def asm_constants() -> dict[str, int]:
    """Name -> value for the assembly sources, in a stable order."""
    table: dict[str, int] = {
        "PAGE_SIZE": PAGE_SIZE,
        "PAGE_OFFSET": PAGE_OFFSET,
        "CPU_ENTRY_AREA_BASE": CPU_ENTRY_AREA_BASE,
        "THREAD_SIZE": THREAD_SIZE,
        "EXCEPTION_STACK_SIZE": EXCEPTION_STACK_SIZE,
        "PTI_USER_PGTABLE": PTI_USER_PGTABLE,
        "MAX_CPUS": MAX_CPUS,
        "INT80_VECTOR": INT80_VECTOR,
        "EXIT_TO_USER_MODE_WORK": EXIT_TO_USER_MODE_WORK,
    }
    for prefix, cls in (
        ("PT_REGS", PtRegs),
        ("TSS", Tss),
        ("PERCPU", PerCpu),
        ("CPU_ENTRY_AREA", CpuEntryArea),
        ("CPU_BOOT", CpuBoot),
        ("MSR_SETTING", MsrSetting),
        ("IDT_SOURCE", IdtSource),
        ("TASK", TaskStruct),
        ("THREAD_INFO", ThreadInfo),
    ):
        table |= constants(prefix, cls)
    table |= {f"{vector.name}_VECTOR": vector.value for vector in SystemVector}
    table |= {f"IST_{ist.name}": ist.value for ist in Ist}
    table |= {f"TIF_{flag.name}": flag.value for flag in Tif}
    return table | KERNEL_SYMBOLS
