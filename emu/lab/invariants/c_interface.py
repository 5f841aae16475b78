"""C interface: what the first C function of an entry gets in its registers, its arguments and regs->orig_ax; and what a
C function that has called assembly gets back.

Of linux-2.6 less is judged: older kernels clear no registers, and assembly calls C with what system calls need.
"""

from __future__ import annotations

import struct
from operator import itemgetter

from emu.arch import INT80_VECTOR
from emu.events import CCalled, CReturned, Delivered, EventType, NotPreserved, SystemCall
from emu.lab.chain import Entry, EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View
from emu.machine.registers import (
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    REGISTER_NAMES,
    RSI,
)
from kernel_stubs.abi import THREAD_SIZE, TS_COMPAT, PtRegs
from kernel_stubs.abi26 import ThreadInfo26

_ARGUMENTS = (RDI, RSI, RDX, RCX, R8, R9)
_CLEARED = (RBX, RCX, RDX, RSI, RDI, RBP, R8, R9, R10, R11, R12, R13, R14, R15)
"""All that entries clear: RAX and RDI hold what the entry itself needs, and C overwrites them first of all."""
_DISTINCTIVE = 0x10000
"""Smaller values may be equal by chance."""
_MANY_ENTRIES = 8
"""So many are kept before those that are over are looked for."""
_CLEARED_IN_KERNEL = (RBP, RSI, R8, R9, R10, R11, R12, R13, R15)
"""The same of an entry from kernel mode: the others hold what it needs, and may have had just that before."""
_HELD = {
    (from_user, count): itemgetter(*(register for register in registers if register not in _ARGUMENTS[:count]))
    for from_user, registers in ((True, _CLEARED), (False, _CLEARED_IN_KERNEL))
    for count in range(len(_ARGUMENTS) + 1)
}
"""From user mode?, arguments of the C function -> what reads those that it must not find anything in."""
_ON_ANY_STACK = frozenset({"sysvec_reschedule_ipi"})
"""Interrupts that are over in a few instructions."""
_EXTINT, _SWINT = EventType.EXTINT, EventType.SWINT
_GPRS = struct.Struct("<16Q")
_ORIG_AX = PtRegs.offset("orig_ax")
_SAVED = tuple(PtRegs.offset(name) for name in ("di", "si", "dx", "r10", "r8", "r9"))
"""Where linux-2.6 keeps the arguments of a system call."""
_SAVED_I386 = tuple(PtRegs.offset(name) for name in ("cx", "dx", "si", "di"))
"""Those of an i386 call, but for the first."""
_BP = PtRegs.offset("bp")
_EAX = 0xFFFF_FFFF
_LONG = 0xFFFF_FFFF_FFFF_FFFF


class CInterface(Invariant):
    """No register but the arguments has what user mode put there; the error code and orig_ax are the entry's own; what
    a callee must keep is kept."""

    name = "C interface"
    STATE = ("_judged",)
    _judged: dict[int, dict[int, int]]
    """CPU -> entries that have called C before -> what pt_regs had in BP when a tracer was done with it."""

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        called = self._classic_called if view.classic else self._c_called
        self.handlers = {NotPreserved: self._not_preserved, CCalled: called}
        if view.classic:
            self.handlers[CReturned] = self._classic_returned

    def _not_preserved(self, event: NotPreserved) -> None:
        lost = ", ".join(f"{REGISTER_NAMES[n].upper()} is {value:#x}, was {was:#x}" for n, value, was in event.lost)
        message = f"{event.called} returns to C function {event.name} without what a callee must keep: {lost}"
        self.violated(event, message, ip=self.view.image.symbols.get(event.called))

    def _first_call(self, event: CCalled) -> Entry | None:
        """The entry whose first C function this is; None if there was one before, or it gets no pt_regs."""
        entry = self.chain.top(event.cpu)
        if entry is None or not event.args or not self.view.takes_pt_regs(event.name):
            return None
        judged = self._judged.setdefault(event.cpu, {})
        if entry.serial in judged:
            return None
        if len(judged) >= _MANY_ENTRIES:
            # A task that stops for its tracer in the middle of an entry comes back to it.
            under_way = self.chain.parked().union(one.serial for one in self.chain.stack(event.cpu))
            for over in [one for one in judged if one not in under_way]:
                del judged[over]
        judged[entry.serial] = 0
        return entry

    def _classic_called(self, event: CCalled) -> None:
        """linux-2.6: exceptions get an error code, 0 if the CPU pushed none; interrupts come on the IRQ stack, with the
        complement of their vector in orig_ax; a tracer sees the number of the system call there."""
        if event.name.startswith(("sys_", "sys32_", "compat_sys_")) and event.args:
            self._check_arguments(event)
        elif event.name == "do_notify_resume":
            self._check_work_flags(event)
        elif event.name == "__do_softirq":
            self._check_on_irq_stack(event, "runs softirqs")
        entry = self._first_call(event)
        if entry is None:
            return
        delivered = entry.event
        if not isinstance(delivered, Delivered) or delivered.vector == INT80_VECTOR:
            if event.name == "syscall_trace_enter":
                self._check_orig_ax(event, entry)
        elif delivered.type is _EXTINT:
            self._check_vector(event, ~(self._orig_ax(event) or 0) & _LONG, delivered.vector)
            self._check_on_irq_stack(event, "handles an interrupt")
        else:
            self._check_orig_ax(event, entry)
            self._check_error_code(event, entry)

    def _classic_returned(self, event: CReturned) -> None:
        """The sixth argument is where a tracer writes it for as long as this part of the frame lives."""
        entry, judged = self.chain.top(event.cpu), self._judged.get(event.cpu, {})
        if event.name != "syscall_trace_enter" or entry is None or entry.serial not in judged:
            return
        raw = self.view.pt_regs(self.view.top_of_stack(event.cpu) - PtRegs.SIZE)
        if raw is not None:
            judged[entry.serial] = int.from_bytes(raw[_BP : _BP + 8], "little")

    def _check_on_irq_stack(self, event: CCalled, what: str) -> None:
        stack = self.view.stack_at(event.cpu, event.sp + 8)
        if stack is None or stack.name != "irq":
            name = stack.name if stack is not None else "no"
            self.violated_by_call(event, f"C function {event.name} {what} on the {name} stack")

    def _check_work_flags(self, event: CCalled) -> None:
        """What is to do, the third argument, is of thread_info.flags."""
        flags = self._thread_info(event.cpu, "flags")
        if event.args[2] & ~flags:
            message = f"C function {event.name} is told of work {event.args[2]:#x}; thread_info.flags is {flags:#x}"
            self.violated_by_call(event, message)

    def _thread_info(self, cpu: int, field: str) -> int:
        """A 32-bit field of linux-2.6's thread_info."""
        raw = self.view.read_kernel(self.view.top_of_stack(cpu) - THREAD_SIZE + ThreadInfo26.offset(field), 4)
        return int.from_bytes(raw or b"", "little")

    def _check_arguments(self, event: CCalled) -> None:
        """A system call's C function gets what user mode, or its tracer, has in the registers for arguments, and
        thread_info.status says which kind of call it is."""
        entry, function = self.chain.top(event.cpu), self.view.c_function(event.name)
        raw = self.view.pt_regs(self.view.top_of_stack(event.cpu) - PtRegs.SIZE)
        if entry is None or not entry.from_user or function is None or raw is None:
            return
        delivered = entry.event
        if isinstance(delivered, SystemCall):
            i386 = delivered.compat or delivered.by == "sysenter"
        elif _is_int80(entry):
            i386 = True
        else:
            return
        words = [int.from_bytes(raw[at : at + 8], "little") for at in (_SAVED_I386 if i386 else _SAVED)]
        if i386:
            # EBX is in no partial frame: it is live, as C preserves it. So is EBP, the sixth of INT 0x80.
            live = _GPRS.unpack(self.view.raw_registers(event.cpu))
            words = [word & _EAX for word in (live[RBX], *words, self._sixth(event.cpu, entry, live[RBP]))]
        for number, (kind, found, wanted) in enumerate(zip(function.parameters, event.args, words, strict=False), 1):
            if kind is int and found != wanted:
                message = f"C function {event.name} gets {found:#x} as argument {number}; user mode has {wanted:#x}"
                self.violated_by_call(event, message)
        if bool(self._thread_info(event.cpu, "status") & TS_COMPAT) != i386:
            message = f"C function {event.name} finds TS_COMPAT {'clear in' if i386 else 'set outside'} an i386 call"
            self.violated_by_call(event, message)

    def _sixth(self, cpu: int, entry: Entry, ebp: int) -> int:
        """The sixth argument of an i386 call: in EBP, or on the user's stack, from where a tracer sees it in BP."""
        if _is_int80(entry):
            return ebp
        judged = self._judged.get(cpu, {})
        if entry.serial in judged:  # syscall_trace_enter was there
            return judged[entry.serial]
        at = entry.words[3] if entry.vector is None and entry.words[3] else _GPRS.unpack(entry.registers)[RBP]
        return int.from_bytes(self.view.read(cpu, at & _EAX, 4), "little")

    def _c_called(self, event: CCalled) -> None:
        if event.name == "__do_softirq":
            self._check_on_irq_stack(event, "runs softirqs")
        elif event.name == "make_task_dead":
            wanted = self.view.top_of_stack(event.cpu) - PtRegs.SIZE
            if event.sp + 8 != wanted:
                message = f"C function make_task_dead is called with RSP {event.sp + 8:#x}; pt_regs are at {wanted:#x}"
                self.violated_by_call(event, message)
        entry = self._first_call(event)
        if entry is None or event.name == "fixup_bad_iret":
            return
        self._check_registers(event, entry)
        self._check_irq_stack(event, entry)
        self._check_orig_ax(event, entry)
        self._check_error_code(event, entry)

    def _check_registers(self, event: CCalled, entry: Entry) -> None:
        now = _GPRS.unpack(self.view.raw_registers(event.cpu))
        if max(_HELD[entry.from_user, len(event.args)](now)) < _DISTINCTIVE:
            return
        before = list(_GPRS.unpack(entry.registers))
        if isinstance(entry.event, SystemCall) and entry.event.by == "syscall":  # SYSCALL puts them there
            before[RCX], before[R11] = entry.words[0], entry.words[2]
        arguments = _ARGUMENTS[: len(event.args)]
        left = [
            REGISTER_NAMES[register].upper()
            for register in (_CLEARED if entry.from_user else _CLEARED_IN_KERNEL)
            if now[register] == before[register] >= _DISTINCTIVE and register not in arguments
        ]
        if left:
            self.violated_by_call(
                event, f"C function {event.name} is called with the interrupted code's value in {', '.join(left)}"
            )

    def _check_irq_stack(self, event: CCalled, entry: Entry) -> None:
        """An interrupt of kernel mode is handled on the hard-IRQ stack, which is marked as in use; others are not."""
        if entry.type is not _EXTINT:
            return
        stack = self.view.stack_at(event.cpu, event.sp + 8)
        name = stack.name if stack is not None else "no stack"
        if entry.from_user or event.name in _ON_ANY_STACK:
            wrong = entry.from_user and name == "irq"
        else:
            wrong = name != "irq" or not self.view.percpu_word(event.cpu, "hardirq_stack_inuse")
        if wrong:
            mode = "user" if entry.from_user else "kernel"
            used = "" if self.view.percpu_word(event.cpu, "hardirq_stack_inuse") else ", not marked as in use"
            text = f"C function {event.name} handles an interrupt of {mode} mode on the {name} stack{used}"
            self.violated_by_call(event, text)

    def _orig_ax(self, event: CCalled) -> int | None:
        raw = self.view.pt_regs(event.args[0])
        return None if raw is None else int.from_bytes(raw[_ORIG_AX : _ORIG_AX + 8], "little")

    def _check_vector(self, event: CCalled, found: int, vector: int) -> None:
        if found != vector:
            message = f"C function {event.name} gets vector {found:#x} for interrupt {vector:#x}"
            self.violated_by_call(event, message)

    def _check_orig_ax(self, event: CCalled, entry: Entry) -> None:
        found = self._orig_ax(event)
        if found is None:
            return
        number = _GPRS.unpack(entry.registers)[RAX]
        if _is_int80(entry):
            wanted, right = f"EAX, {number & _EAX:#x}", found == number & _EAX
        elif entry.vector is None:
            compat = isinstance(entry.event, SystemCall) and (entry.event.compat or entry.event.by == "sysenter")
            wanted = f"EAX, {number & _EAX:#x}" if compat else f"RAX, {number:#x}"
            right = found == number & _EAX if compat else found in (number, number & _EAX)
        else:
            wanted, right = "negative, for this is no system call", bool(found >> 63)
        if not right:
            self.violated_by_call(event, f"C function {event.name} gets orig_ax {found:#x}; it must be {wanted}")

    def _check_error_code(self, event: CCalled, entry: Entry) -> None:
        delivered = entry.event
        if not isinstance(delivered, Delivered):
            return
        if delivered.error_code is None and delivered.type is not _EXTINT and not self.view.classic:
            return
        function = self.view.c_function(event.name)
        if function is None:
            return
        if delivered.type is _EXTINT and function.parameters[:2] == (PtRegs, int):
            self._check_vector(event, event.args[1] & 0xFF, delivered.vector)
            return
        wanted = delivered.error_code
        if wanted is None and self.view.classic:
            wanted = 0
        if wanted is not None and function.parameters[:2] == (PtRegs, int) and event.args[1] != wanted:
            pushed = "none" if delivered.error_code is None else f"{wanted:#x}"
            message = f"C function {event.name} gets the error code {event.args[1]:#x}; the CPU pushed {pushed}"
            self.violated_by_call(event, message)


def _is_int80(entry: Entry) -> bool:
    return entry.type is _SWINT and entry.vector == INT80_VECTOR
