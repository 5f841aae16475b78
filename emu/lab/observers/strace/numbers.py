"""Decoders of arguments that are numbers, by the names that the table of calls (`calls`) uses."""

from __future__ import annotations

from collections.abc import Mapping

from emu.lab.observers.strace import names, text
from emu.lab.observers.strace.call import Call, Decode, plain

_AT_FDCWD = -100
_U32 = 0xFFFF_FFFF


def _flags(table: Mapping[int, str], unknown: str, bits: int = 32) -> Decode:
    return plain(lambda value: text.flags(value, table, unknown), bits)


def _choice(table: Mapping[int, str], unknown: str) -> Decode:
    return plain(lambda value: text.choice(value, table, unknown), 32)


def _dirfd(value: int) -> str:
    fd = text.signed(value)
    return "AT_FDCWD" if fd == _AT_FDCWD else str(fd)


def open_flags(value: int) -> str:
    """What open(2) gets."""
    access, more = names.ACCESS_MODES[value & 3], value & ~3
    return f"{access}|{text.flags(more, names.OPEN, 'O').partition(' /*')[0]}" if more else access


def _map_flags(value: int) -> str:
    kind, more = value & names.MAP_TYPE_MASK, value & ~names.MAP_TYPE_MASK
    return text.choice(kind, names.MAP_TYPES, "MAP") + (f"|{text.flags(more, names.MAP, 'MAP')}" if more else "")


def _clone_flags(value: int) -> str:
    signal, bits = value & 0xFF, value & ~0xFF
    parts = [text.flags(bits, names.CLONE, "CLONE")] if bits else []
    parts += [text.signal(signal)] if signal else []
    return "|".join(parts) or "0"


def _futex_operation(value: int) -> str:
    command = value & ~(names.FUTEX_PRIVATE | names.FUTEX_REALTIME)
    realtime = value & names.FUTEX_REALTIME
    if command not in names.FUTEX or (realtime and command not in names.FUTEX_REALTIME_CALLS):
        return f"{value:#x} /* FUTEX_??? */"
    private = "_PRIVATE" if value & names.FUTEX_PRIVATE else ""
    return f"{names.FUTEX[command]}{private}{'|FUTEX_CLOCK_REALTIME' if realtime else ''}"


def _ioctl(value: int) -> str:
    direction = ("_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE")[value >> 30]
    kind, number, size = (text.number(part) for part in (value >> 8 & 0xFF, value & 0xFF, value >> 16 & 0x3FFF))
    return names.IOCTL.get(value) or f"_IOC({direction}, {kind}, {number}, {size})"


def _long(call: Call, index: int) -> str:
    return str(text.signed(call.args[index], 8 * call.word))


def _size(call: Call, index: int) -> str:
    return str(call.args[index] & (1 << 8 * call.word) - 1)


def _long_long(call: Call, index: int) -> str:
    """A 64-bit number, which i386 passes in two registers."""
    value = call.args[index]
    return str(text.signed(value | call.args[index + 1] << 32 if call.ia32 else value, 64))


def _page_offset(call: Call, index: int) -> str:
    return text.number(call.args[index] << (12 if call.ia32 else 0) & (1 << 64) - 1)


NUMBERS: dict[str, Decode] = {
    "fd": plain(lambda value: str(text.signed(value))),
    "dirfd": plain(_dirfd),
    "int": plain(lambda value: str(text.signed(value))),
    "uint": plain(str, 32),
    "long": _long,
    "size": _size,
    "long_long": _long_long,
    "address": plain(text.address),
    "hex": plain(text.number),
    "hex32": plain(text.number, 32),
    "page_offset": _page_offset,
    "mode": plain(lambda value: text.mode(value & 0xFFFF)),
    "signal": plain(lambda value: text.signal(text.signed(value))),
    "signal_or_0": plain(lambda value: text.signal(value)),
    "open_flags": plain(open_flags, 32),
    "descriptor_flags": _flags(names.OPEN, "O"),
    "fd_flags": _flags(names.FD_FLAGS, "FD"),
    "fcntl": _choice(names.FCNTL, "F"),
    "close_range": _flags(names.CLOSE_RANGE, "CLOSE_RANGE"),
    "access": _flags(names.ACCESS, "?_OK"),
    "at": _flags(names.AT, "AT"),
    "faccessat": _flags(names.FACCESSAT, "AT"),
    "rename": _flags(names.RENAME, "RENAME"),
    "whence": _choice(names.WHENCE, "SEEK"),
    "ioctl": plain(_ioctl, 32),
    "prot": _flags(names.PROT, "PROT", 64),
    "map": plain(_map_flags, 32),
    "madvise": _choice(names.MADVISE, "MADV"),
    "how": _choice(names.SIGPROCMASK, "SIG"),
    "wait": _flags(names.WAIT, "W"),
    "idtype": _choice(names.WAITID, "P"),
    "clone": plain(_clone_flags, 32),
    "futex": plain(_futex_operation, 32),
    "bitset": plain(lambda value: "FUTEX_BITSET_MATCH_ANY" if value == _U32 else text.number(value), 32),
    "regset": _choice(names.REGSETS, "NT"),
    "clock": _choice(names.CLOCKS, "CLOCK"),
    "timer": _flags(names.TIMER, "TIMER"),
    "itimer": _choice(names.ITIMERS, "ITIMER"),
    "rlimit_name": _choice(names.RLIMITS, "RLIMIT"),
    "getrandom": _flags(names.GETRANDOM, "GRND"),
    "arch_prctl": _choice(names.ARCH_PRCTL, "ARCH"),
    "ptrace": _choice(names.PTRACE, "PTRACE"),
    "ptrace_options": _flags(names.PTRACE_OPTIONS, "PTRACE_O", 64),
    "mask": plain(text.signal_set, 32),
    "handler": plain(lambda value: names.HANDLERS.get(value) or f"{value:#x}"),
}
