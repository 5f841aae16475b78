"""What stands behind the `=`: the result, an error by its name, and what some calls' results mean."""

from __future__ import annotations

from emu.lab.observers.strace import names, text
from emu.lab.observers.strace.call import MAX_ERRNO, Call
from emu.lab.observers.strace.numbers import open_flags
from emu.lab.observers.strace.pointers import POINTERS, date_of
from emu.lab.observers.strace.structures import poll_results

_U32 = 0xFFFF_FFFF
_HEXADECIMAL = frozenset({"mmap", "mmap2", "brk", "mremap"})
_POLLS = frozenset({"poll", "ppoll", "ppoll_time64"})
_SELECTS = frozenset({"select", "_newselect", "pselect6", "pselect6_time64"})
_WAITS_FOR_SIGNALS = frozenset({"rt_sigtimedwait", "rt_sigtimedwait_time64"})


def result(call: Call, value: int) -> str:
    """What stands behind the `=`."""
    if value in (-error for error in names.RESTARTS):
        return f"? {names.RESTARTS[-value]}"
    if call.failed:
        known = names.ERROR_NAMES.get(-value)
        words = names.ERRORS.get(-value, f"Unknown error {-value}")
        return f"-1 {known} ({words})" if known else f"-1 (errno {-value})"
    if call.name in _HEXADECIMAL:
        return text.number(value & (1 << 8 * call.word) - 1)
    if call.name == "umask":
        return text.mode(value)
    if call.name in ("fcntl", "fcntl64"):
        return _fcntl_result(call, value)
    if call.name == "modify_ldt" and value > _U32 - MAX_ERRNO:  # the one whose result is an unsigned int
        error = _U32 + 1 - value
        return f"{value} {names.ERROR_NAMES[error]} ({names.ERRORS[error]})" if error in names.ERRORS else str(value)
    if call.name == "time":
        return f"{value}{date_of(value)}"
    return f"{value}{_auxiliary(call, value)}"


def _fcntl_result(call: Call, value: int) -> str:
    command = names.FCNTL.get(call.args[1] & 0xFFFF_FFFF)
    if command == "F_GETFD":
        return f"{value:#x} (flags {text.flags(value, names.FD_FLAGS, 'FD')})" if value else "0"
    if command == "F_GETFL":
        return f"{text.number(value)} (flags {open_flags(value)})"
    return str(value)


def _auxiliary(call: Call, value: int) -> str:
    if call.name in _POLLS:
        if not value:
            return " (Timeout)"
        shown = poll_results(call, call.args[0], call.args[1] & 0xFFFF_FFFF)
        return f" ({shown})"
    if call.name in _SELECTS:
        return _selected(call, value)
    if call.name in _WAITS_FOR_SIGNALS:
        return f" ({text.signal(value)})"
    return ""


def _selected(call: Call, value: int) -> str:
    if not value:
        return " (Timeout)"
    sets = ((name, POINTERS["fd_set"](call, index)) for index, name in enumerate(("in", "out", "except"), 1))
    parts = [f"{name} {members}" for name, members in sets if members.startswith("[") and members != "[]"]
    kind = {"pselect6": "timespec", "pselect6_time64": "timespec64"}.get(call.name, "timeval")
    left = POINTERS[kind](call, 4)
    return f" ({', '.join([*parts, *([f'left {left}'] if left.startswith('{') else [])])})"
