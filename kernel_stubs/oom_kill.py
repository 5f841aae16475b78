"""Out of memory: one process ends, so that the others go on (mm/oom_kill.c)."""

from __future__ import annotations

from typing import NamedTuple

from emu.arch import PAGE_SIZE
from kernel_stubs import pgtable, vma
from kernel_stubs.abi import MmStruct, TaskStruct, VmFlags
from kernel_stubs.context import Cpu, Kernel, KernelOops
from kernel_stubs.cred import USER_ID
from kernel_stubs.sched import all_tasks, is_dead, killed, set_need_resched
from kernel_stubs.signal import Sig, send_signal


class Usage(NamedTuple):
    """What an address space holds, in pages."""

    total: int
    anonymous: int
    file: int
    shared: int
    tables: int

    @property
    def badness(self) -> int:
        """oom_badness(): what its end would give back."""
        return self.anonymous + self.file + self.shared + self.tables


def usage(kernel: Kernel, mm: MmStruct) -> Usage:
    """Count an address space's pages by kind, and its page tables."""
    counts = {"anonymous": 0, "file": 0, "shared": 0}
    for area in vma.areas(kernel, mm):
        kind = "shared" if area.flags & VmFlags.SHARED else "file" if area.file else "anonymous"
        counts[kind] += len(vma.present_pages(kernel, mm, area.start, area.end))
    tables = pgtable.count_tables(kernel.memory, mm.pgd)
    return Usage(vma.mapped_bytes(kernel, mm) // PAGE_SIZE, **counts, tables=tables)


def out_of_memory(cpu: Cpu) -> None:
    """No frame is left. The process that would give back most is killed, unless one is ending already.

    The current task shall let it run, and then try again.
    """
    set_need_resched(cpu)
    if any(task.mm and killed(cpu.kernel, task) for _, task in all_tasks(cpu.kernel)):
        return
    chosen: tuple[int, TaskStruct, Usage] | None = None
    for address, task in reversed(list(all_tasks(cpu.kernel))):
        if task.group_leader != address:
            continue
        space = next((t.mm for _, t in all_tasks(cpu.kernel) if t.group_leader == address and t.mm), 0)
        if not space:
            continue
        used = usage(cpu.kernel, cpu.view(MmStruct, space))
        if chosen is None or used.badness >= chosen[2].badness:
            chosen = space, task, used
    if chosen is None:
        raise KernelOops("Kernel panic - not syncing: System is deadlocked on memory")
    _oom_kill_process(cpu, *chosen)


def _oom_kill_process(cpu: Cpu, space: int, victim: TaskStruct, used: Usage) -> None:
    """SIGKILL for a process, and for the others that live in the same memory."""
    kib = PAGE_SIZE >> 10
    cpu.note(
        f"Out of memory: Killed process {victim.pid} ({victim.comm.decode(errors='replace')}) "
        f"total-vm:{used.total * kib}kB, anon-rss:{used.anonymous * kib}kB, file-rss:{used.file * kib}kB, "
        f"shmem-rss:{used.shared * kib}kB, UID:{USER_ID} pgtables:{used.tables * kib}kB oom_score_adj:0"
    )
    killed = set()
    for _, task in list(all_tasks(cpu.kernel)):
        if task.mm == space and not is_dead(task) and task.tgid not in killed:
            killed.add(task.tgid)
            send_signal(cpu, task, int(Sig.SIGKILL), process=False)  # a process's queue may still have to be made
