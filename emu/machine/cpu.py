"""One CPU: the engine, its registers at rest, and `run` to the next stop.

Hooks only note why they stopped and stop; all state changes happen between two runs, in the saved context, which is
written back before the next one. Together with engine.py this is the only place that knows unicorn.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from unicorn import (
    UC_ARCH_X86,
    UC_HOOK_CODE,
    UC_HOOK_INSN,
    UC_HOOK_INSN_INVALID,
    UC_HOOK_INTR,
    UC_HOOK_MEM_READ,
    UC_HOOK_MEM_WRITE,
    UC_MEM_WRITE,
    UC_MODE_64,
    UC_PROT_ALL,
    Uc,
)
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from emu.arch import ARITHMETIC_FLAGS, Cr4, Efer, PageFault, Rflags, Vector
from emu.machine import engine
from emu.machine.memory import Memory
from emu.machine.registers import Registers

_CODE_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_INTR_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_FLAG_CB = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_IN_CB = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_MEMORY_CB = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
_OUT_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


MAX_INSTRUCTION = 15
"""Bytes."""


class StopKind(Enum):
    """Why a run ended."""

    COUNT = "count"  # as many instructions retired as asked for
    BREAK = "break"  # before an instruction that has a stop on it
    FAULT = "fault"  # an exception; RIP on the instruction (after it for a single-step #DB)
    SOFTWARE = "software"  # INT n, INT3: RIP after it
    SYSCALL = "syscall"  # RIP after it
    SYSENTER = "sysenter"  # RIP after it
    CPUID = "cpuid"  # RIP after it
    RDTSC = "rdtsc"  # RIP after it
    IN = "in"  # RIP after it
    OUT = "out"  # RIP after it
    MMIO = "mmio"  # wrote to a device's memory; RIP after the writing instruction
    HALT = "halt"  # HLT at CPL 0; RIP after it
    BUS = "bus"  # physical memory that is not there


@dataclass(slots=True)
class Stop:
    """The end of a run: its kind, how many instructions retired, RIP, and what belongs to the kind."""

    kind: StopKind
    retired: int
    ip: int
    vector: int = 0
    error_code: int = 0
    start: int = 0
    """IN and OUT: address of the instruction."""
    port: int = 0
    size: int = 0
    value: int = 0
    """OUT: what was written. IN: RAX before it."""
    old_cr2: int = 0


class Cpu(Registers):
    """Registers are read and written at rest only. Addresses and values are unsigned 64-bit."""

    def __init__(self, index: int, memory: Memory) -> None:
        engine.probe()
        self.index = index
        self.memory = memory
        self._uc = Uc(UC_ARCH_X86, UC_MODE_64, engine.CPU_MODEL)
        self._uc.mem_map_ptr(0, memory.size, UC_PROT_ALL, memory.host_address)
        # Without this the engine looks up its `until` address after every run, and the fault that it gets there stays
        # behind in old_exception and error_code.
        self._uc.ctl_exits_enabled(True)
        # Power-on values (SDM volume 3A, table 9-1), which the engine leaves at 0.
        self._uc.reg_write(x86.UC_X86_REG_FPCW, 0x40)
        self._uc.reg_write(x86.UC_X86_REG_MXCSR, 0x1F80)
        self._uch = self._uc._uch
        self._context = self._uc.context_save()
        self._saved = self._context.context
        super().__init__(engine.view(self._context))
        self._context_size = engine.context_size(self._uc)
        self._context_address = ctypes.addressof(self.state)
        self._counter = ctypes.c_uint64.from_address(engine.handle(self._uc) + engine.COUNTER_OFFSET)
        self._stale_tlb = False
        self._cr3_again = ctypes.c_uint64()
        self._cr3_at = ctypes.byref(self._cr3_again)
        self._stop: Stop | None = None
        self._pass_ip = -1
        self._keep: list[object] = []
        self._stops: dict[int, int] = {}
        """Address -> its hook, 0 if a span's hook covers it."""
        self._spans: list[tuple[int, int]] = []
        self._quiet: frozenset[int] = frozenset()
        self._noted: frozenset[int] = frozenset()
        self.notes: list[tuple[int, bytes]] = []
        """What `note_at` saw in the last run: (instructions retired before it, the context there)."""
        self.mmio_writes: list[tuple[int, int, int]] = []
        self._device_writes_wait = False
        self._trace_hook: int | None = None
        self._watch_hook: int | None = None
        self.accesses: list[tuple[int, int, bool]] = []
        """What `watch_memory` saw since it was last cleared."""
        self._install_hooks()

    # --- hooks: they note and stop ----------------------------------------------------------------------------------
    def _hook(self, kind: int, callback: object, begin: int = 1, end: int = 0, instruction: int | None = None) -> int:
        hook = ctypes.c_size_t()
        extra = () if instruction is None else (ctypes.c_int(instruction),)
        status = uclib.uc_hook_add(
            self._uch, ctypes.byref(hook), kind, callback, None, ctypes.c_uint64(begin), ctypes.c_uint64(end), *extra
        )
        if status:
            raise RuntimeError(f"uc_hook_add: status {status}")
        self._keep.append(callback)
        return hook.value

    def _install_hooks(self) -> None:
        uch, stop_engine = self._uch, uclib.uc_emu_stop
        state = self.state
        save, context = uclib.uc_context_save, self._saved

        def on_interrupt(_uc: int, vector: int, _data: int) -> None:
            if self._stop is not None:
                return  # the engine's single-step trap behind an instruction that we stopped for, such as SYSCALL
            save(uch, context)  # the engine clears the error code when the run ends
            kind = StopKind.SOFTWARE if state.exception_is_int else StopKind.FAULT
            self._stop = Stop(kind, -1, 0, vector, state.error_code & 0xFFFFFFFF)
            stop_engine(uch)

        def on_invalid(_uc: int, _data: int) -> int:
            save(uch, context)
            self._stop = Stop(StopKind.SOFTWARE if state.exception_is_int else StopKind.FAULT, -1, 0, Vector.UD)
            stop_engine(uch)
            return 1

        def instruction(kind: StopKind) -> Callable[[int, int], int]:
            def on_instruction(_uc: int, _data: int) -> int:
                self._stop = Stop(kind, self._counter.value, 0)
                stop_engine(uch)
                return 1

            return on_instruction

        def on_in(_uc: int, port: int, size: int, _data: int) -> int:
            start, rax = self._uc.reg_read(x86.UC_X86_REG_RIP), self._uc.reg_read(x86.UC_X86_REG_RAX)
            self._stop = Stop(StopKind.IN, self._counter.value, 0, start=start, port=port, size=size, value=rax)
            stop_engine(uch)
            return 0

        def on_out(_uc: int, port: int, size: int, value: int, _data: int) -> None:
            start = self._uc.reg_read(x86.UC_X86_REG_RIP)
            self._stop = Stop(StopKind.OUT, self._counter.value, 0, start=start, port=port, size=size, value=value)
            stop_engine(uch)

        def on_code(_uc: int, address: int, _size: int, _data: int) -> None:
            if address in self._noted:
                save(uch, context)
                self.notes.append(
                    (self._counter.value - 1, ctypes.string_at(self._context_address, self._context_size))
                )
            elif address == self._pass_ip:
                self._pass_ip = -1
            elif address in self._stops and address not in self._quiet:
                self._stop = Stop(StopKind.BREAK, -1, address)
                stop_engine(uch)

        self._on_code = _CODE_CB(on_code)
        self._hook(UC_HOOK_INTR, _INTR_CB(on_interrupt))
        self._hook(UC_HOOK_INSN_INVALID, _FLAG_CB(on_invalid))
        for kind, number in (
            (StopKind.SYSCALL, x86.UC_X86_INS_SYSCALL),
            (StopKind.SYSENTER, x86.UC_X86_INS_SYSENTER),
            (StopKind.CPUID, x86.UC_X86_INS_CPUID),
            (StopKind.RDTSC, x86.UC_X86_INS_RDTSC),
            (StopKind.RDTSC, x86.UC_X86_INS_RDTSCP),
        ):
            self._hook(UC_HOOK_INSN, _FLAG_CB(instruction(kind)), instruction=number)
        self._hook(UC_HOOK_INSN, _IN_CB(on_in), instruction=x86.UC_X86_INS_IN)
        self._hook(UC_HOOK_INSN, _OUT_CB(on_out), instruction=x86.UC_X86_INS_OUT)

    def map_device(self, base: int, size: int, read: Callable[[int, int], int]) -> None:
        """Physical memory that is a device: `read(address, size)` answers at once, writes stop the run (MMIO).

        `mmio_writes` then holds (address, size, value) of the writes of that one instruction.
        """
        uch = self._uch

        def on_read(_uc: Uc, offset: int, width: int, _data: object) -> int:
            return read(base + offset, width)

        def on_write(_uc: Uc, offset: int, width: int, value: int, _data: object) -> None:
            if self._device_writes_wait:
                self.mmio_writes.append((base + offset, width, value))
            elif self._stop is None:
                self._stop = Stop(StopKind.MMIO, self._counter.value - 1, 0)
                self.mmio_writes.clear()
                uclib.uc_emu_stop(uch)

        self._uc.mmio_map(base, size, on_read, None, on_write, None)

    def watch_memory(self, on: bool) -> None:
        """Keep the guest's memory accesses in `accesses`: (physical address, size, writes)."""
        if on and self._watch_hook is None:
            accesses = self.accesses

            def on_access(_uc: int, kind: int, address: int, size: int, _value: int, _data: int) -> None:
                accesses.append((address, size, kind == UC_MEM_WRITE))

            self._watch_hook = self._hook(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, _MEMORY_CB(on_access))
            self.flush_code()
        elif not on and self._watch_hook is not None:
            uclib.uc_hook_del(self._uch, ctypes.c_size_t(self._watch_hook))
            self._watch_hook = None
            self.accesses.clear()
            self.flush_code()

    @property
    def in_flight(self) -> int:
        """Inside a device's read: instructions of this run that have retired."""
        return self._counter.value - 1

    def stop_at(self, addresses: Iterable[int], span: tuple[int, int] | None = None) -> None:
        """Stop before the instructions at these addresses, for good.

        With `span` (first, last) one hook covers them all, which costs a callback for each instruction in the span:
        right for a dense range that little else runs in.
        """
        if span:
            first, last = span
            self._delete_hooks(a for a in self._stops if first <= a <= last)
            self._hook(UC_HOOK_CODE, self._on_code, first, last)
            self._spans.append(span)
        for address in addresses:
            if address in self._stops:
                continue
            # One hook an address: a second one would stop what the first one has just let pass.
            covered = any(first <= address <= last for first, last in self._spans)
            self._stops[address] = 0 if covered else self._hook(UC_HOOK_CODE, self._on_code, address, address)
        self.flush_code()

    def clear_stops(self, addresses: Iterable[int]) -> None:
        """Forget stops; a span's hook stays."""
        gone = [address for address in addresses if address in self._stops]
        self._delete_hooks(gone)
        for address in gone:
            del self._stops[address]
        self.flush_code()

    def _delete_hooks(self, addresses: Iterable[int]) -> None:
        for address in addresses:
            if self._stops[address]:
                uclib.uc_hook_del(self._uch, ctypes.c_size_t(self._stops[address]))
                self._stops[address] = 0

    def quiet(self, addresses: frozenset[int]) -> None:
        """Do not stop at these addresses for now (their hooks stay)."""
        self._quiet = addresses

    def note_at(self, addresses: frozenset[int]) -> None:
        """At these addresses, which have stops, do not stop but keep the context in `notes`: much faster."""
        self._noted = addresses

    def show(self, context: bytes) -> None:
        """Registers read as in a noted context, or one saved at rest; write nothing before the saved one is back."""
        ctypes.memmove(self._context_address, context, self._context_size)

    def trace(self, on_instruction: Callable[[int], None] | None) -> None:
        """Call `on_instruction(address)` before every instruction; None ends it.

        The callback may read, through `peek`, and nothing else.
        """
        if self._trace_hook is not None:
            uclib.uc_hook_del(self._uch, ctypes.c_size_t(self._trace_hook))
            self._trace_hook = None
        if on_instruction is not None:
            note = on_instruction

            def on_code(_uc: int, address: int, _size: int, _data: int) -> None:
                note(address)

            self._trace_hook = self._hook(UC_HOOK_CODE, _CODE_CB(on_code))
        self.flush_code()

    def peek(self) -> engine.SavedCpu:
        """Inside a trace callback: the state before the instruction (RIP and lazy flags excepted)."""
        uclib.uc_context_save(self._uch, self._saved)
        return self.state

    # --- running ----------------------------------------------------------------------------------------------------
    def run(self, count: int, *, step_over: bool = False) -> Stop:
        """Retire up to `count` instructions from RIP and say why it ended.

        With `step_over` a stop on the first instruction is passed. Each iteration of a REP instruction counts as one,
        as each is an instruction boundary.
        """
        if count <= 0:
            return Stop(StopKind.COUNT, 0, self.state.rip)
        self.notes.clear()
        stop = self._start(count, step_over)
        if stop.kind is not StopKind.MMIO:
            return stop
        # The engine stopped within the instruction; once more, so that it finishes. Devices get what it writes then.
        self._device_writes_wait = True
        again = self._start(1, True)
        self._device_writes_wait = False
        again.retired += stop.retired
        if again.kind is StopKind.COUNT:
            again.kind = StopKind.MMIO
        return again

    def _start(self, count: int, step_over: bool) -> Stop:
        self._write_back()
        ip, cr2, dr6 = self.state.rip, self._cr[2], self._dr[6]
        passes = step_over and ip in self._stops and ip not in self._quiet and ip not in self._noted
        self._pass_ip = ip if passes else -1
        self._stop = None
        status = uclib.uc_emu_start(self._uch, ip, 0, 0, count)
        self._pass_ip = -1
        uclib.uc_context_save(self._uch, self._saved)
        stop = self._explain(status, count, self._counter.value)
        stop.old_cr2 = cr2
        if stop.kind is StopKind.FAULT and stop.retired == count and self._belongs_to_next(stop.vector):
            # The count was reached, and the engine has already looked at what follows: that is for the next run.
            self.state.cr[2], self.state.dr[6] = cr2, dr6
            return Stop(StopKind.COUNT, count, stop.ip)
        return stop

    def _belongs_to_next(self, vector: int) -> bool:
        """A fetch fault or an instruction breakpoint (no single step)."""
        return vector == Vector.PF or (vector == Vector.DB and not self.state.eflags & Rflags.TF)

    def _explain(self, status: int, count: int, counter: int) -> Stop:
        state = self.state
        stop = self._stop
        if stop is None:
            if status:
                stop = Stop(StopKind.BUS, counter - 1, state.rip)
            elif counter > count:
                stop = Stop(StopKind.COUNT, count, state.rip)
            else:
                stop = Stop(StopKind.HALT, counter, state.rip)
            return stop
        kind = stop.kind
        if stop.retired >= 0:  # the hook has read the counter, which includes its instruction
            if kind is StopKind.SYSCALL or kind is StopKind.SYSENTER or kind is StopKind.MMIO:
                self._settle_flags()
        elif kind is StopKind.SOFTWARE:
            stop.retired = counter
            if stop.vector == Vector.UD:
                state.rip = state.exception_next_eip  # the engine takes INT 6 for an invalid instruction
        elif kind is StopKind.FAULT and stop.vector == Vector.DB:
            # A single step is reported after its instruction; one with a breakpoint (DR0-3) was not even translated.
            stop.retired = counter
        elif kind is StopKind.FAULT and stop.vector == Vector.PF and self._is_fetch(stop.error_code):
            stop.retired = counter  # the count hook runs with the instruction, and this one was not even translated
        else:
            stop.retired = counter - 1
            if kind is StopKind.FAULT:
                self._settle_flags()
        stop.ip = state.rip
        if kind is StopKind.FAULT or kind is StopKind.SOFTWARE:
            state.old_exception = -1  # or the next contributory fault becomes #DF inside the engine
            self._dirty = True
        return stop

    def _settle_flags(self) -> None:
        """The engine has gone back to where an instruction began.

        The count hook had the lazy flags worked out there (into cc_src), but the engine then remembers how they were
        lazy before, and works them out once more, from the result: CF, AF and OF are lost.
        """
        state = self.state
        if state.cc_op != engine.CC_OP_EFLAGS:
            state.eflags = state.eflags & ~ARITHMETIC_FLAGS | state.cc_src & ARITHMETIC_FLAGS
            self._dirty = True

    def _is_fetch(self, error_code: int) -> bool:
        """Whether a page fault is one of instruction fetch; without NX and SMEP the error code does not say."""
        state = self.state
        if state.efer & Efer.NXE or state.cr[4] & Cr4.SMEP:
            return bool(error_code & PageFault.I)
        return state.rip <= state.cr[2] < state.rip + MAX_INSTRUCTION

    def _write_back(self) -> None:
        if self._dirty:
            uclib.uc_context_restore(self._uch, self._saved)
            self._dirty = False
        if self._stale_tlb:
            self._cr3_again.value = self._cr[3]
            uclib.uc_reg_write(self._uch, x86.UC_X86_REG_CR3, self._cr3_at)
            self._stale_tlb = False

    def flush_tlb(self) -> None:
        """Page tables changed behind the engine's back."""
        self._stale_tlb = True

    def flush_code(self) -> None:
        """Drop all translations: hooks changed, or code was written by the host."""
        self._uc.ctl_flush_tb()

    # --- registers that the engine derives other state from ---
    def set_control(self, *, cr0: int | None = None, cr3: int | None = None, cr4: int | None = None) -> None:
        """Load control registers through the engine, which derives its own mode bits from them."""
        self._write_back()
        for register, value in (
            (x86.UC_X86_REG_CR4, cr4),
            (x86.UC_X86_REG_CR3, cr3),
            (x86.UC_X86_REG_CR0, cr0),
        ):
            if value is not None:
                self._uc.reg_write(register, value)
        uclib.uc_context_save(self._uch, self._saved)

    def set_efer(self, value: int) -> None:
        """Load IA32_EFER through the engine."""
        self._write_back()
        self._uc.msr_write(0xC0000080, value)
        uclib.uc_context_save(self._uch, self._saved)

    # --- snapshot ---------------------------------------------------------------------------------------------------
    def save(self) -> bytes:
        """The whole context, at rest."""
        return ctypes.string_at(self._context_address, self._context_size)

    def load(self, saved: bytes) -> None:
        """Back to a saved context; the TLB is flushed."""
        ctypes.memmove(self._context_address, saved, self._context_size)
        self._dirty = True
        self._stale_tlb = True
