"""What observers may see of a running system: its stacks and tasks, and what belongs to whom. It is read only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

from asm import Image
from emu.arch import KERNEL_HALF
from emu.lab.user_memory import UserMemory
from emu.lab.view.at_rest import Booted
from emu.lab.view.names import Names
from kernel_stubs.abi import PTI_USER_PGTABLE, TASK_SIZE_MAX, THREAD_SIZE, MmStruct, PerCpu, TaskStruct, ThreadInfo
from kernel_stubs.abi26 import ThreadInfo26, Tif26
from kernel_stubs.context import KernelOops, percpu_address
from kernel_stubs.siginfo import Sig
from kernel_stubs.signal_state import bit, pending_signals

_TASK_FLAGS = TaskStruct.offset("thread_info") + ThreadInfo.offset("flags")
_U64 = struct.Struct("<Q")


class StackRange(Protocol):
    """A stack of one CPU (kernel_stubs.boot.StackRange)."""

    @property
    def name(self) -> str:
        """task, entry, irq, or IST and its number and use."""

    @property
    def low(self) -> int:
        """Lowest address."""

    @property
    def high(self) -> int:
        """The address behind it, where RSP is while it is empty."""


class View(Names):
    """The read-only face of one system. Answers that cannot change are computed once."""

    def __init__(
        self, system: Booted, user_image: Image | None = None, user_symbols: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(system, user_image, user_symbols)
        self._percpu: dict[int, int] = {}
        self._task_flags: dict[int, int] = {}
        self._stacks: dict[int, tuple[int, tuple[StackRange, ...]]] = {}

    @cached_property
    def isolated(self) -> bool:
        """Whether the image is built for page-table isolation: it keeps the code that user tables map apart."""
        return "__entry_text_start" in self.image.symbols and not self.classic

    def runs_32_bit_program(self, cpu: int) -> bool:
        """Whether linux-2.6 runs a 32-bit program here, by the personality that execve gave it; never of linux-6."""
        low = self.top_of_stack(cpu) - THREAD_SIZE
        word = self.read_kernel(low + ThreadInfo26.offset("flags"), 4) if self.classic and low > 0 else None
        return word is not None and bool(int.from_bytes(word, "little") >> Tif26.IA32 & 1)

    def cpl_of(self, address: int) -> int:
        """Privilege level of the code at an address: the kernel has the upper half."""
        return 0 if address & KERNEL_HALF else 3

    def percpu_base(self, cpu: int) -> int:
        """What GS_BASE is in the kernel: the per-CPU area, or the PDA; 0 before boot code has filled in its table."""
        base = self._percpu.get(cpu)
        if base is None:
            if self.classic:
                table = self._kernel.physical(self.image.symbol("_cpu_pda"))
                base = self._kernel.memory.read_u64(table + 8 * cpu)
            else:
                base = percpu_address(self._kernel, cpu)
            if base:
                self._percpu[cpu] = base
        return base

    def gs_owner(self, cpu: int, gs_base: int) -> str:
        """`kernel` if GS_BASE is this CPU's per-CPU base, else `user`."""
        return "kernel" if gs_base == self.percpu_base(cpu) else "user"

    def kernel_cr3(self, cr3: int) -> bool:
        """Whether CR3 holds a kernel page table."""
        return not cr3 & PTI_USER_PGTABLE

    def user_cr3(self, cr3: int) -> bool:
        """Whether CR3 holds the page table of user mode."""
        return bool(cr3 & PTI_USER_PGTABLE)

    def top_of_stack(self, cpu: int) -> int:
        """End of the current task's stack."""
        return self.percpu_word(cpu, "top_of_stack")

    def stacks(self, cpu: int) -> tuple[StackRange, ...]:
        """The stacks that this CPU may be on now."""
        top = self.top_of_stack(cpu)
        known = self._stacks.get(cpu)
        if known is None or known[0] != top:
            known = self._stacks[cpu] = (top, self._read_stacks(cpu) if top else ())
        return known[1]

    def _read_stacks(self, cpu: int) -> tuple[StackRange, ...]:
        from kernel_stubs.boot import stacks  # the C side is imported only when a kernel has booted

        try:
            return tuple(stacks(self._kernel, cpu))
        except KernelOops:  # its per-CPU area is nowhere any more
            return ()

    def stack_at(self, cpu: int, sp: int) -> StackRange | None:
        """The stack that RSP lies on."""
        for stack in self.stacks(cpu):
            if stack.low < sp <= stack.high:
                return stack
        return None

    def stack_name(self, cpu: int, sp: int) -> str:
        """`task`, `entry`, `irq`, `IST2 NMI`, `user`, or `?`."""
        stack = self.stack_at(cpu, sp)
        if stack is not None:
            return stack.name
        return "user" if sp <= TASK_SIZE_MAX else "?"

    def current_task(self, cpu: int) -> TaskStruct | None:
        """The task that runs on a CPU, for reading only; None before there is one."""
        address = self.percpu_word(cpu, "current_task")
        try:
            return self._kernel.view(TaskStruct, address) if address else None
        except KernelOops:  # a broken kernel: what it calls its task is none
            return None

    def fatal_signal_pending(self, cpu: int) -> bool:
        """Whether the current task is about to be ended by SIGKILL."""
        task = self.current_task(cpu)
        try:
            return task is not None and bool(pending_signals(self._kernel, task) & bit(Sig.SIGKILL) or task.exit_state)
        except KernelOops:
            return False

    def user_memory(self, cpu: int) -> UserMemory | None:
        """Memory of the process whose task runs on a CPU; None for a task without any."""
        task = self.current_task(cpu)
        try:
            return UserMemory(self._kernel, self._kernel.view(MmStruct, task.mm)) if task and task.mm else None
        except KernelOops:
            return None

    def work_flags(self, cpu: int) -> int:
        """thread_info.flags of the current task."""
        task = self.percpu_word(cpu, "current_task")
        if not task:
            return 0
        at = self._task_flags.get(task)
        if at is None:  # in the direct map, so it never moves
            at = self._physical(task + _TASK_FLAGS)
            if at is None:
                return 0
            self._task_flags[task] = at
        return int(_U64.unpack_from(self._ram, at)[0])

    def tss_sp0(self, cpu: int) -> int:
        """TSS.sp0, where an entry from user mode starts to push; 0 if the per-CPU area is nowhere any more."""
        at = self._physical(percpu_address(self._kernel, cpu) + PerCpu.offset("tss") + 4)
        return 0 if at is None else int.from_bytes(self._kernel.memory.read(at, 8), "little")
