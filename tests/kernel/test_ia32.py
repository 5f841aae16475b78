"""32-bit programs: compatibility mode, INT 0x80, SYSENTER (Intel) and SYSCALL (AMD), compared with the host."""

import random
import struct

import pytest
from booted import in_user, start
from c_programs import compiled, has_m32
from programs import native

from emu.errors import ProgramError
from emu.events import CCalled, SystemCall
from emu.machine.core import EndKind
from emu.machine.profile import Profile
from emu.machine.registers import RAX, RBP, RBX, RCX, RDI, RDX, RSI
from kernel_stubs import uaccess
from kernel_stubs.abi import TaskStruct
from kernel_stubs.elf import load_elf
from kernel_stubs.errno import SyscallError
from kernel_stubs.segments import set_tls, tls_descriptor, user_desc
from kernel_stubs.syscalls import table
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES
from tests.elf32 import EXIT_WITH_EAX, elf32

LIMIT = 5_000_000_000


needs_m32 = pytest.mark.skipif(not has_m32(), reason="gcc -m32 -static does not work here")


GETPID_BY_VSYSCALL = (
    b"\x89\xe7\x83\xc7\x04"  # mov %esp,%edi; add $4,%edi
    b"\x83\x3f\x00\x8d\x7f\x04\x75\xf8"  # 1: cmpl $0,(%edi); lea 4(%edi),%edi; jne 1b
    b"\x83\x3f\x00\x8d\x7f\x04\x75\xf8"  # the environment too
    b"\x83\x3f\x20\x8d\x7f\x08\x75\xf8"  # 2: cmpl $32,(%edi); lea 8(%edi),%edi; jne 2b: AT_SYSINFO
    b"\xb9\x11\x00\x00\x00\xba\x22\x00\x00\x00\xbd\x33\x00\x00\x00"  # ecx, edx, ebp = 0x11, 0x22, 0x33
    b"\xb8\x14\x00\x00\x00\xff\x57\xfc"  # mov $20,%eax; call *-4(%edi)
    b"\x01\xc8\x01\xd0\x01\xe8"  # eax += ecx, edx, ebp: they are kept
)


def run(data, **options):
    it = start(load_elf(data, "program", ia32=True), **options)
    _, end = it.system.machine.advance(LIMIT)
    return it, end


@pytest.mark.parametrize("smap", [True, False], ids=["smap", "no-smap"])
@pytest.mark.parametrize(("vendor", "function"), [("intel", "do_SYSENTER_32"), ("amd", "do_fast_syscall_32")])
def test_the_vdso_enters_by_the_vendors_fast_call(vendor, function, smap):
    it, end = run(elf32(GETPID_BY_VSYSCALL + EXIT_WITH_EAX), profile=Profile(vendor=vendor, smap=smap))
    assert end.text == f"exited with status {1 + 0x11 + 0x22 + 0x33}"
    called = [event.name for event in it.events if isinstance(event, CCalled)]
    assert function in called
    assert "do_int80_syscall_32" in called
    (call,) = [event for event in it.events if isinstance(event, SystemCall)]
    assert (call.number, call.by, call.compat) == (20, "sysenter" if vendor == "intel" else "syscall", True)


def test_an_unknown_number_is_enosys():
    it, end = run(elf32(b"\xb8\x0f\x27\x00\x00\xcd\x80\xf7\xd8" + EXIT_WITH_EAX))
    assert end.text == "exited with status 38"
    assert table.unknown_syscalls(it.system.kernel) == {"ia32 syscall_511": 1}


def test_unknown_32_bit_calls_are_named():
    it, _ = run(elf32(b"\xb8\x6e\x00\x00\x00\xcd\x80" + EXIT_WITH_EAX))
    assert table.unknown_syscalls(it.system.kernel) == {"ia32 iopl": 1}


def test_a_32_bit_program_wants_the_flag():
    with pytest.raises(ProgramError, match="a 32-bit program"):
        load_elf(elf32(EXIT_WITH_EAX), "program")


def test_a_segment_above_4_gib_is_refused():
    data = bytearray(elf32(EXIT_WITH_EAX))
    struct.pack_into("<I", data, 52 + 8, 0xFFFF_E000)
    with pytest.raises(ProgramError, match="outside user memory"):
        load_elf(bytes(data), "program", ia32=True)


@pytest.mark.parametrize(
    ("base", "limit", "bits"), [(0x1234_5678, 0xF_FFFF, 0x51), (0, 0xFFFF, 0x41), (0xFFFF_F000, 1, 0x1B)]
)
def test_a_descriptor_goes_there_and_back(base, limit, bits):
    number, *rest = struct.unpack("<iIII", user_desc(12, tls_descriptor(base, limit, bits)))
    assert (number, *rest) == (12, base, limit, bits)


@pytest.mark.parametrize("bits", [0, 0x50, 0x55, 0x71])
def test_no_other_descriptors_are_taken(bits):
    with pytest.raises(SyscallError):
        tls_descriptor(1, 2, bits)


def test_entries_are_found_free_until_there_are_none():
    task = TaskStruct()
    assert [set_tls(task, -1, 1 << 47) for _ in range(3)] == [12, 13, 14]
    with pytest.raises(SyscallError):
        set_tls(task, -1, 1)
    with pytest.raises(SyscallError):
        set_tls(task, 15, 1)


CALLER = """
_start: int $0x80
back:   jmp back
"""
SEEDS, BATCH = 500, 50
ALIVE = (EndKind.LIMIT, EndKind.FINISHED, EndKind.BREAKPOINT, EndKind.HALTED)


@pytest.mark.parametrize("batch", range(SEEDS // BATCH))
def test_random_32_bit_calls_end_well(batch):
    it = in_user(CALLER)
    saved = it.system.machine.snapshot()
    cpu = it.core.cpu
    stack = cpu.sp
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = random.Random(seed)
        at = 0x5000_0000
        table.call(it.cpu, 9, (at, 0x4000, 3, 0x32, 2**64 - 1, 0))
        uaccess.copy_to_user(it.cpu, at, rng.randbytes(0x1000))
        values = [0, 1, 2, 3, 8, 9, 12, 16, 64, 4096, at, at + 64, at + 0x1000, at + 0x3FFC, 2**31, 2**32 - 1]
        for _ in range(8):
            cpu.ip, cpu.sp = it.program.symbols["_start"], rng.choice([at + 0x3000, at + 0x2001, stack, 0, 64])
            for register in (RBX, RCX, RDX, RSI, RDI, RBP):
                cpu.set_register(register, rng.choice([*values, rng.getrandbits(64)]))
            cpu.set_register(RAX, rng.choice([rng.randrange(460), rng.choice(sorted(IA32_SYSCALL_NAMES))]))
            it.core.set_breakpoints({it.program.symbols["back"]})
            end = it.run(3000)
            assert end.kind in ALIVE, (seed, end)
            if end.kind is not EndKind.BREAKPOINT:
                break
        it.core.set_breakpoints(set())
        it.system.machine.restore(saved)
        it.system.binding.go_back(())


ARGUMENTS = {"signals32": (b"100000",)}
"""How long the program waits for itself: our clock needs less than the host's scheduler."""


def outcome(path, **options):
    arguments = ARGUMENTS.get(path.name.removesuffix("-m32"), ())
    it, end = run(path.read_bytes(), argv=(path.name.encode(), *arguments), **options)
    return end.text, it.stdout.decode().splitlines()


@needs_m32
@pytest.mark.parametrize("name", ["hello32", "vsyscall32", "signals32", "processes", "threads", "family"])
def test_the_output_is_that_of_a_native_run(name):
    path = compiled(name, "-m32")
    assert outcome(path) == native(path)


@needs_m32
@pytest.mark.parametrize("name", ["vsyscall32", "signals32"])
def test_amds_fast_call_changes_nothing(name):
    path = compiled(name, "-m32")
    assert outcome(path, profile=Profile(vendor="amd")) == native(path)


@needs_m32
@pytest.mark.parametrize("name", ["signals32"])
def test_a_busy_timer_on_two_cpus_changes_nothing(name):
    path = compiled(name, "-m32")
    assert outcome(path, timer_period=997, cpus=2) == native(path)
