"""The end of a process (kernel/exit.c)."""

from __future__ import annotations

from kernel_stubs.context import Cpu


def do_group_exit(cpu: Cpu, code: int) -> None:
    """The current process ends; `code` as wait(2) reports it: status << 8, or the signal that killed it."""
    from kernel_stubs.signal import signal_name  # signal.py needs this module

    task = cpu.current
    task.exit_code = code
    task.exit_state = 1
    signal = code & 0x7F
    cpu.core.finish(f"killed by {signal_name(signal)}" if signal else f"exited with status {code >> 8}")
