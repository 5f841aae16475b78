"""The ways to break an image on purpose.

A mutant is either a change of bytes, which leaves all addresses where they are, or a change of the sources. The first
kind goes by instruction of the assembled image, whatever macro made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from asm import Image, Instruction, Segment
from emu.errors import ImageError
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import Overrides, build_image, source_files

SECTION = ".entry.text"
NOP = "nop"
"""The generic operator: any instruction."""

_NOPS = (
    b"", b"\x90", b"\x66\x90", b"\x0f\x1f\x00", b"\x0f\x1f\x40\x00", b"\x0f\x1f\x44\x00\x00",
    b"\x66\x0f\x1f\x44\x00\x00", b"\x0f\x1f\x80\x00\x00\x00\x00", b"\x0f\x1f\x84\x00\x00\x00\x00\x00",
    b"\x66\x0f\x1f\x84\x00\x00\x00\x00\x00",
)  # fmt: skip
"""By length (SDM volume 2, NOP)."""
_REMOVED = {
    "swapgs": "swapgs", "cld": "cld", "clac": "clac", "stac": "clac", "cli": "cli-sti", "sti": "cli-sti",
    "wrgsbase": "fsgsbase", "wrgsbaseq": "fsgsbase", "rdgsbase": "fsgsbase", "rdgsbaseq": "fsgsbase",
}  # fmt: skip
"""Mnemonic -> what `remove-...` calls it."""
_TO_RSP = re.compile(r"(movq|leaq|mov|lea) .*, %rsp$|popq? %rsp$|(addq|subq) .*, %rsp$")
_TO_CR3 = re.compile(r"movq? %\w+, %cr3$")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken image."""

    operator: str
    place: str
    """symbol+offset and the instruction; or the source line."""
    profile: Profile
    patch: tuple[tuple[int, bytes], ...] = ()
    """(address, bytes) to write."""
    overrides: Overrides = ()
    touched: frozenset[int] = frozenset()
    """Instructions of the unbroken image that it changes; empty for a change that may show anywhere."""

    @property
    def name(self) -> str:
        """For lists."""
        return f"{self.operator} {self.place}"

    def image(self, kernel: str, own_sources: Overrides | None = None) -> Image:
        """The broken image; ImageError if it does not assemble."""
        image = build_image(kernel, self.profile, self.overrides, own_sources)
        return patched(image, self.patch) if self.patch else image


def patched(image: Image, patch: tuple[tuple[int, bytes], ...]) -> Image:
    """An image with some bytes changed, and everything else as it is."""
    segments = [_patched(segment, patch) for segment in image.segments]
    return Image(
        segments=segments, symbols=image.symbols, globals=image.globals, externals=image.externals,
        statements=image.statements, entry=image.entry,
    )  # fmt: skip


def _patched(segment: Segment, patch: tuple[tuple[int, bytes], ...]) -> Segment:
    data = bytearray(segment.data)
    for address, new in patch:
        if segment.address <= address < segment.end:
            data[address - segment.address : address - segment.address + len(new)] = new
    return replace(segment, data=bytes(data))


def nops(size: int) -> bytes:
    """One NOP of that size, so that instruction boundaries stay."""
    return _NOPS[size] if size < len(_NOPS) else b"\x66" * (size - 9) + _NOPS[9]


# --- instructions -----------------------------------------------------------------------------------------------------
def instructions(image: Image) -> list[Instruction]:
    """The entry code: of the arrays of stubs that differ in a number only, those of one vector."""
    found = []
    for instruction in image.instructions():
        segment = image.segment_at(instruction.address)
        name = (image.locate(instruction.address) or ("", 0))[0]
        if segment is None or segment.name != SECTION:
            continue
        if name in ("irq_entries_start", "spurious_entries_start"):
            at = instruction.address - image.symbol(name) - (0x100 if name == "irq_entries_start" else 0x40)
            if not 0 <= at < 0x10:  # vectors 0x30 and 0xf0
                continue
        if instruction.mnemonic not in ("int3", "nop", "ud2"):
            found.append(instruction)
    return found


def by_instruction(image: Image, profile: Profile) -> Iterator[Mutant]:
    """Named operators and the generic one, at every instruction."""
    for one in instructions(image):
        place, text = f"{image.symbolize(one.address)}: {_in_words(image, one)}", str(one)
        removed, here = ((one.address, nops(one.size)),), frozenset((one.address,))
        kind = _REMOVED.get(one.mnemonic)
        if kind is None and _TO_CR3.match(text):
            kind = "cr3-write"
        if kind is None and _TO_RSP.match(text):
            kind = "stack-switch"
        if kind is not None:
            yield Mutant(f"remove-{kind}", place, profile, removed, touched=here)
        elif one.mnemonic.startswith("j") and one.mnemonic not in ("jmp", "jmpq"):
            yield Mutant("invert-branch", place, profile, ((one.address, _inverted(one.data)),), touched=here)
            yield Mutant(NOP, place, profile, removed, touched=here)
        else:
            if text in ("pushq $-1", "pushq $0xffffffffffffffff"):
                yield Mutant("error-code", place, profile, ((one.address, one.data[:-1] + b"\x00"),), touched=here)
            yield Mutant(NOP, place, profile, removed, touched=here)


def _in_words(image: Image, one: Instruction) -> str:
    """An instruction that does not change its name when code before it grows."""
    target = one.operands
    if target.startswith("0x") and one.mnemonic.startswith(("j", "call")):
        target = image.symbolize(int(target, 16))
    return f"{one.mnemonic} {re.sub(r'-?0x[0-9a-f]+(?=[(]%rip)', '...', target)}".rstrip()


def _inverted(code: bytes) -> bytes:
    at = 1 if code[0] == 0x0F else 0
    return code[:at] + bytes((code[at] ^ 1,)) + code[at + 1 :]


# --- sources ----------------------------------------------------------------------------------------------------------
_DOUBLED = re.compile(r"^\s*(swapgs|cld|clac|cli|sti|wrgsbase\b.*|movq\s+\S+,\s*%cr3|movq\s+%gs:\S+,\s*%rsp)\s*$")
IDEMPOTENT = "to do it twice is to do it once"


def idempotent(sources: dict[str, str]) -> list[tuple[str, str]]:
    """(name, reason) of the `double-...` mutants that need no run."""
    found = []
    for name, text in sources.items():
        for number, line in enumerate(text.splitlines(), 1):
            match = _DOUBLED.match(line)
            if match and match[1] != "swapgs" and name != "boot.S":
                found.append((f"double {name}:{number}: {line.strip()}", IDEMPOTENT))
    return found


def by_source(kernel: str, profile: Profile, own_sources: Overrides | None = None) -> Iterator[Mutant]:
    """Operators that move code or change tables."""
    sources = source_files(kernel) if own_sources is None else dict(own_sources)
    base = build_image(kernel, profile, (), own_sources)
    for operator, name, number, text in _edits(sources):
        operator, _, what = operator.partition(" ")
        touched = frozenset(a for a in base.addresses_of(name, number) if base.instruction_at(a) is not None)
        place = f"{name}:{number} {what}".strip()
        mutant = Mutant(operator, place, profile, overrides=((name, text),), touched=touched)
        try:
            image = mutant.image(kernel, own_sources)
        except ImageError:
            continue
        if any(one.data != other.data for one, other in zip(image.segments, base.segments, strict=True)):
            yield mutant


def _edits(sources: dict[str, str]) -> Iterator[tuple[str, str, int, str]]:
    for name, text in sources.items():
        lines = text.splitlines(keepends=True)

        def changed(at: int, *new: str, count: int = 1, lines: list[str] = lines) -> str:
            return "".join([*lines[:at], *new, *lines[at + count :]])

        for at, line in enumerate(lines):
            code = line.partition("#")[0].strip()
            number = at + 1
            if code == "swapgs":
                yield "double-swapgs", name, number, changed(at, line, line)
            elif code == "call    paranoid_entry":
                yield "paranoid-to-normal", name, number, changed(at, line.replace("paranoid_entry", "error_entry"))
            elif re.fullmatch(r"GATE \w+, \w+, IST_\w+", code):
                yield "drop-ist", name, number, changed(at, line.replace(code, code.rpartition(",")[0]))
            elif re.fullmatch(r"pushq\s+(%\w+|\\\w+)", code) and at + 1 < len(lines):
                following = lines[at + 1].partition("#")[0].strip()
                if re.fullmatch(r"pushq\s+(%\w+|\\\w+)", following) and code != following:
                    yield (
                        f"shift-pt_regs {code.split()[1]} and {following.split()[1]}",
                        name,
                        number,
                        changed(at, lines[at + 1], line, count=2),
                    )
            elif code.startswith(".irp "):
                yield from ((op, name, number, new) for op, new in _irp(line, lines, at))
    name = "entry_64.S"
    if "jne     swapgs_restore_regs_and_return_to_usermode\n" in sources.get(name, ""):
        text = re.sub(r"    jn[ez] +swapgs_restore_regs_and_return_to_usermode\n", "", sources[name])
        yield "sysretq-unchecked", name, 0, text


def _irp(line: str, lines: list[str], at: int) -> Iterator[tuple[str, str]]:
    """A list of registers or fields: leave one out where they are cleared, exchange two where they are moved."""
    head, _, rest = line.strip().partition(",")
    items = [item.strip() for item in rest.split(",")]
    body = lines[at + 1].strip()
    indent = line[: len(line) - len(line.lstrip())]

    def text(new: list[str]) -> str:
        return "".join([*lines[:at], f"{indent}{head}, {', '.join(new)}\n", *lines[at + 1 :]])

    for index in range(len(items)):
        if body.startswith("xorl"):
            yield f"skip-clear {items[index]}", text(items[:index] + items[index + 1 :])
        elif index + 1 < len(items) and body.startswith(("popq", "pushq")) and lines[at + 2].strip() == ".endr":
            swapped = [*items[:index], items[index + 1], items[index], *items[index + 2 :]]
            yield f"shift-pt_regs {items[index]} and {items[index + 1]}", text(swapped)
