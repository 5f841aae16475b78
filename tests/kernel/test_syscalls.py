"""System calls one by one, their errors, and that no argument can hurt the C side."""

import struct

import pytest
from booted import in_user, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.arch import Msr
from emu.machine import msr
from kernel_stubs import uaccess
from kernel_stubs.abi import TASK_SIZE_MAX, Tif
from kernel_stubs.errno import Errno
from kernel_stubs.signal_state import pending_signals
from kernel_stubs.syscalls import table
from kernel_stubs.syscalls.names import SYSCALL_NAMES, syscall_name

NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
MINUS_1 = 2**64 - 1


@pytest.fixture(scope="module")
def shared():
    return in_user(stdin=b"one\ntwo\n", argv=(b"user", b"argument"), seed=7)


@pytest.fixture
def it(shared):
    saved = shared.system.machine.snapshot()
    yield shared
    shared.system.machine.restore(saved)
    shared.system.kernel.output.clear()


def call(it, name, *args):
    return table.call(it.cpu, NUMBERS[name], (*args, *[0] * (6 - len(args))))


@pytest.fixture
def buffer(it):
    return call(it, "mmap", 0, 0x4000, 3, 0x22, MINUS_1, 0)


def get(it, at, size):
    return uaccess.copy_from_user(it.cpu, at, size)


def put(it, at, data):
    uaccess.copy_to_user(it.cpu, at, data)


def test_write_goes_to_the_log_of_its_descriptor(it, buffer):
    put(it, buffer, b"hello")
    assert call(it, "write", 1, buffer, 5) == 5
    assert call(it, "write", 2, buffer, 2) == 2
    assert it.system.kernel.output == [(1, b"hello"), (2, b"he")]


def test_write_takes_what_can_be_read(it, buffer):
    end = buffer + 0x4000
    call(it, "munmap", end, 0x1000)
    assert call(it, "write", 1, end - 3, 10) == 3
    assert call(it, "write", 1, end, 10) == -Errno.EFAULT
    assert call(it, "write", 1, end, 0) == 0


def test_writev_and_readv_follow_their_vectors(it, buffer):
    put(it, buffer, b"abcdef")
    put(it, buffer + 64, struct.pack("<6Q", buffer, 2, 0, 0, buffer + 4, 2))
    assert call(it, "writev", 1, buffer + 64, 3) == 4
    assert it.stdout == b"abef"
    assert call(it, "readv", 0, buffer + 64, 3) == 4
    assert get(it, buffer, 6) == b"oncde\n"
    put(it, buffer + 64, struct.pack("<2Q", buffer, MINUS_1))
    assert call(it, "writev", 1, buffer + 64, 1) == -Errno.EINVAL
    assert call(it, "writev", 1, buffer + 64, 2000) == -Errno.EINVAL
    assert call(it, "writev", 1, 8, 1) == -Errno.EFAULT


def test_read_gives_the_input_and_then_nothing(it, buffer):
    assert call(it, "read", 0, buffer, 5) == 5
    assert call(it, "read", 0, buffer + 5, 100) == 3
    assert get(it, buffer, 8) == b"one\ntwo\n"
    assert call(it, "read", 0, buffer, 100) == 0
    assert call(it, "read", 1, buffer, 1) == -Errno.EBADF
    assert call(it, "read", 9, buffer, 1) == -Errno.EBADF
    assert call(it, "read", 0, MINUS_1, 1) == -Errno.EFAULT


def test_descriptors_close_and_duplicate(it, buffer):
    put(it, buffer, b"x")
    assert call(it, "dup", 1) == 3
    assert call(it, "close", 1) == 0
    assert call(it, "close", 1) == -Errno.EBADF
    assert call(it, "write", 1, buffer, 1) == -Errno.EBADF
    assert call(it, "write", 3, buffer, 1) == 1
    assert call(it, "dup2", 3, 1) == 1
    assert call(it, "fcntl", 3, 0, 10) == 10
    assert call(it, "fcntl", 10, 2, 1) == 0
    assert call(it, "fcntl", 10, 1, 0) == 1
    assert call(it, "fcntl", 10, 1030, 10) == 11
    assert call(it, "fcntl", 10, 77, 10) == -Errno.EINVAL
    assert it.stdout == b"x"


def test_none_of_the_files_is_a_terminal_or_can_seek(it, buffer):
    assert call(it, "ioctl", 1, 0x5401, buffer) == -Errno.ENOTTY
    assert call(it, "ioctl", 7, 0x5401, buffer) == -Errno.EBADF
    assert call(it, "lseek", 0, 0, 0) == -Errno.ESPIPE
    assert call(it, "fstat", 1, buffer) == 0
    assert struct.unpack("<I", get(it, buffer + 24, 4))[0] >> 12 == 1


def test_paths_do_not_exist(it, buffer):
    put(it, buffer, b"/etc/passwd\0")
    for name, args in (("open", (buffer,)), ("openat", (MINUS_1, buffer)), ("stat", (buffer,)), ("access", (buffer,))):
        assert call(it, name, *args) == -Errno.ENOENT
    assert call(it, "newfstatat", 1, buffer, buffer + 256, 0) == -Errno.ENOENT
    assert call(it, "newfstatat", 1, buffer + 100, buffer + 256, 0x1000) == 0
    assert call(it, "open", 1) == -Errno.EFAULT
    put(it, buffer, b"a" * 0x2000)
    assert call(it, "open", buffer) == -Errno.ENAMETOOLONG


def test_proc_self_exe_is_the_program(it, buffer):
    put(it, buffer, b"/proc/self/exe\0")
    assert call(it, "readlink", buffer, buffer + 100, 100) == 5
    assert get(it, buffer + 100, 5) == b"/user"
    assert call(it, "readlinkat", MINUS_1, buffer, buffer + 100, 3) == 3
    assert call(it, "readlink", buffer, buffer + 100, 0) == -Errno.EINVAL


def test_segment_bases(it, buffer):
    set_gs, set_fs, get_fs, get_gs = range(0x1001, 0x1005)
    assert call(it, "arch_prctl", set_fs, 0x1234) == 0
    assert msr.read(it.core, Msr.FS_BASE) == it.cpu.current.fsbase == 0x1234
    assert call(it, "arch_prctl", get_fs, buffer) == 0
    assert get(it, buffer, 8) == struct.pack("<Q", 0x1234)
    assert call(it, "arch_prctl", set_gs, TASK_SIZE_MAX - 1) == 0
    assert msr.read(it.core, Msr.KERNEL_GS_BASE) == TASK_SIZE_MAX - 1
    for option in (set_fs, set_gs):
        for bad in (TASK_SIZE_MAX, 1 << 47, 1 << 63, MINUS_1):
            assert call(it, "arch_prctl", option, bad) == -Errno.EPERM
    assert call(it, "arch_prctl", get_gs, 1) == -Errno.EFAULT
    assert call(it, "arch_prctl", 77, 0) == -Errno.EINVAL


def test_rseq_is_filled_in_on_the_way_to_user_mode(it, buffer):
    assert call(it, "rseq", buffer, 32, 0, 0x53053053) == 0
    assert it.cpu.current.thread_info.flags & Tif.NOTIFY_RESUME
    assert call(it, "rseq", buffer, 32, 0, 0x53053053) == -Errno.EBUSY
    assert call(it, "rseq", buffer, 32, 0, 0) == -Errno.EPERM
    assert call(it, "rseq", buffer + 32, 32, 0, 0) == -Errno.EINVAL
    assert call(it, "rseq", buffer, 32, 1, 0) == -Errno.EPERM
    assert call(it, "rseq", buffer, 32, 1, 0x53053053) == 0
    assert get(it, buffer, 8) == bytes(4) + b"\xff" * 4
    assert call(it, "rseq", buffer + 1, 32, 0, 0) == -Errno.EINVAL
    assert call(it, "rseq", 2**63, 32, 0, 0) == -Errno.EFAULT


def test_random_bytes_follow_from_the_seed(it, buffer):
    assert call(it, "getrandom", buffer, 300, 0) == 300
    one = get(it, buffer, 300)
    assert call(it, "getrandom", buffer, 300, 0) == 300
    assert get(it, buffer, 300) != one
    assert call(it, "getrandom", buffer, 1, 8) == -Errno.EINVAL
    assert call(it, "getrandom", 1, 1, 0) == -Errno.EFAULT
    again = in_user(stdin=b"", argv=(b"user", b"argument"), seed=7)
    at = call(again, "mmap", 0, 0x4000, 3, 0x22, MINUS_1, 0)
    call(again, "getrandom", at, 300, 0)
    assert get(again, at, 300) == one


def test_clocks_count_instructions(it, buffer):
    assert call(it, "clock_gettime", 1, buffer) == 0
    assert struct.unpack("<2Q", get(it, buffer, 16)) == (0, it.core.clock)
    assert call(it, "clock_gettime", 0, buffer) == 0
    assert get(it, buffer, 8) == struct.pack("<Q", call(it, "time", 0))
    assert call(it, "clock_gettime", 99, buffer) == -Errno.EINVAL
    assert call(it, "gettimeofday", buffer, buffer + 16) == 0
    assert call(it, "time", 1) == -Errno.EFAULT


def test_identity_and_limits(it, buffer):
    assert call(it, "getpid") == call(it, "gettid") == call(it, "set_tid_address", 0) == 1
    assert call(it, "getuid") == call(it, "getegid") == 1000
    assert call(it, "setuid", 1000) == 0
    assert call(it, "setuid", 0) == -Errno.EPERM
    assert call(it, "prlimit64", 0, 3, 0, buffer) == 0
    assert get(it, buffer, 8) == struct.pack("<Q", 8 << 20)
    assert call(it, "prlimit64", 0, 16, 0, buffer) == -Errno.EINVAL
    assert call(it, "prlimit64", 5, 3, 0, buffer) == -Errno.ESRCH
    assert call(it, "uname", buffer) == 0
    assert get(it, buffer, 6) == b"Linux\0"
    assert call(it, "prctl", 16, buffer) == 0
    assert get(it, buffer, 5) == b"user\0"


def test_poll_finds_all_files_ready(it, buffer):
    put(it, buffer, struct.pack("<ihhihhihh", 0, 1, 0, 1, 4, 0, 9, 1, 0))
    assert call(it, "poll", buffer, 3, 0) == 3
    assert struct.unpack("<ihhihhihh", get(it, buffer, 24))[2::3] == (1, 4, 0x20)


def test_unknown_calls_are_counted(it):
    assert call(it, "io_uring_setup") == -Errno.ENOSYS
    assert table.call(it.cpu, 100_000, (0,) * 6) == -Errno.ENOSYS
    assert table.unknown_syscalls(it.system.kernel) == {"io_uring_setup": 1, "syscall_511": 1}


def test_names():
    assert [syscall_name(n) for n in (0, 60, 231, 334, 435)] == ["read", "exit", "exit_group", "rseq", "clone3"]
    assert syscall_name(400) == "syscall_400"


INTERESTING = st.one_of(
    st.sampled_from([0, 1, 2, 3, 16, 0x1000, 0x40_0000, TASK_SIZE_MAX, 1 << 47, 1 << 63, MINUS_1, 0xFFFF_FFFF]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 64),
)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(table.implemented())), st.tuples(*[INTERESTING] * 6)), min_size=1, max_size=8
    )
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_arguments_hurt(shared, calls):
    saved = shared.system.machine.snapshot()
    try:
        for number, args in calls:
            result = table.call(shared.cpu, number, args)
            assert -4096 < result < 2**64, (table.implemented()[number], args)
    finally:
        shared.system.machine.restore(saved)
        shared.system.kernel.output.clear()


PROGRAM = """
_start:
    movl ${number}, %eax
    movabsq $0x1111111111111111, %rbx
    syscall
    movq %rax, %rdi
    cmpq ${expected}, %rax
    setne %dil
    movzbl %dil, %edi
    movl $60, %eax
    syscall
"""


@pytest.mark.parametrize(
    ("number", "expected"),
    [(39, 1), (0x7FFF, -Errno.ENOSYS), (-1, -Errno.ENOSYS), (-2, -Errno.ENOSYS), (186, 1)],
)
def test_numbers_as_the_guest_gives_them(number, expected):
    it = start(PROGRAM.format(number=number, expected=int(expected)))
    assert it.run().text == "exited with status 0"


@pytest.mark.parametrize(("status", "reported"), [(0, 0), (7, 7), (256, 0), (511, 255)])
def test_exit_status(status, reported):
    it = start(f"_start: movl $60, %eax\n movl ${status}, %edi\n syscall")
    assert it.run().text == f"exited with status {reported}"
    assert it.cpu.current.exit_code == reported << 8


@pytest.mark.parametrize(("number", "expected"), [(20, 1), (224, 1), (9999, -Errno.ENOSYS), (17, -Errno.ENOSYS)])
def test_int80_from_64_bit_mode(number, expected):
    it = start(f"""
    _start: movl ${number}, %eax
        int $0x80
        xorl %ebx, %ebx
        cmpq ${int(expected)}, %rax
        setne %bl
        movl $1, %eax
        int $0x80
    """)
    assert it.run().text == "exited with status 0"


def test_a_process_can_kill_itself():
    it = start("_start: movl $62, %eax\n movl $1, %edi\n movl $6, %esi\n syscall\n hlt")
    assert it.run().text == "killed by SIGABRT"


def test_a_blocked_signal_waits():
    text = """
    _start: movl $14, %eax
        xorl %edi, %edi
        leaq mask(%rip), %rsi
        xorl %edx, %edx
        movl $8, %r10d
        syscall
        movl $62, %eax
        movl $1, %edi
        movl $10, %esi
        syscall
        movl $60, %eax
        movl $3, %edi
        syscall
    .data
    mask: .quad 0x200
    """
    it = start(text)
    assert it.run().text == "exited with status 3"
    assert pending_signals(it.system.kernel, it.cpu.current) == 0x200
