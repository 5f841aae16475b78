"""Helpers in user mode: request_module() and call_usermodehelper() (kernel/kmod.c).

An image has them if it has the kernel thread `khelper`, which starts helpers one after the other (kernel_stubs.linux26
.khelper). Without it nobody helps.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs import mm
from kernel_stubs.abi import TaskState
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, OutOfMemoryError
from kernel_stubs.layout import S64, U64, Struct, layout
from kernel_stubs.rlimit import max_tasks
from kernel_stubs.sched import sleep_on, wake_up

MODPROBE_PATH = b"/sbin/modprobe"
_ENVIRONMENT = (b"HOME=/", b"TERM=linux", b"PATH=/sbin:/usr/sbin:/bin:/usr/bin")
MAX_KMOD_CONCURRENT = 50
"""More requests at once are a loop: modprobe itself asks for a module."""
QUEUE_CHANNEL = 24
"""What khelper sleeps on."""
_THREAD = "khelper"
_MAX_ERRNO = 4095


@layout()
class SubprocessInfo(Struct):
    """`struct subprocess_info`, at the beginning of a page that holds the strings too."""

    next: U64
    """The next one in KernelData.helper_queue."""
    path: U64
    argv: U64
    envp: U64
    done: U64
    retval: S64
    """The wait status of a helper that ran, -errno if it could not be started."""


def as_error(value: int) -> int:
    """-errno if a pid or pointer that guest code returned is one (IS_ERR_VALUE), else 0."""
    signed = value - (1 << 64) if value >> 63 else value
    return signed if -_MAX_ERRNO <= signed < 0 else 0


def request_binfmt(cpu: Cpu, head: bytes) -> Steps:
    """Nobody knows the format of a file that begins so: unless it is text, a module may (fs/exec.c)."""
    if not all(byte in b"\t\n" or 0x20 <= byte <= 0x7E for byte in head.ljust(4, b"\0")):
        number = int.from_bytes(head[2:4].ljust(2, b"\0"), "little")
        yield from request_module(cpu, b"binfmt-%04x" % number)
    return None


def request_module(cpu: Cpu, name: bytes) -> Steps:
    """Have modprobe(8) load a module, and wait for it: its wait status, or -errno."""
    if _THREAD not in cpu.kernel.image.symbols:
        return -Errno.ENOSYS
    data = mm.kernel_data(cpu.memory)
    if data.kmod_concurrent >= min(max_tasks(cpu.kernel) // 2, MAX_KMOD_CONCURRENT):
        cpu.note(f"request_module: runaway loop modprobe {name.decode()}")
        return -Errno.ENOMEM
    data.kmod_concurrent += 1
    result = yield from call_usermodehelper(cpu, MODPROBE_PATH, (MODPROBE_PATH, b"-q", b"--", name), _ENVIRONMENT)
    data.kmod_concurrent -= 1
    return result


def call_usermodehelper(cpu: Cpu, path: bytes, argv: tuple[bytes, ...], envp: tuple[bytes, ...]) -> Steps:
    """Run a program as a child of khelper, and wait for its end: its wait status, or -errno."""
    kernel, data = cpu.kernel, mm.kernel_data(cpu.memory)
    try:
        page = mm.alloc_page(cpu.memory)
    except OutOfMemoryError:
        return -Errno.ENOMEM
    address = mm.direct_map(page)
    info = cpu.view(SubprocessInfo, address)
    _fill(cpu, page, info, path, argv, envp)
    info.next, data.helper_queue = data.helper_queue, address
    if not data.khelper:
        data.khelper = 1
        error = as_error((yield Call("kernel_thread", (kernel.image.symbol(_THREAD), 0, 0))))
        if error:
            data.khelper = 0
            complete_all(cpu, error)
    wake_up(cpu, QUEUE_CHANNEL)
    while not info.done:
        yield from sleep_on(cpu, address, 0, TaskState.UNINTERRUPTIBLE)
    result = info.retval
    how = f"error {result}" if result < 0 else f"status {result:#x}"
    cpu.note(f"call_usermodehelper: {path.decode()} ended with {how}")
    mm.free_page(cpu.memory, page)
    return int(result)


def _fill(
    cpu: Cpu, page: int, info: SubprocessInfo, path: bytes, argv: tuple[bytes, ...], envp: tuple[bytes, ...]
) -> None:
    """Lay vectors and strings behind the structure."""
    texts = (path, *argv, *envp)
    vectors = SubprocessInfo.SIZE
    at = vectors + 8 * (len(argv) + 1 + len(envp) + 1)
    places = []
    for text in texts:
        places.append(mm.direct_map(page + at))
        cpu.memory.write(page + at, text + b"\0")
        at += len(text) + 1
    assert at <= PAGE_SIZE
    words = (*places[1 : 1 + len(argv)], 0, *places[1 + len(argv) :], 0)
    cpu.memory.write(page + vectors, b"".join(word.to_bytes(8, "little") for word in words))
    info.path, info.argv = places[0], mm.direct_map(page + vectors)
    info.envp = info.argv + 8 * (len(argv) + 1)


def next_request(cpu: Cpu) -> int:
    """Take the oldest request out of the queue: the address of its SubprocessInfo, 0 if there is none."""
    data = mm.kernel_data(cpu.memory)
    before, address = 0, data.helper_queue
    while address and (following := cpu.view(SubprocessInfo, address).next):
        before, address = address, following
    if before:
        cpu.view(SubprocessInfo, before).next = 0
    else:
        data.helper_queue = 0
    return address


def complete(cpu: Cpu, address: int, result: int) -> None:
    """A helper has ended, or could not be started: whoever asked goes on, and owns the SubprocessInfo again."""
    info = cpu.view(SubprocessInfo, address)
    info.retval, info.done = result, 1
    wake_up(cpu, address)


def complete_all(cpu: Cpu, error: int) -> None:
    """There is nobody to start helpers."""
    while address := next_request(cpu):
        complete(cpu, address, error)
