"""Stacks: C code runs on a live stack of its own CPU, no IST frame is lost, all is balanced at the way out."""

from __future__ import annotations

import struct
from functools import cache

from emu.arch import KERNEL_HALF
from emu.events import CCalled, CReturned, Delivered, Returned
from emu.lab.chain import USER, Entry, EntryChain
from emu.lab.invariants.base import MAX_VIOLATIONS, Invariant
from emu.lab.view import MOVES_PT_REGS, PT_REGS_SIZE, StackRange, View
from kernel_stubs.abi import TASK_SIZE_MAX, THREAD_SIZE, TaskStruct
from kernel_stubs.espfix import is_espfix

_FRAME = struct.Struct("<5Q")
TRAMPOLINE = "entry"
_EXECVE_REGS = 3
"""Which argument of linux-2.6's sys_execve is the pt_regs."""


class Stacks(Invariant):
    """RSP is where it belongs."""

    name = "stacks"
    STATE = ("_first_frames", "_moved")
    _first_frames: dict[int, dict[int, bool]]
    """CPU -> where the frames end from which kernel threads that become programs go to user mode."""
    _moved: dict[int, dict[int, bool]]
    """CPU -> entries whose pt_regs C has moved off the stack that the CPU pushed them on."""

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        called = self._c_called_classic if view.classic else self._c_called
        self.handlers = {CCalled: called, Delivered: self._delivered, Returned: self._returned}
        if view.classic:  # linux-6 has no IST entry whose pt_regs C moves
            self.handlers[CReturned] = self._c_returned

    # --- in C -------------------------------------------------------------------------------------------------------
    def _c_called_classic(self, event: CCalled) -> None:
        """kernel_execve makes its frame in the middle of its thread's stack; the thread leaves by it, or ends."""
        if event.name in ("sys_execve", "do_exit"):
            top, known = self.view.top_of_stack(event.cpu), self._first_frames.get(event.cpu, {})
            left = {end: True for end in known if not top - THREAD_SIZE < end <= top}
            if event.name == "sys_execve" and self.chain.top(event.cpu) is None:
                left[event.args[_EXECVE_REGS] + PT_REGS_SIZE] = True
            self._first_frames[event.cpu] = left
        self._c_called(event)

    def _c_called(self, event: CCalled) -> None:
        if event.cpl or self._plainly_right(event):
            return
        stack = self.view.stack_at(event.cpu, event.sp + 8)
        if stack is None and event.name == "__switch_to" and self._on_next_stack(event):
            return
        if stack is None:
            if self.view.stacks(event.cpu):
                where = self._no_stack(event.cpu, event.sp)
                self.violated_by_call(event, f"C function {event.name} runs with RSP {event.sp:#x}, {where}")
        elif stack.name == TRAMPOLINE:
            self.violated_by_call(event, f"C function {event.name} runs on the entry trampoline stack")
        elif event.sp % 8:
            self.violated_by_call(event, f"C function {event.name} runs with the misaligned RSP {event.sp:#x}")
        else:
            entries = self.chain.stack(event.cpu)
            number = ist_number(stack.name)
            if number and entries and number not in [entry.ist for entry in entries]:
                message = f"C function {event.name} runs on the {stack.name} stack, which is not in use"
                self.violated_by_call(event, message)
            elif entries and entries[-1].from_user and event.args and self.view.takes_pt_regs(event.name):
                self._check_user_regs(event, entries[-1])

    def _c_returned(self, event: CReturned) -> None:
        entry = self.chain.top(event.cpu)
        if event.name in MOVES_PT_REGS and event.value and entry is not None:
            stack = self.view.stack_at(event.cpu, event.value)
            if stack is not None and not ist_number(stack.name):
                self._moved.setdefault(event.cpu, {})[entry.serial] = True

    def _plainly_right(self, event: CCalled) -> bool:
        """The usual case, decided by the task stack alone."""
        top = self.view.top_of_stack(event.cpu)
        if not top - THREAD_SIZE < event.sp + 8 <= top or event.sp & 7:
            return False
        entry = self.chain.top(event.cpu)
        return entry is None or not entry.from_user or (bool(event.args) and event.args[0] + PT_REGS_SIZE == top)

    def _on_next_stack(self, event: CCalled) -> bool:
        """__switch_to(prev, next) runs on the stack of the next task, before that is the current one."""
        word = self.view.read_kernel(event.args[1] + TaskStruct.offset("stack"), 8)
        low = int.from_bytes(word or b"", "little")
        return low < event.sp + 8 <= low + THREAD_SIZE

    def _no_stack(self, cpu: int, sp: int) -> str:
        if sp <= TASK_SIZE_MAX:
            return "in the user's memory"
        above = min((s for s in self.view.stacks(cpu) if s.low >= sp), key=lambda s: s.low, default=None)
        if above is not None and above.low - sp <= 0x1000:
            return f"in the guard page below the {above.name} stack"
        return "on no stack of this CPU"

    def _check_user_regs(self, event: CCalled, entry: Entry) -> None:
        """pt_regs of user mode end where their stack ends: nothing of an earlier entry lies above them."""
        end = event.args[0] + PT_REGS_SIZE
        if end != self.view.top_of_stack(event.cpu) and not self._is_ist_top(event.cpu, entry.ist, end):
            self.violated_by_call(
                event, f"C function {event.name} gets the pt_regs of user mode at {event.args[0]:#x}, "
                f"which do not end at the top of the task stack ({self.view.top_of_stack(event.cpu):#x})",
            )  # fmt: skip

    # --- deliveries -------------------------------------------------------------------------------------------------
    def _delivered(self, event: Delivered) -> None:
        if not event.ist:
            if not event.frame.cs & 3 and not event.frame_at & KERNEL_HALF:
                message = f"the frame of an event in kernel mode was pushed to user memory, {event.frame_at:#x}"
                self.violated(event, message)
            return
        for entry in self.chain.stack(event.cpu)[:-1]:
            if len(self.violations) >= MAX_VIOLATIONS:
                return
            before = entry.event
            if entry.ist == event.ist and isinstance(before, Delivered) and abs(before.frame_at - event.frame_at) < 40:
                self._check_copied(event, entry)

    def _check_copied(self, event: Delivered, entry: Entry) -> None:
        """The new frame lies over that of `entry`, which must have been copied to another place before.

        What C has moved it may have changed since, for a signal.
        """
        if entry.serial in self._moved.get(event.cpu, {}):
            return
        words = _FRAME.pack(*entry.words)
        for stack in self.view.stacks(event.cpu):
            content = self.view.read_kernel(stack.low, stack.high - stack.low)
            if content is not None and words in content:
                return
        self.violated(
            event,
            f"IST {event.ist} is entered again at its top while it is in use: the frame of "
            f"{self.chain.words(entry)} is overwritten, and there is no copy of it",
        )

    # --- the way out ------------------------------------------------------------------------------------------------
    def _returned(self, event: Returned) -> None:
        back = self.chain.last_return
        if back.how is not USER or not self.view.percpu_base(event.cpu):
            return
        if self._moved.get(event.cpu):
            parked = self.chain.parked()
            self._moved[event.cpu] = {serial: True for serial in self._moved[event.cpu] if serial in parked}
        end = event.frame_at + _FRAME.size
        if is_espfix(event.frame_at):
            words = self.view.percpu_word(event.cpu, "espfix_stack")
            if event.frame_at - 8 != words | event.frame.sp & 0xFFFF_0000:
                self.violated(
                    event,
                    f"{event.by.upper()} from {event.frame_at:#x}: this CPU's words are at {words:#x}, with bits 31:16 "
                    f"of RSP {event.frame.sp:#x}",
                    ended=back.entry,
                )
        elif event.frame_at and end != self.view.tss_sp0(event.cpu):
            ist = back.entry.ist if back.entry is not None else 0
            if not self._is_ist_top(event.cpu, ist, end) and not self._is_first_frame(event, end):
                self.violated(
                    event,
                    f"{event.by.upper()} to user mode from the frame at {event.frame_at:#x}, "
                    f"which does not end at the top of the entry stack ({self.view.tss_sp0(event.cpu):#x})",
                    ended=back.entry,
                )
        if self.view.percpu_word(event.cpu, "hardirq_stack_inuse"):
            self.violated(event, "return to user mode with the hard-IRQ stack marked as in use", ended=back.entry)

    def _is_first_frame(self, event: Returned, end: int) -> bool:
        """Whether a program that a kernel thread has become begins here; it does so once."""
        known = self._first_frames.get(event.cpu, {})
        self._first_frames[event.cpu] = {other: True for other in known if other != end}
        return end in known

    def _is_ist_top(self, cpu: int, ist: int, end: int) -> bool:
        return bool(ist) and any(s.high == end and ist_number(s.name) == ist for s in self._ist_stacks(cpu))

    def _ist_stacks(self, cpu: int) -> list[StackRange]:
        return [stack for stack in self.view.stacks(cpu) if ist_number(stack.name)]


@cache
def ist_number(stack_name: str) -> int:
    """2 for `IST2 NMI`; 0 for a stack that is no IST stack."""
    digits = stack_name[3:4]
    return int(digits) if stack_name.startswith("IST") and digits.isdigit() else 0
