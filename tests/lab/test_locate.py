from __future__ import annotations

import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from emu.lab.locate import Path, locate

EXAMPLE = """\
title = "x"

[cpu]
profile = 'intel'
[user]
asm = '''
    nop
'''
same.line = '''nop'''
[[inject]]
event = "nmi"
[[inject]]
at = { symbol = "a", list = [
  1,
  { deep = 2 },
] }
[inject.more."quoted key"]
x = 1
"""


def paths(value: object, at: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from paths(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*at, index)
            yield from paths(inner, (*at, index))


def test_keys_of_tables_arrays_and_inline_tables_are_found() -> None:
    lines = locate(EXAMPLE)
    expected = {
        ("title",): 1,
        ("cpu",): 3,
        ("cpu", "profile"): 4,
        ("user", "asm"): 6,
        ("user", "same", "line"): 9,
        ("inject", 0): 10,
        ("inject", 0, "event"): 11,
        ("inject", 1, "at", "symbol"): 13,
        ("inject", 1, "at", "list", 0): 14,
        ("inject", 1, "at", "list", 1, "deep"): 15,
        ("inject", 1, "more", "quoted key", "x"): 18,
    }
    assert {path: lines.of(path) for path in expected} == expected


def test_text_of_a_multi_line_string_begins_after_its_first_newline() -> None:
    lines = locate(EXAMPLE)
    assert lines.text(("user", "asm")) == 7
    assert lines.text(("user", "same", "line")) == 9


def test_an_unknown_path_gives_the_line_of_the_table_around_it() -> None:
    assert locate(EXAMPLE).of(("cpu", "missing")) == 3
    assert locate(EXAMPLE).of(("missing",)) == 1


def test_carriage_returns_do_not_shift_lines() -> None:
    assert locate(EXAMPLE.replace("\n", "\r\n")).of(("inject", 0, "event")) == 11


_KEY = st.from_regex(r"[a-z]{1,2}", fullmatch=True) | st.sampled_from(['"a.b"', "'c d'", '"\\u0041"'])
_SCALAR = st.sampled_from(
    ["1", "true", "1979-05-27T07:32:00Z", '"a#b"', "'''x\ny'''", '"""q"\n""z"""', "-1.5e3", '"\\""', "''"]
)
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # c\n".join(items) + "\n]")
        | st.lists(st.tuples(_KEY, inner), max_size=2).map(
            lambda pairs: "{ " + ", ".join(f"{k} = {v}" for k, v in pairs) + " }"
        )
    ),
    max_leaves=6,
)
_DOTTED = st.lists(_KEY, min_size=1, max_size=3).map(" . ".join)
_STATEMENT = (
    st.tuples(_DOTTED, _VALUE).map(" = ".join)
    | _DOTTED.map("[{}]".format)
    | _DOTTED.map("[[{}]]".format)
    | st.sampled_from(["# comment", ""])
)


def check(text: str) -> None:
    lines = locate(text)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    count = text.count("\n") + 1
    for path in paths(data):
        assert path in lines.keys, (path, text)
        assert 1 <= lines.keys[path] <= count


@given(st.lists(_STATEMENT, max_size=8).map("\n".join))
def test_every_key_of_valid_toml_is_located(text: str) -> None:
    check(text)


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    check(text)


@given(st.text(alphabet="[]{}=.,'\"#\\\n ab1", max_size=60))
def test_any_arrangement_of_toml_syntax_is_survived(text: str) -> None:
    check(text)


def test_deep_nesting_is_survived() -> None:
    check("a = " + "[" * 5000)
    assert locate("a = " + "[" * 5000).of(("a",)) == 1
