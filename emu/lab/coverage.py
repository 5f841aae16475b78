"""Which instructions of an image's entry code a set of scenarios executes, and which they leave out.

An instruction is known by its source line, the macro calls that led there, and its number among those of the same line:
images for CPUs with other features have other addresses. Boot code and the slots of C functions do not count.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from asm import Image
from asm.errors import Position
from emu.arch import KERNEL_HALF
from emu.errors import ImageError
from emu.events import Event, Executed
from emu.lab.run import prepare, run_prepared
from emu.lab.scenario import ScenarioFile
from emu.lab.view import View
from emu.machine.machine import Machine
from emu.machine.recorder import Recorder
from kernel_stubs.kernel_image import SOURCES, Overrides

NO_ENTRY_CODE = frozenset({"boot.S", "c_stubs.S", "c_functions.inc"})
"""Sources whose instructions are not entry code."""
LISTED = "unexecuted.toml"
"""Beside an image's sources: what no scenario executes, and why."""


class Site(NamedTuple):
    """An instruction of an image, whatever its address."""

    position: Position
    macro_sites: tuple[Position, ...]
    ordinal: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the entry code."""

    site: Site
    address: int
    """In the first image that has it."""
    where: str
    """`entry_SYSCALL_64+0x3`."""
    text: str
    executed: bool
    reason: str = ""
    """Why no scenario executes it, from the list."""
    scenarios: tuple[str, ...] = ()
    """Those that execute it, as they were given."""

    @property
    def line(self) -> str:
        """`file:line` of the source."""
        return str(self.site.position)


@dataclass(frozen=True, slots=True)
class Covered:
    """The coverage of one image."""

    kernel: str
    instructions: tuple[Instruction, ...]
    stale: tuple[str, ...]
    """Rows of the list that match no instruction that is left out."""

    @property
    def missing(self) -> tuple[Instruction, ...]:
        """Neither executed nor listed."""
        return tuple(one for one in self.instructions if not one.executed and not one.reason)

    @property
    def complete(self) -> bool:
        """Whether everything is executed or listed, and the list is true."""
        return not self.missing and not self.stale


class ExecutedAddresses:
    """Observer, and what a run asks for it as its trace: notes the addresses of kernel instructions that retire."""

    boot = True

    def __init__(self) -> None:
        self.addresses: set[int] = set()

    def begin(self, _view: View) -> ExecutedAddresses:
        """The observer."""
        return self

    def attach(self, machine: Machine) -> None:
        """Have all CPUs record."""
        machine.observers.append(self)
        for core in machine.cores:
            core.record(Recorder(core.index, core.cpu, core.emit, moves=frozenset(), registers=False))

    def finish(self) -> None:
        """The run is over."""

    def __call__(self, event: Event) -> None:
        """Take note."""
        if type(event) is Executed:
            self.addresses.update(address for address in event.addresses if address & KERNEL_HALF)


def sites(image: Image) -> dict[int, Site]:
    """Address -> site of each instruction of the entry code."""
    found: dict[int, Site] = {}
    seen: Counter[tuple[Position, tuple[Position, ...]]] = Counter()
    for instruction in image.instructions():
        statement = image.line_at(instruction.address)
        if statement is None or statement.kind not in ("code", "bytes"):
            continue
        outermost = statement.macro_sites[0] if statement.macro_sites else statement.position
        if outermost.file in NO_ENTRY_CODE:
            continue
        key = (statement.position, statement.macro_sites)
        found[instruction.address] = Site(*key, seen[key])
        seen[key] += 1
    return found


def cover(files: Iterable[ScenarioFile], kernels: Sequence[str], sources: Overrides | None = None) -> list[Covered]:
    """Run the scenarios of these images and see what they execute."""
    executed: dict[str, dict[Site, list[str]]] = {kernel: {} for kernel in kernels}
    known: dict[str, dict[Site, tuple[int, str, str]]] = {kernel: {} for kernel in kernels}
    by_image: dict[int, tuple[Image, dict[int, Site]]] = {}
    for file in files:
        kernel = file.scenario.kernel
        if kernel not in executed:
            continue
        prepared = prepare(file, own_sources=sources)
        image = prepared.options.image
        if id(image) not in by_image:
            by_image[id(image)] = (image, sites(image))
            for address, site in by_image[id(image)][1].items():
                if site not in known[kernel]:
                    instruction = image.instruction_at(address)
                    known[kernel][site] = (address, image.symbolize(address), str(instruction))
        _, places = by_image[id(image)]
        recorder = ExecutedAddresses()
        for _ in run_prepared(prepared, file.name, lambda _case, recorder=recorder: (recorder,)):  # type: ignore[misc]
            pass
        for address in recorder.addresses & places.keys():
            executed[kernel].setdefault(places[address], []).append(file.name)
    return [_covered(kernel, known[kernel], executed[kernel]) for kernel in kernels]


def _covered(kernel: str, known: dict[Site, tuple[int, str, str]], executed: dict[Site, list[str]]) -> Covered:
    rows = listed(kernel)
    used: set[int] = set()
    instructions = []
    for site, (address, where, text) in sorted(known.items(), key=lambda item: item[1][0]):
        reason = ""
        if site not in executed:
            for number, row in enumerate(rows):
                if _matches(row, site, where, text):
                    reason = row["reason"]
                    used.add(number)
                    break
        by = tuple(executed.get(site, ()))
        instructions.append(Instruction(site, address, where, text, bool(by), reason, by))
    stale = tuple(str(row) for number, row in enumerate(rows) if number not in used)
    return Covered(kernel, tuple(instructions), stale)


def _matches(row: dict[str, Any], site: Site, where: str, text: str) -> bool:  # Any: as TOML has it
    """Whether a row means this instruction: its routine, place or source file, and optionally its text's beginning."""
    files = {str(position.file) for position in (site.position, *site.macro_sites)}
    return (
        row.get("routine", where.partition("+")[0]) == where.partition("+")[0]
        and where in row.get("places", (where,))
        and row.get("file", site.position.file) in files
        and text.startswith(row.get("instruction", ""))
    )


def reason_unexecuted(kernel: str, image: Image, address: int) -> str:
    """Why nothing executes the instruction at an address, by the image's list; empty if it does not say."""
    site = sites(image).get(address)
    if site is None:
        return ""
    where, text = image.symbolize(address), str(image.instruction_at(address))
    return next((row["reason"] for row in listed(kernel) if _matches(row, site, where, text)), "")


def listed(kernel: str) -> list[dict[str, Any]]:
    """The rows of an image's list; ImageError if it is not as it should be."""
    path = SOURCES / kernel / LISTED
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ImageError(f"{path.name}: {error}") from None
    rows = data.get("unexecuted", [])
    for row in rows:
        if not row.get("reason") or not (row.keys() - {"reason", "instruction"}) <= {"routine", "file", "places"}:
            raise ImageError(f"{path.name}: {row}: a row has a reason, and routine, file or places, maybe instruction")
        if not row.keys() & {"routine", "file", "places"}:
            raise ImageError(f"{path.name}: {row}: a row names a routine, a file or places")
    return list(rows)


def text_lines(one: Covered, *, listing: bool = False) -> Iterator[str]:
    """For people: what is missing, the reasons, the sum; with `listing` every instruction."""
    shown = one.instructions if listing else one.missing
    for instruction in shown:
        mark = "+" if instruction.executed else "=" if instruction.reason else "-"
        yield f"{mark} {instruction.where:52} {instruction.line:24} {instruction.text}"
    for row in one.stale:
        yield f"{LISTED}: matches nothing that is left out: {row}"
    reasons = Counter(instruction.reason for instruction in one.instructions if instruction.reason)
    for reason, number in sorted(reasons.items(), key=lambda item: -item[1]):
        yield f"  {number:5} listed: {reason}"
    total, done = len(one.instructions), sum(instruction.executed for instruction in one.instructions)
    yield (
        f"{one.kernel}: {total:,} instructions of entry code, {done:,} executed, {sum(reasons.values()):,} listed, "
        f"{len(one.missing):,} missing: {'PASS' if one.complete else 'FAIL'}"
    )


def as_dict(one: Covered) -> dict[str, Any]:
    """For JSON."""
    return {
        "kernel": one.kernel,
        "complete": one.complete,
        "stale": list(one.stale),
        "instructions": [
            {
                "where": i.where, "line": i.line, "sites": [str(site) for site in i.site.macro_sites], "text": i.text,
                "executed": i.executed, "reason": i.reason or None, "scenarios": list(i.scenarios),
            }
            for i in one.instructions
        ],
    }  # fmt: skip
