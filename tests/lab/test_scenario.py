from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.errors import ScenarioError
from emu.lab.scenario import Scenario, parse_scenario, read_scenario, scenario_schema

MINIMAL = 'title = "t"\n[user]\nasm = "nop"\n'


def parse(extra: str = "") -> Scenario:
    return parse_scenario(MINIMAL + extra, "s.toml").scenario


def message(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "s.toml")
    return str(caught.value)


def test_defaults_of_a_minimal_scenario() -> None:
    scenario = parse()
    assert (scenario.kernel, scenario.seed, scenario.budget, scenario.inject) == ("linux-6", 0, 1_000_000, ())
    assert scenario.cpu.profile_of_machine().vendor == "intel"


def test_an_injection_is_read() -> None:
    (nmi,) = parse('[[inject]]\nevent = "nmi"\nat = "entry_SYSCALL_64"\nhit = 2\n').inject
    assert (nmi.event, nmi.at, nmi.hit) == ("nmi", "entry_SYSCALL_64", 2)


def test_models_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(("text", "number"), [('"SIGSEGV"', 11), ('"usr1"', 10), ("9", 9)])
def test_signals_have_names(text: str, number: int) -> None:
    assert parse(f"[expect]\nsignal = {text}\n").expect.signal == number


@pytest.mark.parametrize(("text", "vector"), [('"#PF"', 14), ('"gp"', 13), ("3", 3)])
def test_exceptions_have_names(text: str, vector: int) -> None:
    (injection,) = parse(f'[[inject]]\nevent = "exception"\nat = "a"\nvector = {text}\n').inject
    assert injection.vector == vector


def test_negative_values_are_taken_modulo_2_to_the_64() -> None:
    (injection,) = parse('[[inject]]\nevent="register"\nat="a"\nregister="rax"\nvalue=-1\n').inject
    assert injection.value == "0xffffffffffffffff"


INJECT = '[[inject]]\nat = "a"\n'
MISTAKES = {
    "unknown key": (MINIMAL + "[cpu]\nprofle = 'amd'\n", r"^s.toml:5: unknown key 'profle' in \[cpu\]; near: profile$"),
    "unknown key without a near one": (
        MINIMAL + "[timer]\nxyz = 1\nperiod = 1\n",
        r"^s.toml:5: unknown key 'xyz' in \[timer\]; known: period$",
    ),
    "unknown key of an injection": (
        MINIMAL + INJECT + 'event = "nmi"\nhits = 2\n',
        r"^s.toml:7: unknown key 'hits' in \[\[inject\]\]; near: hit",
    ),
    "unknown table": (MINIMAL + "[users]\n", r"^s.toml:4: unknown key 'users' in the top level; near: user$"),
    "wrong type": (MINIMAL + "[cpu]\nsmap = 1\n", r"^s.toml:5: \[cpu\] smap must be true or false, not 1$"),
    "wrong value": (
        MINIMAL + "[cpu]\nprofile = 'arm'\n",
        r"^s.toml:5: \[cpu\] profile must be 'intel' or 'amd', not 'arm'$",
    ),
    "missing table": ('title = "t"\n', r"^s.toml:1: the top level needs 'user'$"),
    "table expected": ('title = "t"\nuser = 3\n', r"^s.toml:2: user must be a table, not 3$"),
    "array expected": (MINIMAL + "[inject]\n", r"^s.toml:4: inject must be an array, not a table$"),
    "element of an array": (
        MINIMAL + "[expect]\ncalls = [\n'a',\n1]\n",
        r"^s.toml:7: \[expect\] calls\[1\] must be text, not 1$",
    ),
    "no place": (
        MINIMAL + '[[inject]]\nevent = "nmi"\n',
        r"^s.toml:4: \[\[inject\]\]: give one of at, instruction and each$",
    ),
    "two places": (
        MINIMAL + INJECT + 'event = "nmi"\ninstruction = 3\n',
        r"^s.toml:4: \[\[inject\]\]: give one of .* and each, not at and instruction$",
    ),
    "field of another event": (MINIMAL + INJECT + 'event = "nmi"\nline = 3\n', r"^s.toml:4: .* 'nmi' has no line$"),
    "needed field": (MINIMAL + INJECT + 'event = "memory"\nvalue = 1\n', r"^s.toml:4: .* 'memory' needs address$"),
    "register needed": (MINIMAL + INJECT + 'event = "register"\nvalue = 1\n', r"event 'register' needs register$"),
    "interrupt without vector": (MINIMAL + INJECT + 'event = "irq"\n', r"'irq' needs one of vector, vectors and line$"),
    "illegal interrupt vector": (MINIMAL + INJECT + 'event = "irq"\nvector = 3\n', r"refuses vectors below 16$"),
    "no such exception": (
        MINIMAL + INJECT + 'event = "exception"\nvector = "PG"\n',
        r"^s.toml:7: .* no exception 'PG'",
    ),
    "exception vector of an interrupt": (
        MINIMAL + INJECT + 'event = "exception"\nvector = 0x80\n',
        r"vector 0x80 is no exception's: those are 0 to 31$",
    ),
    "hit of a count": (
        MINIMAL + '[[inject]]\nevent = "nmi"\ninstruction = 1\nhit = 2\n',
        r"no sense with instruction$",
    ),
    "value too large": (
        MINIMAL + INJECT + 'event = "register"\nregister = "rax"\nvalue = 0x1_0000_0000_0000_0000\n',
        r"^s.toml:8: \[\[inject\]\] value: the number does not fit in 64 bits$",
    ),
    "value of the wrong type": (
        MINIMAL + INJECT + 'event = "register"\nregister = "rax"\nvalue = 1.5\n',
        r"^s.toml:8: \[\[inject\]\] value: must be a number or a place such as 'symbol\+0x8'$",
    ),
    "two ranges": (
        MINIMAL + 2 * '[[inject]]\nevent = "nmi"\neach = "a..b"\n',
        r"^s.toml:1: .*only one \[\[inject\]\] may have each$",
    ),
    "exit and signal": (MINIMAL + "[expect]\nexit = 0\nsignal = 9\n", r"^s.toml:4: \[expect\]: .* not by both$"),
    "no such signal": (MINIMAL + "[expect]\nsignal = 'SIGSEG'\n", r"^s.toml:5: .* no signal 'SIGSEG'$"),
    "kernel that is a path": (MINIMAL.replace("[", "kernel = '../x'\n[", 1), r"^s.toml:2: kernel "),
    "endless budget": ("budget = 10000000000\n" + MINIMAL, r"^s.toml:1: budget must be less than or equal to "),
    "seed too large": (f"seed = {1 << 64}\n" + MINIMAL, r"^s.toml:1: seed must be less than 18446744073709551616"),
    "period too long": (
        MINIMAL + "[timer]\nperiod = 4294967296\n",
        r"^s.toml:5: \[timer\] period must be less",
    ),
    "syntax": ("title = \n", r"^s.toml:1: not TOML: .*, in column 9$"),
    "syntax at the end": ('title = "t"\na = [', r"^s.toml:2: not TOML: "),
    "empty file": ("", r"^s.toml:1: the top level needs 'title'\ns.toml:1: the top level needs 'user'$"),
    "nested too deep": ("a = " + "[" * 5000, r"^s.toml:1: not TOML: "),
    "number too long": ("a = " + "9" * 5000, r"^s.toml:1: not TOML: a number has too many digits$"),
    "key given twice": ("a = 1\na = 2\n", r"^s.toml:2: not TOML: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_with_its_line(name: str) -> None:
    text, pattern = MISTAKES[name]
    assert re.search(pattern, message(text), re.DOTALL), message(text)


def test_all_mistakes_are_reported_in_order_of_lines() -> None:
    found = message('title = 1\nseed = "a"\nbudget = 0\n[user]\n')
    assert [line.split(":")[1] for line in found.splitlines()] == ["1", "2", "3", "4"]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"^x.toml: cannot be read: No such file"):
        read_scenario(tmp_path / "x.toml", "x.toml")


def test_a_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read: Is a directory"):
        read_scenario(tmp_path)


def test_a_file_that_is_not_utf8_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(b'title = "t"\nshows = "\xff"\n')
    with pytest.raises(ScenarioError, match=r"^s.toml:2: not UTF-8 \(byte 0xff\)$"):
        read_scenario(path, "s.toml")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ScenarioError, match="larger than 1 MiB"):
        read_scenario(path)


_VALUES = st.sampled_from(
    ["1", "-1", "0", "true", '"x"', '"nmi"', '"irq"', '"a..b"', "[]", '["a"]', "{}", "{ a = 1 }", "1.5", "1979-05-27"]
)
_NAMES = """
    title shows kernel seed budget asm argv stdin period event at each instruction hit cpu vector line error_code
    address value size register signal flag exit calls count end x
"""
_KEYS = st.sampled_from(_NAMES.split())
_LINES = st.tuples(_KEYS, _VALUES).map(" = ".join) | st.sampled_from(
    ["[user]", "[cpu]", "[timer]", "[[inject]]", "[inject]", "[expect]", "[expect.count]", "[options]", 'title = "t"']
)


@given(st.lists(_LINES, max_size=12).map("\n".join) | st.text())
def test_any_text_is_a_scenario_or_a_clear_message(text: str) -> None:
    complaint = ""
    try:
        parse_scenario(text, "s.toml")
    except ScenarioError as error:
        complaint = str(error)
    assert all(re.match(r"s\.toml:\d+: .", line) for line in complaint.splitlines())


def test_the_schema_describes_every_table() -> None:
    schema = scenario_schema()
    assert {"title", "user", "inject", "expect"} <= set(schema["properties"])
    assert "register" in schema["$defs"]["Inject"]["properties"]
