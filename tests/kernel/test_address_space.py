"""Areas against a model of single pages; mmap, munmap, mprotect, brk and their errors; user copies."""

from itertools import pairwise

import pytest
from booted import in_user
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.arch import PAGE_SIZE
from kernel_stubs import mm, uaccess, vma
from kernel_stubs.abi import MMAP_MIN_ADDR, TASK_SIZE_MAX
from kernel_stubs.errno import Errno, UserFaultError
from kernel_stubs.syscalls import table
from kernel_stubs.syscalls.names import SYSCALL_NAMES

NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
BASE = 0x10_0000_0000
READ, WRITE, EXEC = 1, 2, 4
PRIVATE, ANONYMOUS, FIXED, NOREPLACE = 2, 0x20, 0x10, 0x10_0000


@pytest.fixture(scope="module")
def shared():
    """A process at its first instruction; tests leave it usable."""
    return in_user()


@pytest.fixture
def it(shared):
    saved = shared.system.machine.snapshot()
    yield shared
    shared.system.machine.restore(saved)
    shared.system.kernel.output.clear()


def call(it, name, *args):
    return table.call(it.cpu, NUMBERS[name], (*args, *[0] * (6 - len(args))))


def mmap(it, address=0, length=PAGE_SIZE, prot=READ | WRITE, flags=PRIVATE | ANONYMOUS, fd=2**64 - 1, offset=0):
    return call(it, "mmap", address, length, prot, flags, fd, offset)


STEP = st.tuples(
    st.sampled_from(["map", "unmap", "protect", "write"]), st.integers(0, 15), st.integers(1, 8), st.integers(0, 7)
)


@given(st.lists(STEP, max_size=30))
@settings(max_examples=60, deadline=None)
def test_areas_behave_like_single_pages(shared, steps):
    it = shared
    saved = it.system.machine.snapshot()
    model: dict[int, tuple[int, bytes]] = {}
    try:
        for step, (what, first, count, prot) in enumerate(steps):
            address, pages = BASE + first * PAGE_SIZE, range(first, first + count)
            if what == "map":
                flags = PRIVATE | ANONYMOUS | FIXED
                assert mmap(it, address, count * PAGE_SIZE, prot, flags) == address
                model |= dict.fromkeys(pages, (prot, b"\x00"))
            elif what == "unmap":
                assert call(it, "munmap", address, count * PAGE_SIZE) == 0
                model = {page: value for page, value in model.items() if page not in pages}
            elif what == "protect":
                whole = all(page in model for page in pages)
                expected = 0 if whole else -Errno.ENOMEM
                assert call(it, "mprotect", address, count * PAGE_SIZE, prot) == expected
                for page in pages:
                    if page not in model:
                        break
                    model[page] = (prot, model[page][1])
            else:
                mark = bytes([step + 1])
                if first in model and model[first][0] & WRITE:
                    uaccess.copy_to_user(it.cpu, address, mark)
                    model[first] = (model[first][0], mark)
                else:
                    with pytest.raises(UserFaultError):
                        uaccess.copy_to_user(it.cpu, address, mark)
        for page in range(24):
            if page in model and model[page][0]:
                assert uaccess.copy_from_user(it.cpu, BASE + page * PAGE_SIZE, 1) == model[page][1]
            else:
                with pytest.raises(UserFaultError):
                    uaccess.copy_from_user(it.cpu, BASE + page * PAGE_SIZE, 1)
        areas = vma.areas(it.system.kernel, it.cpu.mm)
        assert all(a.end <= b.start for a, b in pairwise(areas))
    finally:
        it.system.machine.restore(saved)


@given(st.integers(0, 3 * PAGE_SIZE), st.binary(max_size=2 * PAGE_SIZE))
@settings(max_examples=40, deadline=None)
def test_copies_cross_pages_and_stop_at_the_end(shared, offset, data):
    it = shared
    saved = it.system.machine.snapshot()
    try:
        at = mmap(it, length=3 * PAGE_SIZE)
        end = at + 3 * PAGE_SIZE
        call(it, "munmap", end, PAGE_SIZE)
        fits = offset + len(data) <= 3 * PAGE_SIZE
        if fits:
            uaccess.copy_to_user(it.cpu, at + offset, data)
            assert uaccess.copy_from_user(it.cpu, at + offset, len(data)) == data
        else:
            with pytest.raises(UserFaultError) as fault:
                uaccess.copy_to_user(it.cpu, at + offset, data)
            assert fault.value.address == end
            readable = uaccess.copy_some_from_user(it.cpu, at + offset, len(data)) if offset < 3 * PAGE_SIZE else b""
            assert readable == data[: 3 * PAGE_SIZE - offset]
    finally:
        it.system.machine.restore(saved)


@pytest.mark.parametrize("address", [0, TASK_SIZE_MAX, TASK_SIZE_MAX - 3, 1 << 63, 0xFFFF_8880_0000_0000, 2**64 - 1])
def test_addresses_outside_user_space_fault(it, address):
    with pytest.raises(UserFaultError):
        uaccess.copy_from_user(it.cpu, address, 8)
    with pytest.raises(UserFaultError):
        uaccess.put_user(it.cpu, address, 1)
    if address != TASK_SIZE_MAX - 3:  # the last word of the stack, which is zero
        with pytest.raises(UserFaultError):
            uaccess.strncpy_from_user(it.cpu, address, 8)


def test_strings_end_at_nul_or_at_the_limit(it):
    at = mmap(it, length=2 * PAGE_SIZE)
    uaccess.copy_to_user(it.cpu, at + PAGE_SIZE - 3, b"abcdef\0")
    assert uaccess.strncpy_from_user(it.cpu, at + PAGE_SIZE - 3, 100) == b"abcdef"
    assert uaccess.strncpy_from_user(it.cpu, at + PAGE_SIZE - 3, 4) == b"abcd"
    call(it, "munmap", at + PAGE_SIZE, PAGE_SIZE)
    with pytest.raises(UserFaultError):
        uaccess.strncpy_from_user(it.cpu, at + PAGE_SIZE - 3, 100)


def test_pages_cost_memory_only_when_touched_and_come_back(it):
    info = mm.memory_info(it.system.machine.memory)
    at = mmap(it, length=64 * PAGE_SIZE)
    uaccess.copy_to_user(it.cpu, at, b"x")
    before = info.allocated
    uaccess.copy_to_user(it.cpu, at + PAGE_SIZE, bytes(8 * PAGE_SIZE))
    assert info.allocated == before + 8
    call(it, "munmap", at, 64 * PAGE_SIZE)
    assert info.allocated == before - 1


@pytest.mark.parametrize(
    ("args", "errno"),
    [
        ({"length": 0}, Errno.EINVAL),
        ({"length": 2**64 - 1}, Errno.ENOMEM),
        ({"length": 1 << 40}, Errno.ENOMEM),
        ({"offset": 1}, Errno.EINVAL),
        ({"flags": ANONYMOUS}, Errno.EINVAL),
        ({"flags": PRIVATE}, Errno.EBADF),
        ({"flags": PRIVATE, "fd": 0}, Errno.ENODEV),
        ({"flags": PRIVATE | ANONYMOUS | FIXED, "address": BASE + 1}, Errno.EINVAL),
        ({"flags": PRIVATE | ANONYMOUS | FIXED, "address": 0}, Errno.EPERM),
        ({"flags": PRIVATE | ANONYMOUS | FIXED, "address": TASK_SIZE_MAX}, Errno.ENOMEM),
        ({"flags": PRIVATE | ANONYMOUS | NOREPLACE, "address": 0x40_0000}, Errno.EEXIST),
    ],
)
def test_mmap_refuses(it, args, errno):
    assert mmap(it, **args) == -errno


def test_mmap_goes_below_the_last_one_and_fills_holes(it):
    one, two = mmap(it, length=4 * PAGE_SIZE), mmap(it, length=2 * PAGE_SIZE)
    assert two + 2 * PAGE_SIZE == one
    call(it, "munmap", one + PAGE_SIZE, PAGE_SIZE)
    assert mmap(it) == one + PAGE_SIZE
    assert mmap(it, address=BASE + 5) == BASE  # a hint, rounded down
    assert mmap(it, address=BASE) != BASE


@pytest.mark.parametrize(
    ("name", "args", "errno"),
    [
        ("munmap", (1, PAGE_SIZE), Errno.EINVAL),
        ("munmap", (BASE, 0), Errno.EINVAL),
        ("munmap", (BASE, 2**64 - 1), Errno.EINVAL),
        ("mprotect", (BASE + 1, PAGE_SIZE, READ), Errno.EINVAL),
        ("mprotect", (BASE, PAGE_SIZE, READ), Errno.ENOMEM),
        ("mprotect", (BASE, 2**64 - PAGE_SIZE, READ), Errno.ENOMEM),
        ("mprotect", (0x40_0000, PAGE_SIZE, 8), Errno.EINVAL),
        ("madvise", (BASE, PAGE_SIZE, 4), Errno.ENOMEM),
        ("madvise", (0x40_0000, PAGE_SIZE, 999), Errno.EINVAL),
    ],
)
def test_refusals(it, name, args, errno):
    assert call(it, name, *args) == -errno


def test_brk_moves_and_refuses_by_standing_still(it):
    start = call(it, "brk", 0)
    assert start >= MMAP_MIN_ADDR
    assert call(it, "brk", start + 10_000) == start + 10_000
    uaccess.copy_to_user(it.cpu, start + 9_999, b"x")
    assert call(it, "brk", start - 1) == start + 10_000
    assert call(it, "brk", 2**64 - 1) == start + 10_000
    assert call(it, "brk", start + (1 << 40)) == start + 10_000
    assert call(it, "brk", start) == start
    with pytest.raises(UserFaultError):
        uaccess.copy_from_user(it.cpu, start + 9_999, 1)


def test_dont_need_gives_zeroes(it):
    at = mmap(it)
    uaccess.copy_to_user(it.cpu, at, b"data")
    assert call(it, "madvise", at, PAGE_SIZE, 4) == 0
    assert uaccess.copy_from_user(it.cpu, at, 4) == bytes(4)


def test_too_many_areas_is_enomem(it):
    results = [mmap(it, BASE + 2 * n * PAGE_SIZE, flags=PRIVATE | ANONYMOUS | FIXED) for n in range(200)]
    assert -Errno.ENOMEM in results
    assert len(vma.areas(it.system.kernel, it.cpu.mm)) <= 100
