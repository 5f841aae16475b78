"""How strace writes numbers, strings, flags and sets of signals (its -s 32, without -v and -x)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kernel_stubs.siginfo import Sig
from kernel_stubs.signal_abi import NSIG, SIGRTMIN

STRING_LIMIT = 32
"""Bytes of data and of arguments that are shown; names of files are shown whole."""
_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
_MOSTLY = NSIG * 2 // 3
"""A set of this many signals is written as what is not in it."""


def signed(value: int, bits: int = 32) -> int:
    """A register's low bits as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def address(value: int) -> str:
    """A pointer."""
    return f"{value:#x}" if value else "NULL"


def number(value: int) -> str:
    """%#x: 0 has no prefix."""
    return f"{value:#x}" if value else "0"


def mode(value: int) -> str:
    """Permissions: at least three octal digits, the first of them 0."""
    return f"0{value:o}" if value >= 0o10 else f"00{value:o}"


def quote(data: bytes, limit: int | None = STRING_LIMIT) -> str:
    """A C string literal; `...` behind it if there is more than `limit` bytes."""
    shown = data if limit is None else data[:limit]
    parts = []
    for index, byte in enumerate(shown):
        if byte in _ESCAPES:
            parts.append(_ESCAPES[byte])
        elif 0x20 <= byte < 0x7F:
            parts.append(chr(byte))
        else:
            digit_follows = index + 1 < len(shown) and chr(shown[index + 1]) in "01234567"
            parts.append(f"\\{byte:03o}" if digit_follows else f"\\{byte:o}")
    return f'"{"".join(parts)}"' + ("..." if len(shown) < len(data) else "")


def quote_hex(data: bytes) -> str:
    """The same for data that are no text."""
    shown = "".join(f"\\x{byte:02x}" for byte in data[:STRING_LIMIT])
    return f'"{shown}"' + ("..." if len(data) > STRING_LIMIT else "")


def flags(value: int, names: Mapping[int, str], unknown: str) -> str:
    """Names of bits joined by `|`, in the table's order; what has no name as a number behind them."""
    if not value:
        return names.get(0, "0")
    found = []
    for bits, name in names.items():
        if bits and value & bits == bits:
            found.append(name)
            value &= ~bits
    if not found:
        return f"{value:#x} /* {unknown}_??? */"
    return "|".join([*found, *([f"{value:#x}"] if value else [])])


def choice(value: int, names: Mapping[int, str], unknown: str) -> str:
    """The name of a value."""
    return names.get(value) or f"{number(value)} /* {unknown}_??? */"


def signal(value: int) -> str:
    """SIGSEGV, SIGRT_2 (the kernel's count: the first is 32), or a number."""
    if value in Sig._value2member_map_:
        return Sig(value).name
    if SIGRTMIN <= value <= NSIG:
        return "SIGRTMIN" if value == SIGRTMIN else f"SIGRT_{value - SIGRTMIN}"
    return str(value)


def signal_set(mask: int) -> str:
    """`[USR1 CHLD]`, `~[KILL]`."""
    inverted = mask.bit_count() >= _MOSTLY
    if inverted:
        mask = ~mask
    members = (signal(n).removeprefix("SIG") for n in range(1, NSIG + 1) if mask >> n - 1 & 1)
    return f"{'~' if inverted else ''}[{' '.join(members)}]"


def table(text: str, start: int = 0) -> dict[int, str]:
    """Names of consecutive numbers; `-` for one that has none."""
    return {value: name for value, name in enumerate(text.split(), start) if name != "-"}


def bits(text: str, start: int = 0) -> dict[int, str]:
    """Names of consecutive bits."""
    return {1 << value: name for value, name in enumerate(text.split(), start) if name != "-"}


def joined(parts: Iterable[str]) -> str:
    """Members of a structure."""
    return "{" + ", ".join(parts) + "}"
