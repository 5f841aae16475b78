"""Instructions of an image, decoded with Capstone along its statements, so that data inside code stays data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs

from asm.image import Instruction, Segment, Statement
from asm.operands import PREFIXES

MAX_INSTRUCTION = 15
_capstone = Cs(CS_ARCH_X86, CS_MODE_64)
_capstone.syntax = CS_OPT_SYNTAX_ATT


class Decoder:
    """Decodes once and remembers."""

    def __init__(self, segments: Sequence[Segment], statements: Sequence[Statement]) -> None:
        self._segments = [segment for segment in segments if "x" in segment.flags]
        self._statements = statements
        self._all: tuple[Instruction, ...] | None = None
        self._by_address: dict[int, Instruction | None] = {}

    def all(self) -> tuple[Instruction, ...]:
        """All instructions, lowest address first."""
        if self._all is None:
            found: list[Instruction] = []
            for segment in sorted(self._segments, key=lambda segment: segment.address):
                inside = [s for s in self._statements if segment.address <= s.address < segment.end]
                found.extend(self._along(segment, inside) if self._statements else self._sweep(segment))
            self._all = tuple(found)
            self._by_address.update((instruction.address, instruction) for instruction in found)
        return self._all

    def at(self, address: int) -> Instruction | None:
        """The instruction that begins at `address`."""
        if self._statements:
            self.all()
            return self._by_address.get(address)
        if address not in self._by_address:  # a foreign image may be large: decode this one only
            segment = next((s for s in self._segments if s.address <= address < s.end), None)
            code = segment.data[address - segment.address :][:MAX_INSTRUCTION] if segment else b""
            self._by_address[address] = next(_decode(code, address), None)
        return self._by_address[address]

    def _along(self, segment: Segment, statements: Sequence[Statement]) -> Iterator[Instruction]:
        pending: Statement | None = None  # prefixes, or bytes that are not an instruction by themselves
        for statement in statements:
            start = statement.address - segment.address
            code = segment.data[start : start + statement.size]
            if pending is not None:
                joined = segment.data[pending.address - segment.address : start] + code
                whole = _whole(joined, pending.address) if statement.kind in ("code", "bytes") else None
                if whole is not None and len(whole) == 1:
                    pending = None
                    yield whole[0]
                    continue
                if pending.kind == "code":
                    yield _undecoded(pending, segment)
                pending = None
            if statement.kind == "data":
                continue
            if statement.kind == "code" and _only_prefixes(statement.text):
                pending = statement
                continue
            whole = _whole(code, statement.address)
            if whole is not None:
                yield from whole
            elif statement.kind == "code":
                yield _undecoded(statement, segment)
            elif statement.kind == "bytes":
                pending = statement
        if pending is not None and pending.kind == "code":
            yield _undecoded(pending, segment)

    def _sweep(self, segment: Segment) -> Iterator[Instruction]:
        """From the first byte on; a byte that begins no instruction is skipped."""
        at = 0
        while at < len(segment.data):
            for instruction in _decode(segment.data[at:], segment.address + at):
                yield instruction
                at = instruction.address + instruction.size - segment.address
            at += 1


def _decode(code: bytes, address: int) -> Iterator[Instruction]:
    for start, size, mnemonic, operands in _capstone.disasm_lite(code, address):
        at = start - address
        yield Instruction(start, size, mnemonic, operands, code[at : at + size])


@lru_cache(maxsize=1 << 16)  # images that differ in a few bytes share the rest
def _whole(code: bytes, address: int) -> tuple[Instruction, ...] | None:
    """The instructions that `code` is exactly made of, or None."""
    found = tuple(_decode(code, address))
    return found if found and sum(instruction.size for instruction in found) == len(code) else None


def _only_prefixes(text: str) -> bool:
    return all(word.lower() in PREFIXES for word in text.split())


def _undecoded(statement: Statement, segment: Segment) -> Instruction:
    """An instruction that Capstone does not know, named by its source text."""
    mnemonic, _, operands = statement.text.partition(" ")
    start = statement.address - segment.address
    return Instruction(
        statement.address, statement.size, mnemonic, operands.strip(), segment.data[start : start + statement.size]
    )
