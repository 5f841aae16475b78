"""Decoders of arguments that point to something, by the names that the table of calls (`calls`) uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from emu.lab.observers.strace import structures as s
from emu.lab.observers.strace import text
from emu.lab.observers.strace.call import Call, Decode, given, pointer
from kernel_stubs.time import NSEC_PER_SEC

PATH_LIMIT = 4095
ARGUMENTS_SHOWN = 32
MAX_VARIABLES = 10_000
"""Counted of an environment; MAX_ARG_STRINGS of the kernel is no help, for it is 0x7fffffff."""
_UTIME_NOW = (1 << 30) - 1
_UTIMES = {_UTIME_NOW: "UTIME_NOW", _UTIME_NOW - 1: "UTIME_OMIT"}
_CALENDAR_ENDS = 253_402_300_800
"""The year 10000."""
_U32 = 0xFFFF_FFFF


def _path(call: Call, at: int) -> str | None:
    found = None if call.memory is None else call.memory.string(at, PATH_LIMIT)
    return None if found is None else text.quote(found, PATH_LIMIT)


def _string(call: Call, at: int) -> str | None:
    found = None if call.memory is None else call.memory.string(at, text.STRING_LIMIT)
    return None if found is None else text.quote(found)


def _data(size_at: int) -> Decode:
    """Bytes that the program hands over; their number is another argument."""

    def decode(call: Call, index: int) -> str:
        at, size = call.args[index], call.args[size_at] & (1 << 8 * call.word) - 1
        raw = call.read(at, min(size, text.STRING_LIMIT + 1)) if at else None
        return text.address(at) if raw is None else text.quote(raw)

    return decode


def _filled(call: Call, index: int) -> str:
    """Bytes that the program gets; their number is the result."""
    at, size = call.args[index], call.result or 0
    raw = None if call.failed or not at else call.read(at, min(size, text.STRING_LIMIT + 1))
    return text.address(at) if raw is None else text.quote(raw)


def _random(call: Call, index: int) -> str:
    """The same, every byte as a number."""
    at, size = call.args[index], call.result or 0
    raw = None if call.failed or not at else call.read(at, min(size, text.STRING_LIMIT + 1))
    return text.address(at) if raw is None else text.quote_hex(raw)


def _working_directory(call: Call, index: int) -> str:
    at = call.args[index]
    return text.address(at) if call.failed else _path(call, at) or text.address(at)


def _arguments(call: Call, index: int) -> str:
    """argv."""
    at = call.args[index]
    if not at:
        return "NULL"
    parts: list[str] = []
    while True:
        found = call.values(at, "P")
        if found is None:
            return text.address(call.args[index]) if not parts else f"[{', '.join(parts)}, ... /* {at:#x} */]"
        if not found[0]:
            return f"[{', '.join(parts)}]"
        if len(parts) == ARGUMENTS_SHOWN:
            return f"[{', '.join(parts)}, ...]"
        parts.append(_string(call, found[0]) or text.address(found[0]))
        at += call.word


def _environment(call: Call, index: int) -> str:
    """envp: how many there are."""
    start = at = call.args[index]
    count = 0
    while at:
        found = call.values(at, "P") if count < MAX_VARIABLES else None
        if found is None:
            return f"{text.address(start)} /* {count} vars, unterminated */" if count else text.address(start)
        if not found[0]:
            break
        count, at = count + 1, at + call.word
    return f"{text.address(start)} /* {count} var{'' if count == 1 else 's'} */" if start else "NULL"


def _vector(call: Call, index: int) -> str:
    at = call.args[index]
    count = text.signed(call.args[index + 1])
    return (s.vector(call, at, count, None) if count else "[]" if at else None) or text.address(at)


def _vector_filled(call: Call, index: int) -> str:
    at = call.args[index]
    if call.failed:
        return text.address(at)
    return s.vector(call, at, text.signed(call.args[index + 1]), call.result or 0) or text.address(at)


def _numbers(count: int) -> Decode:
    """An array of ints that the call fills in."""

    def show(call: Call, at: int) -> str | None:
        found = call.values(at, f"{count}i")
        return None if found is None else f"[{', '.join(map(str, found))}]"

    return pointer(show)


def _groups(call: Call, index: int) -> str:
    at, count = call.args[index], call.result or 0
    found = None if call.failed or not at else call.values(at, f"{count}I")
    return text.address(at) if found is None else f"[{', '.join(map(str, found))}]"


def _poll(call: Call, index: int) -> str:
    at, count = call.args[index], call.args[index + 1] & _U32
    return (s.poll_array(call, at, count) if at else None) or text.address(at)


def _fd_set(call: Call, index: int) -> str:
    at = call.args[index]
    members = s.fd_set(call, at, text.signed(call.args[0])) if at else None
    return text.address(at) if members is None else f"[{' '.join(map(str, members))}]"


def _masked_set(call: Call, at: int) -> str | None:
    """pselect6's sixth argument."""
    found = call.values(at, "PL")
    if found is None:
        return None
    at, size = found
    raw = call.read(at, size) if at and call.word <= size <= 8 else None
    mask = text.address(at) if raw is None else text.signal_set(int.from_bytes(raw, "little"))
    return f"{{sigmask={mask}, sigsetsize={size}}}"


def _status(call: Call, index: int) -> str:
    """wait4's status: nothing is filled in if there was nobody."""
    at = call.args[index]
    found = call.values(at, "i") if at and call.result and not call.failed else None
    return text.address(at) if found is None else f"[{s.wait_status(found[0] & _U32)}]"


def _waited(call: Call, at: int) -> str | None:
    """waitid's siginfo: all 0 if there was nobody."""
    raw = call.read(at, 4)
    return "{}" if raw == bytes(4) else s.siginfo_at(call, at)


def _remaining(call: Call, index: int) -> str:
    """What a sleep has left: only a signal makes it known."""
    at = call.args[index]
    if not at or call.result not in (-516, -4):
        return text.address(at)
    return s.timespec(call, at) or text.address(at)


def _remaining64(call: Call, index: int) -> str:
    at = call.args[index]
    if not at or call.result not in (-516, -4):
        return text.address(at)
    return s.timespec64(call, at) or text.address(at)


def _word(signed: bool = False) -> Decode:
    def show(call: Call, at: int) -> str | None:
        found = call.values(at, "l" if signed else "L")
        return None if found is None else f"[{found[0]}]"

    return pointer(show)


def _entries(call: Call, index: int) -> str:
    """getdents64: how many."""
    at, size = call.args[index], call.result or 0
    raw = None if call.failed else call.read(at, size)
    if raw is None:
        return text.address(at)
    count = offset = 0
    while offset + 18 < len(raw):
        offset += int.from_bytes(raw[offset + 16 : offset + 18], "little") or len(raw)
        count += 1
    return f"{text.address(at)} /* {count} entries */"


def _times(layout: str) -> Decode:
    """utimensat's pair; the date in words behind each that is not 0."""

    def two(call: Call, at: int) -> str | None:
        found = call.values(at, layout * 2)
        if found is None:
            return None
        parts = []
        for seconds, fraction in (found[:2], found[2:]):
            date = (
                f" /* {_date(seconds, fraction)} */"
                if 0 < seconds < _CALENDAR_ENDS and fraction < _UTIME_NOW - 1
                else ""
            )
            name = _UTIMES.get(fraction)
            parts.append(name or f"{{tv_sec={seconds}, tv_nsec={fraction}}}{date}")
        return f"[{', '.join(parts)}]"

    return given(two)


def _date(seconds: int, fraction: int = 0) -> str:
    fraction %= NSEC_PER_SEC
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{f'.{fraction:09}' if fraction else ''}+0000"


def date_of(seconds: int) -> str:
    """What time(2) returns, in words; nothing for a date that the calendar does not have."""
    return f" ({_date(seconds)})" if 0 < seconds < _CALENDAR_ENDS else ""


def _time(call: Call, at: int) -> str | None:
    found = call.values(at, "l")
    if found is None:
        return None
    date = f" /* {_date(found[0])} */" if 0 < found[0] < _CALENDAR_ENDS else ""
    return f"[{found[0]}{date}]"


POINTERS: dict[str, Decode] = {
    "path": given(_path),
    "cwd": _working_directory,
    "string": given(_string),
    "data1": _data(1),
    "data2": _data(2),
    "filled": _filled,
    "random": _random,
    "argv": _arguments,
    "envp": _environment,
    "iovec": _vector,
    "iovec_filled": _vector_filled,
    "ints1": _numbers(1),
    "ints2": _numbers(2),
    "groups": _groups,
    "poll": _poll,
    "fd_set": _fd_set,
    "pselect_set": given(_masked_set),
    "status": _status,
    "waited": pointer(_waited),
    "remaining": _remaining,
    "remaining64": _remaining64,
    "word": _word(),
    "time": pointer(_time),
    "entries": _entries,
    "timespec": given(s.timespec),
    "timespec64": given(s.timespec64),
    "timespec_filled": pointer(s.timespec),
    "timespec64_filled": pointer(s.timespec64),
    "times": _times("ll"),
    "times64": _times("qq"),
    "timeval": given(s.timeval),
    "timeval_filled": pointer(s.timeval),
    "timezone_filled": pointer(s.timezone),
    "itimerval": given(s.itimerval),
    "itimerval_filled": pointer(s.itimerval),
    "sigset": given(s.signal_set),
    "sigset_filled": pointer(s.signal_set),
    "old_sigset": given(s.old_signal_set),
    "old_sigset_filled": pointer(s.old_signal_set),
    "sigaction": given(s.sigaction),
    "sigaction_filled": pointer(s.sigaction),
    "old_sigaction": given(s.old_sigaction),
    "old_sigaction_filled": pointer(s.old_sigaction),
    "stack": given(s.stack),
    "stack_filled": pointer(s.stack),
    "siginfo": given(s.siginfo_at),
    "siginfo_filled": pointer(s.siginfo_at),
    "stat_filled": pointer(s.stat),
    "rlimit": given(s.rlimit),
    "rlimit_filled": pointer(s.rlimit),
    "rlimit64": given(s.rlimit64),
    "rlimit64_filled": pointer(s.rlimit64),
    "utsname_filled": pointer(s.utsname),
    "user_desc": given(s.user_desc),
    "user_desc_filled": pointer(s.user_desc),
}
