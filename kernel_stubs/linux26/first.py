"""The first program by way of a kernel thread: rest_init, kernel_init, run_init_process (init/main.c).

Without `init_thread` in the boot options start_kernel makes the first process by itself, as for linux-6.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs import mm
from kernel_stubs.abi import THREAD_SIZE, CpuBoot
from kernel_stubs.binding import Call, Leave, Steps
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.errno import SyscallError
from kernel_stubs.fork import Clone
from kernel_stubs.idle import make_idle_task
from kernel_stubs.init import protect_tables, run_on
from kernel_stubs.kmod import as_error
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.linux26.thread_info import init_thread_info, set_current
from kernel_stubs.rootfs import first_files, first_fs, make_root, program_name
from kernel_stubs.sched import pick_next_task, prepare_switch
from kernel_stubs.smp import setup_local_apic, smp_init
from kernel_stubs.tick import TIMESLICE, start_tick

_THREAD = "kernel_init"
_NO_INIT = "Kernel panic - not syncing: No init found.  Try passing init= option to kernel."


def rest_init(cpu: Cpu, boot: CpuBoot) -> Steps:
    """Make process 1 and let it run. Does not return.

    In Linux the boot task is the idle task afterwards. Here that has a stack of its own and begins at its loop, so this
    one is over when it is switched from: nothing is left of start_kernel.
    """
    protect_tables(cpu)
    make_idle_task(cpu)
    make_root(cpu.kernel)
    address = mm.direct_map(mm.alloc_page(cpu.memory))
    task = run_on(cpu, address, boot.stack)
    task.comm, task.group_leader, task.kthread = b"swapper", address, 1
    init_thread_info(cpu, address)
    set_current(cpu, address)
    setup_local_apic(cpu)
    start_tick(cpu)
    cpu.percpu.slice_end = cpu.core.clock + TIMESLICE
    flags = int(Clone.FS | Clone.SIGHAND)
    if as_error((yield Call("kernel_thread", (cpu.kernel.image.symbol(_THREAD), 0, flags)))):
        raise KernelOops("Kernel panic - not syncing: no memory for init")
    switch = prepare_switch(cpu, pick_next_task(cpu))
    yield Leave("__switch_to_asm", switch, (boot.stack - THREAD_SIZE, boot.stack))
    return None


@c_function26
def kernel_init(cpu: Cpu, argument: int) -> Steps:
    """Process 1, called by child_rip: start the other CPUs, then become the program."""
    kernel, task = cpu.kernel, cpu.current
    try:
        mm.kernel_data(cpu.memory).init_task = cpu.percpu.current_task
        task.pgrp = task.session = task.pid
        task.blocked = task.exit_signal = 0
        task.files, task.fs = first_files(kernel), first_fs(kernel)
        arguments = _vectors(cpu, b"/" + program_name(kernel), kernel.argv, kernel.envp)
    except SyscallError as error:
        raise KernelOops(f"{_NO_INIT} ({error.errno.name})") from None
    smp_init(cpu)
    result = as_error((yield Call("kernel_execve", arguments)))
    raise KernelOops(f"{_NO_INIT} (error {result})")


def _vectors(cpu: Cpu, path: bytes, argv: tuple[bytes, ...], envp: tuple[bytes, ...]) -> tuple[int, int, int]:
    """Lay what kernel_execve wants into pages of the kernel: addresses of path, argv and envp."""
    texts = (path, *argv, *envp)
    words = len(argv) + 1 + len(envp) + 1
    size = 8 * words + sum(len(text) + 1 for text in texts)
    page = mm.alloc_pages(cpu.memory, -(-size // PAGE_SIZE))
    places: list[int] = []
    at = page + 8 * words
    for text in texts:
        places.append(mm.direct_map(at))
        cpu.memory.write(at, text + b"\0")
        at += len(text) + 1
    vectors = (*places[1 : 1 + len(argv)], 0, *places[1 + len(argv) :], 0)
    cpu.memory.write(page, b"".join(word.to_bytes(8, "little") for word in vectors))
    return places[0], mm.direct_map(page), mm.direct_map(page + 8 * (len(argv) + 1))
