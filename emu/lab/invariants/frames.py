"""Frames: pt_regs hold what was interrupted, and a return restores what C left in them, register by register."""

from __future__ import annotations

import struct
from operator import itemgetter

from emu.arch import Rflags
from emu.events import CCalled, CReturned, Event, Frame, Returned
from emu.lab.chain import Closing, Entry, EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View

Words = tuple[int, ...]
"""A pt_regs: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss."""

_IP, _SS = 16, 20
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
_SYSRET_FLAGS = 0x3C7FD7
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
        if not event.args or not self.view.takes_pt_regs(event.name):
            return
        cpu, entry = event.cpu, self.chain.top(event.cpu)
        serial = entry.serial if entry is not None else 0
        self._calls[cpu] = (*self._calls.get(cpu, ()), (serial, event.name, event.args[0]))
        raw = self.view.pt_regs(event.args[0])
        if raw is None:
            message = f"C function {event.name} gets pt_regs at {event.args[0]:#x}: nothing is mapped there"
            self.violated_by_call(event, message)
            return
        left = self._left.get(cpu, {}).get(serial)
        if left is not None:
            wrong = "" if raw == left else _differences(_PT_REGS.unpack(raw), _PT_REGS.unpack(left))
        elif entry is not None:
            wrong = _against_entry(_PT_REGS.unpack(raw), entry)
        else:
            return
        if wrong:
            since = "C left" if left is not None else "the interrupted code had"
            self.violated_by_call(event, f"C function {event.name} gets pt_regs that are not what {since}: {wrong}")
            self._remember(cpu, serial, raw)

    def _c_returned(self, event: CReturned) -> None:
        cpu, calls = event.cpu, self._calls.get(event.cpu, ())
        entry = self.chain.top(cpu)
        serial = entry.serial if entry is not None else 0
        for index in range(len(calls) - 1, -1, -1):
            if calls[index][0] == serial and calls[index][1] == event.name:
                self._calls[cpu] = calls[:index]
                at = event.value if event.name == "fixup_bad_iret" and event.value else calls[index][2]
                raw = self.view.pt_regs(at)
                if raw is not None:
                    self._remember(cpu, serial, raw)
                return

    def _remember(self, cpu: int, serial: int, raw: bytes) -> None:
        self._left[cpu] = {**self._left.get(cpu, {}), serial: raw}

    # --- the return -------------------------------------------------------------------------------------------------
    def _returned(self, event: Returned) -> None:
        cpu, back = event.cpu, self.chain.last_return(event.cpu)
        entry, table = back.entry, self._left.get(cpu, {})
        registers = _GPRS.unpack(self.view.raw_registers(cpu))
        left = table.get(entry.serial if entry is not None else 0)
        if back.how is Closing.REPEAT:
            assert entry is not None
            wrong = _row_differences(registers, _GPRS.unpack(entry.registers), _KEPT)
        elif left is not None:
            words = _PT_REGS.unpack(left)
            wrong = _frame_differences(event.frame, words[_IP : _SS + 1], event.by)
            wrong += _row_differences(registers, _TO_ROW(words), _KEPT)
        elif entry is not None:
            wrong = _frame_differences(event.frame, entry.words, event.by)
            kept = _KEPT_BY_SYSCALL if entry.vector is None else _KEPT
            wrong += _row_differences(registers, _GPRS.unpack(entry.registers), kept)
        else:
            wrong = []
        if wrong:
            self._restores_wrong(event, wrong, None if back.how is Closing.REPEAT else entry)
        if back.how is Closing.USER:
            self._left[cpu], self._calls[cpu] = {}, ()
        elif entry is not None and left is not None:
            self._left[cpu] = {serial: raw for serial, raw in table.items() if serial != entry.serial}

    def _restores_wrong(self, event: Event, wrong: list[str], ended: Entry | None) -> None:
        assert isinstance(event, Returned)
        self.violated(event, f"{event.by.upper()} restores what was not saved: {', '.join(wrong)}", ended=ended)


def _show(name: str, value: int, expected: int) -> str:
    return f"{name} is {value:#x}, was {expected:#x}"


def _row_differences(row: Words, expected: Words, kept: itemgetter[tuple[int, ...]]) -> list[str]:
    """What differs between two rows of registers."""
    if kept(row) == kept(expected):
        return []
    both = zip(kept(_ROW_NAMES), kept(row), kept(expected), strict=True)
    return [_show(str(name), value, was) for name, value, was in both if value != was]


def _frame_differences(frame: Frame, expected: Words, by: str) -> list[str]:
    words = (frame.ip, frame.cs, frame.flags, frame.sp, frame.ss)
    if by == "sysretq":  # SYSRETQ sets reserved flags as hardware wants them
        expected = (*expected[:2], expected[2] & _SYSRET_FLAGS | 2, *expected[3:])
    if words == expected:
        return []
    rows = zip(_FRAME_NAMES, words, expected, strict=True)
    return [_show(name, word, was) for name, word, was in rows if word != was]


def _differences(words: Words, left: Words) -> str:
    """What differs between two pt_regs; orig_ax is the entry's own."""
    if words[:15] == left[:15] and words[_IP:] == left[_IP:]:
        return ""
    both = zip(_WORD_NAMES, words, left, strict=True)
    return ", ".join(_show(name, word, was) for name, word, was in both if word != was and name != "orig_ax")


def _against_entry(words: Words, entry: Entry) -> str:
    """What differs between pt_regs and the state that an entry interrupted."""
    frame, kept = entry.words, _KEPT
    if entry.vector is None:
        ip, cs, flags, sp, ss = frame
        frame, kept = (ip, cs, flags & _NOT_RF, sp, ss), _KEPT_BY_SYSCALL
    found = _row_differences(_TO_ROW(words), _GPRS.unpack(entry.registers), kept)
    if words[_IP:] != frame:
        both = zip(_FRAME_NAMES, words[_IP:], frame, strict=True)
        found += [_show(name, word, old) for name, word, old in both if word != old]
    return ", ".join(found)
