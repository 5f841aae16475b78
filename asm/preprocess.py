"""Macros, loops, conditions, includes and assignments: what decides which statements there are.

A stack of frames, each a list of lines: a file, the body of a macro, or a loop. What is left, labels, data and
instructions, goes to the unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asm.conditions import CONDITION_WORDS, Conditions
from asm.data import origin, parse_string, split_arguments
from asm.directives import DIRECTIVES
from asm.errors import Position, Problem, did_you_mean, near_names
from asm.expression import parse
from asm.instructions import assemble_instruction
from asm.layout import Place
from asm.macros import Macro, Template, arguments_of, bind, define, fill, template
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
class Preprocessor:
    """Reads all lines and drives the unit."""

    unit: Unit
    library: Library
    macros: dict[str, Macro] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
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
        self.conditions = Conditions(self.unit)
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
            place = Place(line, frame.sites, self.statements)
            if self.statements > MAX_STATEMENTS:
                self.unit.report(place, f"more than {MAX_STATEMENTS} statements")
                return
            try:
                self._statement(line.text, place)
            except Problem as problem:
                self.unit.report(place, str(problem))

    def _push_file(self, text: str, file: str, first_line: int, sites: tuple[Position, ...]) -> None:
        lines = split_statements(text, file, first_line, self._reporter(sites))
        depth = self.frames[-1].includes + 1 if self.frames else 0
        self.frames.append(Frame(iter(lines), sites, self.conditions.depth, depth))

    def _pop_frame(self) -> None:
        frame = self.frames.pop()
        for condition in self.conditions.cut(frame.conditions):
            self.unit.report(condition.place, ".if without .endif")

    def _statement(self, text: str, place: Place) -> None:
        live = self.conditions.live
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
        if self.conditions.handle(lower, rest, place, self.frames[-1].conditions):
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
        known = [*self.handlers, *CONDITION_WORDS, *DIRECTIVES, *self.macros]
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
        macro = define(text, body)
        name = macro.name.lower()
        if name in self.macros:
            raise Problem(f"macro {macro.name} is already defined; .purgem it first")
        if name in DIRECTIVES or name in self.handlers or name in CONDITION_WORDS:
            raise Problem(f"a macro cannot have the name of the directive {name}")
        self.macros[name] = macro

    def _purgem(self, text: str, place: Place) -> None:
        for name in split_arguments(text):
            if self.macros.pop(name.lower(), None) is None:
                raise Problem(f"no macro {name}{did_you_mean(near_names(name, self.macros))}")

    def _expand(self, macro: Macro, text: str, place: Place) -> None:
        values, faults = bind(macro, text)
        for fault in faults:
            self.unit.report(place, fault)
        if faults:
            return
        values["@"] = str(self.expansions)
        self.expansions += 1
        self._push_body(macro.body, [values], (*place.sites, place.line.position), is_macro=True)

    def _push_body(
        self,
        body: tuple[Template, ...],
        rounds: list[dict[str, str]] | range,
        sites: tuple[Position, ...],
        is_macro: bool = False,
    ) -> None:
        if len(self.frames) >= MAX_NESTING:
            raise Problem(f"macros nested more than {MAX_NESTING} deep")
        lines = self._lines(body, rounds, sites)
        includes = self.frames[-1].includes
        self.frames.append(Frame(lines, sites, self.conditions.depth, includes, is_macro, not is_macro))

    def _lines(
        self,
        body: tuple[Template, ...],
        rounds: list[dict[str, str]] | range,
        sites: tuple[Position, ...],
    ) -> Iterator[SourceLine]:
        """The lines of all rounds, with the values of each filled in."""
        for values in rounds:
            again = isinstance(values, dict) and any(RESPLIT.search(value) for value in values.values())
            for part in body:
                line = part.line
                if len(part.pieces) == 1 or isinstance(values, int):
                    yield SourceLine(part.pieces[0], line.position) if "\\" in line.text else line
                    continue
                try:
                    text = fill(part, values)
                except Problem as problem:
                    self.unit.report(Place(line, sites, self.statements), str(problem))
                    return
                if not again:
                    yield SourceLine(text, line.position)
                    continue
                for piece in split_statements(text, line.position.file, line.position.line, self._reporter(sites)):
                    yield SourceLine(piece.text, line.position)

    def _reporter(self, sites: tuple[Position, ...]) -> Callable[[Position, str], None]:
        return lambda position, message: self.unit.report(
            Place(SourceLine("", position), sites, self.statements), message
        )

    def _loop(self, word: str) -> Callable[[str, Place], None]:
        def handler(text: str, place: Place) -> None:
            body = self._collect(LOOPS, ".endr", place)
            if word == ".rept":
                count = self.unit.absolute(text, "the count")
                if count < 0:
                    raise Problem(f"negative count {count}")
                if body:
                    templates = tuple(Template(line, (line.text,)) for line in body)
                    self._push_body(templates, range(count), place.sites)
                return
            found = IRP.match(text)
            if found is None:
                raise Problem(f"{word} needs a name")
            rest = text[found.end() :]
            values = arguments_of(rest) if word == ".irp" else list(scrub(rest).replace('"', "")) or [""]
            templates = tuple(template(line, [found[1]]) for line in body)
            self._push_body(templates, [{found[1]: value} for value in values], place.sites)

        return handler

    def _exitm(self, text: str, place: Place) -> None:
        if not (self.frames[-1].is_macro or self.frames[-1].is_loop):
            raise Problem(".exitm outside a macro")
        self.conditions.cut(self.frames[-1].conditions)
        self.frames.pop()
