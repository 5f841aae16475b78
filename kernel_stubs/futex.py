"""Futexes (kernel/futex): sleeping on a word of user memory until somebody says that it changed.

A sleeper's key is in its task_struct: for memory that only one address space has, that space and the address; for
shared memory the physical address of the word.
"""

from __future__ import annotations

from kernel_stubs import vma
from kernel_stubs.abi import TaskStruct, VmFlags, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.restart import restart_later
from kernel_stubs.sched import sleep_on, sleepers, wake_up_process
from kernel_stubs.signal_abi import RestartFunction
from kernel_stubs.uaccess import get_user, put_user, user_page

MATCH_ANY = 0xFFFF_FFFF
FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS = 0x4000_0000, 0x3FFF_FFFF, 0x8000_0000
ROBUST_LIST_LIMIT = 2048
Key = tuple[int, int]
"""(channel, address space or 1 for a physical address)"""


def futex_key(cpu: Cpu, address: int, *, private: bool) -> Key:
    """What the sleepers of a word are known by."""
    if address % 4:
        raise SyscallError(Errno.EINVAL)
    get_user(cpu, address, 4)
    if not private:
        area = vma.find_vma(cpu.kernel, cpu.mm, address)
        if area is not None and area.flags & VmFlags.SHARED:
            return user_page(cpu.kernel, cpu.mm, address, write=False), 1
    return address, cpu.current.mm


def futex_wait(cpu: Cpu, address: int, value: int, deadline: int, bits: int, *, private: bool) -> Steps:
    """Sleep if the word still has this value: 0 when woken."""
    if not bits:
        raise SyscallError(Errno.EINVAL)
    channel, space = futex_key(cpu, address, private=private)
    if get_user(cpu, address, 4) != value:
        raise SyscallError(Errno.EAGAIN)
    task = cpu.current
    task.wait_space, task.wait_bits = space, bits
    result = yield from sleep_on(cpu, channel, deadline)
    task.wait_space = task.wait_bits = 0
    if result == WaitResult.TIMEOUT:
        raise SyscallError(Errno.ETIMEDOUT)
    if result == WaitResult.SIGNAL:
        if not deadline:
            raise SyscallError(Restart.ERESTARTSYS)
        raise restart_later(cpu, RestartFunction.FUTEX, address, value, deadline, bits << 1 | private)
    return 0


def _waiters(cpu: Cpu, key: Key) -> list[int]:
    channel, space = key
    return [a for a in sleepers(cpu.kernel, channel) if cpu.view(TaskStruct, a).wait_space == space]


def wake_key(cpu: Cpu, key: Key, count: int, bits: int = MATCH_ANY) -> int:
    """Wake up to `count` sleepers that wait for one of these bits: how many."""
    chosen = [a for a in _waiters(cpu, key) if cpu.view(TaskStruct, a).wait_bits & bits][: max(count, 0)]
    for address in chosen:
        wake_up_process(cpu, address)
    return len(chosen)


def futex_wake(cpu: Cpu, address: int, count: int, bits: int, *, private: bool) -> int:
    """FUTEX_WAKE: at least one."""
    if not bits:
        raise SyscallError(Errno.EINVAL)
    return wake_key(cpu, futex_key(cpu, address, private=private), max(count, 1), bits)


def futex_requeue(
    cpu: Cpu, address: int, wake: int, move: int, other: int, expected: int | None, *, private: bool
) -> int:
    """Wake some sleepers of a word and let others sleep on another word: how many of both."""
    if wake < 0 or move < 0:
        raise SyscallError(Errno.EINVAL)
    key = futex_key(cpu, address, private=private)
    target = futex_key(cpu, other, private=private)
    if expected is not None and get_user(cpu, address, 4) != expected:
        raise SyscallError(Errno.EAGAIN)
    woken = wake_key(cpu, key, wake)
    moved = _waiters(cpu, key)[:move]
    for sleeper in moved:
        task = cpu.view(TaskStruct, sleeper)
        task.wait_channel, task.wait_space = target
    return woken + len(moved)


def futex_wake_op(cpu: Cpu, address: int, count: int, count2: int, other: int, code: int, *, private: bool) -> int:
    """Change the second word, wake sleepers of the first, and of the second if its old value says so."""
    key = futex_key(cpu, address, private=private)
    target = futex_key(cpu, other, private=private)
    operation, comparison = code >> 28 & 0xF, code >> 24 & 0xF
    argument, against = code >> 12 & 0xFFF, code & 0xFFF
    if operation & 8:
        argument = 1 << (argument & 31)
    old = get_user(cpu, other, 4)
    results = {0: argument, 1: old + argument, 2: old | argument, 3: old & ~argument, 4: old ^ argument}
    if operation & 7 not in results or comparison > 5:
        raise SyscallError(Errno.ENOSYS)
    put_user(cpu, other, results[operation & 7], 4)
    signed = old - (1 << 32) if old >> 31 else old
    limit = against - 4096 if against >> 11 else against
    holds = (signed == limit, signed != limit, signed < limit, signed <= limit, signed > limit, signed >= limit)
    woken = wake_key(cpu, key, count)
    return woken + (wake_key(cpu, target, count2) if holds[comparison] else 0)


# --- at the end of a task ---------------------------------------------------------------------------------------------
def wake_clear_child_tid(cpu: Cpu) -> None:
    """CLONE_CHILD_CLEARTID: the word becomes 0, and one sleeper wakes: pthread_join."""
    task = cpu.current
    address, task.clear_child_tid = task.clear_child_tid, 0
    if not address:
        return
    try:
        put_user(cpu, address, 0, 4)
        for private in (True, False):
            wake_key(cpu, futex_key(cpu, address, private=private), 1)
    except SyscallError:
        return


def exit_robust_list(cpu: Cpu) -> None:
    """Locks that the task still holds are marked, and a sleeper on each wakes."""
    task = cpu.current
    head, task.robust_list = task.robust_list, 0
    if not head:
        return
    try:
        entry, offset, pending = (get_user(cpu, head + at) for at in (0, 8, 16))
        for _ in range(ROBUST_LIST_LIMIT):
            if entry & ~1 == head:
                break
            if entry != pending:
                _owner_died(cpu, (entry & ~1) + offset)
            entry = get_user(cpu, entry & ~1)
        if pending:
            _owner_died(cpu, (pending & ~1) + offset)
    except SyscallError:
        return


def _owner_died(cpu: Cpu, address: int) -> None:
    address &= 0xFFFF_FFFF_FFFF_FFFF
    word = get_user(cpu, address, 4)
    if word & FUTEX_TID_MASK == cpu.current.pid:
        put_user(cpu, address, word & FUTEX_WAITERS | FUTEX_OWNER_DIED, 4)
        if word & FUTEX_WAITERS:
            futex_wake(cpu, address, 1, MATCH_ANY, private=False)
