"""Small checks of linux-2.6; the shipped scenarios execute the rest of its entry code."""

from __future__ import annotations

from collections.abc import Iterator

from emu.arch import Vector
from emu.lab.mutate import rare
from emu.lab.mutate.check import CLEAR_VALUES, EXIT, GETPID, SCRATCH, SET, Check, inject, same
from emu.lab.mutate.check import scenario as any_scenario
from emu.lab.shipped import find_scenario
from kernel_stubs.abi import THREAD_SIZE, PtRegs
from kernel_stubs.abi26 import LINUX_26

_EVENTS = ("nmi", "mce", "db", "irq", "timer", "resched", "pf")
_WITH_CODE = {Vector.TS: 0x18, Vector.NP: 0x20, Vector.SS: 0x28, Vector.GP: 0x30, Vector.AC: 0}
_USER_FAULTS = (0, 1, 3, 4, 5, 6, 9, 10, 11, 12, 13, 15, 16, 17, 19)
_INTERRUPTS = (0x30, *range(0xEF, 0x100))
_IN_C = "sys_getpid"
_LOST = ("r8", "r9", "r10", "r11")
"""Registers that INT 0x80 of 64-bit code does not give back: they are 0 before, as they are after."""
_ZERO = "".join(f"    xorl %{name}d, %{name}d\n" for name in _LOST)
_INT80 = (
    f"_start:\n{SET}{_ZERO}"
    + f"    movabsq ${CLEAR_VALUES + 0x101:#x}, %rcx\n    movabsq $0x1234567800000014, %rax\n    int $0x80\n"
    + f"    movabsq ${CLEAR_VALUES + 0x101:#x}, %rax\n    cmpq %rax, %rcx\n    jne bad\n{same(*_LOST)}{EXIT}"
)
_CRASHED = '[expect]\nend = "crashed"\n'


_FLAGS = "stack:task+0x10"
"""thread_info.flags of the current task, and TIF_SYSCALL_AUDIT of them."""
_AUDIT = 0x80
_FRAME = THREAD_SIZE - PtRegs.SIZE
_NOT_SAVED = range(PtRegs.offset("r11"), PtRegs.offset("ax"), 8)
"""R11 to R8, which i386 entries leave open."""


_VMALLOC = 0xFFFF_C940_0010_0000
"""Of the vmalloc area: mapped when it is first touched."""
_STALE = 0x5A5A_0000_0000


def _stale(left_open: bool, place: str = "user:go") -> tuple[str, ...]:
    """What entries left on the task stack is nobody's to rely on: it may be anything."""
    return tuple(
        inject(
            event="memory", at=place, address=f"stack:task+{_FRAME + at:#x}",
            value=0 if left_open and at in _NOT_SAVED else _STALE + at,
        )
        for at in range(0, PtRegs.SIZE, 8)
    )  # fmt: skip


def _calling(call: str, after: str) -> str:
    # RCX and R11 are user mode's to lose, but the kernel's words are not to be shown there.
    shown = "".join(
        f"    shrq $32, %{name}\n    cmpq ${_STALE >> 32:#x}, %{name}\n    je bad\n" for name in ("rcx", "r11")
    )
    return f"_start:\n{SET}go:\n{call}here:\n    nop\nthere:\n{shown}{after}{EXIT}"


_GETPID, _EXECVE = "    movl $SYS_getpid, %eax\n    syscall\n", "    movl $SYS_execve, %eax\n    syscall\n"
_SIGALTSTACK, _NONE = "    movl $SYS_sigaltstack, %eax\n    syscall\n", "    movl $9999, %eax\n    syscall\n"
_MMAP, _INT80_MMAP2 = "    movl $SYS_mmap, %eax\n    syscall\n", "    movl $192, %eax\n    int $0x80\n"
_INT80_GETPID, _INT80_NONE = "    movl $20, %eax\n    int $0x80\n", "    movl $9999, %eax\n    int $0x80\n"


def _audited(at: str) -> str:
    return inject(event="memory", at=at, address=_FLAGS, value=_AUDIT, size=4)


def _flag(at: str, flag: str) -> str:
    return inject(event="thread-flag", at=at, flag=flag)


def _ways() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name -> (call, what makes it go this way)."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    irq, nmi = inject(event="irq", vector=0x30, at="user:there"), inject(event="nmi", at="user:there")
    for call, asm, function in (
        ("call", _GETPID, "sys_getpid"),
        ("stub", _SIGALTSTACK, "sys_sigaltstack"),
        ("slow stub", _EXECVE, "sys_execve"),
        ("INT 0x80", _INT80_GETPID, "sys_getpid"),
        ("six arguments", _MMAP, ""),
        ("six arguments of INT 0x80", _INT80_MMAP2, ""),
        ("no such call", _NONE, ""),
        ("no such call of INT 0x80", _INT80_NONE, ""),
    ):
        found[call] = (asm, ())
        found[f"{call}, audited"] = (asm, (_audited("user:go"),))
        if function:
            found[f"{call}, audited at its end"] = (asm, (_audited(function),))
            for flag in ("NOTIFY_RESUME", "NEED_RESCHED"):
                found[f"{call}, {flag}"] = (asm, (_flag(function, flag),))
                found[f"{call}, audited, {flag}"] = (asm, (_audited("user:go"), _flag(function, flag)))
            more = (_flag(function, "NOTIFY_RESUME"), _flag("do_notify_resume+0x1", "NEED_RESCHED"))
            found[f"{call}, NOTIFY_RESUME, then NEED_RESCHED"] = (asm, more)
            found[f"{call}, audited, NOTIFY_RESUME, then NEED_RESCHED"] = (asm, (_audited("user:go"), *more))
    for name, event, function in (("interrupt", irq, "do_IRQ"), ("NMI", nmi, "do_nmi")):
        found[name] = (_GETPID, (event,))
        for flag in ("NOTIFY_RESUME", "NEED_RESCHED"):
            found[f"{name}, {flag}"] = (_GETPID, (event, _flag(function, flag)))
        more = (_flag(function, "NOTIFY_RESUME"), _flag("do_notify_resume+0x1", "NEED_RESCHED"))
        found[f"{name}, NOTIFY_RESUME, then NEED_RESCHED"] = (_GETPID, (event, *more))
        more = (_flag(function, "NEED_RESCHED"), _flag("schedule+0x1", "NOTIFY_RESUME"))
        found[f"{name}, NEED_RESCHED, then NOTIFY_RESUME"] = (_GETPID, (event, *more))
    return found


def _stale_words() -> Iterator[Check]:
    """Each way through the kernel finds other words on the stack than it has left there."""
    for name, (call, tables) in _ways().items():
        i386 = "INT 0x80" in name
        asm = _calling((_ZERO if i386 else "") + call, same(*(_LOST if i386 else ())))
        # For a tracer they are cleared.
        left_open = i386 and (", audited" not in name or "at its end" in name)
        yield Check(f"{name}, stale words", _scenario(name, asm, *_stale(left_open), *tables), sharp=True)


def _scenario(title: str, asm: str, *tables: str, options: str = "") -> str:
    return any_scenario(title, asm, *tables, options=options, kernel=LINUX_26)


def _code(vector: int) -> dict[str, int]:
    return {"error_code": _WITH_CODE[Vector(vector)]} if vector in _WITH_CODE else {}


def checks() -> tuple[Check, ...]:
    """For the image, of which there is one build."""
    plain = _scenario("getpid", GETPID)
    found = [Check("getpid", plain), *(Check(f"getpid x {event}", plain, (event,)) for event in _EVENTS)]
    found.append(Check("int80", _scenario("int80", _INT80)))
    found.append(Check("selector that is gone", _scenario("selector that is gone", rare.SELECTOR_GONE)))
    handled = GETPID.replace("_start:\n", f"_start:\n{rare.HANDLERS}") + rare.HANDLER
    for vector in _USER_FAULTS:
        table = inject(event="exception", vector=vector, at="user:here", **_code(vector))
        found.append(Check(f"vector {vector}", _scenario(f"vector {vector}", GETPID, table)))
        found.append(Check(f"vector {vector}, handled", _scenario("handled", handled, table)))
    for vector in (1, 3, 8, 12, 13, 18):
        code = {"error_code": 0x30} if vector in (8, 12, 13) else {}
        table = inject(event="exception", vector=vector, at=_IN_C, **code)
        end = "" if vector in (1, 18) else _CRASHED
        found.append(Check(f"kernel vector {vector}", _scenario(f"kernel {vector}", GETPID, table, end)))
    for vector in (1, 3, 8, 12, 18):
        for at in ("system_call", "iret_label", "sysret_unsafe_stack")[: 1 if vector in (3, 12) else 3]:
            table = inject(event="exception", vector=vector, at=at)
            name = f"vector {vector} at {at}"
            irq = inject(event="irq", vector=0x30, at="user:here")  # for there to be an IRETQ
            found.append(Check(name, _scenario(name, GETPID, irq, table, _CRASHED if vector in (3, 8, 12) else "")))
    for vector in _INTERRUPTS:
        tables = [inject(event="irq", vector=vector, at=place) for place in ("user:here", _IN_C)]
        found.append(Check(f"interrupt {vector:#x}", _scenario("interrupt", GETPID, *tables)))
        tables = [
            inject(event="memory", at="user:here", address="percpu:softirq_pending", value=0x10),
            inject(event="irq", at="user:here", vector=0x30),
            inject(event="irq", at="__do_softirq+0x4", vector=vector),
        ]
        found.append(Check(f"interrupt {vector:#x} in a softirq", _scenario("softirq", GETPID, *tables)))
    for event in ("nmi", "timer", "machine-check"):
        table = inject(event=event, at="user:place")
        found.append(Check(f"scratch, {event}", _scenario("scratch registers", SCRATCH, table)))
    early = [inject(event="timer", at="user:here"), inject(event="nmi", at="apic_timer_interrupt")]
    found.append(Check("NMI before CLD", _scenario("NMI before CLD", GETPID, *early)))
    early[1] = inject(event="exception", vector=8, at="apic_timer_interrupt")
    found.append(Check("#DF before CLD", _scenario("#DF before CLD", GETPID, *early, _CRASHED)))
    # A handler of an exception may return with interrupts on (image.S).
    fault = inject(event="page-not-present", address="user:here", at="user:here")
    open_again = inject(event="register", at="do_page_fault+0x1", hit=2, register="rflags", value=0x202)
    found.append(Check("#PF returns with IF set", _scenario("IF set", GETPID, fault, open_again)))
    # C may leave anything in EDI, which says afterwards what counts as work.
    irq = inject(event="irq", vector=0x30, at="user:here")
    left = inject(event="register", at="exit_intr", register="rdi", value=0)
    found.append(Check("interrupt, EDI 0", _scenario("EDI 0", GETPID, irq, left, _flag("do_IRQ", "NEED_RESCHED"))))
    found.append(_idle())
    # Softirqs of a task's stack.
    table, end = inject(event="memory", at="ksoftirqd", address="percpu:softirq_pending", value=0x10), "[expect]\n"
    thread = find_scenario("classic-ksoftirqd").text.partition(end)[0]
    found.append(Check("softirqs in ksoftirqd", thread + table))
    return (*found, *_sysenter(), *_execve(), *_stale_words(), *rare.watchpoints("classic-traced-watchpoint"))


def _idle() -> Check:
    """The idle task may be preempted wherever interrupts are on; here it is leaving the CPU, and they are off."""
    sleep = "    movl $SYS_nanosleep, %eax\n    leaq time(%rip), %rdi\n    xorl %esi, %esi\n    syscall\n"
    asm = f"_start:\n{sleep}{EXIT}    .balign 8\ntime:\n    .quad 0, 1000\n"
    at = {"at": "switch_to", "hit": 2}
    fault = inject(event="exception", vector=Vector.PF.value, error_code=0, address=_VMALLOC, **at)
    again = _flag("do_page_fault+0x1", "NEED_RESCHED").replace("flag =", "hit = 2\nflag =")
    return Check("#PF of the idle task", _scenario("#PF of the idle task", asm, fault, again))


def _sysenter() -> Iterator[Check]:
    text, end = find_scenario("classic-ia32-sysenter").text, "[expect]\n"
    # An interrupt that leaves work may come before the last look for work, or in user mode, never in between.
    tables = inject(event="irq", vector=0x30, at="sysexit_from_sys_call") + _flag("do_IRQ", "NEED_RESCHED")
    yield Check("work behind the last look of SYSENTER", text.replace(end, tables + end), shipped=True)
    # Pending since before STI, so it comes where its shadow ends: in user mode.
    table = inject(event="irq", vector=0x30, at="sysexit_from_sys_call:sti")
    yield Check("interrupt in SYSEXIT's shadow", text.replace(end, table + end), shipped=True)
    # SYSENTER clears no DF.
    downwards = text.replace("    sysenter\n", "    std\n    sysenter\n    cld\n")
    assert downwards.count("    std\n") == 1
    yield Check("SYSENTER with DF", downwards, shipped=True)
    first = "compatible:                     # the same bytes mean the same in both modes\n    movl    $20, %eax\n"
    for name in ("classic-ia32-sysenter", "classic-ia32-syscall-amd"):
        text = find_scenario(name).text.partition(end)[0]
        assert text.count(first) == 1
        for number in (20, 192, 9999):  # getpid, mmap2 with six arguments, none
            program = text.replace(first, first.replace("$20", f"${number}"))
            for audited in (False, True):
                tables = "".join((*_stale(not audited, "user:compatible"), *([_audited("user:compatible")] * audited)))
                by_iret = audited or (number == 9999 and name.endswith("sysenter"))
                hole = "" if by_iret else f'{end}violation = "frames"\n'
                title = f"{name}, call {number}{', audited' * audited}, stale words"
                yield Check(title, program + tables + hole, shipped=bool(hole), sharp=True)


def _execve() -> Iterator[Check]:
    """A program that becomes itself, once, with other registers than it finds."""
    for name, number, call, arguments in (
        ("execve", "$SYS_execve", "syscall", ("rdi", "rsi", "rdx")),
        ("execve of INT 0x80", "$11", "int $0x80", ("rbx", "rcx", "rdx")),
    ):
        path, argv, envp = arguments
        # The pointers have 32 bits either way.
        load = f"leaq path(%rip), %{path}\n    leaq argv(%rip), %{argv}\n    leaq argv+16(%rip), %{envp}\n"
        asm = (
            f"_start:\n    cmpq $2, (%rsp)\n    je again\n{SET}{_ZERO}    {load}    movl {number}, %eax\n    {call}\n"
            f'    jmp bad\nagain:\n{EXIT}    .data\npath: .asciz "/user"\n    .balign 8\nargv:\n'
        )
        asm += "    .long path, path, 0, 0, 0, 0\n" if "0x80" in call else "    .quad path, path, 0\n"
        yield Check(name, _scenario(name, asm))
