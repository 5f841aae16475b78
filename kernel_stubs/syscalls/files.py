"""read, write and friends. There are three open files: the run's input, its output, its errors; each like a pipe."""

from __future__ import annotations

from kernel_stubs import mm
from kernel_stubs.abi import NR_OPEN, FilesStruct, OpenFile
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError, UserFaultError
from kernel_stubs.syscalls.table import s32, s64, syscall
from kernel_stubs.uaccess import access_ok, copy_from_user, copy_some_from_user, copy_to_user, get_user

MAX_RW_COUNT = 0x7FFF_F000
IOV_MAX = 1024
STDIN_FILE = 1
"""Index of standard input in Kernel.files."""
FD_CLOEXEC = 1


def files_of(cpu: Cpu) -> FilesStruct:
    """The current task's descriptors."""
    return cpu.view(FilesStruct, cpu.current.files)


def open_file(cpu: Cpu, fd: int) -> OpenFile:
    """What a descriptor leads to; EBADF if it is closed."""
    number = s32(fd)
    if not 0 <= number < NR_OPEN:
        raise SyscallError(Errno.EBADF)
    value = files_of(cpu).fd[number]
    if value not in (OpenFile.STDIN, OpenFile.STDOUT, OpenFile.STDERR):
        raise SyscallError(Errno.EBADF)
    return OpenFile(value)


def _pieces(cpu: Cpu, vector: int, count: int) -> list[tuple[int, int]]:
    """An iovec array: (address, length), checked as import_iovec does."""
    if count > IOV_MAX:
        raise SyscallError(Errno.EINVAL)
    raw = copy_from_user(cpu, vector, 16 * count)
    words = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
    pieces = []
    left = MAX_RW_COUNT
    for address, length in zip(words[::2], words[1::2], strict=True):
        if s64(length) < 0:
            raise SyscallError(Errno.EINVAL)
        if not access_ok(address, length):
            raise UserFaultError(address)
        pieces.append((address, min(length, left)))
        left -= min(length, left)
    return pieces


def _write(cpu: Cpu, fd: int, pieces: list[tuple[int, int]]) -> int:
    if open_file(cpu, fd) is OpenFile.STDIN:
        raise SyscallError(Errno.EBADF)  # not open for writing
    parts: list[bytes] = []
    for address, length in pieces:
        try:
            part = copy_some_from_user(cpu, address, length)
        except UserFaultError:
            if not any(parts):
                raise
            break
        parts.append(part)
        if len(part) < length:
            break
    data = b"".join(parts)
    if data:
        number = {OpenFile.STDOUT: 1, OpenFile.STDERR: 2}[open_file(cpu, fd)]
        cpu.kernel.output.append((number, data))
    return len(data)


def _read(cpu: Cpu, fd: int, pieces: list[tuple[int, int]]) -> int:
    if open_file(cpu, fd) is not OpenFile.STDIN:
        raise SyscallError(Errno.EBADF)  # not open for reading
    data = cpu.kernel.files[STDIN_FILE].data
    state = mm.kernel_data(cpu.memory)
    total = 0
    for address, length in pieces:
        chunk = data[state.stdin_position : state.stdin_position + length]
        try:
            copy_to_user(cpu, address, chunk)
        except UserFaultError:
            if not total:
                raise
            break
        state.stdin_position += len(chunk)
        total += len(chunk)
        if len(chunk) < length:
            break
    return total


def _buffer(address: int, count: int) -> list[tuple[int, int]]:
    if not access_ok(address, count):
        raise UserFaultError(address)
    return [(address, min(count, MAX_RW_COUNT))]


@syscall
def sys_read(cpu: Cpu, fd: int, buffer: int, count: int) -> int:
    """read(2)."""
    open_file(cpu, fd)
    return _read(cpu, fd, _buffer(buffer, count))


@syscall
def sys_write(cpu: Cpu, fd: int, buffer: int, count: int) -> int:
    """write(2)."""
    open_file(cpu, fd)
    return _write(cpu, fd, _buffer(buffer, count))


@syscall
def sys_readv(cpu: Cpu, fd: int, vector: int, count: int) -> int:
    """readv(2)."""
    open_file(cpu, fd)
    return _read(cpu, fd, _pieces(cpu, vector, count))


@syscall
def sys_writev(cpu: Cpu, fd: int, vector: int, count: int) -> int:
    """writev(2)."""
    open_file(cpu, fd)
    return _write(cpu, fd, _pieces(cpu, vector, count))


@syscall
def sys_close(cpu: Cpu, fd: int) -> int:
    """close(2)."""
    open_file(cpu, fd)
    files = files_of(cpu)
    files.fd[s32(fd)] = OpenFile.CLOSED
    files.cloexec &= ~(1 << s32(fd))
    return 0


def _duplicate(cpu: Cpu, fd: int, new: int, *, cloexec: bool) -> int:
    kind = open_file(cpu, fd)
    files = files_of(cpu)
    files.fd[new] = kind
    files.cloexec = files.cloexec & ~(1 << new) | cloexec << new
    return new


def _lowest_free(cpu: Cpu, first: int) -> int:
    files = files_of(cpu)
    for number in range(first, NR_OPEN):
        if files.fd[number] == OpenFile.CLOSED:
            return number
    raise SyscallError(Errno.EMFILE)


@syscall
def sys_dup(cpu: Cpu, fd: int) -> int:
    """dup(2)."""
    open_file(cpu, fd)
    return _duplicate(cpu, fd, _lowest_free(cpu, 0), cloexec=False)


@syscall
def sys_dup2(cpu: Cpu, fd: int, new: int) -> int:
    """dup2(2)."""
    open_file(cpu, fd)
    if not 0 <= s32(new) < NR_OPEN:
        raise SyscallError(Errno.EBADF)
    return s32(new) if s32(fd) == s32(new) else _duplicate(cpu, fd, s32(new), cloexec=False)


@syscall
def sys_fcntl(cpu: Cpu, fd: int, command: int, argument: int) -> int:
    """fcntl(2): duplicating, descriptor flags, status flags."""
    kind = open_file(cpu, fd)
    files = files_of(cpu)
    bit = 1 << s32(fd)
    match command & 0xFFFF_FFFF:
        case 0 | 1030:  # F_DUPFD, F_DUPFD_CLOEXEC
            if argument >= NR_OPEN:
                raise SyscallError(Errno.EINVAL)
            return _duplicate(cpu, fd, _lowest_free(cpu, argument), cloexec=command == 1030)
        case 1:  # F_GETFD
            return FD_CLOEXEC if files.cloexec & bit else 0
        case 2:  # F_SETFD
            files.cloexec = files.cloexec | bit if argument & FD_CLOEXEC else files.cloexec & ~bit
            return 0
        case 3:  # F_GETFL: O_RDONLY, O_WRONLY
            return 0 if kind is OpenFile.STDIN else 1
        case _:
            raise SyscallError(Errno.EINVAL)


@syscall
def sys_lseek(cpu: Cpu, fd: int, offset: int, whence: int) -> int:
    """lseek(2)."""
    open_file(cpu, fd)
    raise SyscallError(Errno.ESPIPE)


@syscall
def sys_ioctl(cpu: Cpu, fd: int, command: int, argument: int) -> int:
    """ioctl(2): none of the files is a terminal."""
    open_file(cpu, fd)
    raise SyscallError(Errno.ENOTTY)


POLLIN, POLLOUT, POLLNVAL = 0x1, 0x4, 0x20


@syscall
def sys_poll(cpu: Cpu, fds: int, count: int, timeout: int) -> int:
    """poll(2). All files are always ready, so it never has to wait, unless nothing is asked of any."""
    if count > NR_OPEN:
        raise SyscallError(Errno.EINVAL)
    ready = 0
    for entry in range(fds, fds + 8 * count, 8):
        fd, events = s32(get_user(cpu, entry, 4)), get_user(cpu, entry + 4, 2)
        revents = 0
        if fd >= 0:
            try:
                revents = events & (POLLIN if open_file(cpu, fd) is OpenFile.STDIN else POLLOUT)
            except SyscallError:
                revents = POLLNVAL
        copy_to_user(cpu, entry + 6, revents.to_bytes(2, "little"))
        ready += bool(revents)
    return ready
