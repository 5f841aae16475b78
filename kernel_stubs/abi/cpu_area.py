"""What each CPU has of its own: the per-CPU area, and cpu_entry_area, which user tables map too."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Annotated

from emu.arch import PAGE_SIZE
from kernel_stubs.abi.address_space import CPU_ENTRY_AREA_BASE, EXCEPTION_STACK_SIZE
from kernel_stubs.abi.hardware import Tss
from kernel_stubs.layout import U32, U64, Struct, layout


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
    # What an event may change for good lies in one piece, down to slice_end: a sweep compares what is around it.
    irq_count: U64
    timer_ticks: U64
    nmi_count: U64
    mce_count: U64
    spurious_count: U64
    apic_error_count: U64
    spurious_apic_count: U64
    nmi_cr2: U64
    """CR2 as the first NMI found it."""
    nr_switches: U64
    slice_end: U64
    """Clock at which the current task's turn is over if others wait."""
    softirq_pending: U64
    nmi_scratch: U64
    """For an NMI handler's guest code: an address to touch."""
    nmi_state: U64
    """NmiState, counted up by an NMI that arrives inside another's C code."""
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


class NmiState(IntEnum):
    """PerCpu.nmi_state (arch/x86/kernel/nmi.c)."""

    NOT_RUNNING = 0
    EXECUTING = 1
    LATCHED = 2
