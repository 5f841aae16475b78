"""Frames: pt_regs hold what was interrupted, and a return restores what C left in them, register by register."""

from __future__ import annotations

import struct
from operator import itemgetter

from emu.arch import ARITHMETIC_FLAGS, INT80_VECTOR, Rflags, Selector
from emu.events import CCalled, CReturned, Frame, Returned, SystemCall
from emu.lab.chain import REPEAT, TASK_BEGINS, USER, Entry, EntryChain, Return
from emu.lab.invariants.base import Invariant
from emu.lab.view import MOVES_PT_REGS, View

Words = tuple[int, ...]
"""A pt_regs: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss."""

_BP, _R11, _R10, _R9, _R8, _ORIG_AX, _IP, _FLAGS, _SS = 4, 6, 7, 8, 9, 15, 16, 18, 20
_FRAME_NAMES = ("ip", "cs", "flags", "sp", "ss")
_WORD_NAMES = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax",
    *_FRAME_NAMES,
)  # fmt: skip
_ROW_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{n}" for n in range(8, 16)))
"""Of a row of registers as the CPU numbers them."""
_TO_ROW = itemgetter(*(_WORD_NAMES.index(name) for name in _ROW_NAMES))
"""pt_regs -> row."""
_KEPT = itemgetter(*(n for n, name in enumerate(_ROW_NAMES) if name != "sp"))
_KEPT_BY_SYSCALL = itemgetter(*(n for n, name in enumerate(_ROW_NAMES) if name not in ("sp", "ax", "cx", "r11")))
"""All but what SYSCALL and its entry change by contract: -ENOSYS, the return RIP, RFLAGS."""
_SET_BY_ASSEMBLY = tuple(_WORD_NAMES.index(name) for name in ("ax", "cx", "r11"))
_KEPT_BY_INT80 = itemgetter(*(n for n, name in enumerate(_ROW_NAMES) if name not in ("sp", "ax")))
"""INT 0x80 and SYSENTER are system calls too: their entries leave -ENOSYS in RAX, and lose nothing else."""
_KEPT_BY_RETURN = {
    "sysretl": itemgetter(*(n for n, name in enumerate(_ROW_NAMES) if name not in ("sp", "cx", "r11"))),
    "sysexitl": itemgetter(*(n for n, name in enumerate(_ROW_NAMES) if name not in ("sp", "cx", "dx"))),
}
"""These take RIP, RFLAGS and RSP from registers that user mode gives up. C lets SYSRETQ be used only where RCX and R11
are what they should be."""
_KEPT_WITH_RESULT = itemgetter(*(n for n, name in enumerate(_ROW_NAMES) if name not in ("sp", "ax", "cx", "dx")))
"""What SYSEXIT keeps where assembly alone has put the result into RAX."""
_REPAIRS_ESPFIX = "exc_double_fault"
_FRAME_SIZE = 40
_OWN_FRAME = frozenset({"do_fork"})
"""C functions of linux-2.6 whose pt_regs nobody was interrupted with: kernel_thread makes them for the new task."""
_SHOWN_TO_TRACER = "syscall_trace_enter"
"""C function of linux-2.6 whose pt_regs of an i386 call are made for a tracer: R8 to R11, which the program does not
have, are zero, and but for INT 0x80 the sixth argument, which was on the user's stack, is in BP, and R9 has EBP."""
_NOT_IN_32_BITS = frozenset({"r8", "r9", "r10", "r11"})
_SYSRET_FLAGS = 0x3C7FD7
_ESP = 0xFFFF_FFFF
_NOT_RF = ~int(Rflags.RF)
_GPRS = struct.Struct("<16Q")
_PT_REGS = struct.Struct("<21Q")


class Frames(Invariant):
    """Compared with the interrupted state at the first C call of an entry, afterwards with what C returned last."""

    name = "frames"
    STATE = ("_left", "_calls")
    _left: dict[int, dict[int, bytes]]
    """CPU -> entry -> its pt_regs as the last C function left them."""
    _calls: dict[int, tuple[tuple[int, str, int], ...]]
    """CPU -> C functions under way: entry, name, pointer to pt_regs."""

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        self.handlers = {CCalled: self._c_called, CReturned: self._c_returned, Returned: self._returned}

    # --- pt_regs ----------------------------------------------------------------------------------------------------
    def _c_called(self, event: CCalled) -> None:
        if event.name in TASK_BEGINS:  # what another new task, which had no entry either, left is no more
            self._left.get(event.cpu, {}).pop(0, None)
        argument = self.view.pt_regs_argument(event.name)
        if argument is None or argument >= len(event.args) or event.name in _OWN_FRAME:
            return
        cpu, entry, pointer = event.cpu, self.chain.top(event.cpu), event.args[argument]
        serial = entry.serial if entry is not None else 0
        self._calls[cpu] = (*self._calls.get(cpu, ()), (serial, event.name, pointer))
        raw = self.view.pt_regs(pointer)
        if raw is None:
            message = f"C function {event.name} gets pt_regs at {pointer:#x}: nothing is mapped there"
            self.violated_by_call(event, message)
            return
        table = self._left.get(cpu)
        left = table.get(serial) if table else None
        raw = self._completed(event.name, raw, entry, left)
        if left is not None:
            wrong = "" if raw == left else _differences(_PT_REGS.unpack(raw), _PT_REGS.unpack(left))
        elif entry is not None and not (self.view.classic and _by_sysenter(entry)):
            # linux-2.6 fills in itself what SYSENTER loses.
            words = _PT_REGS.unpack(raw)
            shown = self.view.classic and event.name == _SHOWN_TO_TRACER and _i386_call(entry)
            found = _against_entry(_with_program_registers(words, entry) if shown else words, entry)
            wrong = ", ".join(self._that_exist(cpu, entry, found))
        else:
            return
        if wrong:
            since = "C left" if left is not None else "the interrupted code had"
            self.violated_by_call(event, f"C function {event.name} gets pt_regs that are not what {since}: {wrong}")
            self._left.setdefault(cpu, {})[serial] = raw

    def _c_returned(self, event: CReturned) -> None:
        cpu, calls = event.cpu, self._calls.get(event.cpu, ())
        entry = self.chain.top(cpu)
        serial = entry.serial if entry is not None else 0
        for index in range(len(calls) - 1, -1, -1):
            of, name, pointer = calls[index]
            if of == serial and name == event.name:
                self._calls[cpu] = calls[:index]
                if index + 1 < len(calls):  # later ones never return, but for those of tasks that wait
                    parked = self.chain.parked()
                    self._calls[cpu] += tuple(call for call in calls[index + 1 :] if call[0] in parked)
                raw = self.view.pt_regs(event.value if name in MOVES_PT_REGS and event.value else pointer)
                if raw is not None:
                    table = self._left.setdefault(cpu, {})
                    table[serial] = self._completed(name, raw, entry, table.get(serial))
                    if name == _REPAIRS_ESPFIX:
                        self._repaired(table, raw, self.chain.stack(cpu)[-2:])
                return

    def _repaired(self, table: dict[int, bytes], raw: bytes, entries: tuple[Entry, ...]) -> None:
        """exc_double_fault goes on elsewhere: it has moved the words that IRETQ refused to where #GP's entry is to find
        them, as fixup_bad_iret does for other stacks."""
        ip, _, _, sp, _ = _PT_REGS.unpack(raw)[_IP:]
        if len(entries) == 2 and ip != entries[1].ip:
            left, moved = table.get(entries[0].serial), self.view.read_kernel(sp + 8, _FRAME_SIZE)
            if left is not None and moved is not None:
                table[entries[0].serial] = left[: 8 * _IP] + moved

    def _completed(self, name: str, raw: bytes, entry: Entry | None, left: bytes | None) -> bytes:
        """The pt_regs with the words that linux-2.6 leaves open as they were before.

        Its interrupts save but half the registers, and between the C functions of a system call assembly sets AX, CX
        and R11: the result, and what SYSRETQ wants.
        """
        if not self.view.classic or entry is None:
            return raw
        words = list(_PT_REGS.unpack(raw))
        if left is not None:
            before = _PT_REGS.unpack(left)
        else:
            row = _GPRS.unpack(entry.registers)
            before = (*(row[_ROW_NAMES.index(name)] for name in _WORD_NAMES[:_ORIG_AX]), 0, *entry.words)
        if self.view.partial_frame(name):
            words[:_R11] = before[:_R11]
        if name == _SHOWN_TO_TRACER and _ebp_in_r9(entry):
            words[_BP] = words[_R9]
        if _by_assembly(entry):
            for index in _SET_BY_ASSEMBLY:
                words[index] = before[index]
        return _PT_REGS.pack(*words)

    # --- the return -------------------------------------------------------------------------------------------------
    def _returned(self, event: Returned) -> None:
        cpu, back = event.cpu, self.chain.last_return
        entry, table = back.entry, self._left.get(cpu, {})
        serial = entry.serial if entry is not None else 0
        left = table.get(serial)
        self._compare(event, back, left)
        if back.how is USER:
            self._forget(cpu)
        elif left is not None:
            del table[serial]

    def _forget(self, cpu: int) -> None:
        """User mode runs: what is known of this CPU's entries is over, but for those of tasks that wait."""
        parked = self.chain.parked()
        self._left[cpu] = {s: raw for s, raw in self._left.get(cpu, {}).items() if s in parked} if parked else {}
        self._calls[cpu] = tuple(call for call in self._calls.get(cpu, ()) if call[0] in parked) if parked else ()

    def _compare(self, event: Returned, back: Return, left: bytes | None) -> None:
        entry = back.entry
        registers = _GPRS.unpack(self.view.raw_registers(event.cpu))
        if back.how is REPEAT:
            assert entry is not None
            wrong = _row_differences(registers, _GPRS.unpack(entry.registers), _KEPT)
        elif left is not None:
            words = _PT_REGS.unpack(left)
            wrong = _frame_differences(event.frame, words[_IP : _SS + 1], event.by)
            kept = _KEPT_BY_SYSCALL if self.view.classic and entry is not None and _by_assembly(entry) else _KEPT
            kept = _KEPT_BY_RETURN.get(event.by, kept)
            wrong += _row_differences(registers, _TO_ROW(words), kept)
        elif entry is not None:
            wrong = _frame_differences(event.frame, _expected(entry, event.frame), event.by)
            by_assembly = _by_assembly(entry) if self.view.classic else entry.vector is None
            kept = _KEPT_BY_SYSCALL if by_assembly else _KEPT
            kept = _KEPT_WITH_RESULT if event.by == "sysexitl" else kept
            wrong += _row_differences(registers, _GPRS.unpack(entry.registers), kept)
        else:
            return
        if entry is not None:
            wrong = self._that_exist(event.cpu, entry, wrong)
        if wrong:
            ended = None if back.how is REPEAT else entry
            message = f"{event.by.upper()} restores what was not saved: {', '.join(wrong)}"
            self.violated(event, message, ended=ended)

    def _that_exist(self, cpu: int, entry: Entry, wrong: list[str]) -> list[str]:
        """Of these differences those that the program can see.

        linux-2.6's i386 entries save no R8 to R11: 32-bit programs have none, but 64-bit ones that make such calls.
        """
        if not wrong or not _i386_call(entry) or not self.view.runs_32_bit_program(cpu):
            return wrong
        return [text for text in wrong if text.partition(" ")[0] not in _NOT_IN_32_BITS]


def _by_assembly(entry: Entry) -> bool:
    """Whether assembly stores the entry's result: a system call, in linux-2.6."""
    return entry.vector is None or entry.vector == INT80_VECTOR


def _by_sysenter(entry: Entry) -> bool:
    return isinstance(entry.event, SystemCall) and entry.event.by == "sysenter"


def _i386_call(entry: Entry) -> bool:
    return entry.vector == INT80_VECTOR or _ebp_in_r9(entry)


def _ebp_in_r9(entry: Entry) -> bool:
    """Whether the entry took the sixth argument from the user's stack: linux-2.6's for SYSENTER and 32-bit SYSCALL."""
    return isinstance(entry.event, SystemCall) and (entry.event.compat or entry.event.by == "sysenter")


def _with_program_registers(words: Words, entry: Entry) -> Words:
    """What linux-2.6 shows to a tracer, with the program's R8 to R10 if they are as they must be (R11: SYSCALL's)."""
    if words[_R10 : _R8 + 1] != (0, words[_BP] if _ebp_in_r9(entry) else 0, 0):
        return words
    row = _GPRS.unpack(entry.registers)
    return (*words[:_R10], *(row[_ROW_NAMES.index(name)] for name in ("r10", "r9", "r8")), *words[_R8 + 1 :])


def _show(name: str, value: int, expected: int) -> str:
    return f"{name} is {value:#x}, was {expected:#x}"


def _row_differences(row: Words, expected: Words, kept: itemgetter[tuple[int, ...]]) -> list[str]:
    """What differs between two rows of registers."""
    if row == expected or kept(row) == kept(expected):
        return []
    both = zip(kept(_ROW_NAMES), kept(row), kept(expected), strict=True)
    return [_show(str(name), value, was) for name, value, was in both if value != was]


def _expected(entry: Entry, frame: Frame) -> Words:
    """The frame that an entry is left by. SYSENTER saves none: linux-2.6 takes RSP from EBP and RIP from thread_info,
    and its arithmetic spoils the arithmetic flags before they are saved."""
    if not isinstance(entry.event, SystemCall) or entry.event.by != "sysenter":
        return entry.words
    _, cs, flags, _, ss = entry.words
    flags = (flags | Rflags.IF) & ~ARITHMETIC_FLAGS | frame.flags & ARITHMETIC_FLAGS
    return frame.ip, cs, flags, _GPRS.unpack(entry.registers)[_ROW_NAMES.index("bp")] & 0xFFFF_FFFF, ss


def _frame_differences(frame: Frame, expected: Words, by: str) -> list[str]:
    words = (frame.ip, frame.cs, frame.flags, frame.sp, frame.ss)
    if by.startswith("sysret"):  # it sets reserved flags as hardware wants them
        expected = (*expected[:2], expected[2] & _SYSRET_FLAGS | 2, *expected[3:])
    if words == expected:
        return []
    if frame.cs & 3 and frame.cs != Selector.USER_CS and frame.sp == expected[3] & _ESP:
        expected = (*expected[:3], frame.sp, expected[4])  # 32-bit code has no more of RSP, and IRETQ leaves no more
    rows = zip(_FRAME_NAMES, words, expected, strict=True)
    return [_show(name, word, was) for name, word, was in rows if word != was]


def _differences(words: Words, left: Words) -> str:
    """What differs between two pt_regs; orig_ax is the entry's own."""
    if words[:15] == left[:15] and words[_IP:] == left[_IP:]:
        return ""
    both = zip(_WORD_NAMES, words, left, strict=True)
    return ", ".join(_show(name, word, was) for name, word, was in both if word != was and name != "orig_ax")


def _against_entry(words: Words, entry: Entry) -> list[str]:
    """What differs between pt_regs and the state that an entry interrupted."""
    frame, kept = entry.words, _KEPT
    if entry.vector is None:
        ip, cs, flags, sp, ss = frame
        frame, kept = (ip, cs, flags & _NOT_RF, sp, ss), _KEPT_BY_INT80 if _by_sysenter(entry) else _KEPT_BY_SYSCALL
    elif entry.vector == INT80_VECTOR and entry.from_user:
        kept = _KEPT_BY_INT80
    found = _row_differences(_TO_ROW(words), _GPRS.unpack(entry.registers), kept)
    if _by_sysenter(
        entry
    ):  # the entry switches page tables before it can save the flags, which costs the arithmetic ones
        words = (*words[:_FLAGS], words[_FLAGS] & ~ARITHMETIC_FLAGS, *words[_FLAGS + 1 :])
        frame = (*frame[:2], frame[2] & ~ARITHMETIC_FLAGS, *frame[3:])
    if words[_IP:] != frame:
        both = zip(_FRAME_NAMES, words[_IP:], frame, strict=True)
        found += [_show(name, word, old) for name, word, old in both if word != old]
    return found
