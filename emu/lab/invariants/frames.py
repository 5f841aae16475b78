"""Frames: pt_regs hold what was interrupted, and a return restores what C left in them, register by register."""

from __future__ import annotations

import struct

from emu.arch import Rflags
from emu.events import CCalled, CReturned, Event, Frame, Returned
from emu.lab.chain import Closing, Entry, EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View

Words = tuple[int, ...]
"""A pt_regs: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss."""

_IP, _SS = 16, 20
_FRAME_NAMES = ("ip", "cs", "flags", "sp", "ss")
# pt_regs word -> index among RAX RCX RDX RBX RSP RBP RSI RDI R8..R15
_REGISTERS = (15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7)
_NAMES = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di")
_BY_SYSCALL = frozenset({"ax", "cx", "r11"})
"""What SYSCALL and its entry change by contract: -ENOSYS, the return RIP, RFLAGS."""
_SYSRET_FLAGS = 0x3C7FD7
_GPRS = struct.Struct("<16Q")


class Frames(Invariant):
    """Compared with the interrupted state at the first C call of an entry, afterwards with what C returned last."""

    name = "frames"
    STATE = ("_left", "_calls")
    _left: dict[int, dict[int, Words]]
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
        words = self.view.pt_regs(event.args[0])
        if words is None:
            message = f"C function {event.name} gets pt_regs at {event.args[0]:#x}: nothing is mapped there"
            self.violated_by_call(event, message)
            return
        left = self._left.get(cpu, {}).get(serial)
        if left is not None:
            wrong = _differences(words, left)
        elif entry is not None:
            wrong = _against_entry(words, entry)
        else:
            return
        if wrong:
            since = "C left" if left is not None else "the interrupted code had"
            self.violated_by_call(event, f"C function {event.name} gets pt_regs that are not what {since}: {wrong}")
            self._remember(cpu, serial, words)

    def _c_returned(self, event: CReturned) -> None:
        cpu, calls = event.cpu, self._calls.get(event.cpu, ())
        entry = self.chain.top(cpu)
        serial = entry.serial if entry is not None else 0
        for index in range(len(calls) - 1, -1, -1):
            if calls[index][0] == serial and calls[index][1] == event.name:
                self._calls[cpu] = calls[:index]
                at = event.value if event.name == "fixup_bad_iret" and event.value else calls[index][2]
                words = self.view.pt_regs(at)
                if words is not None:
                    self._remember(cpu, serial, words)
                return

    def _remember(self, cpu: int, serial: int, words: Words) -> None:
        self._left[cpu] = {**self._left.get(cpu, {}), serial: words}

    # --- the return -------------------------------------------------------------------------------------------------
    def _returned(self, event: Returned) -> None:
        cpu, back = event.cpu, self.chain.last_return(event.cpu)
        entry, table = back.entry, self._left.get(cpu, {})
        registers = _GPRS.unpack(self.view.raw_registers(cpu))
        left = table.get(entry.serial if entry is not None else 0)
        if back.how is Closing.REPEAT:
            assert entry is not None
            wrong = _register_differences(registers, _GPRS.unpack(entry.registers), frozenset())
        elif left is not None:
            wrong = _frame_differences(event.frame, left[_IP : _SS + 1], event.by)
            wrong += _register_differences(registers, _as_registers(left), frozenset())
        elif entry is not None:
            was = entry.frame
            wrong = _frame_differences(event.frame, (was.ip, was.cs, was.flags, was.sp, was.ss), event.by)
            exempt = _BY_SYSCALL if entry.vector is None else frozenset()
            wrong += _register_differences(registers, _GPRS.unpack(entry.registers), exempt)
        else:
            wrong = []
        if wrong:
            self._restores_wrong(event, wrong, None if back.how is Closing.REPEAT else entry)
        if back.how is Closing.USER:
            self._left[cpu], self._calls[cpu] = {}, ()
        elif entry is not None and left is not None:
            self._left[cpu] = {serial: words for serial, words in table.items() if serial != entry.serial}

    def _restores_wrong(self, event: Event, wrong: list[str], ended: Entry | None) -> None:
        assert isinstance(event, Returned)
        self.violated(event, f"{event.by.upper()} restores what was not saved: {', '.join(wrong)}", ended=ended)


def _as_registers(words: Words) -> Words:
    table = [0] * 16
    for word, register in enumerate(_REGISTERS):
        table[register] = words[word]
    return tuple(table)


def _show(name: str, value: int, expected: int) -> str:
    return f"{name} is {value:#x}, was {expected:#x}"


def _register_differences(registers: Words, expected: Words, exempt: frozenset[str]) -> list[str]:
    """What differs between two rows of registers, RSP and `exempt` aside."""
    if registers[:4] == expected[:4] and registers[5:] == expected[5:]:
        return []
    return [
        _show(name, registers[at], expected[at])
        for name, at in zip(_NAMES, _REGISTERS, strict=True)
        if registers[at] != expected[at] and name not in exempt
    ]


def _frame_differences(frame: Frame, expected: Words, by: str) -> list[str]:
    words = (frame.ip, frame.cs, frame.flags, frame.sp, frame.ss)
    if by == "sysretq":  # SYSRETQ sets reserved flags as hardware wants them
        flags = expected[2] & _SYSRET_FLAGS | Rflags.FIXED
        expected = (*expected[:2], flags, *expected[3:])
    rows = zip(_FRAME_NAMES, words, expected, strict=True)
    return [_show(name, word, was) for name, word, was in rows if word != was]


def _differences(words: Words, left: Words) -> str:
    """What differs between two pt_regs; orig_ax is the entry's own."""
    if words[:15] == left[:15] and words[_IP:] == left[_IP:]:
        return ""
    names = (*_NAMES, "orig_ax", *_FRAME_NAMES)
    both = zip(names, words, left, strict=True)
    return ", ".join(_show(name, word, was) for name, word, was in both if word != was and name != "orig_ax")


def _against_entry(words: Words, entry: Entry) -> str:
    """What differs between pt_regs and the state that an entry interrupted."""
    was, by_syscall = entry.frame, entry.vector is None
    flags = was.flags & ~Rflags.RF if by_syscall else was.flags
    frame = (was.ip, was.cs, int(flags), was.sp, was.ss)
    found = [_show(n, word, old) for n, word, old in zip(_FRAME_NAMES, words[_IP:], frame, strict=True) if word != old]
    exempt = _BY_SYSCALL if by_syscall else frozenset()
    found += _register_differences(_as_registers(words), _GPRS.unpack(entry.registers), exempt)
    return ", ".join(found)
