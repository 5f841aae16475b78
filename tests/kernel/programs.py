"""C programs of tests/programs: compiled by gcc, run by the host's kernel and by ours, undisturbed and disturbed."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emu.events import Delivered, Event, Returned
from emu.lab.invariants import Judge
from emu.lab.view import View
from emu.machine.core import Core
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.elf import load_elf
from kernel_stubs.kernel_image import build_image
from kernel_stubs.netdev import NET_VECTOR
from kernel_stubs.siginfo import signal_name

BUDGET = 5_000_000_000
"""Idle time is cheap."""
BOOTED = 10_000
"""Instructions after which there is an IDT."""

IDLE_STEP = 10_000

DEVICE_STEP = 5_000
"""Instructions between two looks of a device that is the only one to disturb."""

Outcome = tuple[str, list[str]]
"""How it ended, and the lines of its standard output."""


@functools.cache
def _as_a_shell_starts_it() -> None:
    """In a process group of its own, for in an orphaned one SIGTSTP stops nobody. Programs in the background, or under
    nohup, inherit signals that are ignored."""
    os.setpgid(0, 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def native(path: Path, *arguments: str) -> Outcome:
    """What the host's kernel makes of it. Programs that wait for others wait longer: the host may be busy."""
    patient = os.environ | {"PATIENT": "1"}
    host = subprocess.run(
        [path, *arguments], capture_output=True, check=False, timeout=60, env=patient, preexec_fn=_as_a_shell_starts_it
    )
    code = host.returncode
    text = f"exited with status {code}" if code >= 0 else f"killed by {signal_name(-code)}"
    return text, host.stdout.decode().splitlines()


@dataclass(frozen=True)
class Condition:
    """What disturbs a program."""

    name: str
    event: Callable[[Core], None] | None = None
    every: int = 0
    """Instructions between the return from one event and the next: handlers are longer than some periods."""
    cpus: int = 1


QUIET = Condition("undisturbed")
TIMER_50 = Condition("timer interrupt every 50", lambda core: core.raise_interrupt(0xEC), 50)
TIMER_50_CLASSIC = Condition("timer interrupt every 50", lambda core: core.raise_interrupt(0xEF), 50)
NMI_97 = Condition("NMI every 97", lambda core: core.raise_nmi(), 97)
TWO_CPUS = Condition("2 CPUs", cpus=2)


Device = Callable[[System], None]
"""Asked now and then whether it interrupts the first CPU now."""


def packets(count: int) -> Device:
    """The network card: packets, one after the other, once the program has written something."""
    due = [0] * count

    def look(system: System) -> None:
        core = system.machine.cores[0]
        if due and system.kernel.output and core.clock >= due[0]:
            core.raise_interrupt(NET_VECTOR)
            due.pop(0)
            due[:] = [core.clock + DEVICE_STEP] * len(due)

    return look


class _Returns:
    """Observer: the clock of CPU 0's last return from an interrupt or a system call since an event was delivered."""

    def __init__(self) -> None:
        self.clock = 0
        self.delivered = False

    def __call__(self, event: Event) -> None:
        if type(event) is Returned and event.cpu == 0 and self.delivered:
            self.clock = event.clock
        elif type(event) is Delivered and event.cpu == 0 and event.injected:
            self.delivered = True


def outcome(
    path: Path, *arguments: str, kernel: str = "linux-6", condition: Condition = QUIET, judged: bool = True,
    device: Device | None = None, **options: object,
) -> Outcome:  # fmt: skip
    """What our kernel makes of it; AssertionError if an invariant is violated."""
    program = load_elf(path.read_bytes(), path.name, ia32=True)
    argv = (bytes(path), *(text.encode() for text in arguments))
    profile = options.pop("profile", Profile())
    assert isinstance(profile, Profile)
    settings = {"ram_bytes": 64 << 20, "cpus": condition.cpus} | options
    system = boot(BootOptions(build_image(kernel, profile), profile, program, argv=argv, **settings))
    machine = system.machine
    judge = Judge(View(system, None, program.symbols), "", frozenset())
    if judged:
        machine.observers.append(judge)
    returns = _Returns()
    machine.observers.append(returns)
    core, event = machine.cores[0], condition.event
    if event is None and device:
        _, end = machine.advance(BOOTED)
        while end.kind is EndKind.LIMIT and core.clock < BUDGET:
            device(system)
            _, end = machine.advance(core.clock + DEVICE_STEP)
    elif event is None:
        _, end = machine.advance(BUDGET)
    else:
        _, end = machine.advance(BOOTED)
        while end.kind is EndKind.LIMIT and core.clock < BUDGET:
            raised, returns.delivered = core.clock, False
            if device:
                device(system)
            event(core)
            while end.kind is EndKind.LIMIT and returns.clock <= raised and core.clock < BUDGET:
                _, end = machine.advance(core.clock + condition.every)
            due = returns.clock + condition.every
            if end.kind is EndKind.LIMIT and core.clock < due:
                _, end = machine.advance(due)
            while end.kind is EndKind.LIMIT and core.halted:  # nothing to disturb: idle time is no progress
                _, end = machine.advance(core.clock + IDLE_STEP)
    if judged:
        found = judge.finish(end)
        assert not found, "\n".join(found[0].lines())
    output = b"".join(data for descriptor, data in system.kernel.output if descriptor == 1)
    return end.text, output.decode().splitlines()
