"""Places in words, as scenario files and `--inject` name them; docs/scenarios.md lists the forms.

An instruction boundary is known before the run: `Places.boundary` and `Places.boundaries`. An address to read or write
may depend on the state at the moment of the injection (the current task, a CPU's TSS): `Places.address` checks the
text before the run and gives a function that finds the address then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath

from asm import Image, UnknownSymbol
from emu.errors import ScenarioError, UnknownSymbolError
from emu.machine.core import Core
from kernel_stubs.abi import PerCpu, PtRegs, TaskStruct, Tss
from kernel_stubs.boot import stacks
from kernel_stubs.context import Kernel, percpu_address
from kernel_stubs.layout import Struct

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}")
_NAME = re.compile(r"(?P<name>[A-Za-z_.$][\w.$]*)(?:\+(?P<offset>0[xX][0-9a-fA-F]{1,8}|[0-9]{1,9}))?")
_FILE_LINE = re.compile(r"(?P<file>[^:]+):(?P<line>[0-9]{1,9})")
_SYMBOL_MNEMONIC = re.compile(r"(?P<name>[A-Za-z_.$][\w.$]*):(?P<mnemonic>[a-z][a-z0-9]*)")
_SUFFIXES = ("", "b", "w", "l", "q")
MAX_BOUNDARIES = 4096

AddressFinder = Callable[[Kernel, Core], int]


@dataclass(frozen=True, slots=True)
class Boundary:
    """Before the instruction at any of `addresses` (several for a line of a macro)."""

    name: str
    addresses: frozenset[int]


class Places:
    """The names of one run: those of the kernel image, and with `user:` in front those of the program."""

    def __init__(self, kernel: Image, user: Callable[[], Image]) -> None:
        """`user` gives the program's image when something asks for it."""
        self._kernel = kernel
        self._user = user

    # --- boundaries -------------------------------------------------------------------------------------------------
    def boundary(self, text: str, where: str) -> Boundary:
        """The boundary that `text` names; `where` begins the message of a ScenarioError."""
        image, prefix, rest = self._image(text)
        if _NUMBER.fullmatch(rest):
            return Boundary(prefix + rest, frozenset({_number(rest)}))
        match = _FILE_LINE.fullmatch(rest)
        if match:
            return Boundary(text, _line(image, match["file"], int(match["line"]), where))
        match = _SYMBOL_MNEMONIC.fullmatch(rest)
        if match:
            address = _mnemonic(image, match["name"], match["mnemonic"], where)
            return Boundary(f"{prefix}{_named(image, address, match['name'])}", frozenset({address}))
        match = _NAME.fullmatch(rest)
        if not match:
            raise ScenarioError(f"{where}: {text!r} is no place; give symbol, symbol+0x3, symbol:mnemonic, file:line")
        start = _symbol(image, match["name"], where)
        address = start + _number(match["offset"] or "0")
        if image.instruction_at(address) is None:
            near = _near_starts(image, start, address)
            raise ScenarioError(f"{where}: {text} is not the start of an instruction{near}")
        return Boundary(text, frozenset({address}))

    def boundaries(self, text: str, where: str) -> list[Boundary]:
        """All boundaries of `first..last`, both included, by address."""
        first, dots, last = text.partition("..")
        if not dots or not first or not last:
            example = "entry_SYSCALL_64..entry_SYSCALL_64:call"
            raise ScenarioError(f"{where}: {text!r} is no range; give one such as {example}")
        image, prefix, rest = self._image(first)
        start, end = (min(self.boundary(place, where).addresses) for place in (first, last))
        name = rest.partition(":")[0].partition("+")[0]
        if self._image(last)[0] is not image or end < start:
            raise ScenarioError(f"{where}: {last} does not follow {first}")
        found = [
            Boundary(f"{prefix}{_named(image, instruction.address, name)}", frozenset({instruction.address}))
            for instruction in image.instructions()
            if start <= instruction.address <= end
        ]
        if len(found) > MAX_BOUNDARIES:
            raise ScenarioError(f"{where}: {len(found)} boundaries are too many; the limit is {MAX_BOUNDARIES}")
        return found

    def _image(self, text: str) -> tuple[Image, str, str]:
        if text.startswith("user:"):
            return self._user(), "user:", text.removeprefix("user:")
        return self._kernel, "", text

    # --- addresses --------------------------------------------------------------------------------------------------
    def address(self, text: str, where: str) -> AddressFinder:
        """What finds the address (or value) that `text` names."""
        if _NUMBER.fullmatch(text):
            number = _number(text)
            return lambda kernel, core: number
        kind, colon, rest = text.partition(":")
        if colon and kind in _STATE:
            return _STATE[kind](rest, where)
        found = self.label(text, where)
        return lambda kernel, core: found

    def label(self, text: str, where: str) -> int:
        """The address that `symbol` or `symbol+0x8` names, whatever is there."""
        image, _, rest = self._image(text)
        match = _NAME.fullmatch(rest)
        if not match:
            kinds = ", ".join(f"{kind}:..." for kind in ("user", *_STATE))
            raise ScenarioError(f"{where}: {text!r} is no address; give a number, symbol, symbol+0x8, {kinds}")
        return _symbol(image, match["name"], where) + _number(match["offset"] or "0")


def _number(text: str) -> int:
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)


# --- names in an image ------------------------------------------------------------------------------------------------
def _symbol(image: Image, name: str, where: str) -> int:
    try:
        return image.symbol(name)
    except UnknownSymbol as error:
        raise UnknownSymbolError(where, name, error.near) from None


def _named(image: Image, address: int, preferred: str) -> str:
    """`symbol+0x3`; where several symbols share an address, the preferred one."""
    found = image.locate(address)
    if found is None:
        return f"{address:#x}"
    name, offset = found
    if image.symbols.get(preferred) == address - offset:
        name = preferred
    return f"{name}+{offset:#x}" if offset else name


def _near_starts(image: Image, start: int, address: int) -> str:
    near = [i.address - start for i in image.instructions() if i.address >= start and abs(i.address - address) < 16]
    near.sort(key=lambda offset: abs(start + offset - address))
    return f"; near: {', '.join(f'+{offset:#x}' for offset in sorted(near[:3]))}" if near else ""


def _line(image: Image, file: str, line: int, where: str) -> frozenset[int]:
    """The code of a line: of a macro's body, in each place where the macro is used; else the line's first."""
    addresses = image.addresses_of(file, line)
    code = [address for address in addresses if image.instruction_at(address) is not None]
    if code:
        own = [a for a in code if (s := image.line_at(a)) and _is_line(s.position.file, s.position.line, file, line)]
        return frozenset(own or code[:1])
    lines = {
        position.line
        for statement in image.statements
        if statement.kind == "code"
        for position in (statement.position, *statement.macro_sites)
        if file in (position.file, PurePath(position.file).name)
    }
    if not lines:
        files = sorted({PurePath(statement.position.file).name for statement in image.statements})
        raise ScenarioError(f"{where}: no file {file!r} in the image; it is made of {', '.join(files)}")
    near = sorted(lines, key=lambda known: (abs(known - line), known))[:3]
    raise ScenarioError(f"{where}: no instruction at {file}:{line}; near: {', '.join(str(n) for n in sorted(near))}")


def _is_line(file: str, line: int, wanted_file: str, wanted_line: int) -> bool:
    return line == wanted_line and wanted_file in (file, PurePath(file).name)


def _mnemonic(image: Image, name: str, mnemonic: str, where: str) -> int:
    """The first such instruction of a routine. Labels that begin with the routine's name are inside it."""
    start = _symbol(image, name, where)
    end = min((a for s, a in image.symbols.items() if a > start and not s.startswith(name)), default=1 << 64)
    wanted = {mnemonic + suffix for suffix in _SUFFIXES}
    inside = [instruction for instruction in image.instructions() if start <= instruction.address < end]
    for instruction in inside:
        if instruction.mnemonic in wanted:
            return instruction.address
    have = ", ".join(sorted({instruction.mnemonic for instruction in inside})) or "no instructions"
    raise ScenarioError(f"{where}: no {mnemonic!r} in {name}; it has {have}")


# --- state at the moment of the injection -----------------------------------------------------------------------------
def _field(kind: type[Struct], text: str, known: Iterable[str], where: str, what: str) -> int:
    match = _NAME.fullmatch(text)
    fields = list(known)
    if not match or match["name"] not in fields:
        raise ScenarioError(f"{where}: {what} has no {text!r}; it has {', '.join(fields)}")
    return kind.offset(match["name"]) + _number(match["offset"] or "0")


def _fields(kind: type[Struct]) -> list[str]:
    return [field[0] for field in kind._fields_ if not field[0].startswith(("pad", "reserved"))]


def _percpu(text: str, where: str) -> AddressFinder:
    offset = _field(PerCpu, text, _fields(PerCpu), where, "the per-CPU area")
    return lambda kernel, core: percpu_address(kernel, core.index) + offset


def _task(text: str, where: str) -> AddressFinder:
    offset = _field(TaskStruct, text, _fields(TaskStruct), where, "the task")
    return lambda kernel, core: _percpu_area(kernel, core).current_task + offset


def _regs(text: str, where: str) -> AddressFinder:
    offset = _field(PtRegs, text, _fields(PtRegs), where, "pt_regs")
    return lambda kernel, core: _percpu_area(kernel, core).top_of_stack - PtRegs.SIZE + offset


_TSS_WORDS = {f"sp{n}": Tss.offset(f"sp{n}") for n in range(3)} | {
    f"ist{n}": Tss.offset("ist") + 8 * (n - 1) for n in range(1, 8)
}


def _tss(text: str, where: str) -> AddressFinder:
    if text not in _TSS_WORDS:
        raise ScenarioError(f"{where}: the TSS has no {text!r}; it has {', '.join(_TSS_WORDS)}")
    offset = PerCpu.offset("tss") + _TSS_WORDS[text]
    return lambda kernel, core: percpu_address(kernel, core.index) + offset


def _idt(text: str, where: str) -> AddressFinder:
    if not _NUMBER.fullmatch(text) or _number(text) > 255:
        raise ScenarioError(f"{where}: the IDT has no gate {text!r}; it has 0 to 255")
    offset = 16 * _number(text)
    return lambda kernel, core: core.cpu.state.idt.base + offset


_STACKS = ("task", "irq", "entry", "df", "nmi", "db", "mce", "vc")


def _stack(text: str, where: str) -> AddressFinder:
    name, plus, offset = text.partition("+")
    if name not in _STACKS or (plus and not _NUMBER.fullmatch(offset)):
        raise ScenarioError(f"{where}: there is no stack {text!r}; there are {', '.join(_STACKS)}")

    def find(kernel: Kernel, core: Core) -> int:
        low = next(s.low for s in stacks(kernel, core.index) if s.name.lower().rpartition(" ")[2] == name)
        return low + _number(offset or "0")

    return find


def _percpu_area(kernel: Kernel, core: Core) -> PerCpu:
    return kernel.view(PerCpu, percpu_address(kernel, core.index))


_STATE: dict[str, Callable[[str, str], AddressFinder]] = {
    "percpu": _percpu,
    "task": _task,
    "regs": _regs,
    "stack": _stack,
    "tss": _tss,
    "idt": _idt,
}
