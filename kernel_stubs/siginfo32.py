"""siginfo_t as 32-bit programs have it (include/linux/compat.h, kernel/signal.c: copy_siginfo_to_external32)."""

from __future__ import annotations

import struct
from enum import Enum, auto

from kernel_stubs.siginfo import SI_KERNEL, SI_TIMER, SI_USER, Sig, Siginfo

SIGINFO32_SIZE = 128
_HEAD = struct.Struct("<3i")
_FAULTS = (Sig.SIGILL, Sig.SIGFPE, Sig.SIGSEGV, Sig.SIGBUS, Sig.SIGTRAP)


class _Layout(Enum):
    """enum siginfo_layout: the union's members that differ."""

    KILL = auto()
    TIMER = auto()
    RT = auto()
    FAULT = auto()
    CHILD = auto()
    POLL = auto()
    SYS = auto()


_FIELDS = {
    _Layout.KILL: ("<iI24x", "<iI"),
    _Layout.TIMER: ("<iiQ16x", "<iiI"),
    _Layout.RT: ("<iIQ16x", "<iII"),
    _Layout.FAULT: ("<Q24x", "<I"),
    _Layout.CHILD: ("<iIi4xQQ", "<iIiII"),
    _Layout.POLL: ("<Qi20x", "<Ii"),
    _Layout.SYS: ("<QiI16x", "<IiI"),
}
"""Of 64-bit and of 32-bit programs: the same values, `long` and pointers shorter."""


def _layout(signal: int, code: int) -> _Layout:
    """siginfo_layout(): the kernel's own positive codes belong to the signal, the others to how it was sent."""
    if SI_USER < code < SI_KERNEL:
        if signal in _FAULTS:
            return _Layout.FAULT
        by_signal = {Sig.SIGCHLD: _Layout.CHILD, Sig.SIGIO: _Layout.POLL, Sig.SIGSYS: _Layout.SYS}
        return by_signal.get(Sig(signal), _Layout.KILL) if signal in Sig._value2member_map_ else _Layout.KILL
    if code == SI_TIMER:
        return _Layout.TIMER
    return _Layout.RT if code < 0 else _Layout.KILL


def to_compat(info: Siginfo) -> bytes:
    """The siginfo_t of a 32-bit program."""
    long, short = _FIELDS[_layout(info.signo, info.code)]
    masks = [0xFFFF_FFFF if letter in "IQ" else -1 for letter in short if letter in "iI"]
    values = struct.unpack(long, info.payload)
    fields = struct.pack(short, *(value & mask for value, mask in zip(values, masks, strict=True)))
    return (_HEAD.pack(info.signo, info.errno, info.code) + fields).ljust(SIGINFO32_SIZE, b"\0")


def from_compat(raw: bytes, signal: int) -> Siginfo:
    """What a 32-bit program hands over for `signal`."""
    _, errno, code = _HEAD.unpack_from(raw)
    long, short = _FIELDS[_layout(signal, code)]
    return Siginfo(signal, code, errno, struct.pack(long, *struct.unpack_from(short, raw, _HEAD.size)))


__all__ = ["SIGINFO32_SIZE", "from_compat", "to_compat"]
