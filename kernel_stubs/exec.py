"""Starting a program: its areas, its heap, its first stack (fs/exec.c, fs/binfmt_elf.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.errors import ProgramError
from kernel_stubs import mm as mm_frames
from kernel_stubs import pgtable, vma
from kernel_stubs.abi import TASK_SIZE_MAX, MmStruct, VmFlags, page_align
from kernel_stubs.context import Kernel
from kernel_stubs.cred import USER_ID
from kernel_stubs.elf import TASK_SIZE32, UserProgram, load_elf, program_from_image
from kernel_stubs.errno import OutOfMemoryError
from kernel_stubs.rlimit import STACK_LIMIT
from kernel_stubs.syscalls.system import random_bytes
from kernel_stubs.uaccess import write_user
from kernel_stubs.vdso32 import VSYSCALL, map_vdso32
from kernel_stubs.vma import Area

STACK_TOP = TASK_SIZE_MAX
MMAP_BASE = STACK_TOP - (128 << 20)
"""Mappings grow down from here: the gap that Linux keeps for the stack at the least."""
MMAP_BASE32 = TASK_SIZE32 - (128 << 20)
KERNEL_VSYSCALL = page_align(MMAP_BASE32) - PAGE_SIZE + VSYSCALL
"""__kernel_vsyscall of a 32-bit program: its vDSO is what is mapped first. Programs learn it from AT_SYSINFO."""
STACK_EXPAND = 128 << 10
"""How much of the stack area there is below the first stack pointer."""
PROGRAM_FILE = 0
"""Index of the program in Kernel.files."""
MAX_ARG_STRLEN = 32 * PAGE_SIZE
MAX_ARG_TOTAL = STACK_LIMIT // 4
HWCAP2_FSGSBASE = 2
NO_FILE = -1
"""The program's data is in no input: its pages are filled at once."""
Texts = tuple[bytes, ...]


def check_arguments(argv: tuple[bytes, ...], envp: tuple[bytes, ...]) -> None:
    """ProgramError for what execve(2) would refuse."""
    total = 0
    for text in (*argv, *envp):
        if b"\0" in text:
            raise ProgramError(f"the argument {text!r} has a NUL byte")
        if len(text) >= MAX_ARG_STRLEN:
            raise ProgramError(f"an argument of {len(text)} bytes is too long; at most {MAX_ARG_STRLEN - 1}")
        total += len(text) + 1 + 8
    if total > MAX_ARG_TOTAL:
        raise ProgramError(f"the arguments and the environment are too long: {total} bytes of {MAX_ARG_TOTAL}")


def new_mm(kernel: Kernel) -> int:
    """An empty address space: the linear address of its MmStruct."""
    address = mm_frames.direct_map(mm_frames.alloc_page(kernel.memory))
    space = kernel.view(MmStruct, address)
    space.users = 1
    try:
        space.pgd = pgtable.pgd_alloc(kernel.memory)
    except OutOfMemoryError:
        mm_frames.free_page(kernel.memory, address - mm_frames.direct_map(0))
        raise
    return address


def exec_program(
    kernel: Kernel, mm: MmStruct, program: UserProgram, argv: Texts, envp: Texts, path: bytes, file: int = PROGRAM_FILE
) -> tuple[int, int]:
    """Set up an empty address space to run the program: (RIP, RSP). `file`: index of its data in Kernel.files."""
    for segment in program.segments:
        start = segment.address & -PAGE_SIZE
        end = page_align(segment.address + segment.memory_size)
        skip = segment.address - start
        # Without a zero-filled tail the mapping shows whatever the file has on its last page.
        size = segment.file_size + skip if segment.memory_size > segment.file_size else end - start
        if file == NO_FILE:
            vma.map_area(kernel, mm, Area(start, end, segment.flags))
            vma.populate(kernel, mm, start, segment.flags, program.data[segment.file_offset - skip :][:size])
        else:
            vma.map_area(kernel, mm, Area(start, end, segment.flags, 1 + file, segment.file_offset - skip, size))
    mm.start_brk = mm.brk = program.end
    mm.mmap_base = MMAP_BASE32 if program.ia32 else MMAP_BASE
    if program.ia32:
        map_vdso32(kernel, mm)
    return program.entry, _make_stack(kernel, mm, program, argv, envp, path)


def _make_stack(kernel: Kernel, mm: MmStruct, program: UserProgram, argv: Texts, envp: Texts, name: bytes) -> int:
    blob = bytearray()

    def put(data: bytes) -> int:
        """Append to the block of strings, whose end will be the end of the stack; offset in it."""
        blob.extend(data)
        return len(blob) - len(data)

    random = put(random_bytes(kernel, 16))
    platform = put(b"i686\0" if program.ia32 else b"x86_64\0")
    arguments = [put(text + b"\0") for text in argv]
    mm_arguments = (arguments[0] if arguments else len(blob), len(blob))
    environment = [put(text + b"\0") for text in envp]
    path = put(name + b"\0")
    put(bytes(8))
    top, word_size = (TASK_SIZE32, 4) if program.ia32 else (STACK_TOP, 8)
    base = (top - len(blob)) & -16
    auxv = _auxiliary_vector(kernel, mm, program, base + platform, base + random, base + path)
    words = [
        len(arguments),
        *(base + offset for offset in arguments), 0,
        *(base + offset for offset in environment), 0,
        *(word for pair in auxv for word in pair),
    ]  # fmt: skip
    sp = (base - word_size * len(words)) & -16
    stack = Area((sp - STACK_EXPAND) & -PAGE_SIZE, top, VmFlags.READ | VmFlags.WRITE | VmFlags.GROWSDOWN)
    vma.map_area(kernel, mm, stack)
    write_user(kernel, mm, sp, b"".join(word.to_bytes(word_size, "little") for word in words))
    write_user(kernel, mm, base, bytes(blob))
    mm.start_stack = sp
    mm.arg_start, mm.arg_end = base + mm_arguments[0], base + mm_arguments[1]
    return sp


def _auxiliary_vector(
    kernel: Kernel, mm: MmStruct, program: UserProgram, platform: int, random: int, path: int
) -> list[tuple[int, int]]:
    """(type, value), AT_NULL last. No 64-bit vDSO: the C library makes real system calls."""
    profile = kernel.machine.profile
    vector = [
        (16, profile.cpuid(1, 0, 0)[3]),  # AT_HWCAP
        (6, PAGE_SIZE),  # AT_PAGESZ
        (17, 100),  # AT_CLKTCK
    ]
    if program.ia32:
        vector += [(32, mm.vdso32 + VSYSCALL)]  # AT_SYSINFO
    if program.program_headers:
        vector += [
            (3, program.program_headers),  # AT_PHDR
            (4, program.program_header_size),  # AT_PHENT
            (5, program.program_header_count),  # AT_PHNUM
        ]
    return [
        *vector,
        (7, 0),  # AT_BASE: no interpreter
        (8, 0),  # AT_FLAGS
        (9, program.entry),  # AT_ENTRY
        (11, USER_ID), (12, USER_ID), (13, USER_ID), (14, USER_ID),  # AT_UID, EUID, GID, EGID
        (23, 0),  # AT_SECURE
        (25, random),  # AT_RANDOM
        (26, HWCAP2_FSGSBASE if profile.fsgsbase else 0),  # AT_HWCAP2
        (31, path),  # AT_EXECFN
        (15, platform),  # AT_PLATFORM
        (0, 0),
    ]  # fmt: skip


__all__ = ["UserProgram", "check_arguments", "exec_program", "load_elf", "new_mm", "program_from_image"]
