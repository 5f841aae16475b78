"""The engine's list of code hooks, and how to do without them for a while.

With engine.py, hooks.py and cpu.py this is all that knows unicorn.
"""

from __future__ import annotations

import ctypes
from functools import cache

from unicorn import UC_HOOK_CODE, Uc

from emu.machine.engine import expect, handle, scratch_engine

_CODE_HOOKS_OFFSET = 880
"""Of the list of code hooks in the engine struct: head, tail. An item is: next, hook."""


class CodeHooks:
    """The engine's list of code hooks, which it walks before every instruction: 80 hooks cost ten times as much as one.

    Where none of ours can hit, `only_count` takes all but the first out of the list, which is the engine's own and
    counts instructions. The engine changes the list itself when hooks were added or deleted, at the next start: that
    one must find it whole.
    """

    def __init__(self, uc: Uc) -> None:
        self._head = ctypes.c_uint64.from_address(handle(uc) + _CODE_HOOKS_OFFSET)
        self._next = ctypes.c_uint64()
        self._second = 0
        self._known = False

    def changed(self) -> None:
        """Hooks were added or deleted."""
        self._known = False

    def only_count(self) -> None:
        """Before a start: leave our hooks out, unless the list has changed since the last one."""
        if self._known:
            self._next.value = 0

    def all(self) -> None:
        """After a start: the list is whole again."""
        if self._known:
            self._next.value = self._second
        else:
            self._next = ctypes.c_uint64.from_address(self._head.value)
            self._second = self._next.value
            self._known = True

    def hooks(self) -> list[int]:
        """The handles of the hooks in the list, in order."""
        found, item = [], self._head.value
        while item:
            item, hook = (ctypes.c_uint64.from_address(item + offset).value for offset in (0, 8))
            found.append(hook)
        return found


@cache
def probe() -> None:
    """Check once a process that the list is where we think it is; EngineError with the difference if not."""
    uc, ram = scratch_engine()
    ram[0x8000:0x8003] = b"\x90\x90\x90"
    hook = uc.hook_add(UC_HOOK_CODE, lambda engine, *_: engine.emu_stop(), None, 0x8001, 0x8001)
    code_hooks = CodeHooks(uc)
    uc.emu_start(0x8000, 0xDEADBEEF00000000, 0, 2)
    expect("list of code hooks", code_hooks.hooks()[1:], [hook])
    code_hooks.all()
    code_hooks.only_count()
    uc.emu_start(0x8000, 0xDEADBEEF00000000, 0, 2)
    expect("list without our code hooks", code_hooks.hooks()[1:], [])
    code_hooks.all()
    expect("list of code hooks again", code_hooks.hooks()[1:], [hook])
