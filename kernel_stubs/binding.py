"""Binding Python functions to C symbols.

    @c_function
    def exc_page_fault(cpu: Cpu, regs: PtRegs, error_code: int) -> None: ...

The name is the C symbol. Parameters after `cpu` are System V integer arguments (RDI RSI RDX RCX R8 R9): `int` is the
unsigned 64-bit register, a Struct class a pointer to one. The result goes to RAX. Like compiled C, a function leaves
nothing in the caller-saved registers that anybody may rely on: they are poisoned.

A plain function is atomic. A generator function can be interrupted:

    yield Window()                 the guest runs STI, two NOPs, CLI in the stub slot: events land there
    yield Call("symbol", a, b)     calls guest code with arguments; the expression's value is its RAX
    yield Unwind(stack)            says that no C function further up this stack is returned to

Around a call the function is like compiled C, too: its caller's values of the registers that a callee must keep lie in
its stack frame, its own are in the registers, and observers are told which of them the callee lost.

The guest returns from the function by executing the slot's own RET.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from emu.machine.registers import R8, R9, RCX, RDI, RDX, RSI
from kernel_stubs.context import Cpu
from kernel_stubs.layout import Struct, evaluated

ARGUMENT_REGISTERS = (RDI, RSI, RDX, RCX, R8, R9)


@dataclass(frozen=True, slots=True)
class Window:
    """Let interrupts in: the guest enables them, runs two instructions, disables them."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call guest code at a symbol, with integer arguments."""

    symbol: str
    args: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave(Call):
    """Jump to guest code for good: this stack and every C function in flight on it are done."""

    stack: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Unwind:
    """The guest will not come back to the C functions in flight on this stack, but for the one that says so."""

    stack: tuple[int, int]


Steps = Generator[Window | Call | Unwind, int, int | None]
"""What a C function that can be interrupted returns."""


@dataclass(frozen=True, slots=True)
class CFunction:
    """A Python function with a C symbol and signature."""

    name: str
    function: Callable[..., Any]  # any mix of int and Struct parameters: checked at registration
    parameters: tuple[type, ...]
    interruptible: bool


DEFAULT_KERNEL = "linux-6"
_registry: dict[str, CFunction] = {}
_registries: dict[str, dict[str, CFunction]] = {DEFAULT_KERNEL: _registry}
F = TypeVar("F", bound=Callable[..., Any])  # as above


@overload
def c_function(function: F) -> F: ...
@overload
def c_function(*, kernel: str) -> Callable[[F], F]: ...
def c_function(function: F | None = None, *, kernel: str = DEFAULT_KERNEL) -> F | Callable[[F], F]:
    """Register a C function under its own name, of one kernel image."""
    if function is None:
        return lambda function: _register(function, kernel)
    return _register(function, kernel)


def _register(function: F, kernel: str) -> F:
    name = function.__name__
    hints = evaluated(function.__annotations__, inspect.unwrap(function).__globals__)
    hints.pop("return", None)
    parameters = list(hints.items())
    if not parameters or parameters[0][1] is not Cpu:
        raise TypeError(f"{name}: the first parameter must be cpu: Cpu")
    kinds = tuple(kind for _, kind in parameters[1:])
    for kind in kinds:
        if kind is not int and not (isinstance(kind, type) and issubclass(kind, Struct)):
            raise TypeError(f"{name}: {kind} is neither int nor a Struct")
    register(CFunction(name, function, kinds, inspect.isgeneratorfunction(function)), kernel)
    return function


def register(function: CFunction, kernel: str = DEFAULT_KERNEL) -> None:
    """Register a C function whose parameters are known to be int or Structs."""
    table, name = _registries.setdefault(kernel, {}), function.name
    if name in table and table[name].function is not function.function:
        raise ValueError(f"C function {name} is defined twice")
    if len(function.parameters) > len(ARGUMENT_REGISTERS):
        raise TypeError(f"{name}: more than {len(ARGUMENT_REGISTERS)} arguments")
    table[name] = function


def registered(kernel: str = DEFAULT_KERNEL) -> dict[str, CFunction]:
    """All C functions of a kernel image, by name, in order of name."""
    return dict(sorted(_registries.get(kernel, {}).items()))
