"""Keystone as an encoder: single instructions without symbols in, checked machine code out.

Keystone gets one flat text of instructions that are already parsed, normalised and free of symbols, each behind a
label, with a table of these labels at the end that tells where each one starts. An instruction's code does not depend
on its place, so codes are kept for the life of the process.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import pairwise

from keystone import KS_ARCH_X86, KS_MODE_64, Ks, KsError

from asm.errors import Problem, did_you_mean, near_names

SYNTAX = ".att_syntax prefix\n"
MAX_INSTRUCTION = 15
CACHE_LIMIT = 200_000
BAD_OPERANDS = "no instruction with these operands"
# Names that error messages offer with a suffix, and names that take one although they end in what could be one.
USUAL = ("mov", "add", "and", "or", "xor", "cmp", "test", "push", "pop", "lea", "inc", "dec", "bts", "btr", "xchg")
SUFFIXED = ("sub", "sbb", "shl", "sal", "rol", "rcl", "mul", "imul")

# Prefixes in the order in which gas writes them: segment, address size, operand size, repeat, lock.
PREFIX_ORDER = {
    0x26: 0, 0x2E: 0, 0x36: 0, 0x3E: 0, 0x64: 0, 0x65: 0, 0x67: 1, 0x66: 2, 0xF2: 3, 0xF3: 3, 0xF0: 4,
}  # fmt: skip

# Machine code, or what is wrong. Not an exception: raised again and again it would keep every frame it passed through.
_codes: dict[str, bytes | str] = {}


class Encoder:
    """Collects instructions and encodes them in batches; `code` gives the machine code of one of them."""

    def __init__(self) -> None:
        self._pending: dict[str, None] = {}

    def add(self, text: str) -> None:
        """Note a normalised instruction for the next batch."""
        if text not in _codes:
            self._pending[text] = None

    def code(self, text: str) -> bytes:
        """The machine code of `text`, which may start with prefixes (in hexadecimal, then a tab); Problem when it is
        not a valid instruction."""
        if "\t" in text:
            prefixes, text = text.split("\t")
            return sort_prefixes(bytes.fromhex(prefixes) + self.code(text))
        code = _codes.get(text)
        if code is None:
            self._pending[text] = None
            self.flush()
            code = _codes[text]
        if isinstance(code, str):
            raise Problem(code)
        return code

    def size(self, text: str) -> int:
        """The length of the machine code; 0 for an invalid instruction."""
        try:
            return len(self.code(text))
        except Problem:
            return 0

    def flush(self) -> None:
        """Encode everything noted so far."""
        texts = list(self._pending)
        self._pending.clear()
        if len(_codes) > CACHE_LIMIT:
            _codes.clear()
        if not texts:
            return
        codes = _encode_batch(texts)
        if codes is not None:
            _codes.update(zip(texts, codes, strict=True))
            return
        for text in texts:  # find out which ones are wrong
            _codes[text] = _encode_one(text)


def _rank(prefix: int) -> int:
    return PREFIX_ORDER[prefix]


def sort_prefixes(code: bytes) -> bytes:
    """`code` with its legacy prefixes in gas's order, each once."""
    end = 0
    while end < len(code) and code[end] in PREFIX_ORDER:
        end += 1
    if end < 2:
        return code
    prefixes: list[int] = sorted(dict.fromkeys(code[:end]), key=_rank)
    return bytes(prefixes) + code[end:]


def _run(text: str) -> bytes | str:
    """Keystone's output for a text at address 0, or why there is none. A fresh engine a call, no options: any option
    would make it read decimals as hexadecimal."""
    try:
        encoded, _ = Ks(KS_ARCH_X86, KS_MODE_64).asm((SYNTAX + text).encode("ascii"), 0, True)
    except KsError as error:
        return str(error)
    return bytes(encoded) if encoded else BAD_OPERANDS


def _encode_batch(texts: list[str]) -> list[bytes] | None:
    """The codes of all texts, or None if any of them fails."""
    lines = [f"L{index}:{text}\n" for index, text in enumerate(texts)]
    lines.append(f"L{len(texts)}:\n")
    lines.extend(f".quad L{index}\n" for index in range(len(texts) + 1))
    output = _run("".join(lines))
    table_size = 8 * (len(texts) + 1)
    if isinstance(output, str) or len(output) < table_size:
        return None
    starts = struct.unpack(f"<{len(texts) + 1}Q", output[-table_size:])
    if starts[0] != 0 or starts[-1] != len(output) - table_size:
        return None
    codes = [output[start:end] for start, end in pairwise(starts)]
    if not all(1 <= len(code) <= MAX_INSTRUCTION for code in codes):
        return None
    return [sort_prefixes(code) for code in codes]


def _encode_one(text: str) -> bytes | str:
    codes = _encode_batch([text])
    if codes is not None:
        return codes[0]
    output = _run(text + "\n")
    if isinstance(output, str):
        return _explain(text)
    return BAD_OPERANDS


def _explain(text: str) -> str:
    """What is wrong with an instruction. Found without Keystone, which takes some wrong operands for a wrong name."""
    name = text.split(" ")[0]
    names = mnemonics()
    stem = name[:-1] if name[-1] in "bwlq" else name
    if name in names or (stem in names and stem[-1] not in "bwlq") or stem in SUFFIXED:
        return BAD_OPERANDS
    return f"unknown instruction {name}{did_you_mean(near_names(name, names))}"


@lru_cache(maxsize=1)
def mnemonics() -> frozenset[str]:
    """The instruction names that Capstone knows, the usual ones also with suffix; for error messages only."""
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    names = (decoder.insn_name(number) for number in range(1, 2000))
    return frozenset(name for name in names if name) | {name + suffix for name in USUAL for suffix in "bwlq"}
