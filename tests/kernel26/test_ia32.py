"""linux-2.6: 32-bit programs."""

import subprocess

import pytest
from c_programs import compiled, has_m32
from classic import EXIT, run

from emu.lab.rig import Rig
from emu.machine.profile import Profile
from kernel_stubs.abi26 import SYS32
from kernel_stubs.binding import registered
from kernel_stubs.boot import BootOptions
from kernel_stubs.context import InputFile
from kernel_stubs.elf import load_elf
from kernel_stubs.kernel_image import build_image
from kernel_stubs.syscalls import compat
from tests.elf32 import BASE, EXIT_WITH_EAX, elf32


def run_elf(data, *arguments, vendor="intel", **options):
    profile = Profile(vendor=vendor)
    argv = (b"program", *(text.encode() for text in arguments))
    program = load_elf(data, "program", ia32=True)
    facts = Rig(BootOptions(build_image("linux-2.6", profile), profile, program, argv, **options)).run((), 1 << 32, "")
    assert not facts.violations, facts.violations[0].lines()
    return facts


needs_m32 = pytest.mark.skipif(not has_m32(), reason="gcc -m32 -static does not work here")


def native(path, *arguments):
    host = subprocess.run([path, *arguments], capture_output=True, check=False, timeout=20)
    return host.returncode, host.stdout.decode().splitlines()


# Frames that IRET refuses are the end of a task in this kernel: signals32 begins behind those two.
@needs_m32
@pytest.mark.parametrize(
    ("name", "vendor", "theirs", "ours"),
    [
        ("vsyscall32", "intel", (), ()),
        ("vsyscall32", "amd", (), ()),
        ("signals32", "intel", ("20000000", "2"), ("100000", "2")),
        ("step32", "intel", (), ()),
    ],
)
def test_the_output_is_that_of_a_native_run(name, vendor, theirs, ours):
    path = compiled(name, "-m32")
    facts = run_elf(path.read_bytes(), *ours, vendor=vendor, ram_bytes=64 << 20)
    code = -facts.signal if facts.signal else facts.exit_code
    found, expected = (code, facts.stream(1).decode().splitlines()), native(path, *theirs)
    by_either = [[line.replace("vDSO:0f34", "vDSO:0f05") for line in lines] for _, lines in (found, expected)]
    assert (found[0], by_either[0]) == (expected[0], by_either[1])
    if name == "vsyscall32":
        assert {"sysexitl" if vendor == "intel" else "sysretl", "iretq"} <= set(facts.returns)


def test_programs_of_both_kinds_execute_each_other():
    """64-bit code executes a 32-bit file, whose code executes this program again, with one argument more."""
    name = (BASE + 84 + 36).to_bytes(4, "little")
    code = (
        b"\x68\x00\x00\x00\x00" + 3 * (b"\x68" + name)  # push $0; push $name, three times
        + b"\x89\xe1\x31\xd2\xbb" + name  # mov %esp,%ecx; xor %edx,%edx; mov $name,%ebx
        + b"\xb8\x0b\x00\x00\x00\xcd\x80"  # mov $11,%eax; int $0x80: execve
    )  # fmt: skip
    facts = run(
        f"""
        _start:
            movl $3, %edi
            cmpq %rdi, (%rsp)
            je done
            movl $59, %eax
            leaq other(%rip), %rdi
            xorl %esi, %esi
            xorl %edx, %edx
            syscall
            movl $1, %edi
        done: {EXIT}
        other: .asciz "/other"
        """,
        files=(InputFile("other", elf32(code + b"/user\0"), 0o755),),
    )
    assert facts.exit_code == 3
    assert {"sys_execve", "sys32_execve"} <= set(facts.calls)


def test_a_32_bit_program_gets_enosys_for_numbers_that_nobody_has():
    facts = run_elf(elf32(b"\xb8\x6e\x01\x00\x00\xcd\x80\xf7\xd8" + EXIT_WITH_EAX))
    assert facts.exit_code == 38
    assert facts.unknown_syscalls == {"ia32 setsockopt": 1}


def test_every_i386_system_call_of_linux_6_has_its_c_function():
    names = set(registered("linux-2.6"))
    assert {f"compat_sys_{name}" for name in SYS32} <= set(compat.functions().values())
    assert not {f"compat_sys_{name}" for name in SYS32} & names
    assert {f"sys32_{name}" for name in SYS32} <= names
