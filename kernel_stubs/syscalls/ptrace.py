"""ptrace(2) (kernel/ptrace.c, arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

from dataclasses import dataclass

from emu.arch import PAGE_SIZE
from kernel_stubs import mm as mm_frames
from kernel_stubs import pgtable, vma
from kernel_stubs.abi import FXSAVE_SIZE, MmStruct, TaskState, TaskStruct, VmFlags
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError, UserFaultError
from kernel_stubs.hw_breakpoint import get_debugreg, set_debugreg
from kernel_stubs.page_fault import handle_mm_fault
from kernel_stubs.process import ptrace_detach
from kernel_stubs.ptrace_abi import OPTIONS, Request, SyscallWork
from kernel_stubs.ptrace_regs import (
    USER32_DEBUGREG,
    USER32_SIZE,
    USER_DEBUGREG,
    USER_REGS,
    USER_REGS_32,
    USER_SIZE,
    get_reg,
    put_user_reg,
    regs_size,
    set_user_regs,
    user_regs,
)
from kernel_stubs.ptrace_stop import store_siginfo, stored_siginfo
from kernel_stubs.sched import address_of, all_tasks, wake_up_state
from kernel_stubs.siginfo import SI_KERNEL, SI_USER, USER_SIGINFO_SIZE, Sig, Siginfo
from kernel_stubs.signal import send_signal
from kernel_stubs.signal_abi import NSIG
from kernel_stubs.step import disable_single_step, enable_single_step
from kernel_stubs.syscalls.fpregs import read_fpregs, write_fpregs
from kernel_stubs.syscalls.regsets import ptrace_regset
from kernel_stubs.syscalls.table import s32, s64, syscall
from kernel_stubs.uaccess import copy_from_user, copy_to_user, read_user

_WITH_ADDRESS = frozenset({Sig.SIGILL, Sig.SIGFPE, Sig.SIGSEGV, Sig.SIGBUS, Sig.SIGTRAP})
_RESUMING = frozenset({Request.CONT, Request.SYSCALL, Request.SINGLESTEP})


@dataclass(frozen=True, slots=True)
class Call:
    """A request about a task that is stopped for the caller."""

    request: int
    address: int
    data: int
    ia32: bool = False
    """Words have 32 bits, and structures the form of i386."""

    @property
    def word(self) -> int:
        """Bytes of a word."""
        return 4 if self.ia32 else 8


@syscall
def sys_ptrace(cpu: Cpu, request: int, pid: int, address: int, data: int) -> int:
    """ptrace(2)."""
    return ptrace(cpu, s32(pid), Call(s64(request), address, data))


def ptrace(cpu: Cpu, pid: int, call: Call) -> int:
    """A request of either ABI."""
    if call.request == Request.TRACEME:
        return _traceme(cpu)
    task = _find(cpu, pid)
    if call.request == Request.ATTACH:
        return _attach(cpu, task)
    if task.ptrace.tracer != cpu.current.group_leader:
        raise SyscallError(Errno.ESRCH)
    if call.request == Request.KILL:
        send_signal(cpu, task, Siginfo(Sig.SIGKILL, SI_USER), process=False)
        return 0
    if task.state != TaskState.TRACED:
        raise SyscallError(Errno.ESRCH)
    return _request(cpu, task, call)


def _find(cpu: Cpu, pid: int) -> TaskStruct:
    for _, task in all_tasks(cpu.kernel):
        if task.pid == pid:
            return task
    raise SyscallError(Errno.ESRCH)


def _traceme(cpu: Cpu) -> int:
    task = cpu.current
    if task.ptrace.tracer:
        raise SyscallError(Errno.EPERM)
    parent = cpu.view(TaskStruct, task.group_leader).parent
    if parent:  # there is nobody else to trace the first process
        task.ptrace.tracer = parent
    return 0


def _attach(cpu: Cpu, task: TaskStruct) -> int:
    if task.tgid == cpu.current.tgid or task.kthread or task.exit_state or task.ptrace.tracer:
        raise SyscallError(Errno.EPERM)
    task.ptrace.tracer = cpu.current.group_leader
    send_signal(cpu, task, Siginfo(Sig.SIGSTOP, SI_USER), process=False)
    if task.state == TaskState.STOPPED:  # it is to stop once more, for its tracer
        task.signals.stop_signal = task.signals.last_stop
        wake_up_state(cpu, address_of(cpu.kernel, task))
    return 0


def _request(cpu: Cpu, task: TaskStruct, call: Call) -> int:
    """What can be asked about a stopped task."""
    kernel, at, data = cpu.kernel, call.address, call.data
    match call.request:
        case Request.PEEKTEXT | Request.PEEKDATA:
            copy_to_user(cpu, data, _peek(cpu, task, at, call.word))
        case Request.POKETEXT | Request.POKEDATA:
            _poke(cpu, task, at, (data & (1 << 8 * call.word) - 1).to_bytes(call.word, "little"))
        case Request.PEEKUSER:
            copy_to_user(cpu, data, _peek_user(cpu, task, call).to_bytes(call.word, "little"))
        case Request.POKEUSER:
            _poke_user(cpu, task, call)
        case Request.GETREGS:
            copy_to_user(cpu, data, user_regs(kernel, task, ia32=call.ia32))
        case Request.SETREGS:
            set_user_regs(kernel, task, copy_from_user(cpu, data, regs_size(ia32=call.ia32)), ia32=call.ia32)
        case Request.GETFPREGS if not call.ia32:
            copy_to_user(cpu, data, read_fpregs(cpu, task))
        case Request.SETFPREGS if not call.ia32:
            write_fpregs(cpu, task, copy_from_user(cpu, data, FXSAVE_SIZE))
        case Request.GETREGSET | Request.SETREGSET:
            ptrace_regset(cpu, task, call.request, at, data, ia32=call.ia32)
        case Request.SETOPTIONS:
            if data & ~OPTIONS:
                raise SyscallError(Errno.EINVAL)
            task.ptrace.options = data
        case Request.GETEVENTMSG:
            copy_to_user(cpu, data, task.ptrace.message.to_bytes(8, "little")[: call.word])
        case Request.GETSIGINFO:
            copy_to_user(cpu, data, _siginfo_32(_siginfo(task)) if call.ia32 else _siginfo(task).to_bytes())
        case Request.SETSIGINFO if not call.ia32:
            _siginfo(task)
            store_siginfo(task, Siginfo.from_bytes(copy_from_user(cpu, data, USER_SIGINFO_SIZE)))
        case Request.DETACH:
            _check_signal(data)
            task.ptrace.stopped_for = data
            ptrace_detach(cpu, task)
        case number if number in _RESUMING:
            _resume(cpu, task, number, data)
        case _:
            raise SyscallError(Errno.EIO)
    return 0


def _siginfo(task: TaskStruct) -> Siginfo:
    info = stored_siginfo(task)
    if info is None:
        raise SyscallError(Errno.EINVAL)
    return info


def _siginfo_32(info: Siginfo) -> bytes:
    """copy_siginfo_to_user32(): an address has 4 bytes; what else there may be lies as in the 64-bit form."""
    head = b"".join(word.to_bytes(4, "little", signed=True) for word in (info.signo, info.errno, info.code))
    fault = 0 < info.code < SI_KERNEL and info.signo in _WITH_ADDRESS
    return (head + info.payload[: 4 if fault else 12]).ljust(USER_SIGINFO_SIZE, b"\0")


# --- memory -----------------------------------------------------------------------------------------------------------
def _peek(cpu: Cpu, task: TaskStruct, address: int, size: int) -> bytes:
    try:
        return read_user(cpu.kernel, cpu.view(MmStruct, task.mm), address, size)
    except UserFaultError:
        raise SyscallError(Errno.EIO) from None


def _poke(cpu: Cpu, task: TaskStruct, address: int, data: bytes) -> None:
    space = cpu.view(MmStruct, task.mm)
    try:
        read_user(cpu.kernel, space, address, len(data))
        for page in sorted({address & -PAGE_SIZE, (address + len(data) - 1) & -PAGE_SIZE}):
            _make_own(cpu, space, page)
        _store(cpu, space, address, data)
    except UserFaultError:
        raise SyscallError(Errno.EIO) from None


def _store(cpu: Cpu, space: MmStruct, address: int, data: bytes) -> None:
    """Write to pages that are the process's own, whatever their rights."""
    done = 0
    while done < len(data):
        at = address + done
        length = min(len(data) - done, PAGE_SIZE - at % PAGE_SIZE)
        frame = mm_frames.frame_of(pgtable.get_pte(cpu.memory, space.pgd, at & -PAGE_SIZE))
        cpu.memory.write(frame + at % PAGE_SIZE, data[done : done + length])
        done += length


def _make_own(cpu: Cpu, space: MmStruct, page: int) -> None:
    """FOLL_FORCE: a page that is not writable is copied as if it were, unless others are to see what is written."""
    kernel = cpu.kernel
    area = vma.find_vma(kernel, space, page)
    if area is None or (area.flags & VmFlags.SHARED and not area.flags & VmFlags.WRITE):
        raise UserFaultError(page)
    if area.flags & VmFlags.WRITE:
        handle_mm_fault(kernel, space, page, write=True, protection=True)
        return
    frame = mm_frames.frame_of(pgtable.get_pte(cpu.memory, space.pgd, page))
    if mm_frames.page_extra(cpu.memory, frame):
        own = mm_frames.alloc_page(cpu.memory)
        cpu.memory.write(own, cpu.memory.read(frame, PAGE_SIZE))
        mm_frames.put_page(cpu.memory, frame)
        pgtable.set_pte(cpu.memory, space.pgd, page, own, vma.page_bits(kernel, area.flags, own))
        kernel.machine.flush_tlb()


# --- struct user ------------------------------------------------------------------------------------------------------
def _place(call: Call) -> tuple[str, int]:
    """What lies at an offset in `struct user`: (register, 0), ("debugreg", number), ("", 0); EIO if there is none."""
    size, debug = (USER32_SIZE, USER32_DEBUGREG) if call.ia32 else (USER_SIZE, USER_DEBUGREG)
    names = USER_REGS_32 if call.ia32 else USER_REGS
    if call.address % call.word or call.address >= size:
        raise SyscallError(Errno.EIO)
    index = call.address // call.word
    if index < len(names):
        return names[index], 0
    number = index - debug // call.word
    return ("debugreg", number) if 0 <= number < 8 else ("", 0)


def _peek_user(cpu: Cpu, task: TaskStruct, call: Call) -> int:
    name, number = _place(call)
    value = get_debugreg(task, number) if name == "debugreg" else get_reg(cpu.kernel, task, name) if name else 0
    return value & (1 << 8 * call.word) - 1


def _poke_user(cpu: Cpu, task: TaskStruct, call: Call) -> None:
    name, number = _place(call)
    if not name:
        raise SyscallError(Errno.EIO)
    if name == "debugreg":
        set_debugreg(task, number, call.data)
    else:
        put_user_reg(cpu.kernel, task, name, call.data, ia32=call.ia32)


# --- going on ---------------------------------------------------------------------------------------------------------
def _check_signal(signal: int) -> None:
    if signal > NSIG:
        raise SyscallError(Errno.EIO)


def _resume(cpu: Cpu, task: TaskStruct, request: int, signal: int) -> None:
    _check_signal(signal)
    work = task.thread_info.syscall_work & ~int(SyscallWork.SYSCALL_TRACE)
    task.thread_info.syscall_work = work | (SyscallWork.SYSCALL_TRACE if request == Request.SYSCALL else 0)
    if request == Request.SINGLESTEP:
        enable_single_step(cpu.kernel, task)
    else:
        disable_single_step(cpu.kernel, task)
    task.ptrace.stopped_for = signal
    wake_up_state(cpu, address_of(cpu.kernel, task))
