"""Restartable sequences (kernel/rseq.c): the CPU number in user memory. Critical sections are not aborted."""

from __future__ import annotations

from kernel_stubs.context import Cpu
from kernel_stubs.errno import SyscallError
from kernel_stubs.uaccess import copy_to_user

RSEQ_SIZE = 32
CPU_ID_START = 0
"""Offset of cpu_id_start and cpu_id, two u32."""
NODE_ID = 20
"""Offset of node_id and mm_cid."""
CPU_ID_UNINITIALIZED = 0xFFFF_FFFF


def write_cpu_id(cpu: Cpu, area: int, cpu_id: int) -> None:
    """Store a CPU number in an rseq area; UserFaultError if it is not writable."""
    start = 0 if cpu_id == CPU_ID_UNINITIALIZED else cpu_id
    copy_to_user(cpu, area + CPU_ID_START, start.to_bytes(4, "little") + cpu_id.to_bytes(4, "little"))
    copy_to_user(cpu, area + NODE_ID, bytes(4) + start.to_bytes(4, "little"))


def rseq_handle_notify_resume(cpu: Cpu) -> None:
    """On the way to user mode: the task may have moved."""
    task = cpu.current
    if not task.rseq:
        return
    try:
        write_cpu_id(cpu, task.rseq, cpu.number)
    except SyscallError:
        from kernel_stubs.signal import SI_KERNEL, Sig, force_sig  # signal.py is above this one

        force_sig(cpu, Sig.SIGSEGV, SI_KERNEL, 0)
