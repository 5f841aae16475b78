"""execve(2) (fs/exec.c, fs/binfmt_script.c)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from emu.arch import Rflags, Selector
from emu.errors import ProgramError
from kernel_stubs import mm, namei, ramfs
from kernel_stubs.abi import NR_OPEN, Inode, InodeKind, MmStruct, PtRegs, TaskState, TaskStruct
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.elf import UserProgram, load_elf
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.exec import MAX_ARG_STRLEN, MAX_ARG_TOTAL, NO_FILE, PROGRAM_FILE, Texts, exec_program, new_mm
from kernel_stubs.fdtable import AT_FDCWD, CLOEXEC, files_of, get_file
from kernel_stubs.fork import put_mm
from kernel_stubs.fpu import clear_user_fpu
from kernel_stubs.hw_breakpoint import flush_breakpoints
from kernel_stubs.kmod import request_binfmt
from kernel_stubs.process import release_mm, release_task, thread_channel, zap_other_threads
from kernel_stubs.ptrace_abi import Event
from kernel_stubs.ptrace_stop import ptrace_event
from kernel_stubs.sched import all_tasks, sleep_on, switch_mm
from kernel_stubs.segments import start_segments
from kernel_stubs.signal_state import exec_signals
from kernel_stubs.switch import task_pt_regs
from kernel_stubs.syscalls.descriptors import close_fd
from kernel_stubs.syscalls.paths import allowed
from kernel_stubs.syscalls.table import syscall
from kernel_stubs.trace import trace_sched_process_exec
from kernel_stubs.uaccess import get_user, strncpy_from_user

MAX_SCRIPTS = 4
"""Interpreters that are scripts themselves."""
_SCRIPT_LINE = 256
_MAX_TEXTS = MAX_ARG_TOTAL // 8


@dataclass(frozen=True, slots=True)
class Binary:
    """What is to be executed: the inode, its program, the final arguments, and the name that the caller used."""

    inode: int
    program: UserProgram
    file: int
    """Index of its content in Kernel.files, or NO_FILE."""
    argv: Texts
    path: bytes


@lru_cache(maxsize=16)
def _parse(data: bytes, name: str) -> UserProgram:
    return load_elf(data, name, ia32=True)


def _program(cpu: Cpu, node: Inode, data: bytes, name: str) -> UserProgram:
    """What a file holds; ProgramError if it is none. The run's own program may have been assembled: no ELF file."""
    own = cpu.kernel.program
    return own if own and node.input == 1 + PROGRAM_FILE else _parse(data, name)


def _texts(cpu: Cpu, address: int) -> Texts:
    """argv or envp."""
    found: list[bytes] = []
    total = 0
    while address and (at := get_user(cpu, address)):
        text = strncpy_from_user(cpu, at, MAX_ARG_STRLEN)
        total += len(text) + 9
        if len(text) >= MAX_ARG_STRLEN or total > MAX_ARG_TOTAL or len(found) >= _MAX_TEXTS:
            raise SyscallError(Errno.E2BIG)
        found.append(text)
        address += 8
    return tuple(found)


def _open_exec(cpu: Cpu, inode: int) -> tuple[Inode, bytes]:
    node = cpu.view(Inode, inode)
    if node.kind != InodeKind.REGULAR or not allowed(node, 1):
        raise SyscallError(Errno.EACCES)
    return node, ramfs.read_inode(cpu.kernel, node, 0, node.size)


class UnknownFormatError(SyscallError):
    """A file that no binary format knows: -ENOEXEC."""

    def __init__(self, head: bytes) -> None:
        super().__init__(Errno.ENOEXEC)
        self.head = head
        """Its first bytes."""


def find_binary(cpu: Cpu, inode: int, path: bytes, argv: Texts) -> Binary:
    """Look at the file, and at the interpreter of a script."""
    for _ in range(MAX_SCRIPTS + 1):
        node, data = _open_exec(cpu, inode)
        if data[:2] != b"#!":
            try:
                program = _program(cpu, node, data, path.decode(errors="replace"))
            except ProgramError as error:
                cpu.note(str(error))
                dynamic = "dynamically linked" in str(error)
                raise (SyscallError(Errno.ENOENT) if dynamic else UnknownFormatError(data[:4])) from None
            return Binary(inode, program, node.input - 1 if node.input else NO_FILE, argv, path)
        words = data[2:_SCRIPT_LINE].partition(b"\n")[0].strip(b" \t").split(None, 1)
        if not words:
            raise UnknownFormatError(data[:4])
        argv = (*(word.rstrip(b" \t") for word in words), path, *argv[1:])
        path = words[0]
        inode = namei.resolve(cpu, AT_FDCWD, path)
    raise SyscallError(Errno.ELOOP)


def do_execve(
    cpu: Cpu, inode: int, path: bytes, argv: Texts, envp: Texts, regs: PtRegs | None = None
) -> Steps:  # fmt: skip
    """Replace the process's program. Errors before the old one is gone leave it as it was.

    `regs`: where the registers go that user mode will begin with, if not to the end of the task's stack.
    """
    kernel, task = cpu.kernel, cpu.current
    try:
        binary = find_binary(cpu, inode, path, argv or (b"",))
    except UnknownFormatError as error:
        yield from request_binfmt(cpu, error.head)
        raise
    if sum(len(text) + 9 for text in (*binary.argv, *envp)) > MAX_ARG_TOTAL:
        raise SyscallError(Errno.E2BIG)
    space_at = new_mm(kernel)
    space = cpu.view(MmStruct, space_at)
    try:
        ip, sp = exec_program(kernel, space, binary.program, binary.argv, envp, binary.path, binary.file)
    except SyscallError:
        put_mm(kernel, space_at)
        raise
    old_pid = task.pid
    yield from _de_thread(cpu)
    if task.exit_state:
        put_mm(kernel, space_at)
        return 0
    space.exe = ramfs.get_inode(kernel, binary.inode)
    release_mm(cpu)
    task.mm, task.kthread = space_at, 0
    switch_mm(cpu, space_at)
    _forget_program(cpu, path)
    _start_registers(cpu, regs or task_pt_regs(kernel, task), ip, sp)
    trace_sched_process_exec(cpu, path, old_pid)
    yield from flush_breakpoints(cpu)
    yield from start_segments(cpu, ia32=binary.program.ia32)
    yield from clear_user_fpu(cpu)
    yield from ptrace_event(cpu, Event.EXEC, task.pid)
    return 0


def _de_thread(cpu: Cpu) -> Steps:
    """All other threads end; the caller becomes the process's leader."""
    kernel, address = cpu.kernel, cpu.percpu.current_task
    task = cpu.current
    leader_at = task.group_leader
    leader = kernel.view(TaskStruct, leader_at)
    if leader.live_threads == 1 and leader_at == address:
        return None
    if leader.group_exit:
        return None
    zap_other_threads(cpu)
    while leader.live_threads > 1 and not task.exit_state:
        yield from sleep_on(cpu, thread_channel(leader_at), 0, TaskState.UNINTERRUPTIBLE)
    if leader_at != address and not task.exit_state:
        _take_leadership(cpu, address, leader_at)
    return None


def _take_leadership(cpu: Cpu, address: int, old: int) -> None:
    kernel = cpu.kernel
    task, leader = kernel.view(TaskStruct, address), kernel.view(TaskStruct, old)
    task.pid, leader.pid = leader.pid, task.pid
    task.exit_signal, leader.exit_signal = leader.exit_signal, -1
    task.alarm_time, task.alarm_interval = leader.alarm_time, leader.alarm_interval
    task.live_threads, task.group_leader, leader.live_threads = 1, address, 0
    for _, other in all_tasks(kernel):
        if other.parent == old:
            other.parent = address
    data = mm.kernel_data(cpu.memory)
    if data.init_task == old:
        data.init_task = address
    release_task(kernel, old)


def _forget_program(cpu: Cpu, path: bytes) -> None:
    """What belongs to the old program: handlers, descriptors to be closed, what the C library registered."""
    task, files = cpu.current, files_of(cpu)
    exec_signals(cpu.kernel, task)
    for number in range(NR_OPEN):
        if files.fd[number] & CLOEXEC:
            close_fd(cpu, number)
    task.comm = path.rpartition(b"/")[2][:15]
    task.clear_child_tid = task.set_child_tid = task.robust_list = task.rseq = 0


def _start_registers(cpu: Cpu, regs: PtRegs, ip: int, sp: int) -> None:
    """start_thread(): everything 0 but RIP and RSP; flat segments."""
    for name, _ in ((entry[0], entry[1]) for entry in PtRegs._fields_):
        setattr(regs, name, 0)
    regs.ip, regs.sp = ip, sp
    regs.cs, regs.ss = Selector.USER32_CS if cpu.mm.vdso32 else Selector.USER_CS, Selector.USER_DS
    regs.flags = Rflags.IF | Rflags.FIXED
    regs.orig_ax = 0xFFFF_FFFF_FFFF_FFFF


@syscall
def sys_execve(cpu: Cpu, path: int, argv: int, envp: int) -> Steps:
    """execve(2)."""
    name = namei.getname(cpu, path)
    inode = namei.resolve(cpu, AT_FDCWD, name)
    return (yield from do_execve(cpu, inode, name, _texts(cpu, argv), _texts(cpu, envp)))


@syscall
def sys_execveat(cpu: Cpu, dirfd: int, path: int, argv: int, envp: int, flags: int) -> Steps:
    """execveat(2)."""
    name = namei.getname(cpu, path)
    if not name and flags & namei.AT_EMPTY_PATH:
        inode = get_file(cpu, dirfd).inode
        name = namei.path_of(cpu.kernel, inode)
    else:
        inode = namei.resolve(cpu, dirfd, name, follow=not flags & namei.AT_SYMLINK_NOFOLLOW)
    return (yield from do_execve(cpu, inode, name, _texts(cpu, argv), _texts(cpu, envp)))
