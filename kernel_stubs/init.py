"""start_kernel: what is left to do once a CPU has its tables, in C (init/main.c, arch/x86/kernel/smpboot.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE, Rflags, Selector
from kernel_stubs import mm
from kernel_stubs.abi import (
    INIT_PGD,
    THREAD_SIZE,
    CpuBoot,
    FilesStruct,
    MmStruct,
    OpenFile,
    PtRegs,
    TaskStruct,
    cpu_entry_area,
)
from kernel_stubs.binding import c_function
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.errno import SyscallError
from kernel_stubs.exec import exec_program, new_mm
from kernel_stubs.time import start_tick


@c_function
def start_kernel(cpu: Cpu, boot: CpuBoot) -> None:
    """Make this CPU's first task. The first CPU's executes the program; the others idle.

    Runs on the new task's stack, below the room for its pt_regs; CR3 is INIT_PGD.
    """
    try:
        task = _new_task(cpu, boot.stack)
        # Nothing writes the descriptor tables any more. LTR marked the TSS busy before.
        mm.protect_kernel(cpu.memory, cpu_entry_area(cpu.number), mm.PAGE_KERNEL_RO)
        if cpu.number == 0:
            idt = cpu.kernel.image.symbol("idt_table")
            mm.protect_kernel(cpu.memory, idt & -PAGE_SIZE, mm.PAGE_KERNEL_RO)
            _start_first_process(cpu, task, boot.stack)
        else:
            _start_idling(cpu, task)
    except SyscallError as error:
        raise KernelOops(f"Kernel panic - not syncing: No working init found: {error.errno.name}") from None
    cpu.kernel.machine.flush_tlb()
    start_tick(cpu)


def _new_task(cpu: Cpu, stack_end: int) -> TaskStruct:
    address = mm.direct_map(mm.alloc_page(cpu.memory))
    task = cpu.view(TaskStruct, address)
    task.stack = stack_end - THREAD_SIZE
    task.thread_info.cpu = cpu.number
    percpu = cpu.percpu
    percpu.current_task = address
    percpu.top_of_stack = stack_end
    return task


def _start_first_process(cpu: Cpu, task: TaskStruct, stack_end: int) -> None:
    kernel = cpu.kernel
    program = kernel.program
    if program is None:
        raise KernelOops("Kernel panic - not syncing: No working init found")
    data = mm.kernel_data(cpu.memory)
    data.next_pid += 1
    task.pid = task.tgid = data.next_pid
    task.comm = program.name.encode().rpartition(b"/")[2][:15]
    task.files = mm.direct_map(mm.alloc_page(cpu.memory))
    files = cpu.view(FilesStruct, task.files)
    for descriptor, file in enumerate((OpenFile.STDIN, OpenFile.STDOUT, OpenFile.STDERR)):
        files.fd[descriptor] = file
    task.mm = new_mm(kernel)
    space = cpu.view(MmStruct, task.mm)
    ip, sp = exec_program(kernel, space, program)
    regs = cpu.view(PtRegs, stack_end - PtRegs.SIZE)
    regs.ip, regs.sp = ip, sp
    regs.cs, regs.ss = Selector.USER_CS, Selector.USER_DS
    regs.flags = Rflags.IF | Rflags.FIXED
    regs.orig_ax = 0xFFFF_FFFF_FFFF_FFFF
    cpu.core.cpu.set_control(cr3=space.pgd)


def _start_idling(cpu: Cpu, task: TaskStruct) -> None:
    """The others have no user mode to go to: start_kernel returns into the idle loop instead of to its caller."""
    task.comm = f"swapper/{cpu.number}".encode()
    cpu.core.cpu.set_control(cr3=INIT_PGD)
    cpu.core.write_linear(cpu.core.cpu.sp, cpu.kernel.image.symbol("cpu_idle_loop").to_bytes(8, "little"))
