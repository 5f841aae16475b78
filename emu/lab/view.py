"""What observers may see of a running system: names for addresses, stacks, registers at rest. It is read only."""

from __future__ import annotations

import ctypes
import struct
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePath
from typing import Protocol

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs

from asm import Image
from emu.arch import KERNEL_HALF, Cr4, Rflags
from emu.events import Frame
from emu.lab.user_memory import UserMemory
from emu.machine.core import Core
from emu.machine.machine import Machine
from emu.machine.memory import PhysicalAddressError
from emu.machine.paging import Access, PageFaultError
from emu.machine.registers import CS, GS, REGISTER_NAMES, RSP, SS
from kernel_stubs.abi import (
    PTI_USER_PGTABLE,
    TASK_SIZE_MAX,
    THREAD_SIZE,
    MmStruct,
    PerCpu,
    PtRegs,
    TaskStruct,
    ThreadInfo,
)
from kernel_stubs.abi26 import (
    INTERRUPTS_ON,
    INTERRUPTS_WANTED,
    LINUX_26,
    PARTIAL_FRAME,
    ThreadInfo26,
    Tif26,
    is_linux26,
)
from kernel_stubs.binding import DEFAULT_KERNEL, CFunction, registered
from kernel_stubs.context import Kernel, KernelOops, percpu_address
from kernel_stubs.siginfo import Sig
from kernel_stubs.signal_state import bit, pending_signals

MOVES_PT_REGS = frozenset({"fixup_bad_iret", "sync_regs"})
"""C functions that get the address of pt_regs and return another to which they have moved."""
_FARTHEST_USER_SYMBOL = 0x10000
"""A user address farther behind a symbol than this is not named after it: its size is unknown."""
_REGISTER_BYTES = 16 * 8
PT_REGS_SIZE = ctypes.sizeof(PtRegs)
_TASK_FLAGS = TaskStruct.offset("thread_info") + ThreadInfo.offset("flags")
_U64 = struct.Struct("<Q")
_IF = int(Rflags.IF)
_LONGEST_INSTRUCTION = 15
_UNREADABLE = "(bad)"
_STACK_WRITERS = ("mov", "lea", "xchg", "pop", "cmov")
_GS_WRITERS = frozenset({"swapgs", "wrgsbase", "wrgsbasel", "wrgsbaseq", "wrmsr"})
_ALWAYS_MOVE = _GS_WRITERS | {"leave", "leaveq", "iretq", "sysretq"}


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


class Booted(Protocol):
    """What a View needs of a system (kernel_stubs.boot.System)."""

    @property
    def kernel(self) -> Kernel:
        """The kernel's frozen setting."""

    @property
    def machine(self) -> Machine:
        """The computer."""


class View:
    """The read-only face of one system. Answers that cannot change are computed once."""

    def __init__(
        self, system: Booted, user_image: Image | None = None, user_symbols: Mapping[str, int] | None = None
    ) -> None:
        self._kernel = system.kernel
        self._machine = system.machine
        self._ram = system.machine.memory.ram
        self.image = system.kernel.image
        self.user_image = user_image
        ordered = sorted((address, name) for name, address in (user_symbols or {}).items())
        self._user_addresses = [address for address, _ in ordered]
        self._user_names = [name for _, name in ordered]
        # The saved contexts stay where they are: look at their arrays once.
        self._rows = [ctypes.addressof(core.cpu.state.regs) for core in self._machine.cores]
        self._states = [core.cpu.state for core in self._machine.cores]
        self._control = [state.cr for state in self._states]
        self._code: dict[int, str] = {}
        self._wheres: dict[int, str] = {}
        self._takes: dict[str, int | None] = {}
        self._percpu: dict[int, int] = {}
        self._task_flags: dict[int, int] = {}
        self._words: dict[tuple[int, str], int] = {}
        self._stacks: dict[int, tuple[int, tuple[StackRange, ...]]] = {}
        stub = self.image.symbols.get
        self._stub_slots = (stub("__c_stubs_start", 0), stub("__c_stubs_end", 0))

    # --- names ------------------------------------------------------------------------------------------------------
    def symbol(self, address: int) -> str:
        """`name+0x3`; plain hexadecimal if nothing is known there."""
        found = self.image.locate(address)
        if found is not None:
            return _named(self._aliases.get(address - found[1], found[0]), found[1])
        if self.user_image is not None and self.user_image.segment_at(address) is not None:
            return self.user_image.symbolize(address)
        at = bisect_right(self._user_addresses, address) - 1
        if at >= 0 and address - self._user_addresses[at] < _FARTHEST_USER_SYMBOL:
            return _named(self._user_names[at], address - self._user_addresses[at])
        return f"{address:#x}"

    @cached_property
    def _aliases(self) -> dict[int, str]:
        """What to call an address that has several symbols: not by that of a boundary."""
        table: dict[int, str] = {}
        for name, address in self.image.symbols.items():
            if not name.startswith("__"):
                table.setdefault(address, name)
        return table

    def where(self, address: int) -> str:
        """`entry_SYSCALL_64+0x3 (entry_64.S:41)`."""
        found = self._wheres.get(address)
        if found is None:
            image = self._image_of(address)
            statement = None if image is None else image.line_at(address)
            found = self.symbol(address)
            if statement is not None:
                found += f" ({PurePath(statement.position.file).name}:{statement.position.line})"
            self._wheres[address] = found
        return found

    def disassemble(self, address: int) -> str:
        """The instruction at an address in AT&T syntax, from an image or else from the guest's memory."""
        found = self._code.get(address)
        if found is None:
            found = self._disassemble(address)
            if found != _UNREADABLE:
                self._code[address] = found
        return found

    def _image_of(self, address: int) -> Image | None:
        for image in (self.image, self.user_image):
            if image is not None and image.segment_at(address) is not None:
                return image
        return None

    def _disassemble(self, address: int) -> str:
        image = self._image_of(address)
        instruction = None if image is None else image.instruction_at(address)
        if instruction is not None:
            return self._with_target(instruction.mnemonic, instruction.operands)
        code = self.read(0, address, _LONGEST_INSTRUCTION)
        for _, _, mnemonic, operands in self._capstone.disasm_lite(code, address, 1):
            return self._with_target(mnemonic, operands)
        return _UNREADABLE

    def _with_target(self, mnemonic: str, operands: str) -> str:
        """A branch to a known place names it."""
        if operands.startswith("0x") and mnemonic.startswith(("j", "call", "loop")):
            operands = self.symbol(int(operands, 16))
        return f"{mnemonic} {operands}".rstrip()

    @cached_property
    def _capstone(self) -> Cs:
        engine = Cs(CS_ARCH_X86, CS_MODE_64)
        engine.syntax = CS_OPT_SYNTAX_ATT
        return engine

    def call_site(self, return_to: int) -> int | None:
        """Address of the CALL that returns to `return_to`."""
        for size in (5, 2, 3, 6, 7):
            instruction = self.image.instruction_at(return_to - size)
            if instruction is not None and instruction.size == size and instruction.mnemonic.startswith("call"):
                return instruction.address
        return None

    def call_site_of_frame(self, frame: Frame) -> int | None:
        """Address of the CALL whose return address was on top of the stack of interrupted code."""
        word = self.read_kernel(frame.sp, 8)
        return None if word is None else self.call_site(int.from_bytes(word, "little"))

    def in_c(self, address: int) -> bool:
        """Whether an address lies in a stub slot, where C functions run."""
        low, high = self._stub_slots
        return low <= address < high

    def takes_pt_regs(self, name: str) -> bool:
        """Whether a C function's first argument is a pointer to pt_regs."""
        return self.pt_regs_argument(name) == 0

    def pt_regs_argument(self, name: str) -> int | None:
        """Which argument of a C function points to pt_regs (of MOVES_PT_REGS it is called `void *`)."""
        known = self._takes.get(name, -1)
        if known == -1:
            function = self._functions.get(name)
            kinds = () if function is None else function.parameters
            known = kinds.index(PtRegs) if PtRegs in kinds else 0 if name in MOVES_PT_REGS else None
            self._takes[name] = known
        return known

    def c_function(self, name: str) -> CFunction | None:
        """A C function of this kernel; None if it has none of that name."""
        return self._functions.get(name)

    @cached_property
    def _functions(self) -> dict[str, CFunction]:
        return registered(LINUX_26 if self.classic else DEFAULT_KERNEL)

    @cached_property
    def classic(self) -> bool:
        """Whether the image is linux-2.6, whose C functions have other rules."""
        return is_linux26(self.image)

    def partial_frame(self, name: str) -> bool:
        """Whether a C function's pt_regs lack the registers that C keeps."""
        return self.classic and name in PARTIAL_FRAME

    def interrupts_allowed(self, name: str) -> bool:
        """Whether a C function may be called with interrupts on."""
        return self.classic and (name in INTERRUPTS_ON or name.startswith(("sys", "compat_sys_")))

    def runs_32_bit_program(self, cpu: int) -> bool:
        """Whether linux-2.6 runs a 32-bit program here, by the personality that execve gave it; never of linux-6."""
        low = self.top_of_stack(cpu) - THREAD_SIZE
        word = self.read_kernel(low + ThreadInfo26.offset("flags"), 4) if self.classic and low > 0 else None
        return word is not None and bool(int.from_bytes(word, "little") >> Tif26.IA32 & 1)

    def interrupts_wanted(self, name: str) -> bool:
        """Whether a C function must be called with interrupts on."""
        return self.classic and (name in INTERRUPTS_WANTED or name.startswith(("sys_", "sys32_", "compat_sys_")))

    @cached_property
    def moves(self) -> frozenset[int]:
        """Where to sample RSP and GS_BASE again: kernel instructions that may change the stack or the GS base."""
        images = [image for image in (self.image, self.user_image) if image is not None]
        return frozenset(i.address for image in images for i in image.instructions() if _moves(i.mnemonic, i.operands))

    @cached_property
    def isolated(self) -> bool:
        """Whether the image is built for page-table isolation: it keeps the code that user tables map apart."""
        return "__entry_text_start" in self.image.symbols and not self.classic

    # --- what belongs to whom ---------------------------------------------------------------------------------------
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

    # --- stacks -----------------------------------------------------------------------------------------------------
    def percpu_word(self, cpu: int, field: str) -> int:
        """A quadword of the per-CPU area; 0 before there is one."""
        at = self._words.get((cpu, field))
        if at is None:
            base = percpu_address(self._kernel, cpu)
            if not base:
                return 0
            at = self._words[cpu, field] = self._kernel.physical(base + PerCpu.offset(field))
        return int(_U64.unpack_from(self._ram, at)[0])

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

        return tuple(stacks(self._kernel, cpu))

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

    # --- state at rest ----------------------------------------------------------------------------------------------
    def core(self, cpu: int) -> Core:
        """The processor; for reading only."""
        return self._machine.cores[cpu]

    def raw_registers(self, cpu: int) -> bytes:
        """RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 as they lie in memory."""
        return ctypes.string_at(self._rows[cpu], _REGISTER_BYTES)

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
            at = self._task_flags[task] = self._kernel.physical(task + _TASK_FLAGS)
        return int(_U64.unpack_from(self._ram, at)[0])

    def tss_sp0(self, cpu: int) -> int:
        """TSS.sp0, where an entry from user mode starts to push."""
        base = percpu_address(self._kernel, cpu)
        at = self._kernel.physical(base + PerCpu.offset("tss"))
        return int.from_bytes(self._kernel.memory.read(at + 4, 8), "little")

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


def _named(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name


def _moves(mnemonic: str, operands: str) -> bool:
    if mnemonic in _ALWAYS_MOVE:
        return True
    if mnemonic.startswith("mov") and operands.endswith("%gs"):
        return True
    if not mnemonic.startswith(_STACK_WRITERS):
        return False
    return operands.endswith(", %rsp") or operands == "%rsp" or (mnemonic == "xchgq" and operands.startswith("%rsp,"))
