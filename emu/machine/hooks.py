"""The engine with its hooks: they note why they stopped and stop; all state changes happen between two runs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from functools import partial

from unicorn import (
    UC_ARCH_X86,
    UC_HOOK_CODE,
    UC_HOOK_EDGE_GENERATED,
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

from emu.arch import KERNEL_HALF, PAGE_SIZE, Cr0, Rflags, Vector, is_canonical
from emu.machine import code_hooks, engine
from emu.machine.memory import Memory
from emu.machine.registers import REGISTER_NAMES, Registers
from emu.machine.saved_cpu import SavedCpu
from emu.machine.stop import BREAK, Stop, StopKind

_REGISTER_IDS = tuple(getattr(x86, f"UC_X86_REG_{name.upper()}") for name in REGISTER_NAMES)


class HookedEngine(Registers):
    """The engine, its registers at rest in the saved context, and where it stops."""

    def __init__(self, index: int, memory: Memory) -> None:
        engine.probe()
        code_hooks.probe()
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
        self._stop_now = partial(engine.emu_stop, self._uch)
        self._code_hooks = code_hooks.CodeHooks(self._uc)
        self._context = self._uc.context_save()
        self._saved = self._context.context
        super().__init__(engine.view(self._context))
        whole = (ctypes.c_char * engine.context_size(self._uc)).from_address(ctypes.addressof(self.state))
        self._bytes = memoryview(whole).cast("B")
        self._counter = ctypes.c_uint64.from_address(engine.handle(self._uc) + engine.COUNTER_OFFSET)
        self._begin, self._count = ctypes.c_uint64(), ctypes.c_size_t()
        self._stale_tlb = False
        self._cr3_again = ctypes.c_uint64()
        self._cr3_at = ctypes.byref(self._cr3_again)
        self._stop: Stop | None = None
        self._pass_ip = -1
        self._keep: list[object] = []
        self._stops: dict[int, int] = {}
        """Address -> its hook, 0 if a span's hook covers it."""
        self._spans: dict[tuple[int, int], int] = {}
        """Range of addresses -> the hook that covers it; no two of them meet."""
        self._hooks_in_user_mode = False
        self._leaving: frozenset[int] = frozenset()
        self._quiet: frozenset[int] = frozenset()
        self._noted: frozenset[int] = frozenset()
        self._canonical: dict[int, int] = {}
        self._live_value = ctypes.c_uint64()
        self._live_at = ctypes.byref(self._live_value)
        self.notes: list[tuple[int, bytes]] = []
        """What `note_at` saw in the last run: (instructions retired before it, the context there)."""
        self.mmio_writes: list[tuple[int, int, int]] = []
        self._device_writes_wait = False
        self._trace_hook: int | None = None
        self._watch_hook: int | None = None
        self.accesses: list[tuple[int, int, bool]] = []
        """What `watch_memory` saw since it was last cleared."""
        self.keeps_overwritten = False
        self.overwritten: list[tuple[int, bytes]] = []
        """With `keeps_overwritten`, what lay where `watch_memory` saw a write, before it: (physical address, bytes)."""
        self._lookout: code_hooks.Lookout | None = None
        """In the engine's list during the present run, instead of all our other code hooks."""
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
        self._code_hooks.changed()
        self._keep.append(callback)
        return hook.value

    def _hook_code(self, callback: Callable[[int, int], None], begin: int = 1, end: int = 0) -> int:
        """A hook of the instructions at these addresses, of all by default."""
        return self._hook(UC_HOOK_CODE, engine.CODE_CB(callback), begin, end)

    def _unhook(self, hook: int) -> None:
        uclib.uc_hook_del(self._uch, ctypes.c_size_t(hook))
        self._code_hooks.changed()
        # The engine looks for the hook's code and may take page faults of its own: CR2, and a next fault that is the
        # second or third one to it.
        self._dirty = True

    def _install_hooks(self) -> None:
        uch, stop_engine = self._uch, engine.emu_stop
        state = self.state
        save, context = engine.context_save, self._saved

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

        stops = self._stops

        def on_code(_uc: int, address: int) -> None:
            if address in self._quiet or address not in stops:
                return  # to be passed, or between two stops that share a hook
            register = self._canonical.get(address)
            if register is not None and address != self._pass_ip:
                if not is_canonical(self._live(register)):
                    self._stop = Stop(BREAK, -1, address)
                    stop_engine(uch)
            elif address in self._noted:
                save(uch, context)
                self.notes.append((self._counter.value - 1, self._bytes.tobytes()))
            elif address == self._pass_ip:
                self._pass_ip = -1
            else:
                self._stop = Stop(BREAK, -1, address)
                stop_engine(uch)

        def on_new_block(_uc: int, _block: int, _previous: int, _data: int) -> None:
            # AC chooses among translations, and none with AC outlives the checks, so each POPF that sets it comes here.
            if self._watch_hook is None and self._live_flags() & Rflags.AC:
                in_user_mode = self._live_register(x86.UC_X86_REG_CS) & 3 == 3
                if in_user_mode and self._live_register(x86.UC_X86_REG_CR0) & Cr0.AM and self._stop is None:
                    self._stop = Stop(StopKind.COUNT, self._counter.value, 0)
                    stop_engine(uch)

        self._on_code = engine.CODE_CB(on_code)
        self._hook(UC_HOOK_EDGE_GENERATED, engine.BLOCK_CB(on_new_block), 0, KERNEL_HALF - 1)
        self._hook(UC_HOOK_INTR, engine.INTR_CB(on_interrupt))
        self._hook(UC_HOOK_INSN_INVALID, engine.FLAG_CB(on_invalid))
        for kind, number in (
            (StopKind.SYSCALL, x86.UC_X86_INS_SYSCALL),
            (StopKind.SYSENTER, x86.UC_X86_INS_SYSENTER),
            (StopKind.CPUID, x86.UC_X86_INS_CPUID),
            (StopKind.RDTSC, x86.UC_X86_INS_RDTSC),
            (StopKind.RDTSC, x86.UC_X86_INS_RDTSCP),
        ):
            self._hook(UC_HOOK_INSN, engine.FLAG_CB(instruction(kind)), instruction=number)
        self._hook(UC_HOOK_INSN, engine.IN_CB(on_in), instruction=x86.UC_X86_INS_IN)
        self._hook(UC_HOOK_INSN, engine.OUT_CB(on_out), instruction=x86.UC_X86_INS_OUT)

    def map_device(self, base: int, size: int, read: Callable[[int, int], int]) -> None:
        """Physical memory that is a device: `read(address, size)` answers at once, writes stop the run (MMIO).

        `mmio_writes` then holds (address, size, value) of the writes of that one instruction.
        """
        uch = self._uch

        def on_read(_uc: Uc, offset: int, width: int, _data: object) -> int:
            if self._lookout is not None and self._stop is None:  # a device may tell the time
                self._stop = Stop(BREAK, -1, base + offset)
                engine.emu_stop(uch)
            return read(base + offset, width)

        def on_write(_uc: Uc, offset: int, width: int, value: int, _data: object) -> None:
            if self._device_writes_wait:
                self.mmio_writes.append((base + offset, width, value))
            elif self._stop is None:
                self._stop = Stop(StopKind.MMIO, self._counter.value - 1, 0)
                self.mmio_writes.clear()
                engine.emu_stop(uch)

        self._uc.mmio_map(base, size, on_read, None, on_write, None)

    def watch_memory(self, on: bool) -> None:
        """Keep the guest's memory accesses in `accesses`: (physical address, size, writes)."""
        if on and self._watch_hook is None:
            accesses, ram = self.accesses, self.memory.ram

            def on_access(_uc: int, kind: int, address: int, size: int, _value: int, _data: int) -> None:
                accesses.append((address, size, kind == UC_MEM_WRITE))
                if self.keeps_overwritten and kind == UC_MEM_WRITE:
                    end = min(address + size, (address | PAGE_SIZE - 1) + 1)
                    self.overwritten.append((address, ram[address:end]))

            self._watch_hook = self._hook(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, engine.MEMORY_CB(on_access))
            self.flush_code()
        elif not on and self._watch_hook is not None:
            self._unhook(self._watch_hook)
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
            for low, high in [met for met in self._spans if met[0] <= last and first <= met[1]]:
                self._unhook(self._spans.pop((low, high)))
                first, last = min(first, low), max(last, high)
            self._delete_hooks(a for a in self._stops if first <= a <= last)
            self._spans[first, last] = self._hook(UC_HOOK_CODE, self._on_code, first, last)
        for address in addresses:
            if address in self._stops:
                continue
            # One hook an address: a second one would stop what the first has just let pass.
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
                self._unhook(self._stops[address])
                self._stops[address] = 0

    def quiet(self, addresses: frozenset[int]) -> None:
        """Do not stop at these addresses for now (their hooks stay)."""
        self._quiet = addresses

    def stop_unless_canonical(self, registers: dict[int, int]) -> None:
        """Address -> a general register: at these addresses, which have stops, stop only if it is not canonical."""
        self._canonical = registers

    def _live(self, number: int) -> int:
        """A general register inside a hook."""
        engine.reg_read(self._uch, _REGISTER_IDS[number], self._live_at)
        return self._live_value.value

    def _live_flags(self) -> int:
        """RFLAGS inside a hook, the lazy ones worked out."""
        return self._live_register(x86.UC_X86_REG_EFLAGS)

    def _live_register(self, identity: int) -> int:
        self._live_value.value = 0
        engine.reg_read(self._uch, identity, self._live_at)
        return self._live_value.value

    def note_at(self, addresses: frozenset[int]) -> None:
        """At these addresses, which have stops, do not stop but keep the context in `notes`: much faster."""
        self._noted = addresses

    def show(self, context: bytes) -> None:
        """Registers read as in a noted context, or one saved at rest; write nothing before the saved one is back."""
        self._bytes[:] = context

    def trace(self, on_instruction: Callable[[int], None] | None) -> None:
        """Call `on_instruction(address)` before every instruction; None ends it.

        The callback may read, through `peek`, and nothing else.
        """
        if self._trace_hook is not None:
            self._unhook(self._trace_hook)
            self._trace_hook = None
        if on_instruction is not None:
            note = on_instruction

            def on_code(_uc: int, address: int) -> None:
                note(address)

            self._trace_hook = self._hook_code(on_code)
        self.flush_code()

    def peek(self) -> SavedCpu:
        """Inside a trace callback: the state before the instruction (RIP and lazy flags excepted)."""
        engine.context_save(self._uch, self._saved)
        return self.state

    def leaves_at(self, addresses: frozenset[int]) -> None:
        """Instructions here end in user mode if they do not fault."""
        self._leaving = addresses

    def flush_code(self) -> None:
        """Drop all translations: hooks changed."""
        lowest = min((*self._stops, *(first for first, _ in self._spans)), default=KERNEL_HALF)
        self._hooks_in_user_mode = lowest < KERNEL_HALF or self._trace_hook is not None
        self._uc.ctl_flush_tb()
