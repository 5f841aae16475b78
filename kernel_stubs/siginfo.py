"""Signal numbers, their codes, and siginfo as a value (include/uapi/asm-generic/siginfo.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from kernel_stubs.signal_abi import SIGRTMIN


class Sig(IntEnum):
    """Signal numbers (include/uapi/asm-generic/signal.h)."""

    SIGHUP = 1
    SIGINT = 2
    SIGQUIT = 3
    SIGILL = 4
    SIGTRAP = 5
    SIGABRT = 6
    SIGBUS = 7
    SIGFPE = 8
    SIGKILL = 9
    SIGUSR1 = 10
    SIGSEGV = 11
    SIGUSR2 = 12
    SIGPIPE = 13
    SIGALRM = 14
    SIGTERM = 15
    SIGSTKFLT = 16
    SIGCHLD = 17
    SIGCONT = 18
    SIGSTOP = 19
    SIGTSTP = 20
    SIGTTIN = 21
    SIGTTOU = 22
    SIGURG = 23
    SIGXCPU = 24
    SIGXFSZ = 25
    SIGVTALRM = 26
    SIGPROF = 27
    SIGWINCH = 28
    SIGIO = 29
    SIGPWR = 30
    SIGSYS = 31


SI_USER = 0
SI_KERNEL = 0x80
SI_QUEUE = -1
SI_TIMER = -2
SI_TKILL = -6
ILL_ILLOPN = 2
FPE_INTDIV = 1
FPE_FLTDIV = 3
FPE_FLTOVF = 4
FPE_FLTUND = 5
FPE_FLTRES = 6
FPE_FLTINV = 7
SEGV_MAPERR = 1
SEGV_ACCERR = 2
SEGV_CPERR = 10
BUS_ADRALN = 1
BUS_OBJERR = 3
TRAP_BRKPT = 1
TRAP_TRACE = 2
TRAP_HWBKPT = 4
CLD_EXITED = 1
CLD_KILLED = 2
CLD_DUMPED = 3
CLD_TRAPPED = 4
CLD_STOPPED = 5
CLD_CONTINUED = 6

_CODE_NAMES: dict[int, dict[int, str]] = {
    Sig.SIGILL: {ILL_ILLOPN: "ILL_ILLOPN"},
    Sig.SIGFPE: {
        FPE_INTDIV: "FPE_INTDIV", FPE_FLTDIV: "FPE_FLTDIV", FPE_FLTOVF: "FPE_FLTOVF", FPE_FLTUND: "FPE_FLTUND",
        FPE_FLTRES: "FPE_FLTRES", FPE_FLTINV: "FPE_FLTINV",
    },
    Sig.SIGSEGV: {SEGV_MAPERR: "SEGV_MAPERR", SEGV_ACCERR: "SEGV_ACCERR", SEGV_CPERR: "SEGV_CPERR"},
    Sig.SIGBUS: {BUS_ADRALN: "BUS_ADRALN", BUS_OBJERR: "BUS_OBJERR"},
    Sig.SIGTRAP: {TRAP_BRKPT: "TRAP_BRKPT", TRAP_TRACE: "TRAP_TRACE", TRAP_HWBKPT: "TRAP_HWBKPT"},
    Sig.SIGCHLD: {
        CLD_EXITED: "CLD_EXITED", CLD_KILLED: "CLD_KILLED", CLD_DUMPED: "CLD_DUMPED", CLD_TRAPPED: "CLD_TRAPPED",
        CLD_STOPPED: "CLD_STOPPED", CLD_CONTINUED: "CLD_CONTINUED",
    },
}  # fmt: skip
_COMMON_CODES = {SI_USER: "SI_USER", SI_KERNEL: "SI_KERNEL", SI_QUEUE: "SI_QUEUE", SI_TKILL: "SI_TKILL"}


def signal_name(number: int) -> str:
    """SIGSEGV, or SIGRTMIN+n."""
    return Sig(number).name if number in Sig._value2member_map_ else f"SIGRTMIN+{number - SIGRTMIN}"


def code_name(signal: int, code: int) -> str:
    """Name of a si_code."""
    return _COMMON_CODES.get(code) or _CODE_NAMES.get(signal, {}).get(code, str(code))


_HEAD = struct.Struct("<iiiI")
USER_SIGINFO_SIZE = 128
KERNEL_SIGINFO_SIZE = 48


@dataclass(frozen=True, slots=True)
class Siginfo:
    """A kernel_siginfo_t. What `payload` means depends on signal and code; the classmethods make the usual kinds."""

    signo: int
    code: int = SI_USER
    errno: int = 0
    payload: bytes = bytes(32)

    @classmethod
    def kill(cls, signo: int, code: int, pid: int, uid: int) -> Siginfo:
        """Sent by a process."""
        return cls(signo, code, 0, struct.pack("<iI24x", pid, uid))

    @classmethod
    def fault(cls, signo: int, code: int, address: int) -> Siginfo:
        """Brought about by an instruction."""
        return cls(signo, code, 0, struct.pack("<Q24x", address & 0xFFFF_FFFF_FFFF_FFFF))

    @classmethod
    def child(cls, code: int, pid: int, uid: int, status: int) -> Siginfo:
        """SIGCHLD: what became of a child."""
        return cls(Sig.SIGCHLD, code, 0, struct.pack("<iIi20x", pid, uid, status))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Siginfo:
        """From at least 48 bytes of a siginfo_t."""
        signo, errno, code, _ = _HEAD.unpack_from(raw)
        return cls(signo, code, errno, bytes(raw[_HEAD.size : KERNEL_SIGINFO_SIZE]))

    def to_bytes(self, size: int = USER_SIGINFO_SIZE) -> bytes:
        """The siginfo_t of 64-bit user mode, or its first 48 bytes."""
        return (_HEAD.pack(self.signo, self.errno, self.code, 0) + self.payload).ljust(size, b"\0")

    @property
    def address(self) -> int:
        """si_addr."""
        return int.from_bytes(self.payload[:8], "little")
