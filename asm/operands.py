"""AT&T operands: the grammar of an instruction statement, so that nothing else ever reaches Keystone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from asm.errors import Problem, did_you_mean, near_names

_LEGACY = ("a", "b", "c", "d")
_POINTERS = ("si", "di", "bp", "sp")
REGISTERS: dict[str, int] = {}  # name -> bits
for _name in _LEGACY:
    REGISTERS |= {f"r{_name}x": 64, f"e{_name}x": 32, f"{_name}x": 16, f"{_name}l": 8, f"{_name}h": 8}
for _name in _POINTERS:
    REGISTERS |= {f"r{_name}": 64, f"e{_name}": 32, _name: 16, f"{_name}l": 8}
for _number in range(8, 16):
    REGISTERS |= {f"r{_number}": 64, f"r{_number}d": 32, f"r{_number}w": 16, f"r{_number}b": 8}
for _number in range(16):
    REGISTERS |= {f"xmm{_number}": 128, f"ymm{_number}": 256, f"cr{_number}": 64}
for _number in range(8):
    REGISTERS |= {f"mm{_number}": 80, f"dr{_number}": 64, f"db{_number}": 64, f"st({_number})": 80}
REGISTERS |= {"st": 80, "rip": 64, "eip": 32}
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
REGISTERS |= dict.fromkeys(SEGMENTS, 16)
HIGH_BYTES = frozenset({"ah", "bh", "ch", "dh"})
GENERAL_64_32 = frozenset(
    name for name, bits in REGISTERS.items() if bits in (64, 32) and name[0] in "re" and name != "eip"
)

PREFIXES = {
    "lock": b"\xf0", "rep": b"\xf3", "repe": b"\xf3", "repz": b"\xf3", "repne": b"\xf2", "repnz": b"\xf2",
    "cs": b"\x2e", "ds": b"\x3e", "es": b"\x26", "ss": b"\x36", "fs": b"\x64", "gs": b"\x65",
    "data16": b"\x66", "addr32": b"\x67", "notrack": b"\x3e", "bnd": b"\xf2",
    "xacquire": b"\xf2", "xrelease": b"\xf3",
    "rex": b"\x40", "rex.w": b"\x48", "rex64": b"\x48",
}  # fmt: skip

MNEMONIC = re.compile(r"\s*([A-Za-z][\w.]*)(?:\s+|$|(?=[$%*(\"]))")
REGISTER = re.compile(r"%\s*([A-Za-z]\w*(?:\(\d\))?)$")
SEGMENT_OVERRIDE = re.compile(r"%\s*([A-Za-z]+)\s*:")
BASE = re.compile(
    r"\(\s*(?:%\s*(?P<base>\w+))?\s*(?P<comma>,\s*(?:%\s*(?P<index>\w+))?\s*(?:,\s*(?P<scale>[^(),]*))?)?\s*\)$"
)


@dataclass(frozen=True, slots=True)
class Operand:
    """kind: "reg", "imm" or "mem". `text` is the register name, or the expression of the immediate or displacement."""

    kind: str
    text: str
    star: bool = False
    segment: str = ""
    base: str = ""
    index: str = ""
    scale: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """An instruction statement, taken apart."""

    prefixes: bytes
    mnemonic: str  # lower case; "" when there are only prefixes
    operands: tuple[Operand, ...]


@lru_cache(maxsize=20000)
def parse_instruction(text: str) -> Shape:
    """Take an instruction statement apart; Problem when it does not follow the grammar."""
    prefixes = b""
    rest = text.strip()
    while rest:
        found = MNEMONIC.match(rest)
        if found is None:
            raise Problem(f"not an instruction: {text.strip()!r}")
        mnemonic, rest = found[1].lower(), rest[found.end() :]
        if mnemonic not in PREFIXES:
            return Shape(prefixes, mnemonic, tuple(parse_operand(part) for part in split_operands(rest)))
        prefixes += PREFIXES[mnemonic]
        if len(prefixes) > 4:
            raise Problem("too many prefixes")
    return Shape(prefixes, "", ())


def split_operands(text: str) -> list[str]:
    """Cut at the commas outside parentheses."""
    if not text or text.isspace():
        return []
    parts: list[str] = []
    depth = start = 0
    for at, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                raise Problem(f"unbalanced parentheses in {text.strip()!r}")
        elif character == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    if depth:
        raise Problem(f"unbalanced parentheses in {text.strip()!r}")
    parts.append(text[start:])
    return [part.strip() for part in parts]


@lru_cache(maxsize=20000)
def parse_operand(text: str) -> Operand:
    """One operand."""
    if not text:
        raise Problem("missing operand")
    star = text[0] == "*"
    if star:
        text = text[1:].lstrip()
    if text[:1] == "$":
        if not text[1:].strip() or star:
            raise Problem(f"bad immediate {text!r}")
        return Operand("imm", text[1:])
    if found := REGISTER.match(text):
        name = _register(found[1])
        if name in ("rip", "eip"):
            raise Problem(f"%{name} can be used in an address only")
        return Operand("reg", name, star)
    if text == "(%dx)":  # another way to write the port of in and out
        return Operand("reg", "dx", star)
    segment = ""
    if found := SEGMENT_OVERRIDE.match(text):
        segment, text = found[1].lower(), text[found.end() :].strip()
        if segment not in SEGMENTS:
            raise Problem(f"%{segment} is not a segment register")
    base = index = scale = ""
    opening = _opening_of_last_parenthesis(text)
    found = BASE.match(text, opening) if opening >= 0 else None
    if found and (found["base"] or found["comma"] is not None):
        base, index = _address_register(found["base"]), _address_register(found["index"])
        scale = (found["scale"] or "").strip()
        if scale and not index:
            raise Problem("a scale needs an index register")
        text = text[:opening].strip()
        if index in ("rip", "eip", "rsp", "esp") or (base in ("rip", "eip") and index):
            raise Problem(f"%{index} cannot be an index register")
    if not (text or base or index):
        raise Problem("missing operand")
    if "%" in text and re.search(r"%\s*[A-Za-z]", text):
        raise Problem(f"bad operand {text!r}")
    return Operand("mem", text, star, segment, base, index, scale)


def _opening_of_last_parenthesis(text: str) -> int:
    if text[-1:] != ")":
        return -1
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        if text[at] == ")":
            depth += 1
        elif text[at] == "(":
            depth -= 1
            if not depth:
                return at
    return -1


def _register(name: str) -> str:
    name = name.lower()
    if name not in REGISTERS:
        raise Problem(f"unknown register %{name}{did_you_mean(near_names(name, REGISTERS))}")
    if name.startswith("db"):
        return "dr" + name[2:]
    return name


def _address_register(name: str | None) -> str:
    if not name:
        return ""
    name = _register(name)
    if name not in GENERAL_64_32 and name not in ("eip",):
        raise Problem(f"%{name} cannot be used in an address")
    return name
