"""Sweeps: cases a second, with two jobs, with longer programs, at depth 2; and the memory that it takes."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emu.lab.scenario import parse_scenario
from emu.lab.speed.figure import Figure, rate
from emu.lab.sweep.bench import Bench
from emu.lab.sweep.case import VERDICTS
from emu.lab.sweep.command import sweep
from emu.lab.sweep.pool import Job, Workshop
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.store import Store

_PROGRAM = """
title = "{calls} system calls"

[user]
asm = '''
_start:
    .rept {calls}
    movl    $SYS_getpid, %eax
    syscall
    .endr
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
'''
"""
_NMI = Options(("nmi",))
_ROUNDS = 3


def _text(calls: int) -> str:
    return _PROGRAM.format(calls=calls)


def _scene(calls: int) -> tuple[Callable[[], int], Scene]:
    """What sweeps all boundaries of a program once, in this process, and returns the number of cases; its scene."""
    text = _text(calls)
    scene = Scene("bench", text, _NMI)
    boundaries = scene.count()
    workshop = Workshop(Job((("bench", text),), _NMI))

    def work() -> int:
        return sum(1 for _ in workshop.rows(Unit(0, 0, boundaries), lambda key: None))

    return work, scene


def cases() -> Figure:
    """An NMI at every boundary of a system call, each followed until the state is the baseline's again."""
    work, scene = _scene(1)
    found = rate(work)
    bench = scene.start()
    name = f"3 copies of {bench.machine.memory.used >> 10} KiB + 4 engine stops"
    return Figure("sweep, one job: NMI cases of a call", found, "/s", name, rate(_engine_alone(bench)), 5_000)


def _engine_alone(bench: Bench) -> Callable[[], int]:
    """What a case cannot do without: to keep, bring back and compare memory, and to stop the engine four times."""
    cpu, used, at = bench.core.cpu, bench.machine.memory.used, bench.machine.memory.host_address

    def work() -> int:
        saved = cpu.save()
        for _ in range(200):
            ram = ctypes.string_at(at, used)
            for _ in range(2):
                ctypes.memmove(at, ram, used)
            for _ in range(4):
                cpu.load(saved)
                cpu.run(1)
        return 200

    return work


def growth() -> Figure:
    """What a boundary of a program of eight system calls costs, in units of one of a program of one."""
    costs = {}
    for calls in (1, 2, 4, 8):
        work, _ = _scene(calls)
        costs[calls] = 1 / rate(work)
    shown = ", ".join(f"{calls}: {1e6 * cost:.0f}" for calls, cost in costs.items())
    name = f"us a boundary by calls {shown}; linear"
    return Figure("sweep, cost of a boundary, 8 calls : 1", costs[8] / costs[1], "times", name, 1.0, 1.25)


def depth_two() -> Iterator[Figure]:
    """NMI x NMI over a whole system call, with one job and with two, in turns; the best of each counts."""
    file = parse_scenario(_text(1), "bench")
    options = Options(("nmi",), depth=2)
    seconds = {1: math.inf, 2: math.inf}
    cases, workers = 0, 0.0

    def look(ready: int, total: int, *_: int) -> None:
        nonlocal workers
        if ready < total - 8 or ready == total:
            return  # it only grows, and workers that are done are gone
        workers = max(workers, sum(_peak(process.pid) for process in multiprocessing.active_children()))

    for jobs in (1, 2) * _ROUNDS:
        start = time.perf_counter()
        (result,) = sweep([file], options, jobs, Store(None), look)
        seconds[jobs] = min(seconds[jobs], time.perf_counter() - start)
        cases = sum(result.counts.get(verdict, 0) for verdict in VERDICTS)
        if not result.clean:
            raise RuntimeError(f"the sweep found something: {result.counts}")
    one, two = seconds.values()
    at_best = cases / rate(_engine_alone(Scene("bench", _text(1), _NMI).start()))
    yield Figure(f"depth 2: {cases:,} cases NMI x NMI, one job", one, "s", "copies and stops alone", at_best, 120)
    limit = _two_processes()
    yield Figure("depth 2: speed-up by a second job", one / two, "x", "two processes that only count", limit, 1.7)
    peak = _peak(os.getpid()) + workers
    yield Figure("depth 2: peak memory, with two workers", peak, "MiB", "one that only imports", _importing(), 1024)


def _peak(pid: int | None) -> float:
    """MiB of memory that a process has had at once (proc(5): VmHWM); 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def _importing() -> float:
    """MiB of a process that has imported the libraries."""
    code = "import unicorn, keystone, capstone, pydantic, click, resource as r; print(r.getrusage(0).ru_maxrss)"
    return int(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout) / 1024


def _spin(seconds: float) -> int:
    end, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        sum(range(1000))
        done += 1
    return done


def _two_processes() -> float:
    """How much more two processes do than one, whatever they do: at best, as above."""
    alone = both = 0
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_spin, [0.1, 0.1])
        for _ in range(_ROUNDS):
            alone = max(alone, pool.apply(_spin, (1.0,)))
            both = max(both, sum(pool.map(_spin, [1.0, 1.0], chunksize=1)))
    return both / alone
