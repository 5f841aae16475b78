"""The engine's list of code hooks, and how to do without them for a while.

With engine.py, hooks.py and cpu.py this is all that knows unicorn.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache

from unicorn import UC_HOOK_CODE, Uc

from emu.machine.engine import expect, handle, scratch_engine

_CODE_HOOKS_OFFSET = 880
"""Of the list of code hooks in the engine struct: head, tail. An item is: next, hook."""
_RANGE_OFFSET = 24
"""Of the first and the last address in a hook; one of every address has the first behind the last."""
NOWHERE = (1 << 64) - 1
"""An address that no instruction has."""


class Lookout:
    """A hook of every instruction, for the runs that are asked to have it: it costs the others a look at its range."""

    def __init__(self, hook: int, hooks: CodeHooks) -> None:
        """`hook` was made for the address NOWHERE; `hooks` is a list that has it, and is whole."""
        self._range = (ctypes.c_uint64 * 2).from_address(hook + _RANGE_OFFSET)
        expect("range of a code hook", tuple(self._range), (NOWHERE, NOWHERE))
        self._next = ctypes.c_uint64.from_address(hooks.item(hook))
        self._behind = 0

    def alone(self) -> int:
        """Let it see every instruction, with no other behind it; its item in the list."""
        self._range[0], self._range[1] = 1, 0
        self._behind, self._next.value = self._next.value, 0
        return ctypes.addressof(self._next)

    def away(self) -> None:
        """As it was."""
        self._range[0], self._range[1] = NOWHERE, NOWHERE
        self._next.value = self._behind


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
        self.known = False
        """Whether the list can be changed: not before the first start after hooks were added or deleted."""

    def changed(self) -> None:
        """Hooks were added or deleted."""
        self.known = False

    def only_count(self, lookout: int = 0) -> None:
        """Before a start: leave our hooks out, but for the item of a Lookout; nothing happens if the list is not
        `known`."""
        if self.known:
            self._next.value = lookout

    def all(self) -> None:
        """After a start: the list is whole again."""
        if self.known:
            self._next.value = self._second
        else:
            self._next = ctypes.c_uint64.from_address(self._head.value)
            self._second = self._next.value
            self.known = True

    def _items(self) -> Iterator[tuple[int, int]]:
        item = self._head.value
        while item:
            yield item, ctypes.c_uint64.from_address(item + 8).value
            item = ctypes.c_uint64.from_address(item).value

    def hooks(self) -> list[int]:
        """The handles of the hooks in the list, in order."""
        return [hook for _, hook in self._items()]

    def item(self, hook: int) -> int:
        """The list's item of a hook."""
        return next(item for item, other in self._items() if other == hook)


@cache
def probe() -> None:
    """Check once a process that the list is where we think it is; EngineError with the difference if not."""
    uc, ram = scratch_engine()
    ram[0x8000:0x8003] = b"\x90\x90\x90"
    seen: list[int] = []
    watch = uc.hook_add(UC_HOOK_CODE, lambda engine, address, *_: seen.append(address), None, NOWHERE, NOWHERE)
    hook = uc.hook_add(UC_HOOK_CODE, lambda engine, *_: engine.emu_stop(), None, 0x8001, 0x8001)
    code_hooks = CodeHooks(uc)
    uc.emu_start(0x8000, 0xDEADBEEF00000000, 0, 2)
    expect("list of code hooks", code_hooks.hooks()[1:], [watch, hook])
    code_hooks.all()
    code_hooks.only_count()
    uc.emu_start(0x8000, 0xDEADBEEF00000000, 0, 2)
    expect("list without our code hooks", code_hooks.hooks()[1:], [])
    code_hooks.all()
    lookout = Lookout(watch, code_hooks)
    code_hooks.only_count(lookout.alone())
    uc.emu_start(0x8000, 0xDEADBEEF00000000, 0, 2)
    code_hooks.all()
    lookout.away()
    expect("instructions that a lookout saw", seen[:2], [0x8000, 0x8001])
    expect("list of code hooks again", code_hooks.hooks()[1:], [watch, hook])
