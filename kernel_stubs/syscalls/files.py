"""Reading and writing open files (fs/read_write.c)."""

from __future__ import annotations

from kernel_stubs import mm, netdev, pipe, ramfs
from kernel_stubs.abi import File, Inode, InodeKind
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError, UserFaultError
from kernel_stubs.fdtable import O_APPEND, O_NONBLOCK, get_file, readable, writable
from kernel_stubs.rlimit import Rlimit, rlimit
from kernel_stubs.rootfs import STDIN_INPUT
from kernel_stubs.signal import Sig, send_signal
from kernel_stubs.syscalls.system import random_bytes
from kernel_stubs.syscalls.table import s32, s64, syscall
from kernel_stubs.uaccess import access_ok, copy_from_user, copy_some_from_user, copy_to_user, get_user, put_user

MAX_RW_COUNT = 0x7FFF_F000
IOV_MAX = 1024
AT_ONCE = 1 << 20
"""No more is read from an endless device, or sent from file to file, in one go."""
Pieces = list[tuple[int, int]]
_SEEKABLE = (InodeKind.REGULAR, InodeKind.DIRECTORY, InodeKind.NULL, InodeKind.ZERO, InodeKind.FULL, InodeKind.RANDOM)


def _pieces(cpu: Cpu, vector: int, count: int) -> Pieces:
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


def _buffer(address: int, count: int) -> Pieces:
    if not access_ok(address, count):
        raise UserFaultError(address)
    return [(address, min(count, MAX_RW_COUNT))]


def gather(cpu: Cpu, pieces: Pieces) -> bytes:
    """What user mode wants to write, up to the first byte that cannot be read; UserFaultError if that is the first."""
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
    return b"".join(parts)


def scatter(cpu: Cpu, pieces: Pieces, data: bytes) -> int:
    """Hand out what was read: how many bytes arrived; UserFaultError if not one did."""
    done = 0
    for address, length in pieces:
        part = data[done : done + length]
        try:
            copy_to_user(cpu, address, part)
        except UserFaultError:
            if not done:
                raise
            break
        done += len(part)
        if done == len(data):
            break
    return done


# --- reading ----------------------------------------------------------------------------------------------------------
def _read(cpu: Cpu, file: File, pieces: Pieces) -> int | Steps:
    if not readable(file):
        raise SyscallError(Errno.EBADF)
    node = cpu.view(Inode, file.inode)
    if node.kind == InodeKind.PIPE:
        return _read_pipe(cpu, file, pieces)
    wanted = sum(length for _, length in pieces)
    if node.kind == InodeKind.NET:
        return _read_packet(cpu, file, pieces)
    if node.kind == InodeKind.STDIN:
        state = mm.kernel_data(cpu.memory)
        data = cpu.kernel.files[STDIN_INPUT].data[state.stdin_position :][:wanted]
        done = scatter(cpu, pieces, data)
        state.stdin_position += done
        return done
    done = scatter(cpu, pieces, read_at(cpu, node, file.position, wanted))
    if node.kind == InodeKind.REGULAR:
        file.position += done
    return done


def _read_packet(cpu: Cpu, file: File, pieces: Pieces) -> Steps:
    wanted = sum(length for _, length in pieces)
    ready = yield from netdev.net_read(cpu, wanted, wait=not file.flags & O_NONBLOCK)
    done = scatter(cpu, pieces, netdev.packet(cpu)[: ready or 0])
    netdev.consume(cpu)
    return done


def read_at(cpu: Cpu, node: Inode, position: int, wanted: int) -> bytes:
    """Content of what is always ready: a regular file or a device."""
    match node.kind:
        case InodeKind.REGULAR:
            return ramfs.read_inode(cpu.kernel, node, position, wanted)
        case InodeKind.DIRECTORY:
            raise SyscallError(Errno.EISDIR)
        case InodeKind.ZERO | InodeKind.FULL:
            return bytes(min(wanted, AT_ONCE))
        case InodeKind.RANDOM:
            return random_bytes(cpu.kernel, min(wanted, AT_ONCE))
        case InodeKind.NULL:
            return b""
    raise SyscallError(Errno.EINVAL)


def _read_pipe(cpu: Cpu, file: File, pieces: Pieces) -> Steps:
    inode = file.inode
    ready = yield from pipe.read_pipe(cpu, file, sum(length for _, length in pieces))
    done = scatter(cpu, pieces, pipe.peek(cpu.kernel, cpu.view(Inode, inode), ready or 0))
    pipe.consume(cpu, inode, done)
    return done


# --- writing ----------------------------------------------------------------------------------------------------------
def check_file_size(cpu: Cpu, size: int) -> None:
    """RLIMIT_FSIZE: SIGXFSZ and EFBIG for a file that is to become larger."""
    if size > rlimit(cpu.kernel, cpu.current, Rlimit.FSIZE):
        send_signal(cpu, cpu.current, Sig.SIGXFSZ)
        raise SyscallError(Errno.EFBIG)


def write_limited(cpu: Cpu, node: Inode, position: int, data: bytes) -> int:
    """Write to a regular file what the limit leaves: how many bytes."""
    if data:
        check_file_size(cpu, position + 1)
    room = rlimit(cpu.kernel, cpu.current, Rlimit.FSIZE) - position
    return ramfs.write_inode(cpu.kernel, node, position, data[:room])


def _write(cpu: Cpu, file: File, pieces: Pieces) -> int | Steps:
    if not writable(file):
        raise SyscallError(Errno.EBADF)
    return write_file(cpu, file, gather(cpu, pieces))


def write_file(cpu: Cpu, file: File, data: bytes) -> int | Steps:
    """Write at the file's position."""
    node = cpu.view(Inode, file.inode)
    match node.kind:
        case InodeKind.PIPE:
            return pipe.write_pipe(cpu, file, data)
        case InodeKind.STDOUT | InodeKind.STDERR:
            if data:
                cpu.kernel.output.append((1 if node.kind == InodeKind.STDOUT else 2, data))
            return len(data)
        case InodeKind.NULL | InodeKind.ZERO | InodeKind.RANDOM:
            return len(data)
        case InodeKind.REGULAR:
            if file.flags & O_APPEND:
                file.position = node.size
            done = write_limited(cpu, node, file.position, data)
            file.position += done
            return done
        case InodeKind.FULL:
            raise SyscallError(Errno.ENOSPC)
    raise SyscallError(Errno.EINVAL)


# --- the calls --------------------------------------------------------------------------------------------------------
@syscall
def sys_read(cpu: Cpu, fd: int, buffer: int, count: int) -> int | Steps:
    """read(2)."""
    file = get_file(cpu, fd)
    return _read(cpu, file, _buffer(buffer, count))


@syscall
def sys_write(cpu: Cpu, fd: int, buffer: int, count: int) -> int | Steps:
    """write(2)."""
    file = get_file(cpu, fd)
    return _write(cpu, file, _buffer(buffer, count))


@syscall
def sys_readv(cpu: Cpu, fd: int, vector: int, count: int) -> int | Steps:
    """readv(2)."""
    file = get_file(cpu, fd)
    return _read(cpu, file, _pieces(cpu, vector, count))


@syscall
def sys_writev(cpu: Cpu, fd: int, vector: int, count: int) -> int | Steps:
    """writev(2)."""
    file = get_file(cpu, fd)
    return _write(cpu, file, _pieces(cpu, vector, count))


def _positioned(cpu: Cpu, fd: int, position: int) -> tuple[File, Inode]:
    file = get_file(cpu, fd)
    if s64(position) < 0:
        raise SyscallError(Errno.EINVAL)
    node = cpu.view(Inode, file.inode)
    if node.kind not in _SEEKABLE:
        raise SyscallError(Errno.ESPIPE)
    return file, node


@syscall
def sys_pread64(cpu: Cpu, fd: int, buffer: int, count: int, position: int) -> int:
    """pread64(2)."""
    file, node = _positioned(cpu, fd, position)
    if not readable(file):
        raise SyscallError(Errno.EBADF)
    pieces = _buffer(buffer, count)
    return scatter(cpu, pieces, read_at(cpu, node, position, pieces[0][1]))


@syscall
def sys_pwrite64(cpu: Cpu, fd: int, buffer: int, count: int, position: int) -> int:
    """pwrite64(2)."""
    file, node = _positioned(cpu, fd, position)
    if not writable(file):
        raise SyscallError(Errno.EBADF)
    data = gather(cpu, _buffer(buffer, count))
    return write_limited(cpu, node, position, data) if node.kind == InodeKind.REGULAR else len(data)


@syscall
def sys_lseek(cpu: Cpu, fd: int, offset: int, whence: int) -> int:
    """lseek(2)."""
    file = get_file(cpu, fd)
    node = cpu.view(Inode, file.inode)
    if node.kind not in _SEEKABLE:
        raise SyscallError(Errno.ESPIPE)
    bases = {0: 0, 1: file.position, 2: node.size if node.kind == InodeKind.REGULAR else 0}
    if s32(whence) not in bases:
        raise SyscallError(Errno.EINVAL)
    position = bases[s32(whence)] + s64(offset)
    if not 0 <= position <= ramfs.MAX_FILE:
        raise SyscallError(Errno.EINVAL)
    file.position = position
    return position


@syscall
def sys_ftruncate(cpu: Cpu, fd: int, size: int) -> int:
    """ftruncate(2)."""
    if s64(size) < 0:
        raise SyscallError(Errno.EINVAL)
    file = get_file(cpu, fd)
    node = cpu.view(Inode, file.inode)
    if node.kind != InodeKind.REGULAR or not writable(file):
        raise SyscallError(Errno.EINVAL)
    check_file_size(cpu, size)
    ramfs.truncate(cpu.kernel, node, size)
    return 0


@syscall
def sys_fsync(cpu: Cpu, fd: int) -> int:
    """fsync(2): there is nothing behind the memory."""
    node = cpu.view(Inode, get_file(cpu, fd).inode)
    if node.kind not in (InodeKind.REGULAR, InodeKind.DIRECTORY):
        raise SyscallError(Errno.EINVAL)
    return 0


@syscall
def sys_sendfile(cpu: Cpu, out: int, source: int, offset: int, count: int) -> Steps:
    """sendfile(2), from a regular file."""
    target, file = get_file(cpu, out), get_file(cpu, source)
    if not readable(file) or not writable(target):
        raise SyscallError(Errno.EBADF)
    node = cpu.view(Inode, file.inode)
    if node.kind != InodeKind.REGULAR or target.flags & O_APPEND:
        raise SyscallError(Errno.EINVAL)
    at = get_user(cpu, offset) if offset else file.position
    if s64(at) < 0:
        raise SyscallError(Errno.EINVAL)
    result = write_file(cpu, target, ramfs.read_inode(cpu.kernel, node, at, min(count, AT_ONCE)))
    done = result if isinstance(result, int) else (yield from result) or 0
    if offset:
        put_user(cpu, offset, at + done)
    else:
        file.position += done
    return done
