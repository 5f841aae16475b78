"""Traces: one line an instruction, and lines that stand out for what crosses between user mode and the kernel.

Text:   count  CPU  CPL GS stack  address (file:line)  instruction
JSONL:  one object a line, with the key `event`.

What does not depend on the moment is formatted once an address; the rest of a line is its number.
"""

from __future__ import annotations

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from emu.events import (
    CCalled,
    CReturned,
    Delivered,
    DoubleFault,
    Event,
    Executed,
    Frame,
    GsSwapped,
    MsrWritten,
    Note,
    Pended,
    Returned,
    Shutdown,
    SystemCall,
)
from emu.lab.chain import call_words, vector_name
from emu.lab.view import View
from emu.machine.core import Core
from emu.machine.machine import Machine
from emu.machine.recorder import Recorder
from kernel_stubs.syscalls.names import syscall_name
from kernel_stubs.syscalls.names32 import ia32_syscall_name

Label = tuple[int, int, str, str]
"""CPU, CPL, GS owner, stack."""

_ROW = struct.Struct("<16Q")
_SHOWN_STACKS = {"entry": "trampoline"}


class _Lines(dict[int, str]):
    """Address -> the part of its lines that is the same each time, for one label."""

    def __init__(self, make: Callable[[int], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, address: int) -> str:
        line = self[address] = self._make(address)
        return line


class Trace(ABC):
    """What both formats share: the label of each stretch of instructions. `write` gets whole lines."""

    def __init__(self, view: View, write: Callable[[str], object], registers: bool = False) -> None:
        self.view = view
        self.registers = registers
        self._write = write
        self._lines: dict[Label, _Lines] = {}
        self.handlers: Mapping[type[Event], Callable[[Any], str]] = {
            Delivered: self.delivered,
            SystemCall: self.system_call,
            Returned: self.returned,
            GsSwapped: self.gs_swapped,
            MsrWritten: self.msr_written,
            CCalled: self.c_called,
            CReturned: self.c_returned,
            Pended: self.pended,
            Note: self.note,
            DoubleFault: self.double_fault,
            Shutdown: self.shutdown,
        }

    def attach(self, machine: Machine) -> None:
        """Observe a machine and have all its CPUs record."""
        machine.observers.append(self)
        for core in machine.cores:
            self.start(core)

    def finish(self) -> None:  # noqa: B027  a trace has no last word
        """Nothing is left to be written."""

    def start(self, core: Core) -> None:
        """Have one CPU record its instructions."""
        core.record(Recorder(core.index, core.cpu, core.emit, moves=self.view.moves, registers=self.registers))

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if type(event) is Executed:
            self._executed(event)
            return
        handler = self.handlers.get(type(event))
        if handler is not None:
            self._write(handler(event))

    def _executed(self, event: Executed) -> None:
        addresses, cpu = event.addresses, event.cpu
        samples = event.samples or ((0, 0, 0),)
        for number, (first, sp, gs_base) in enumerate(samples):
            last = samples[number + 1][0] if number + 1 < len(samples) else len(addresses)
            part = addresses[first:last]
            if not part:
                continue
            label = self._label(cpu, sp, gs_base, part[0])
            lines = self._lines.get(label)
            if lines is None:
                lines = self._lines[label] = _Lines(self.line_maker(label))
            if event.registers:
                rows = event.registers[first:last]
                self._write(self.with_registers(event.clock + first, part, rows, lines))
            else:
                self._write(self.plain(event.clock + first, part, lines))

    def _label(self, cpu: int, sp: int, gs_base: int, address: int) -> Label:
        view = self.view
        stack = view.stack_name(cpu, sp).partition(" ")[0]
        return cpu, view.cpl_of(address), view.gs_owner(cpu, gs_base), _SHOWN_STACKS.get(stack, stack)

    @abstractmethod
    def line_maker(self, label: Label) -> Callable[[int], str]:
        """Function from an address to the constant part of its line."""

    @abstractmethod
    def plain(self, clock: int, addresses: tuple[int, ...], lines: dict[int, str]) -> str:
        """Lines of consecutive instructions."""

    @abstractmethod
    def with_registers(
        self, clock: int, addresses: tuple[int, ...], rows: tuple[bytes, ...], lines: dict[int, str]
    ) -> str:
        """Lines of consecutive instructions with the registers before each."""

    @abstractmethod
    def mark(self, event: Event, kind: str, text: str, /, **fields: object) -> str:
        """A line that stands out: `text` for people, `fields` for programs."""

    # --- crossings --------------------------------------------------------------------------------------------------
    def delivered(self, event: Delivered) -> str:
        """Through the IDT."""
        name = vector_name(event.vector, event.type)
        code = "" if event.error_code is None else f" error {event.error_code:#x}"
        code += f" CR2 {event.cr2:#x}" if name == "#PF" else ""
        ist = f" IST{event.ist}" if event.ist else ""
        text = (
            f"{name}{code}{' (injected)' if event.injected else ''} -> {self.view.symbol(event.handler)}{ist}, "
            f"frame at {event.frame_at:#x}: {self._frame(event.frame)}"
        )
        return self.mark(
            event, "delivered", text, vector=event.vector, type=event.type.value, error_code=event.error_code,
            handler=self.view.symbol(event.handler), ist=event.ist, frame_at=_hex(event.frame_at),
            frame=_frame_fields(event.frame), cr2=_hex(event.cr2), gs_base=_hex(event.gs_base),
            kernel_gs_base=_hex(event.kernel_gs_base), injected=event.injected,
        )  # fmt: skip

    def system_call(self, event: SystemCall) -> str:
        """SYSCALL and SYSENTER."""
        ia32 = event.compat or event.by == "sysenter"
        name = ia32_syscall_name(event.number & 0xFFFF_FFFF) if ia32 else syscall_name(event.number)
        kept = f"RCX {event.return_ip:#x} R11 {event.flags:#x} " if event.by == "syscall" else ""
        text = f"{call_words(event)} -> {self.view.symbol(event.target)}, {kept}RSP {event.sp:#x}"
        return self.mark(
            event, event.by, text, number=event.number, name=name, compat=event.compat, return_ip=_hex(event.return_ip),
            flags=_hex(event.flags), sp=_hex(event.sp), target=self.view.symbol(event.target),
        )  # fmt: skip

    def returned(self, event: Returned) -> str:
        """IRETQ and SYSRETQ."""
        to = "user mode" if event.frame.cs & 3 else "the kernel"
        where = f", frame at {event.frame_at:#x}" if event.frame_at else ""
        return self.mark(
            event, "returned", f"{event.by.upper()} -> {to}{where}: {self._frame(event.frame)}", by=event.by,
            frame_at=_hex(event.frame_at), frame=_frame_fields(event.frame), gs_base=_hex(event.gs_base),
            kernel_gs_base=_hex(event.kernel_gs_base), cr3=_hex(event.cr3),
        )  # fmt: skip

    def gs_swapped(self, event: GsSwapped) -> str:
        """SWAPGS."""
        before, after = (self.view.gs_owner(event.cpu, base) for base in (event.gs_base, event.kernel_gs_base))
        text = f"SWAPGS: GS was the {before}'s, is the {after}'s"
        gs_base, kernel_gs_base = _hex(event.gs_base), _hex(event.kernel_gs_base)
        return self.mark(event, "swapgs", text, gs_base=gs_base, kernel_gs_base=kernel_gs_base)

    def msr_written(self, event: MsrWritten) -> str:
        """WRMSR."""
        text = f"MSR {event.number:#x}: {event.before:#x} -> {event.value:#x}"
        return self.mark(
            event, "wrmsr", text, number=_hex(event.number), before=_hex(event.before), value=_hex(event.value)
        )

    def c_called(self, event: CCalled) -> str:
        """A C function begins."""
        arguments = ", ".join(f"{value:#x}" for value in event.args)
        args = [_hex(value) for value in event.args]
        return self.mark(event, "call", f"call {event.name}({arguments})", name=event.name, args=args)

    def c_returned(self, event: CReturned) -> str:
        """A C function ends."""
        result = "" if event.value is None else f" = {event.value:#x}"
        return self.mark(event, "return", f"return from {event.name}{result}", name=event.name, value=event.value)

    # --- the rest ---------------------------------------------------------------------------------------------------
    def pended(self, event: Pended) -> str:
        """An event has to wait."""
        text = f"{vector_name(event.vector, event.type)} is held pending: {event.why}"
        return self.mark(event, "pended", text, vector=event.vector, type=event.type.value, why=event.why)

    def note(self, event: Note) -> str:
        """What the C side wants to tell."""
        return self.mark(event, "note", event.text, text=event.text)

    def double_fault(self, event: DoubleFault) -> str:
        """#DF follows."""
        text = f"double fault: vector {event.second} while vector {event.first} was being delivered"
        return self.mark(event, "double-fault", text, first=event.first, second=event.second)

    def shutdown(self, event: Shutdown) -> str:
        """Triple fault."""
        text = f"triple fault, shutdown: vector {event.vector}, {event.why}"
        return self.mark(event, "shutdown", text, vector=event.vector, why=event.why)

    def _frame(self, frame: Frame) -> str:
        place = self.view.symbol(frame.ip)
        return f"RIP {place} CS {frame.cs:#x} RFLAGS {frame.flags:#x} RSP {frame.sp:#x} SS {frame.ss:#x}"


def _hex(value: int) -> str:
    return f"{value:#x}"


def _frame_fields(frame: Frame) -> dict[str, str]:
    return {name: _hex(getattr(frame, name)) for name in ("ip", "cs", "flags", "sp", "ss")}


_TEXT_REGISTERS = (
    "           rax %x rcx %x rdx %x rbx %x rsp %x rbp %x rsi %x rdi %x "
    "r8 %x r9 %x r10 %x r11 %x r12 %x r13 %x r14 %x r15 %x\n"
)


class TextTrace(Trace):
    """For people."""

    def line_maker(self, label: Label) -> Callable[[int], str]:
        """The constant part of a line."""
        cpu, cpl, owner, stack = label
        where, disassemble = self.view.where, self.view.disassemble
        head = f" cpu{cpu} cpl{cpl} {owner:<6} {stack:<10} "
        return lambda address: f"{head}{where(address):<58} {disassemble(address)}\n"

    def plain(self, clock: int, addresses: tuple[int, ...], lines: dict[int, str]) -> str:
        """Lines of consecutive instructions."""
        return "".join([f"{number:10}{lines[address]}" for number, address in enumerate(addresses, clock)])

    def with_registers(
        self, clock: int, addresses: tuple[int, ...], rows: tuple[bytes, ...], lines: dict[int, str]
    ) -> str:
        """Each line is followed by one with the registers."""
        unpack = _ROW.unpack
        numbered = enumerate(zip(addresses, rows, strict=True), clock)
        return "".join(
            [f"{number:10}{lines[address]}{_TEXT_REGISTERS % unpack(row)}" for number, (address, row) in numbered]
        )

    def mark(self, event: Event, kind: str, text: str, /, **fields: object) -> str:
        """`======` for a crossing, `------` for the rest."""
        rule = "======" if kind in ("delivered", "syscall", "returned", "double-fault", "shutdown") else "------"
        return f"{event.clock:10} cpu{event.cpu} {rule} {text}\n"


_JSON_REGISTERS = ',"registers":[' + ",".join(['"0x%x"'] * 16) + "]}\n"


class JsonlTrace(Trace):
    """For programs. `registers`: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 before the instruction."""

    def line_maker(self, label: Label) -> Callable[[int], str]:
        """The constant part of a line, up to its closing brace."""
        cpu, cpl, owner, stack = label
        view = self.view

        def make(address: int) -> str:
            fields = {
                "cpu": cpu, "cpl": cpl, "gs": owner, "stack": stack, "ip": f"{address:#x}",
                "where": view.where(address), "instruction": view.disassemble(address),
            }  # fmt: skip
            return "," + json.dumps(fields, separators=(",", ":"))[1:-1]

        return make

    def plain(self, clock: int, addresses: tuple[int, ...], lines: dict[int, str]) -> str:
        """Lines of consecutive instructions."""
        head = '{"event":"instruction","clock":'
        return "".join([f"{head}{number}{lines[address]}}}\n" for number, address in enumerate(addresses, clock)])

    def with_registers(
        self, clock: int, addresses: tuple[int, ...], rows: tuple[bytes, ...], lines: dict[int, str]
    ) -> str:
        """Lines with one more key."""
        head, unpack = '{"event":"instruction","clock":', _ROW.unpack
        numbered = enumerate(zip(addresses, rows, strict=True), clock)
        return "".join(
            [f"{head}{number}{lines[address]}{_JSON_REGISTERS % unpack(row)}" for number, (address, row) in numbered]
        )

    def mark(self, event: Event, kind: str, text: str, /, **fields: object) -> str:
        """One object."""
        head = {"event": kind, "clock": event.clock, "cpu": event.cpu, "ip": f"{event.ip:#x}"}
        return json.dumps({**head, "where": self.view.where(event.ip), **fields}, separators=(",", ":")) + "\n"
