"""System calls, injections and traces of a getpid loop; and what a start costs.

The engine's limit is the same stops without any of our work: what Python callbacks, context copies and engine starts
cost by themselves.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from functools import partial

from asm import assemble_text
from emu.lab.invariants import Judge
from emu.lab.observers.trace import TextTrace
from emu.lab.speed.figure import Figure, rate
from emu.lab.view import View
from emu.machine.core import Core
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image

USER_BASE = 0x400000

LOOP = """
_start:
    movl    $39, %eax       # getpid
    syscall
    jmp     _start
"""


def _system() -> tuple[System, Core]:
    """A system at the first SYSCALL of a getpid loop whose pages are all there."""
    image = assemble_text(LOOP, name="bench", base=USER_BASE)
    profile = Profile()
    system = boot(
        BootOptions(build_image("linux-6", profile), profile, program_from_image(image, "bench"), argv=(b"bench",))
    )
    core = system.machine.cores[0]
    core.set_breakpoints({USER_BASE + 5})
    while core.advance(1_000_000).kind is not EndKind.BREAKPOINT:
        raise RuntimeError("the bench program did not reach its system call")
    core.set_breakpoints(set())
    return system, core


def _round_trip(core: Core) -> int:
    """Instructions from one SYSCALL to the next."""
    clock = core.clock
    core.set_breakpoints({USER_BASE + 5})
    while core.advance(clock + 100_000).kind is EndKind.BREAKPOINT and core.clock == clock:
        pass
    core.set_breakpoints(set())
    return core.clock - clock


def syscalls(*, judged: bool) -> Figure:
    """System-call round trips, alone or with every invariant watching."""
    system, core = _system()
    length = _round_trip(core)
    system.machine.observers[:] = [Judge(View(system))] if judged else []

    def work() -> int:
        core.advance(core.clock + 200 * length)
        return 200

    name = "syscall round trips, all invariants" if judged else "syscall round trips"
    return Figure(name, rate(work), "/s", "five engine stops a round trip", _stops() / 5, 0 if judged else 15_000)


def _stops() -> float:
    """Engine starts that end at a code hook, with the context copied out and in: one of our stops without our work."""
    _, core = _system()
    cpu = core.cpu

    def work() -> int:
        for _ in range(1000):
            cpu.mark_dirty()
            cpu.run(3)
        return 1000

    return rate(work)


def injections() -> Figure:
    """An NMI at each kernel boundary of a system call in turn: restore, run there, deliver, return, judged."""
    system, core = _system()
    length = _round_trip(core)
    machine, binding = system.machine, system.binding
    judge = Judge(View(system))
    machine.observers[:] = [judge]
    start, judged = machine.snapshot(), judge.save()
    begin = core.clock

    def returned(depth: int) -> bool:
        return len(judge.chain.stack(0)) <= depth

    def work() -> int:
        for boundary in range(1, length - 2):
            machine.restore(start)
            binding.go_back(())
            judge.load(judged)
            core.advance(begin + boundary)
            depth = len(judge.chain.stack(0))
            core.raise_nmi()
            core.advance(core.clock + 1)
            end = core.advance(core.clock + 10_000, partial(returned, depth))
            if end.kind is not EndKind.UNTIL or judge.violations:
                raise RuntimeError(f"boundary {boundary}: {end}, {judge.violations}")
        return length - 3

    found = rate(work)
    used = machine.memory.used

    def engine_only() -> int:
        saved = core.cpu.save()
        source = ctypes.create_string_buffer(used)
        for _ in range(200):
            ctypes.memmove(source, machine.memory.host_address, used)
            for _ in range(10):
                core.cpu.load(saved)
                core.cpu.run(3)
        return 200

    return Figure(
        "NMI injections", found, "/s", f"copying {used >> 10} KiB + 10 engine stops", rate(engine_only), 4_000
    )


def tracing(*, registers: bool) -> Figure:
    """Traced instructions, as text."""
    system, core = _system()
    lines = 0

    def write(text: str) -> None:
        nonlocal lines
        lines += len(text)

    trace = TextTrace(View(system), write, registers=registers)
    system.machine.observers[:] = [trace]
    trace.start(core)

    def work() -> int:
        clock = core.clock
        core.advance(clock + 20_000)
        return core.clock - clock

    found = rate(work)
    name = "traced instructions, with registers" if registers else "traced instructions"
    return Figure(
        name, found, "/s", "the engine's callbacks alone", _callbacks(registers), 130_000 if registers else 300_000
    )


def _callbacks(registers: bool) -> float:
    """Instructions a second with an empty callback each, which with `registers` copies the context and 16 registers."""
    _, core = _system()
    cpu = core.cpu
    where = ctypes.addressof(cpu.state.regs)
    rows: list[bytes] = []

    def copying(_address: int) -> None:
        cpu.peek()
        rows.append(ctypes.string_at(where, 128))

    cpu.trace(copying if registers else lambda _address: None)

    def work() -> int:
        rows.clear()
        clock = core.clock
        core.advance(clock + 20_000)
        return core.clock - clock

    return rate(work)


def start_to_verdict() -> Figure:
    """One shipped scenario in a fresh process, the best of five; the limit is a process that only imports.

    Both with byte code cached, as it is from the second start on unless somebody forbids it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def best(*arguments: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
            times.append(time.perf_counter() - start)
        return min(times)

    bare = best("-c", "import unicorn, keystone, capstone, pydantic, click; unicorn.Uc(4, 8)")
    ours = best("-m", "emu.cli", "run", "nmi-in-syscall-gap")
    return Figure("start to verdict of one scenario", ours, "s", "importing the libraries", bare, 0.6)
