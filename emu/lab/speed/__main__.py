"""`make bench`: how fast we are, each figure beside what the engine alone does on this machine in the same run.

python -m emu.lab.speed [FILE.json]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emu.lab.speed import calls, programs, sweeps
from emu.lab.speed.figure import Figure
from emu.process import tune


def figures() -> Iterator[Figure]:
    """All of them, one after the other."""
    yield calls.syscalls(judged=False)
    yield calls.syscalls(judged=True)
    yield calls.injections()
    yield calls.tracing(registers=False)
    yield calls.tracing(registers=True)
    yield calls.start_to_verdict()
    yield from programs.sha256()
    yield sweeps.cases()
    yield sweeps.growth()
    yield from sweeps.depth_two()


def main() -> None:
    """Measure, print the table, write the JSON file."""
    tune()
    found = []
    for figure in figures():
        print(figure.line(38), flush=True)
        found.append(figure)
    table = {f.name: round(f.value, 4) for f in found} | {f"{f.name}: {f.limit_name}": f.limit for f in found}
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir()) / "bench.json"
    target.write_text(json.dumps(table, indent=2) + "\n")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
