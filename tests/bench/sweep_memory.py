"""How the memory of a sweep grows with its cases: `make bench-memory [CASES=1000000]`. A line of JSON for each sweep.

Sizes are what its processes have for themselves, and their parts of what they share (Pss), at the worst moment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from emu.lab.sweep.case import VERDICTS

EVENTS = "nmi,irq,timer,resched,mce,db"
PROGRAM = """
title = "{calls} system calls"
budget = 50_000_000
[user]
asm = '''
_start:
    movl    ${calls}, %ebx
again:
    movl    $SYS_getpid, %eax
    syscall
    decl    %ebx
    jnz     again
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""
CASES_OF_A_CALL = 114 * 6
LIMIT_MIB = 1024
EVERY = 0.5


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [one for child in children.read_text().split() for one in tree(int(child))]
    return found


def pss(pid: int) -> int:
    """MiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ValueError):
        return 0  # it has ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) // 1024


def measure(cases: int, folder: Path, *, db: bool) -> dict[str, object]:
    """A sweep of about this many cases with two workers."""
    scenario = folder / "calls.toml"
    scenario.write_text(PROGRAM.format(calls=max(1, cases // CASES_OF_A_CALL)))
    command = [sys.executable, "-m", "emu.cli", "sweep", str(scenario), "--event", EVENTS, "--jobs", "2", "--json"]
    if db:
        command += ["--db", str(folder / "cases.db")]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    parent = together = 0
    while True:
        try:
            output, _ = process.communicate(timeout=EVERY)
            break
        except subprocess.TimeoutExpired:
            try:
                sizes = [pss(pid) for pid in tree(process.pid)]
            except OSError:
                continue  # a process ended while it was looked at
            parent, together = max(parent, sizes[0]), max(together, sum(sizes))
    (result,) = json.loads(output)["scenarios"]
    return {
        "cases": sum(number for verdict, number in result["counts"].items() if verdict in VERDICTS),
        "boundaries": result["boundaries"], "clean": result["clean"], "db": db,
        "seconds": round(time.monotonic() - start), "parent_mib": parent, "all_mib": together,
    }  # fmt: skip


def main(largest: int) -> int:
    """Three sweeps, each of four times the cases of the one before. Status 1 if the last takes too much."""
    found = {}
    for cases in (largest // 16, largest // 4, largest):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(cases, Path(folder), db=False)
        print(json.dumps(found), flush=True)
    return 0 if int(str(found["all_mib"])) < LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
