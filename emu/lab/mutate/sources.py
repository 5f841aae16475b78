"""Operators that move code or change tables: they edit the sources, a line at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from emu.lab.coverage import NO_ENTRY_CODE
from emu.lab.mutate.doubled import doubled_kind, same_twice
from emu.lab.mutate.mutant import Mutant
from emu.machine.profile import Profile
from kernel_stubs.abi26 import LINUX_26

_PUSH = re.compile(r"pushq\s+(%\w+|\\\w+)")
_SLOT = re.compile(r"(?P<mov>mov[ql]\s+)(?P<from>\S+),\s*(?P<to>\S+)")
"""A register from or to its word of a frame."""
_FRAME_WORD = re.compile(r"(ARG|PT_REGS)_\w+\(%rsp\)")
_GATE = re.compile(r"(GATE \w+, \w+), (?:IST_\w+|\w+_STACK)(, \w+)?$")
_PARANOID_26 = re.compile(r"PARANOID_VECTOR (\w+), (\w+)(, has_error_code=1)?(, ist=\w+)?$")
_SYSRETQ_CHECK = re.compile(r"    jn[ez] +swapgs_restore_regs_and_return_to_usermode\n")


def by_source(kernel: str, sources: dict[str, str], profile: Profile) -> Iterator[Mutant]:
    """Every edit; some change nothing in one build or another, or do not assemble: whoever builds them sees."""
    for name, text in sources.items():
        if name not in NO_ENTRY_CODE:
            for operator, number, what, new in _edits(kernel, text):
                place = f"{name}:{number} {what}".strip()
                yield Mutant(operator, place, profile, overrides=((name, new),), line=(name, number))
            yield from _doubled(name, text, profile)
    name = "entry_64.S"
    if _SYSRETQ_CHECK.search(sources.get(name, "")):
        new = _SYSRETQ_CHECK.sub("", sources[name])
        yield Mutant("sysretq-unchecked", name, profile, overrides=((name, new),))


def _doubled(name: str, text: str, profile: Profile) -> Iterator[Mutant]:
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        code = _code(line)
        kind = doubled_kind(code)
        if kind:
            new = "".join([*lines[: at + 1], line, *lines[at + 1 :]])
            yield Mutant(
                f"double-{kind}", f"{name}:{at + 1} {code}", profile, overrides=((name, new),), line=(name, at + 1),
                longer=True, same=same_twice(code),
            )  # fmt: skip


def _code(line: str) -> str:
    return " ".join(line.partition("#")[0].split())


def _edits(kernel: str, text: str) -> Iterator[tuple[str, int, str, str]]:
    """(operator, line, what, new text of the file)."""
    lines = text.splitlines(keepends=True)

    def changed(at: int, *new: str) -> str:
        return "".join([*lines[:at], *new, *lines[at + len(new) :]])

    for at, line in enumerate(lines):
        code, following = _code(line), _code(lines[at + 1]) if at + 1 < len(lines) else ""
        number = at + 1
        if code == "call paranoid_entry":
            yield "paranoid-to-normal", number, "", changed(at, line.replace("paranoid_entry", "error_entry"))
        elif kernel == LINUX_26 and (match := _PARANOID_26.match(code)):
            macro = "errorentry" if match[3] else "zeroentry"
            yield "paranoid-to-normal", number, match[1], changed(at, f"{macro} {match[1]}, {match[2]}\n")
        elif match := _GATE.match(code):
            rest = f", 0{match[2]}" if match[2] else ""
            yield "drop-ist", number, "", changed(at, f"{match[1]}{rest}\n")
        elif code.startswith(".irp "):
            yield from ((op, number, what, new) for op, what, new in _irp(line, lines, at))
        elif _PUSH.fullmatch(code) and _PUSH.fullmatch(following) and code != following:
            what = f"{code.split()[1]} and {following.split()[1]}"
            yield "shift-pt_regs", number, what, changed(at, lines[at + 1], line)
        elif swapped := _exchanged(line, lines[at + 1] if following else ""):
            yield "shift-pt_regs", number, swapped[2], changed(at, *swapped[:2])


def _exchanged(line: str, following: str) -> tuple[str, str, str] | None:
    """Two moves between registers and words of a frame, each with the other's word."""
    one, two = _SLOT.fullmatch(_code(line)), _SLOT.fullmatch(_code(following))
    if not one or not two or one["mov"] != two["mov"]:
        return None
    for side in ("from", "to"):
        if _FRAME_WORD.fullmatch(one[side]) and _FRAME_WORD.fullmatch(two[side]) and one[side] != two[side]:
            names = " and ".join(word[side].partition("(")[0] for word in (one, two))
            return line.replace(one[side], two[side]), following.replace(two[side], one[side]), names
    return None


def _irp(line: str, lines: list[str], at: int) -> Iterator[tuple[str, str, str]]:
    """A list of registers or fields: leave one out where they are cleared, exchange two where they are moved."""
    head, _, rest = line.strip().partition(",")
    items = [item.strip() for item in rest.split(",")]
    body = _code(lines[at + 1])
    indent = line[: len(line) - len(line.lstrip())]

    def text(new: list[str]) -> str:
        return "".join([*lines[:at], f"{indent}{head}, {', '.join(new)}\n", *lines[at + 1 :]])

    for index in range(len(items)):
        if body.startswith(("xorl", "movq $0, ")):
            yield "skip-clear", items[index], text(items[:index] + items[index + 1 :])
        elif index + 1 < len(items) and body.startswith(("popq", "pushq")) and _code(lines[at + 2]) == ".endr":
            swapped = [*items[:index], items[index + 1], items[index], *items[index + 2 :]]
            yield "shift-pt_regs", f"{items[index]} and {items[index + 1]}", text(swapped)
