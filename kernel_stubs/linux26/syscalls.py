"""System calls: `sys_*` with their arguments in registers, as the tables of the assembly call them."""

from __future__ import annotations

from kernel_stubs.abi import THREAD_SIZE, ExitState, PtRegs
from kernel_stubs.abi26 import NOT_IN_26, STUBS, USER_DS
from kernel_stubs.binding import ARGUMENT_REGISTERS, Steps, Unwind
from kernel_stubs.context import Cpu, in_ia32_syscall
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fdtable import AT_FDCWD
from kernel_stubs.linux26.calls import Body, c_function26, register26
from kernel_stubs.linux26.thread_info import start_thread, thread_info
from kernel_stubs.namei import resolve
from kernel_stubs.process import do_exit
from kernel_stubs.switch import task_pt_regs
from kernel_stubs.syscalls.execute import do_execve
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES
from kernel_stubs.syscalls.table import (
    implemented,
    invoke,
    not_implemented,
    not_implemented32,
    parameter_count,
)
from kernel_stubs.trace import trace_sys_enter, trace_sys_exit

NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
ENDING = frozenset({"exit", "exit_group"})
"""They do not return."""


def traced(cpu: Cpu, args: tuple[int, ...] | None, steps: Steps) -> Steps:
    """The steps of a system call between its tracepoints, if somebody asked for those.

    The assembly looks for tracers itself, so they are around the C function. `args` are the registers that the
    function begins with if not given otherwise: more than most system calls declare.
    """
    return _told(cpu, args, steps) if cpu.kernel.machine.traced else steps


def _told(cpu: Cpu, args: tuple[int, ...] | None, steps: Steps) -> Steps:
    if args is None:
        args = tuple(cpu.core.cpu.register(number) for number in ARGUMENT_REGISTERS)
    number = task_pt_regs(cpu.kernel, cpu.current).orig_ax & 0xFFFF_FFFF
    ia32 = in_ia32_syscall(cpu.kernel, cpu.current)
    trace_sys_enter(cpu, number, tuple(arg & 0xFFFF_FFFF for arg in args) if ia32 else args, ia32=ia32)
    result = yield from steps
    trace_sys_exit(cpu, number, result or 0, ia32=ia32)
    return result


def _body(number: int, name: str) -> Body:
    def body(cpu: Cpu, *args: int) -> Steps:
        result = yield from traced(cpu, None, invoke(cpu, number, args))
        if name in ENDING and cpu.current.exit_state == ExitState.REQUESTED:
            yield from do_exit(cpu)
        return result

    return body


def register_all() -> None:
    """Register all system calls that there are, but for those whose C function gets the pt_regs."""
    for number, name in implemented().items():
        if number not in STUBS and name not in NOT_IN_26:
            register26(f"sys_{name}", _body(number, name), (int,) * parameter_count(number))


@c_function26
def sys_ni_syscall(cpu: Cpu) -> Steps:
    """What the tables have for a number that nobody has written, or that this kernel did not know: -ENOSYS."""
    number = task_pt_regs(cpu.kernel, cpu.current).orig_ax & 0xFFFF_FFFF
    return (yield from traced(cpu, None, _enosys(cpu, number)))


def _enosys(cpu: Cpu, number: int) -> Steps:
    yield from ()
    ia32 = in_ia32_syscall(cpu.kernel, cpu.current)
    if (IA32_SYSCALL_NAMES if ia32 else SYSCALL_NAMES).get(number) in NOT_IN_26:
        return -Errno.ENOSYS
    return not_implemented32(cpu, number) if ia32 else not_implemented(cpu, number)


# --- with the whole pt_regs, from ptregs.S ----------------------------------------------------------------------------
def _call(cpu: Cpu, regs: PtRegs, name: str, args: tuple[int, ...]) -> Steps:
    registers = (regs.di, regs.si, regs.dx, regs.r10, regs.r8, regs.r9)
    return (yield from traced(cpu, registers, invoke(cpu, NUMBERS[name], args)))


@c_function26
def sys_clone(cpu: Cpu, flags: int, stack: int, parent_tid: int, child_tid: int, regs: PtRegs) -> Steps:
    """clone(2): the fifth argument is only in the registers."""
    return (yield from _call(cpu, regs, "clone", (flags, stack, parent_tid, child_tid, regs.r8)))


@c_function26
def sys_fork(cpu: Cpu, regs: PtRegs) -> Steps:
    """fork(2)."""
    return (yield from _call(cpu, regs, "fork", ()))


@c_function26
def sys_vfork(cpu: Cpu, regs: PtRegs) -> Steps:
    """vfork(2)."""
    return (yield from _call(cpu, regs, "vfork", ()))


@c_function26
def sys_execve(cpu: Cpu, path: int, argv: int, envp: int, regs: PtRegs) -> Steps:
    """execve(2), and what kernel_execve calls: with pointers into the kernel, and a frame amid the stack."""
    info = thread_info(cpu.kernel, cpu.current)
    if info.addr_limit == USER_DS:
        result = yield from _call(cpu, regs, "execve", (path, argv, envp))
        if not result:
            start_thread(cpu)
        return result
    try:
        name = _kernel_text(cpu, path)
        inode = resolve(cpu, AT_FDCWD, name)
        yield from do_execve(cpu, inode, name, _kernel_texts(cpu, argv), _kernel_texts(cpu, envp), regs)
    except SyscallError as error:
        return -error.errno
    start_thread(cpu)
    yield Unwind((cpu.current.stack, cpu.current.stack + THREAD_SIZE))
    return 0


def _kernel_text(cpu: Cpu, address: int) -> bytes:
    text = bytearray()
    while byte := cpu.core.read_linear(address + len(text), 1):
        if byte == b"\0":
            break
        text += byte
    return bytes(text)


def _kernel_texts(cpu: Cpu, vector: int) -> tuple[bytes, ...]:
    found: list[bytes] = []
    while at := int.from_bytes(cpu.core.read_linear(vector + 8 * len(found), 8), "little"):
        found.append(_kernel_text(cpu, at))
    return tuple(found)


@c_function26
def sys_rt_sigreturn(cpu: Cpu, regs: PtRegs) -> Steps:
    """rt_sigreturn(2)."""
    return (yield from _call(cpu, regs, "rt_sigreturn", ()))


@c_function26
def sys_sigaltstack(cpu: Cpu, new: int, old: int, regs: PtRegs) -> Steps:
    """sigaltstack(2)."""
    return (yield from _call(cpu, regs, "sigaltstack", (new, old)))
