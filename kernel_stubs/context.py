"""What a C function written in Python sees: the kernel around it, and the CPU that it runs on.

No state lives here. `Kernel` is the frozen setting of a run (machine, image, the files that the command line gave);
everything that changes is in guest memory, seen through the structures of `kernel_stubs.abi`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

from asm import Image
from emu.arch import LOCAL_TIMER_VECTOR, PAGE_SIZE, is_canonical
from emu.events import Note
from emu.machine.core import Core
from emu.machine.machine import Machine
from emu.machine.memory import Memory
from emu.machine.paging import PageTables
from kernel_stubs.abi import (
    INIT_PGD,
    KERNEL_BASE,
    KERNEL_PHYS,
    PAGE_OFFSET,
    TASK_SIZE_MAX,
    THREAD_SIZE,
    TS_COMPAT,
    MmStruct,
    PerCpu,
    PtRegs,
    TaskStruct,
)
from kernel_stubs.abi26 import LINUX_26, ThreadInfo26, Vector26, is_linux26
from kernel_stubs.elf import UserProgram
from kernel_stubs.layout import Struct

S = TypeVar("S", bound=Struct)
_MOST_VIEWS = 4096


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file whose content the run was given: a program, or standard input. Never changes."""

    name: str
    data: bytes
    mode: int = 0o644
    """Permissions of the file that it becomes."""
    kind: str = "file"
    """Or "directory", or "link": then `data` is where it leads."""
    read_only: bool = False
    """Nobody may change it, whatever its mode."""


class KernelOops(Exception):
    """The kernel cannot go on (bad access in kernel mode, #DF, fatal machine check): ends the run as a result.

    If only the current task cannot, `instead` is what the C function does now (a step of it).
    """

    def __init__(self, text: str, instead: object = None) -> None:
        super().__init__(text)
        self.instead = instead


@dataclass(frozen=True)
class Kernel:
    """One booted kernel: the image, the machine, its inputs."""

    machine: Machine
    image: Image
    files: tuple[InputFile, ...] = ()
    seed: int = 0
    """Of getrandom(2) and AT_RANDOM."""
    program: UserProgram | None = None
    """What the first task executes; its file is files[0]."""
    argv: tuple[bytes, ...] = ()
    envp: tuple[bytes, ...] = ()
    output: list[tuple[int, bytes]] = field(default_factory=list)
    """Append-only log of (file descriptor, bytes) written by the process; a restore truncates it."""
    user_accesses: list[Callable[[int], None]] = field(default_factory=list)
    """Told the address of each access to user memory (uaccess.py), once for each page; for who looks for these."""

    _views: dict[tuple[type[Struct], int], Struct] = field(default_factory=dict)
    """By kind and physical address: there is nothing in a view but the address."""

    @cached_property
    def memory(self) -> Memory:
        """Physical memory."""
        return self.machine.memory

    @cached_property
    def linear_map_end(self) -> int:
        """Linear address behind the map of all memory."""
        return PAGE_OFFSET + self.memory.size

    @cached_property
    def percpu_offsets(self) -> int:
        """Physical address of `__per_cpu_offset`."""
        return self.image.symbol("__per_cpu_offset") - KERNEL_BASE + KERNEL_PHYS

    @cached_property
    def classic(self) -> bool:
        """Whether the image is linux-2.6: its assembly looks itself for what is to be done before user mode."""
        return is_linux26(self.image)

    @property
    def name(self) -> str:
        """Whose C functions it has."""
        return LINUX_26 if self.classic else "linux-6"

    @property
    def timer_vector(self) -> int:
        """Vector of the local APIC's timer."""
        return Vector26.LOCAL_TIMER if self.classic else LOCAL_TIMER_VECTOR

    def physical(self, address: int) -> int:
        """Physical address of a kernel linear address, through the initial page tables if it is in no linear map."""
        if PAGE_OFFSET <= address < self.linear_map_end:
            return address - PAGE_OFFSET
        page = address & -PAGE_SIZE
        frame = self.machine.translations.get(page)
        if frame is None:
            if KERNEL_BASE <= address < KERNEL_BASE + 0x4000_0000:
                return address - KERNEL_BASE + KERNEL_PHYS
            if address < TASK_SIZE_MAX or not is_canonical(address):
                raise KernelOops(f"unable to handle kernel address {address:#x}")
            entry = PageTables(self.memory, _no_new_tables).entry(INIT_PGD, address)
            if not entry & 1:
                raise KernelOops(f"unable to handle kernel address {address:#x}")
            frame = self.machine.translations[page] = entry & 0x000F_FFFF_FFFF_F000
        return frame + address - page

    def view(self, kind: type[S], address: int) -> S:
        """A structure in guest memory at a kernel linear address; it must be physically contiguous."""
        at = self.physical(address)
        known = self._views.get((kind, at))
        if known is not None:
            return cast(S, known)
        if at + kind.SIZE > self.memory.size:
            raise KernelOops(f"unable to handle kernel address {address:#x}")
        if len(self._views) >= _MOST_VIEWS:
            self._views.clear()
        found = self._views[kind, at] = kind.from_buffer(self.memory.ram, at)
        return found


def _no_new_tables() -> int:
    raise AssertionError("a lookup never allocates")


_CURRENT_TASK = PerCpu.offset("current_task")


class Cpu:
    """The CPU on which a C function runs: first argument of every C function."""

    __slots__ = ("_percpu", "core", "kernel", "memory")

    def __init__(self, kernel: Kernel, core: Core) -> None:
        self.kernel = kernel
        self.core = core
        self.memory: Memory = kernel.memory
        self._percpu: PerCpu | None = None

    @property
    def number(self) -> int:
        """smp_processor_id()."""
        return self.core.index

    @property
    def percpu(self) -> PerCpu:
        """This CPU's per-CPU area, found by CPU number (GS may be wrong: that is what we test)."""
        if self._percpu is None:
            self._percpu = self.kernel.view(PerCpu, percpu_address(self.kernel, self.core.index))
        return self._percpu

    @property
    def current(self) -> TaskStruct:
        """The task that runs here."""
        kernel = self.kernel
        area = kernel.physical(percpu_address(kernel, self.core.index))
        return kernel.view(TaskStruct, self.memory.read_u64(area + _CURRENT_TASK))  # no view of PerCpu: each call asks

    @property
    def mm(self) -> MmStruct:
        """Address space of the current task."""
        return self.kernel.view(MmStruct, self.current.mm)

    def view(self, kind: type[S], address: int) -> S:
        """A structure at a kernel linear address."""
        return self.kernel.view(kind, address)

    def note(self, text: str) -> None:
        """Tell observers (and nobody else) what a reader of the trace wants to know."""
        core = self.core
        core.emit(Note(core.clock, core.index, core.cpu.ip, text))


def task_pt_regs(kernel: Kernel, task: TaskStruct) -> PtRegs:
    """User mode's registers, at the end of the task's stack."""
    return kernel.view(PtRegs, task.stack + THREAD_SIZE - PtRegs.SIZE)


def in_ia32_syscall(kernel: Kernel, task: TaskStruct) -> bool:
    """TS_COMPAT: the system call that a task is in is an i386 one. In linux-2.6 the assembly says so."""
    info = kernel.view(ThreadInfo26, task.stack) if kernel.classic else task.thread_info
    return bool(info.status & TS_COMPAT)


def percpu_address(kernel: Kernel, cpu: int) -> int:
    """Linear address of a CPU's PerCpu: `__per_cpu_offset[cpu]`."""
    return kernel.memory.read_u64(kernel.percpu_offsets + 8 * cpu)
