"""What suits a process of ours that runs a machine: the command line, a sweep's worker, the benchmark."""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 64 << 20
"""Bytes of freed memory that stay ours: a sweep has a dozen snapshots of a guest's memory at a time."""
_LARGEST = 32 << 20
"""The most that glibc takes for M_MMAP_THRESHOLD."""


def tune() -> None:
    """Collect cycles seldom, and keep freed memory.

    Little of what we make is cyclic; collecting as often as Python does by default costs a tenth of a short run. And a
    snapshot is as large as the guest's memory: glibc (mallopt(3)) gives that back to the host when it is freed, so each
    of its pages would be faulted in and cleared again for the next one. Other C libraries keep their ways.
    """
    gc.set_threshold(50_000, 20, 50)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
