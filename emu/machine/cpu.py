"""One CPU: the engine, its registers at rest, and `run` to the next stop.

Hooks only note why they stopped and stop; all state changes happen between two runs, in the saved context, which is
written back before the next one. Together with engine.py and hooks.py this is the only place that knows unicorn.
"""

from __future__ import annotations

from collections.abc import Collection

from unicorn import x86_const as x86

from emu.arch import ARITHMETIC_FLAGS, PAGE_SIZE, Cr0, Cr4, Efer, PageFault, Rflags, Vector
from emu.machine import engine
from emu.machine.hooks import HookedEngine
from emu.machine.keyboard import keyboard
from emu.machine.saved_cpu import picked
from emu.machine.stop import BREAK, BUS, COUNT, FAULT, HALT, MMIO, SOFTWARE, SYSCALL, SYSENTER, Stop

_DR7_ENABLED = 0xFF
_PG = int(Cr0.PG)
_BEFORE = picked(("rip", 0, "Q"), ("hflags", 0, "I"), ("cr", 8 * 2, "Q"), ("dr", 8 * 6, "Q"))
"""RIP, hflags, CR2 and DR6 in a saved context."""
_MOST_FORGOTTEN = 256
"""Frames. Translations that are dropped one by one still take their place in the engine's buffer, a GiB; all at once do
not."""
MAX_INSTRUCTION = 15
"""Bytes."""


class Cpu(HookedEngine):
    """Registers are read and written at rest only. Addresses and values are unsigned 64-bit."""

    _forgotten = 0
    """Frames whose translations were dropped since all were."""
    breakpoint_loads = 0
    """How often an instruction has loaded DR0-3 or DR7: the engine then makes breakpoints that no context has."""

    # --- running ----------------------------------------------------------------------------------------------------
    def run(self, count: int, *, step_over: bool = False) -> Stop:
        """Retire up to `count` instructions from RIP and say why it ended.

        With `step_over` a stop on the first instruction is passed. Each iteration of a REP instruction counts as one,
        as each is an instruction boundary.
        """
        if count <= 0:
            return Stop(COUNT, 0, self.state.rip)
        self.notes.clear()
        stop = self._start(count, step_over)
        if stop.kind is not MMIO:
            return stop
        # The engine stopped within the instruction; once more, so that it finishes. Devices get what it writes then.
        self._device_writes_wait = True
        again = self._start(1, True)
        self._device_writes_wait = False
        again.retired += stop.retired
        if again.kind is COUNT:
            again.kind = MMIO
        return again

    def _start(self, count: int, step_over: bool) -> Stop:
        if self._dirty or self._stale_tlb:
            self._write_back()
        ip, hflags, cr2, dr6 = _BEFORE.unpack_from(self.state)
        passes = step_over and ip in self._stops and ip not in self._quiet and ip not in self._noted
        self._pass_ip = ip if passes else -1
        self._stop = None
        hooks, lookout = self._code_hooks, self._lookout
        counting_only = not self._hooks_in_user_mode and (hflags & 3 == 3 or (passes and ip in self._leaving))
        if lookout is not None:
            hooks.only_count(lookout.alone())
        elif counting_only:
            hooks.only_count()
        keyboard.stop = self._stop_now
        self._begin.value, self._count.value = ip, count
        status = engine.emu_start(self._uch, self._begin, engine.NOWHERE, engine.NOWHERE, self._count)
        keyboard.stop = None
        if lookout is not None:
            hooks.all()
            lookout.away()
        elif counting_only or not hooks.known:
            hooks.all()
        self._pass_ip = -1
        engine.context_save(self._uch, self._saved)
        if keyboard.pressed:
            keyboard.give_way()
        stop = self._explain(status, count, self._counter.value)
        stop.old_cr2 = cr2
        if stop.kind is FAULT and stop.retired == count and self._belongs_to_next(stop.vector):
            # The count was reached, and the engine has already looked at what follows: that is for the next run.
            self.state.cr[2], self.state.dr[6] = cr2, dr6
            return Stop(COUNT, count, stop.ip)
        return stop

    def _belongs_to_next(self, vector: int) -> bool:
        """A fetch fault or an instruction breakpoint (no single step)."""
        return vector == Vector.PF or (vector == Vector.DB and not self.state.eflags & Rflags.TF)

    def _explain(self, status: int, count: int, counter: int) -> Stop:
        state = self.state
        stop = self._stop
        if stop is None:
            if status:
                stop = Stop(BUS, counter - 1, state.rip)
            elif counter > count:
                stop = Stop(COUNT, count, state.rip)
            else:
                stop = Stop(HALT, counter, state.rip)
            return stop
        kind = stop.kind
        if kind is BREAK:
            stop.retired, stop.ip = counter - 1, state.rip
            return stop
        if stop.retired >= 0:  # the hook has read the counter, which includes its instruction
            if kind is SYSCALL or kind is SYSENTER or kind is MMIO:
                self._settle_flags()
        elif kind is SOFTWARE:
            stop.retired = counter
            if stop.vector == Vector.UD:
                state.rip = state.exception_next_eip  # the engine takes INT 6 for an invalid instruction
        elif kind is FAULT and stop.vector == Vector.DB:
            # A single step is reported after its instruction; one with a breakpoint (DR0-3) was not even translated.
            stop.retired = counter
        elif kind is FAULT and stop.vector == Vector.PF and self._is_fetch(stop.error_code):
            stop.retired = counter  # the count hook runs with the instruction, and this one was not even translated
        else:
            stop.retired = counter - 1
            if kind is FAULT:
                self._settle_flags()
        stop.ip = state.rip
        if kind is FAULT or kind is SOFTWARE:
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
            engine.context_restore(self._uch, self._saved)
            self._dirty = False
        if self._stale_tlb:
            self._cr3_again.value = self._cr[3]
            engine.reg_write(self._uch, x86.UC_X86_REG_CR3, self._cr3_at)
            self._stale_tlb = False

    def forget_code(self, frames: Collection[int]) -> None:
        """Drop the translations of what lies in these frames of physical memory, for the host has written there; the
        TLB is flushed too.

        The engine is asked by linear address. Without paging that is the physical one, once the TLB knows no mapping of
        before; afterwards it knows this one, and is stale. The engine has paging off until the next write-back.
        """
        self._forgotten += len(frames)
        if self._forgotten > _MOST_FORGOTTEN:
            self._forgotten = 0
            self.flush_code()
            return
        self._stale_tlb = True
        self._write_back()
        control = self._cr[0]
        try:
            self._cr[0] = control & ~_PG
            engine.context_restore(self._uch, self._saved)
            for frame in frames:
                self._uc.ctl_remove_cache(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE)
        finally:
            self._cr[0] = control
            self._dirty = self._stale_tlb = True

    def flush_tlb(self) -> None:
        """Page tables changed behind the engine's back."""
        self._stale_tlb = True

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
        engine.context_save(self._uch, self._saved)

    def set_efer(self, value: int) -> None:
        """Load IA32_EFER through the engine."""
        self._write_back()
        self._uc.msr_write(0xC0000080, value)
        engine.context_save(self._uch, self._saved)

    @property
    def context(self) -> memoryview:
        """The saved context as it lies in memory; for reading only, at rest."""
        return self._bytes

    # --- snapshot ---------------------------------------------------------------------------------------------------
    def save(self) -> bytes:
        """The whole context, at rest."""
        return self._bytes.tobytes()

    @property
    def breakpoints(self) -> int:
        """Which breakpoints the engine has that belong to the context: 0 none, else `breakpoint_loads`."""
        return self.breakpoint_loads if self.state.dr[7] & _DR7_ENABLED else 0

    def load(self, saved: bytes) -> None:
        """Back to a saved context; the TLB is flushed."""
        self._bytes[:] = saved
        self._dirty = True
        self._stale_tlb = True
