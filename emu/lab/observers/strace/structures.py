"""Structures in user memory, of both ABIs, as strace writes them."""

from __future__ import annotations

from emu.lab.observers.strace import names, text
from emu.lab.observers.strace.call import Call
from kernel_stubs.siginfo import Sig, Siginfo
from kernel_stubs.siginfo32 import from_compat

_U32 = 0xFFFF_FFFF
_ARRAY_LIMIT = 32
_FAULTS = frozenset({Sig.SIGILL, Sig.SIGFPE, Sig.SIGSEGV, Sig.SIGBUS, Sig.SIGTRAP})


# --- times ------------------------------------------------------------------------------------------------------------
def timespec(call: Call, at: int) -> str | None:
    """struct timespec, of the width of a long."""
    return _time(call, at, "ll", "tv_nsec")


def timespec64(call: Call, at: int) -> str | None:
    """The same with 64 bits in both ABIs."""
    return _time(call, at, "qq", "tv_nsec")


def timeval(call: Call, at: int) -> str | None:
    """struct timeval."""
    return _time(call, at, "ll", "tv_usec")


def _time(call: Call, at: int, layout: str, fraction: str) -> str | None:
    found = call.values(at, layout)
    return None if found is None else f"{{tv_sec={found[0]}, {fraction}={found[1]}}}"


def itimerval(call: Call, at: int) -> str | None:
    """struct itimerval."""
    interval, value = timeval(call, at), timeval(call, at + 2 * call.word)
    return None if interval is None or value is None else f"{{it_interval={interval}, it_value={value}}}"


def timezone(call: Call, at: int) -> str | None:
    """struct timezone."""
    found = call.values(at, "ii")
    return None if found is None else f"{{tz_minuteswest={found[0]}, tz_dsttime={found[1]}}}"


# --- signals ----------------------------------------------------------------------------------------------------------
def signal_set(call: Call, at: int) -> str | None:
    """sigset_t."""
    found = call.values(at, "Q")
    return None if found is None else text.signal_set(found[0])


def old_signal_set(call: Call, at: int) -> str | None:
    """old_sigset_t."""
    found = call.values(at, "L")
    return None if found is None else text.signal_set(found[0])


def _handler(value: int) -> str:
    return names.HANDLERS.get(value) or f"{value:#x}"


def sigaction(call: Call, at: int) -> str | None:
    """The kernel's struct sigaction."""
    found = call.values(at, "PLPQ")
    return None if found is None else _action(found[0], found[1], found[2], found[3])


def old_sigaction(call: Call, at: int) -> str | None:
    """struct old_sigaction of i386."""
    found = call.values(at, "PLLP")
    return None if found is None else _action(found[0], found[2], found[3], found[1])


def _action(handler: int, flags: int, restorer: int, mask: int) -> str:
    parts = [f"sa_handler={_handler(handler)}", f"sa_mask={text.signal_set(mask)}"]
    parts.append(f"sa_flags={text.flags(flags, names.SIGNAL_ACTIONS, 'SA')}")
    if flags & names.SA_RESTORER:
        parts.append(f"sa_restorer={text.address(restorer)}")
    return text.joined(parts)


def stack(call: Call, at: int) -> str | None:
    """stack_t."""
    found = call.values(at, "PiL" if call.ia32 else "PixxxxL")
    if found is None:
        return None
    flags = text.flags(found[1] & _U32, names.SIGALTSTACK, "SS")
    return f"{{ss_sp={text.address(found[0])}, ss_flags={flags}, ss_size={found[2]}}}"


def siginfo_at(call: Call, at: int) -> str | None:
    """siginfo_t."""
    raw = call.read(at, 128)
    if raw is None:
        return None
    return siginfo(from_compat(raw, int.from_bytes(raw[:4], "little")) if call.ia32 else Siginfo.from_bytes(raw))


def siginfo(info: Siginfo) -> str:
    """What a signal says of itself."""
    signo, code = info.signo, info.code
    known = names.SI_CODES.get(code) or names.SIGNAL_CODES.get(signo, {}).get(code)
    parts = [f"si_signo={text.signal(signo)}", f"si_code={known or f'{code & _U32:#x}'}"]
    if info.errno:
        parts.append(f"si_errno={names.ERROR_NAMES.get(info.errno, info.errno)}")
    word = [int.from_bytes(info.payload[at : at + 4], "little") for at in range(0, 24, 4)]
    source = [f"si_pid={text.signed(word[0])}", f"si_uid={word[1]}"]
    if code in (0, -6):
        return text.joined([*parts, *source])
    if code == -2:
        parts += [f"si_timerid={word[0]:#x}", f"si_overrun={text.signed(word[1])}"]
    elif code > 0 and signo == Sig.SIGCHLD and known:
        status = str(text.signed(word[2])) if code == 1 else text.signal(word[2])
        return text.joined([*parts, *source, f"si_status={status}", "si_utime=0", "si_stime=0"])
    elif code > 0 and signo in _FAULTS and known:
        return text.joined([*parts, f"si_addr={text.address(info.address)}"])
    elif word[0] or word[1]:
        parts += source
    value = int.from_bytes(info.payload[8:16], "little")
    return text.joined([*parts, *([f"si_int={text.signed(value)}", f"si_ptr={value:#x}"] if value else [])])


# --- files ------------------------------------------------------------------------------------------------------------
def file_mode(value: int) -> str:
    """st_mode."""
    kind = names.FILE_TYPES.get(value & 0o170000)
    parts = [kind or f"{value & 0o170000:#o}".replace("o", "")] if kind or value & 0o170000 else []
    parts += [name for bit, name in names.SPECIAL_MODES.items() if value & bit]
    return "|".join([*parts, text.mode(value & 0o777)])


def stat(call: Call, at: int) -> str | None:
    """struct stat, and stat64 of i386; abbreviated."""
    found = call.values(at, "16xI12xQ4xq" if call.ia32 else "24xI12xQq")
    if found is None:
        return None
    mode, device, size = found
    what = f"st_size={size}"
    if mode & 0o170000 in (0o20000, 0o60000):
        major = device >> 8 & 0xFFF | device >> 32 & 0xFFFF_F000
        minor = device & 0xFF | device >> 12 & 0xFFFF_FF00
        what = f"st_rdev=makedev({text.number(major)}, {text.number(minor)})"
    return f"{{st_mode={file_mode(mode)}, {what}, ...}}"


def vector(call: Call, at: int, count: int, left: int | None) -> str | None:
    """Arrays of struct iovec; `left` bytes of them are shown, all without a limit."""
    parts: list[str] = []
    for index in range(min(count, _ARRAY_LIMIT)):
        found = call.values(at + 2 * call.word * index, "PL")
        if found is None:
            return None if not index else f"[{', '.join(parts)}, ... /* {at + 2 * call.word * index:#x} */]"
        base, length = found
        size = length if left is None else max(0, min(length, left))
        left = None if left is None else left - size
        raw = call.read(base, min(size, text.STRING_LIMIT + 1))
        data = text.address(base) if raw is None else text.quote(raw)
        parts.append(f"{{iov_base={data}, iov_len={length}}}")
    return f"[{', '.join([*parts, *(['...'] if count > _ARRAY_LIMIT else [])])}]"


def poll_array(call: Call, at: int, count: int) -> str | None:
    """What poll(2) is to wait for."""
    parts: list[str] = []
    for index in range(min(count, _ARRAY_LIMIT)):
        found = call.values(at + 8 * index, "iHH")
        if found is None:
            return None if not index else f"[{', '.join(parts)}, ... /* {at + 8 * index:#x} */]"
        fd, events, _ = found
        wanted = f", events={text.flags(events, names.POLL, 'POLL')}" if fd >= 0 else ""
        parts.append(f"{{fd={fd}{wanted}}}")
    return f"[{', '.join([*parts, *(['...'] if count > _ARRAY_LIMIT else [])])}]"


def poll_results(call: Call, at: int, count: int) -> str:
    """What it has found."""
    parts: list[str] = []
    for index in range(count):
        found = call.values(at + 8 * index, "iHH")
        if found is None:
            break
        if found[0] >= 0 and found[2]:
            parts.append(f"{{fd={found[0]}, revents={text.flags(found[2], names.POLL, 'POLL')}}}")
    return f"[{', '.join(parts)}]"


def fd_set(call: Call, at: int, count: int) -> list[int] | None:
    """Members of an fd_set."""
    size = (max(0, min(count, 1024)) + 8 * call.word - 1) // (8 * call.word) * call.word
    raw = call.read(at, size)
    if raw is None:
        return None
    mask = int.from_bytes(raw, "little")
    return [fd for fd in range(min(count, 8 * size)) if mask >> fd & 1]


# --- the rest ---------------------------------------------------------------------------------------------------------
def limit(value: int, infinity: str) -> str:
    """A resource limit."""
    if value == (1 << 64) - 1 or (infinity == "RLIM_INFINITY" and value == _U32):
        return infinity
    return f"{value // 1024}*1024" if value > 1024 and not value % 1024 else str(value)


def rlimit64(call: Call, at: int) -> str | None:
    """struct rlimit64."""
    found = call.values(at, "QQ")
    if found is None:
        return None
    return f"{{rlim_cur={limit(found[0], 'RLIM64_INFINITY')}, rlim_max={limit(found[1], 'RLIM64_INFINITY')}}}"


def rlimit(call: Call, at: int) -> str | None:
    """struct rlimit."""
    found = call.values(at, "LL")
    name = "RLIM_INFINITY" if call.ia32 else "RLIM64_INFINITY"
    return None if found is None else f"{{rlim_cur={limit(found[0], name)}, rlim_max={limit(found[1], name)}}}"


def utsname(call: Call, at: int) -> str | None:
    """struct new_utsname, abbreviated."""
    raw = call.read(at, 6 * 65)
    if raw is None:
        return None
    system, node = (raw[start : start + 65].partition(b"\0")[0] for start in (0, 65))
    return f"{{sysname={text.quote(system)}, nodename={text.quote(node)}, ...}}"


def user_desc(call: Call, at: int) -> str | None:
    """struct user_desc, of set_thread_area and modify_ldt."""
    found = call.values(at, "IIII")
    if found is None:
        return None
    entry, base, limit_, bits = found
    parts = [f"entry_number={text.signed(entry)}", f"base_addr={base:#08x}", f"limit={limit_:#08x}"]
    parts += [
        f"seg_32bit={bits & 1}", f"contents={bits >> 1 & 3}", f"read_exec_only={bits >> 3 & 1}",
        f"limit_in_pages={bits >> 4 & 1}", f"seg_not_present={bits >> 5 & 1}", f"useable={bits >> 6 & 1}",
    ]  # fmt: skip
    return text.joined([*parts, *([] if call.ia32 else [f"lm={bits >> 7 & 1}"])])


def wait_status(status: int) -> str:
    """What wait4(2) reports."""
    signal = status & 0x7F
    if status & 0xFFFF == 0xFFFF:
        return "{WIFCONTINUED(s)}"
    if status & 0xFF == 0x7F:
        stopped = status >> 8 & 0xFF
        good = " | 0x80" if stopped & 0x80 else ""
        event = names.PTRACE_EVENTS.get(status >> 16, f"{status >> 16:#x} /* PTRACE_EVENT_??? */")
        shown = f"{{WIFSTOPPED(s) && WSTOPSIG(s) == {text.signal(stopped & 0x7F)}{good}}}"
        return f"{shown} | {event} << 16" if status >> 16 else shown
    if signal:
        core = " && WCOREDUMP(s)" if status & 0x80 else ""
        return f"{{WIFSIGNALED(s) && WTERMSIG(s) == {text.signal(signal)}{core}}}"
    return f"{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}"
