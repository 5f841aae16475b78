"""A real program, beside the same program on the engine alone: no kernel, no page tables, system calls in Python."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from unicorn import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_64, Uc
from unicorn import x86_const as x86

from emu.lab.rig import Rig
from emu.lab.speed.figure import Figure
from emu.machine.engine import COUNTER_OFFSET, CPU_MODEL, handle
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions
from kernel_stubs.elf import UserProgram
from kernel_stubs.exec import load_elf
from kernel_stubs.kernel_image import build_image

MIB = bytes(range(256)) * 4096
_BUDGET = 1_000_000_000
_STACK, _HEAP, _MAPS, _ROOM = 0x7FFF_0000_0000, 0x1000_0000, 0x7000_0000_0000, 64 << 20
_PAGE = 4096
_READ, _WRITE, _MMAP, _MPROTECT, _BRK, _ARCH_PRCTL, _EXIT_GROUP = 0, 1, 9, 10, 12, 158, 231
_SET_FS, _ENOSYS = 0x1002, -38
_AT_PHDR, _AT_PHENT, _AT_PHNUM, _AT_PAGESZ, _AT_ENTRY, _AT_RANDOM = 3, 4, 5, 6, 9, 25


def sha256() -> Iterator[Figure]:
    """`busybox sha256sum` of 1 MiB, with every invariant watching."""
    path = shutil.which("busybox")
    if path is None:
        print("busybox sha256sum: not measured, there is no busybox")
        return
    data = Path(path).read_bytes()
    program = load_elf(data, "busybox")
    image = build_image("linux-6", Profile())
    options = BootOptions(image, Profile(), program, (b"busybox", b"sha256sum"), stdin=MIB, ram_bytes=256 << 20)
    start = time.perf_counter()
    facts = Rig(options).run([], _BUDGET, "", log=False)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    alone = _Alone(program)
    instructions = alone.run()
    limit = time.perf_counter() - start
    expected = hashlib.sha256(MIB).hexdigest().encode()
    for who, output in (("entry64", facts.stream(1)), ("the engine alone", alone.output)):
        if not output.startswith(expected):
            raise RuntimeError(f"busybox sha256sum on {who} writes {output!r}")
    name = f"the engine alone, {instructions / 1e6:,.0f} million instructions"
    yield Figure("busybox sha256sum of 1 MiB", ours, "s", name, limit, round(3 * limit, 2))


class _Alone:
    """The engine with a flat memory, counting instructions as ours must."""

    def __init__(self, program: UserProgram) -> None:
        self.output = b""
        self._left = memoryview(MIB)
        self._break, self._mapped = _HEAP, _MAPS
        uc = self._uc = Uc(UC_ARCH_X86, UC_MODE_64, CPU_MODEL)
        ranges = [(s.address // _PAGE, -(-(s.address + s.memory_size) // _PAGE)) for s in program.segments]
        pages = {page for first, end in ranges for page in range(first, end)}
        for page in sorted(pages):
            uc.mem_map(page * _PAGE, _PAGE)
        for segment in program.segments:
            uc.mem_write(segment.address, program.data[segment.file_offset :][: segment.file_size])
        for start in (_HEAP, _MAPS, _STACK):
            uc.mem_map(start, _ROOM)
        uc.reg_write(x86.UC_X86_REG_RSP, self._stack(program))
        uc.hook_add(UC_HOOK_INSN, self._system_call, None, 1, 0, x86.UC_X86_INS_SYSCALL)
        self._entry = program.entry

    def _stack(self, program: UserProgram) -> int:
        top = _STACK + _ROOM - _PAGE
        words = [2, top, top + 8, 0, 0]  # argc, argv, no environment
        words += [_AT_PHDR, program.program_headers, _AT_PHENT, 56, _AT_PHNUM, program.program_header_count]
        words += [_AT_PAGESZ, _PAGE, _AT_ENTRY, program.entry, _AT_RANDOM, top + 32, 0, 0]
        self._uc.mem_write(top, b"busybox\0sha256sum\0".ljust(64, b"\0"))
        sp = top - 8 * len(words) & -16
        self._uc.mem_write(sp, struct.pack(f"<{len(words)}Q", *words))
        return sp

    def run(self) -> int:
        """To the program's end: the instructions that it took."""
        self._uc.emu_start(self._entry, 0xFFFF_0000_0000_0000, 0, _BUDGET)
        return ctypes.c_uint64.from_address(handle(self._uc) + COUNTER_OFFSET).value

    def _system_call(self, uc: Uc, _data: object) -> None:
        number, a, b, c = (
            uc.reg_read(r) for r in (x86.UC_X86_REG_RAX, x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RDX)
        )
        result = _ENOSYS
        if number == _READ:
            part = bytes(self._left[:c])
            self._left = self._left[c:]
            uc.mem_write(b, part)
            result = len(part)
        elif number == _WRITE:
            self.output += bytes(uc.mem_read(b, c))
            result = c
        elif number == _BRK:
            self._break = result = max(self._break, a)
        elif number == _MMAP:
            result = self._mapped
            self._mapped += -(-b // _PAGE) * _PAGE
        elif number == _MPROTECT:
            result = 0
        elif number == _ARCH_PRCTL and a == _SET_FS:
            uc.reg_write(x86.UC_X86_REG_FS_BASE, b)
            result = 0
        elif number == _EXIT_GROUP:
            uc.emu_stop()
        uc.reg_write(x86.UC_X86_REG_RAX, result)
