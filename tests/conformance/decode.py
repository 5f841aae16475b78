"""The harness's report, line by line, as answers.

`#n` begins case n; `v vector [frame words]` how it ended; `=i value` field i after the case where it differs;
`mi value` a changed memory word; `.` the end of the last case. Numbers are hexadecimal. A case whose report never came
shut the CPU down or hung.
"""

from __future__ import annotations

from conformance import fields, layout
from conformance.image import TestImage

Answer = dict[str, str]
"""Field -> value as text: what differs from the state that the case was given; `vector` and the frame always."""

SHUTDOWN: Answer = {"vector": "shutdown"}
HUNG: Answer = {"vector": "none"}
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
ENTRIES = {0x100: "syscall", 0x101: "syscall32", 0x102: "sysenter", 0x103: "call_gate"}
FRAME = ("frame.rip", "frame.cs", "frame.rflags", "frame.rsp", "frame.ss")


class Names:
    """Addresses in a case's code as text that does not depend on where the case lies."""

    def __init__(self, image: TestImage, index: int) -> None:
        start, size = image.code[index]
        self._places = (("code", start, size), ("ucode", start - layout.KERNEL + layout.USER, size))

    def name(self, value: int) -> str:
        for place, start, size in self._places:
            if start <= value <= start + size:
                return f"{place}+{value - start:#x}"
        return f"{value:#x}"


def _ending(words: list[int], names: Names) -> Answer:
    vector = words[0]
    if vector in ENTRIES:
        return {"vector": ENTRIES[vector]}
    answer = {"vector": f"{vector:#x}"}
    frame = words[1:]
    if vector in WITH_ERROR_CODE:
        answer["error"] = f"{frame.pop(0):#x}"
    answer.update((name, names.name(word)) for name, word in zip(FRAME, frame, strict=False))
    return answer


def decode(text: str, image: TestImage, first: int) -> tuple[dict[int, Answer], int | None]:
    """Answers by case index from `first` on, and the index of the case during which the report broke off, if any."""
    answers: dict[int, Answer] = {}
    index = first
    answer: Answer | None = None
    for line in text.split("\n"):
        kind, rest = line[:1], line[1:]
        if kind in "#.":
            if answer is not None:
                answers[index] = answer
                answer = None
            if kind == ".":
                return answers, None
            if kind == "#":
                index = int(rest, 16)
                names = Names(image, index)
        elif kind == "v":
            answer = _ending([int(word, 16) for word in rest.split()], names)
        elif answer is not None:
            number, value = (int(word, 16) for word in rest.split())
            name = fields.COMPARED[number] if kind == "=" else fields.memory_name(number)
            answer[name] = names.name(value)
    return answers, index
