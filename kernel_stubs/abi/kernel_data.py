"""Variables of the kernel at fixed places in physical memory: the page allocator, tasks, counts, interrupts."""

from __future__ import annotations

import ctypes
from typing import Annotated

from kernel_stubs.layout import S32, U32, U64, Struct, layout


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
    init_thread: U64
    """linux-2.6: the first program is to begin as a kernel thread."""


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
