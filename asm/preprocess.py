"""Macros, loops, conditions, includes and assignments: what decides which statements there are.

A stack of frames, each a list of lines: a file, the body of a macro, or a loop. What is left, labels, data and
instructions, goes to the unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asm import macros
from asm.directives import DIRECTIVES, origin, parse_string, split_arguments
from asm.errors import Position, Problem, did_you_mean, near_names
from asm.expression import parse
from asm.instructions import assemble_instruction
from asm.layout import Place
from asm.source import Library, SourceLine, scrub, split_statements
from asm.unit import Unit

MAX_NESTING = 100
MAX_STATEMENTS = 1_000_000

LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|\d+)\s*:(?!:)")
WORD = re.compile(r"\s*([A-Za-z_.$][\w.$]*)\s*")
ASSIGNMENT = re.compile(r"=(?!=)")
RESPLIT = re.compile(r"[\"'#;/\n*]")
LOOPS = (".rept", ".irp", ".irpc")
IRP = re.compile(r"\s*([A-Za-z_$][\w$]*)\s*,?\s*")


@dataclass
class Frame:
    """Lines being read: a file, one expansion of a macro, or a loop."""

    lines: Iterator[SourceLine]
    sites: tuple[Position, ...]
    conditions: int  # depth of open conditions when the frame began
    includes: int = 0
    is_macro: bool = False
    is_loop: bool = False


@dataclass
class Condition:
    """An open .if: whether the lines count, whether a branch was taken, whether all around it counts."""

    place: Place
    live: bool
    taken: bool
    outer: bool
    had_else: bool = False


@dataclass
class Preprocessor:
    """Reads all lines and drives the unit."""

    unit: Unit
    library: Library
    macros: dict[str, macros.Macro] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    expansions: int = 0
    statements: int = 0

    def __post_init__(self) -> None:
        self.handlers: dict[str, Callable[[str, Place], None]] = {
            ".include": self._include,
            ".macro": self._macro,
            ".purgem": self._purgem,
            ".exitm": self._exitm,
            **{name: self._loop(name) for name in LOOPS},
            **dict.fromkeys((".set", ".equ"), self._set),
            ".equiv": self._equiv,
            ".error": self._error,
            ".err": self._error,
            ".warning": self._warning,
        }
        self.branches: dict[str, Callable[[str, Place], None]] = {
            **{name: self._if(name) for name in CONDITION_TESTS},
            ".else": self._else,
            ".elseif": self._elseif,
            ".endif": self._endif,
        }
        self.warnings: list[tuple[Place, str]] = []

    def run(self, text: str, file: str, first_line: int) -> None:
        """Read a whole source."""
        self._push_file(text, file, first_line, ())
        while self.frames:
            frame = self.frames[-1]
            line = next(frame.lines, None)
            if line is None:
                self._pop_frame()
                continue
            self.statements += 1
            place = Place(line, frame.sites)
            if self.statements > MAX_STATEMENTS:
                self.unit.report(place, f"more than {MAX_STATEMENTS} statements")
                return
            try:
                self._statement(line.text, place)
            except Problem as problem:
                self.unit.report(place, str(problem))

    def _push_file(self, text: str, file: str, first_line: int, sites: tuple[Position, ...]) -> None:
        lines = split_statements(
            text, file, first_line, lambda position, message: self.unit.report(Place(SourceLine("", position), sites), message)
        )
        depth = self.frames[-1].includes + 1 if self.frames else 0
        self.frames.append(Frame(iter(lines), sites, len(self.conditions), depth))

    def _pop_frame(self) -> None:
        frame = self.frames.pop()
        while len(self.conditions) > frame.conditions:
            self.unit.report(self.conditions.pop().place, ".if without .endif")

    def _statement(self, text: str, place: Place) -> None:
        live = not self.conditions or self.conditions[-1].live
        while found := LABEL.match(text):
            if live:
                self.unit.define_label(found[1], place)
            text = text[found.end() :]
        found = WORD.match(text)
        if found is None:
            if live and text.strip():
                raise Problem(f"not a statement: {text.strip()!r}")
            return
        word, rest = found[1], text[found.end() :]
        lower = word.lower()
        if branch := self.branches.get(lower):
            branch(rest, place)
            return
        if not live:
            return
        if rest[:1] == "=" and ASSIGNMENT.match(rest):
            self._assign(word, rest[1:], place)
        elif handler := self.handlers.get(lower):
            handler(rest, place)
        elif directive := DIRECTIVES.get(lower):
            directive(self.unit, rest, place)
        elif macro := self.macros.get(lower):
            self._expand(macro, rest, place)
        elif word[0] == ".":
            self._unknown_directive(lower)
        else:
            assemble_instruction(self.unit, text, place)

    def _unknown_directive(self, word: str) -> None:
        if word in (".endm", ".endr"):
            raise Problem(f"{word} without {'.macro' if word == '.endm' else ' or '.join(LOOPS)}")
        known = [*self.handlers, *self.branches, *DIRECTIVES, *self.macros]
        raise Problem(f"unknown directive {word}{did_you_mean(near_names(word, known))}")

    # Assignments

    def _assign(self, name: str, text: str, place: Place) -> None:
        value = parse(text, self.unit)
        if name == ".":
            origin(self.unit, value, place)
        else:
            self.unit.assign(name, value, place)

    def _set(self, text: str, place: Place) -> None:
        name, comma, value = text.partition(",")
        found = WORD.fullmatch(name)
        if found is None or not comma:
            raise Problem(f"expected a name, a comma and a value, not {text.strip()!r}")
        self._assign(found[1], value, place)

    def _equiv(self, text: str, place: Place) -> None:
        name = text.partition(",")[0].strip()
        if self.unit.is_defined(name):
            raise Problem(f"symbol {name} is already defined")
        self._set(text, place)

    # Files, messages

    def _include(self, text: str, place: Place) -> None:
        name = parse_string(text).decode()
        if self.frames[-1].includes >= MAX_NESTING:
            raise Problem(f"includes nested more than {MAX_NESTING} deep")
        file, content = self.library.open(name, place.line.position.file)
        self._push_file(content, file, 1, place.sites)

    def _error(self, text: str, place: Place) -> None:
        message = parse_string(text).decode(errors="replace") if text.strip() else ""
        raise Problem(message or ".error in the source")

    def _warning(self, text: str, place: Place) -> None:
        self.warnings.append((place, parse_string(text).decode(errors="replace")))

    # Macros and loops

    def _collect(self, openers: tuple[str, ...], closer: str, place: Place) -> list[SourceLine]:
        """The lines up to the `closer` that belongs to an opener already read."""
        depth = 1
        body: list[SourceLine] = []
        for line in self.frames[-1].lines:
            text = line.text
            while "." in text and (found := LABEL.match(text)):
                text = text[found.end() :]
            if "." in text and (found := WORD.match(text)):
                word = found[1].lower()
                depth += (word in openers) - (word == closer)
                if not depth:
                    return body
            body.append(line)
        raise Problem(f"{openers[0] if len(openers) == 1 else 'loop'} without {closer}")

    def _macro(self, text: str, place: Place) -> None:
        body = self._collect((".macro",), ".endm", place)
        macro = macros.define(text, body)
        name = macro.name.lower()
        if name in self.macros:
            raise Problem(f"macro {macro.name} is already defined; .purgem it first")
        if name in DIRECTIVES or name in self.handlers or name in self.branches:
            raise Problem(f"a macro cannot have the name of the directive {name}")
        self.macros[name] = macro

    def _purgem(self, text: str, place: Place) -> None:
        for name in split_arguments(text):
            if self.macros.pop(name.lower(), None) is None:
                raise Problem(f"no macro {name}{did_you_mean(near_names(name, self.macros))}")

    def _expand(self, macro: macros.Macro, text: str, place: Place) -> None:
        values, faults = macros.bind(macro, text)
        for fault in faults:
            self.unit.report(place, fault)
        if faults:
            return
        values["@"] = str(self.expansions)
        self.expansions += 1
        self._push_body(macro.body, [values], (*place.sites, place.line.position), is_macro=True)

    def _push_body(
        self,
        body: tuple[macros.Template, ...],
        rounds: list[dict[str, str]] | range,
        sites: tuple[Position, ...],
        is_macro: bool = False,
    ) -> None:
        if len(self.frames) >= MAX_NESTING:
            raise Problem(f"macros nested more than {MAX_NESTING} deep")
        lines = self._lines(body, rounds, sites)
        includes = self.frames[-1].includes
        self.frames.append(Frame(lines, sites, len(self.conditions), includes, is_macro, not is_macro))

    def _lines(
        self,
        body: tuple[macros.Template, ...],
        rounds: list[dict[str, str]] | range,
        sites: tuple[Position, ...],
    ) -> Iterator[SourceLine]:
        """The lines of all rounds, with the values of each filled in."""
        for values in rounds:
            again = isinstance(values, dict) and any(RESPLIT.search(value) for value in values.values())
            for template in body:
                line = template.line
                if len(template.pieces) == 1 or isinstance(values, int):
                    yield SourceLine(template.pieces[0], line.position) if "\\" in line.text else line
                    continue
                try:
                    text = macros.fill(template, values)
                except Problem as problem:
                    self.unit.report(Place(line, sites), str(problem))
                    return
                if not again:
                    yield SourceLine(text, line.position)
                    continue
                for part in split_statements(text, line.position.file, line.position.line, self._reporter(sites)):
                    yield SourceLine(part.text, line.position)

    def _reporter(self, sites: tuple[Position, ...]) -> Callable[[Position, str], None]:
        return lambda position, message: self.unit.report(Place(SourceLine("", position), sites), message)

    def _loop(self, word: str) -> Callable[[str, Place], None]:
        def handler(text: str, place: Place) -> None:
            body = self._collect(LOOPS, ".endr", place)
            if word == ".rept":
                count = self.unit.absolute(text, "the count")
                if count < 0:
                    raise Problem(f"negative count {count}")
                if body:
                    templates = tuple(macros.Template(line, (line.text,)) for line in body)
                    self._push_body(templates, range(count), place.sites)
                return
            found = IRP.match(text)
            if found is None:
                raise Problem(f"{word} needs a name")
            rest = text[found.end() :]
            values = macros.arguments_of(rest) if word == ".irp" else list(scrub(rest).replace('"', "")) or [""]
            templates = tuple(macros.template(line, [found[1]]) for line in body)
            self._push_body(templates, [{found[1]: value} for value in values], place.sites)

        return handler

    def _exitm(self, text: str, place: Place) -> None:
        while self.frames and not self.frames[-1].is_macro and self.frames[-1].is_loop:
            break
        if not (self.frames[-1].is_macro or self.frames[-1].is_loop):
            raise Problem(".exitm outside a macro")
        del self.conditions[self.frames[-1].conditions :]
        self.frames.pop()

    # Conditions

    def _if(self, word: str) -> Callable[[str, Place], None]:
        test = CONDITION_TESTS[word]

        def handler(text: str, place: Place) -> None:
            outer = not self.conditions or self.conditions[-1].live
            condition = Condition(place, False, False, outer)
            self.conditions.append(condition)
            if outer:
                condition.taken = True  # a faulty condition skips all its branches
                condition.live = condition.taken = test(self, text)

        return handler

    def _open_condition(self, word: str) -> Condition:
        if len(self.conditions) <= self.frames[-1].conditions:
            raise Problem(f"{word} without .if")
        return self.conditions[-1]

    def _else(self, text: str, place: Place) -> None:
        condition = self._open_condition(".else")
        if condition.had_else:
            raise Problem("second .else")
        condition.had_else = True
        condition.live = condition.outer and not condition.taken

    def _elseif(self, text: str, place: Place) -> None:
        condition = self._open_condition(".elseif")
        if condition.had_else:
            raise Problem(".elseif after .else")
        condition.live = False
        if condition.outer and not condition.taken:
            condition.taken = True
            condition.live = condition.taken = bool(self.unit.absolute(text, "the condition"))

    def _endif(self, text: str, place: Place) -> None:
        self._open_condition(".endif")
        self.conditions.pop()


Test = Callable[[Preprocessor, str], bool]


def _compare(relation: Callable[[int], bool]) -> Test:
    return lambda preprocessor, text: relation(preprocessor.unit.absolute(text, "the condition"))


def _defined(preprocessor: Preprocessor, text: str) -> bool:
    found = WORD.fullmatch(text)
    if found is None:
        raise Problem(f"expected a name, not {text.strip()!r}")
    return preprocessor.unit.is_defined(found[1])


def _same(preprocessor: Preprocessor, text: str) -> bool:
    text = scrub(text)
    first, at = macros.comparison_string(text, 0)
    if text[at : at + 1] != ",":
        raise Problem(".ifc needs two strings")
    return first == macros.comparison_string(text, at + 1)[0]


CONDITION_TESTS: dict[str, Test] = {
    ".if": _compare(lambda value: value != 0),
    ".ifne": _compare(lambda value: value != 0),
    ".ifeq": _compare(lambda value: value == 0),
    ".iflt": _compare(lambda value: value < 0),
    ".ifle": _compare(lambda value: value <= 0),
    ".ifgt": _compare(lambda value: value > 0),
    ".ifge": _compare(lambda value: value >= 0),
    ".ifdef": _defined,
    ".ifndef": lambda preprocessor, text: not _defined(preprocessor, text),
    ".ifb": lambda preprocessor, text: not text.strip(),
    ".ifnb": lambda preprocessor, text: bool(text.strip()),
    ".ifc": _same,
    ".ifnc": lambda preprocessor, text: not _same(preprocessor, text),
}
