"""`python -m calls FIRST LAST` (with tests/ on the path): these seeds in every variant; each that goes wrong is shown.

`python -m calls show SEED` shows the calls of a seed.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from types import FrameType

from calls.draw import rows
from calls.program import Way
from calls.run import VARIANTS, WrongEnd, ready, run
from kernel_stubs.syscalls.names import syscall_name
from kernel_stubs.syscalls.names32 import ia32_syscall_name

PATIENCE = 30
"""Seconds after which a seed is taken to hang."""


class Hang(Exception):
    """A seed has not come to an end."""


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise Hang


def hunt(first: int, last: int) -> int:
    """Run seeds; 1 if one went wrong."""
    signal.signal(signal.SIGALRM, _alarm)
    wrong, began = 0, time.monotonic()
    slowest = (0.0, 0, "")
    for seed in range(first, last):
        for variant in VARIANTS:
            signal.alarm(PATIENCE)
            start = time.monotonic()
            try:
                run(variant, seed)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                wrong += 1
                text = str(error) if isinstance(error, WrongEnd) else traceback.format_exc()
                print(f"seed {seed}, {variant}: {text}", flush=True)
                ready.cache_clear()
            slowest = max(slowest, (time.monotonic() - start, seed, str(variant)))
            signal.alarm(0)
    took = time.monotonic() - began
    print(f"{last - first} seeds in {len(VARIANTS)} variants: {wrong} wrong, {took:.0f} s, slowest {slowest}")
    return bool(wrong)


def show(seed: int) -> int:
    """Print the calls of a seed."""
    symbols = ready(VARIANTS[0]).program.symbols
    names = {address: name for name, address in symbols.items()}
    for index, row in enumerate(rows(seed, symbols), 1):
        way = Way(row[1])
        name = syscall_name if way is Way.SYSCALL else ia32_syscall_name
        what = name(row[0]) if way < Way.READ else ""
        values = [
            names.get(value, hex(value)) + (f"+result {result}" if result else "")
            for value, result in zip(row[2::2], row[3::2], strict=True)
        ]
        print(f"{index:2} {way.name.lower()} {what}({', '.join(values)})")
    return 0


def main(arguments: list[str]) -> int:
    """The command line."""
    match arguments:
        case ["show", seed]:
            return show(int(seed))
        case [first, last]:
            return hunt(int(first), int(last))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
