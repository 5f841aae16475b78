"""What may be doubled, and which of it is the same when it is done twice, by the manual.

Two executions of an instruction are one if it writes what is there already, reads nothing that it writes, and has no
effect on the instruction after it. That holds with any event in between: a handler gives back what it found.
"""

from __future__ import annotations

import re

_RSP = re.compile(r"(?:movq|leaq|cmov\w+) (.+), %rsp")
_MOVES_RSP = re.compile(r"popq %rsp|(?:addq|subq) .+, %rsp|leave")
_CR3 = re.compile(r"movq (\S+), %cr3")
_GS_BASE = re.compile(r"wrgsbase\w? (\S+)")
_PLAIN = {"swapgs": "swapgs", "cld": "cld", "clac": "clac", "stac": "clac", "cli": "cli-sti", "sti": "cli-sti"}

_SAME = {
    "cld": "DF is clear, and CLD does nothing else (SDM volume 2, CLD)",
    "clac": "AC is clear, and CLAC does nothing else (SDM volume 2, CLAC)",
    "stac": "AC is set, and STAC does nothing else (SDM volume 2, STAC)",
    "cli": "IF is clear, and CLI casts no shadow (SDM volume 2, CLI)",
}
"""Not of STI: it holds interrupts off until after the next instruction only if IF was clear (SDM volume 2, STI), so of
two the second is in the shadow, and what follows is not. Not of SWAPGS, which is its own inverse."""


def doubled_kind(code: str) -> str:
    """What `double-...` calls a line of source; empty for what is not doubled."""
    plain = _PLAIN.get(code)
    if plain:
        return plain
    if _RSP.fullmatch(code) or _MOVES_RSP.fullmatch(code):
        return "stack-switch"
    return "cr3-write" if _CR3.fullmatch(code) else "fsgsbase" if _GS_BASE.fullmatch(code) else ""


def same_twice(code: str) -> str:
    """Why to do it twice is to do it once; empty if it is not."""
    if code in _SAME:
        return _SAME[code]
    if match := _RSP.fullmatch(code):
        if "%rsp" in match[1] or "\\" in match[1]:
            return ""
        return "no operand depends on RSP, so RSP gets the value that it has (SDM volume 2, MOV, LEA, CMOVcc)"
    if match := _CR3.fullmatch(code):
        return f"CR3 gets the value that it has, {match[1]}: translations are dropped twice (SDM volume 3, 4.10.4.1)"
    if match := _GS_BASE.fullmatch(code):
        return f"GS_BASE gets the value that it has, {match[1]} (SDM volume 2, WRGSBASE)"
    return ""
