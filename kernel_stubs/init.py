"""start_kernel: what is left to do once a CPU has its tables, in C (init/main.c, arch/x86/kernel/smpboot.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE, Rflags, Selector
from kernel_stubs import mm, ramfs
from kernel_stubs.abi import (
    INIT_PGD,
    THREAD_SIZE,
    CpuBoot,
    Inode,
    MmStruct,
    PtRegs,
    TaskStruct,
    cpu_entry_area,
)
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.errno import SyscallError
from kernel_stubs.exec import exec_program, new_mm
from kernel_stubs.fork import link_task
from kernel_stubs.idle import make_idle_task
from kernel_stubs.rootfs import first_files, first_fs, make_root, program_name
from kernel_stubs.sched import set_need_resched
from kernel_stubs.segments import start_segments
from kernel_stubs.smp import setup_local_apic, smp_init
from kernel_stubs.tick import start_tick


@c_function
def start_kernel(cpu: Cpu, boot: CpuBoot) -> Steps:
    """Make this CPU's first task. The first CPU's executes the program; the others idle.

    Runs on the new task's stack, below the room for its pt_regs; CR3 is INIT_PGD.
    """
    try:
        protect_tables(cpu)
        if cpu.number == 0:
            make_idle_task(cpu)
            _start_first_process(cpu, boot.stack)
        else:
            _start_idling(cpu, boot.stack)
    except SyscallError as error:
        raise KernelOops(f"Kernel panic - not syncing: No working init found: {error.errno.name}") from None
    cpu.kernel.machine.flush_tlb()
    if cpu.current.mm and cpu.mm.vdso32:
        yield from start_segments(cpu, ia32=True)
    setup_local_apic(cpu)
    start_tick(cpu)
    if cpu.number == 0:
        smp_init(cpu)
    return None


def protect_tables(cpu: Cpu) -> None:
    """Nothing writes the descriptor tables any more. LTR marked the TSS busy before."""
    mm.protect_kernel(cpu.memory, cpu_entry_area(cpu.number), mm.PAGE_KERNEL_RO)
    if cpu.number == 0:
        idt = cpu.kernel.image.symbol("idt_table")
        mm.protect_kernel(cpu.memory, idt & -PAGE_SIZE, mm.PAGE_KERNEL_RO)


def run_on(cpu: Cpu, address: int, stack_end: int) -> TaskStruct:
    """The code that runs now is this task's from now on."""
    task = cpu.view(TaskStruct, address)
    task.stack = stack_end - THREAD_SIZE
    task.on_cpu = 1
    percpu = cpu.percpu
    percpu.current_task = address
    percpu.top_of_stack = stack_end
    return task


def _start_first_process(cpu: Cpu, stack_end: int) -> None:
    kernel = cpu.kernel
    program = kernel.program
    if program is None:
        raise KernelOops("Kernel panic - not syncing: No working init found")
    make_root(kernel)
    data = mm.kernel_data(cpu.memory)
    address = mm.direct_map(mm.alloc_page(cpu.memory))
    task = run_on(cpu, address, stack_end)
    link_task(kernel, address)
    data.nr_tasks += 1
    data.next_pid += 1
    data.init_task = task.group_leader = address
    task.live_threads = 1
    task.pid = task.tgid = task.pgrp = task.session = data.next_pid
    task.comm = program_name(kernel)[:15]
    task.files, task.fs = first_files(kernel), first_fs(kernel)
    task.mm = new_mm(kernel)
    space = cpu.view(MmStruct, task.mm)
    space.exe = ramfs.lookup(kernel, cpu.view(Inode, data.root_inode), program_name(kernel))
    ramfs.get_inode(kernel, space.exe)
    ip, sp = exec_program(kernel, space, program, kernel.argv, kernel.envp, b"/" + program_name(kernel))
    regs = cpu.view(PtRegs, stack_end - PtRegs.SIZE)
    regs.ip, regs.sp = ip, sp
    regs.cs, regs.ss = Selector.USER32_CS if program.ia32 else Selector.USER_CS, Selector.USER_DS
    regs.flags = Rflags.IF | Rflags.FIXED
    regs.orig_ax = 0xFFFF_FFFF_FFFF_FFFF
    cpu.core.cpu.set_control(cr3=space.pgd)


def _start_idling(cpu: Cpu, stack_end: int) -> None:
    """The others have no user mode to go to: start_kernel returns into the idle loop instead of to its caller."""
    make_idle_task(cpu, stack_end - THREAD_SIZE)
    run_on(cpu, cpu.percpu.idle_task, stack_end)
    if cpu.kernel.classic and cpu.percpu.rq_head:
        set_need_resched(cpu)  # its idle loop does not look at the queue
    cpu.core.cpu.set_control(cr3=INIT_PGD)
    cpu.core.write_linear(cpu.core.cpu.sp, cpu.kernel.image.symbol("cpu_idle_loop").to_bytes(8, "little"))
