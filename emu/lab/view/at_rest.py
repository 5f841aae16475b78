"""Memory and registers of a system at rest, for observers: they read, and change nothing."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import Protocol

from emu.arch import KERNEL_HALF, Cr4, Rflags
from emu.machine.core import Core
from emu.machine.machine import Machine
from emu.machine.memory import PhysicalAddressError
from emu.machine.paging import Access, PageFaultError
from emu.machine.registers import CS, GS, REGISTER_NAMES, RSP, SS
from emu.machine.saved_cpu import GENERAL_REGISTERS
from kernel_stubs.abi import PerCpu, PtRegs
from kernel_stubs.abi26 import is_linux26
from kernel_stubs.context import Kernel, KernelOops, percpu_address

PT_REGS_SIZE = ctypes.sizeof(PtRegs)
_IF = int(Rflags.IF)


class Booted(Protocol):
    """What a View needs of a system (kernel_stubs.boot.System)."""

    @property
    def kernel(self) -> Kernel:
        """The kernel's frozen setting."""

    @property
    def machine(self) -> Machine:
        """The computer."""


class AtRest:
    """What lies in memory and in the CPUs' registers."""

    def __init__(self, system: Booted) -> None:
        self._kernel = system.kernel
        self._machine = system.machine
        self._ram = system.machine.memory.ram
        self.image = system.kernel.image
        # The saved contexts stay where they are: look at their arrays once.
        self._rows = [core.cpu.context[GENERAL_REGISTERS] for core in self._machine.cores]
        self._states = [core.cpu.state for core in self._machine.cores]
        self._control = [state.cr for state in self._states]
        self._quadwords = system.machine.memory.quadwords
        self._words: dict[tuple[int, str], int] = {}
        """CPU and field of its per-CPU area -> number of the quadword."""

    @cached_property
    def classic(self) -> bool:
        """Whether the image is linux-2.6, whose C functions have other rules."""
        return is_linux26(self.image)

    def core(self, cpu: int) -> Core:
        """The processor; for reading only."""
        return self._machine.cores[cpu]

    def raw_registers(self, cpu: int) -> bytes:
        """RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 as they lie in memory."""
        return self._rows[cpu].tobytes()

    def cr2(self, cpu: int) -> int:
        """CR2."""
        return int(self._control[cpu][2])

    def cr3(self, cpu: int) -> int:
        """CR3."""
        return int(self._control[cpu][3])

    def interrupts_enabled(self, cpu: int) -> bool:
        """RFLAGS.IF."""
        return bool(self._states[cpu].eflags & _IF)

    def smap(self, cpu: int) -> bool:
        """Whether CR4.SMAP is set: only then RFLAGS.AC matters in the kernel."""
        return bool(self._control[cpu][4] & Cr4.SMAP)

    def user_gs_base(self, cpu: int) -> int | None:
        """GS_BASE if user mode is running, else None."""
        state = self._machine.cores[cpu].cpu
        return state.gs_base if state.cpl == 3 else None

    def place(self, cpu: int) -> tuple[int, int, int]:
        """RSP, GS_BASE and CR3."""
        state = self._states[cpu]
        return int(state.regs[RSP]), int(state.segs[GS].base), int(state.cr[3])

    def registers(self, cpu: int) -> dict[str, int]:
        """All registers that a report shows, by name."""
        core = self._machine.cores[cpu].cpu
        table = {name: core.register(number) for number, name in enumerate(REGISTER_NAMES)}
        table |= {"rip": core.ip, "rflags": core.flags, "cs": core.selector(CS), "ss": core.selector(SS)}
        return table | {
            "gs_base": core.gs_base, "kernel_gs_base": core.kernel_gs_base, "cr2": core.cr2, "cr3": core.cr3,
        }  # fmt: skip

    def percpu_word(self, cpu: int, field: str) -> int:
        """A quadword of the per-CPU area; 0 before there is one."""
        number = self._words.get((cpu, field))
        if number is None:
            base = percpu_address(self._kernel, cpu)
            at = self._physical(base + PerCpu.offset(field)) if base else None
            if at is None:
                return 0
            if at % 8:  # the second of two small fields
                return int.from_bytes(self._ram[at : at + 8], "little")
            number = self._words[cpu, field] = at >> 3
        return self._quadwords[number]

    def _physical(self, address: int) -> int | None:
        """Physical address of a kernel linear one; None where a broken kernel has nothing."""
        try:
            return self._kernel.physical(address)
        except (KernelOops, PhysicalAddressError):
            return None

    def pt_regs(self, address: int) -> bytes | None:
        """A pt_regs in kernel memory; None if nothing is mapped there."""
        return self.read_kernel(address, PT_REGS_SIZE)

    def read_kernel(self, address: int, size: int) -> bytes | None:
        """Bytes at a kernel linear address, whatever CR3 holds; None if any is not mapped."""
        kernel = self._kernel
        pieces = []
        try:
            if (address & 0xFFF) + size <= 0x1000:
                at = kernel.physical(address)
                return self._ram[at : at + size]
            while size:
                length = min(size, 0x1000 - (address & 0xFFF))
                pieces.append(kernel.memory.read(kernel.physical(address), length))
                address, size = address + length, size - length
        except (KernelOops, PhysicalAddressError):
            return None
        return b"".join(pieces)

    def read(self, cpu: int, address: int, size: int) -> bytes:
        """Up to `size` bytes through the CPU's current page tables; shorter where they end."""
        linear = self._machine.cores[cpu].linear
        access = Access() if address & KERNEL_HALF else Access(user=True)
        for length in (size, 0x1000 - address % 0x1000):
            try:
                return linear.read(address, min(size, length), access)
            except PageFaultError:
                continue
        return b""
