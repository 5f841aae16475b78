"""Expressions against a second evaluation that is written in another way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asm import AssemblyError, assemble_text

MASK = (1 << 64) - 1
LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",), ("&&",), ("==", "!=", "<>", "<", "<=", ">", ">="), ("+", "-"), ("|", "&", "^", "!"),
    ("*", "/", "%", "<<", ">>"),
)  # fmt: skip
Tree = int | tuple  # type: ignore[type-arg]

numbers = st.integers(0, MASK) | st.integers(0, 70)
trees = st.recursive(
    numbers,
    lambda inner: (
        st.tuples(st.sampled_from("-~!"), inner)
        | st.tuples(inner, st.sampled_from([op for level in LEVELS for op in level]), inner)
    ),
    max_leaves=12,
)


def level_of(tree: Tree) -> int:
    if isinstance(tree, int):
        return 99
    if len(tree) == 2:
        return 50
    return next(number for number, level in enumerate(LEVELS) if tree[1] in level)


def show(tree: Tree) -> str:
    """The text with as few parentheses as gas's ranks allow."""
    if isinstance(tree, int):
        return str(tree)
    if len(tree) == 2:
        inner = show(tree[1])
        return tree[0] + (f"({inner})" if level_of(tree[1]) < 50 else f" {inner}")
    left, op, right = tree
    level = level_of(tree)
    left_text = f"({show(left)})" if level_of(left) < level else show(left)
    right_text = f"({show(right)})" if level_of(right) <= level else show(right)
    return f"{left_text} {op} {right_text}"


def signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def evaluate(tree: Tree) -> int:
    if isinstance(tree, int):
        return signed(tree)
    if len(tree) == 2:
        value = evaluate(tree[1])
        return signed({"-": -value, "~": -value - 1, "!": 0 if value else 1}[tree[0]])
    left, op, right = evaluate(tree[0]), tree[1], evaluate(tree[2])
    if op in ("/", "%"):
        sign = -1 if (left < 0) != (right < 0) else 1
        quotient, remainder = divmod(abs(left), abs(right))
        return signed(sign * quotient) if op == "/" else signed(-remainder if left < 0 else remainder)
    if op in ("<<", ">>"):
        if not 0 <= right <= 63:
            raise ZeroDivisionError
        return signed(left * 2**right) if op == "<<" else signed((left & MASK) // 2**right)
    relations = {"==": left == right, "!=": left != right, "<>": left != right, "<": left < right}
    relations |= {"<=": left <= right, ">": left > right, ">=": left >= right}
    if op in relations:
        return -1 if relations[op] else 0
    if op in ("&&", "||"):
        truths = [left != 0, right != 0]
        return int(all(truths) if op == "&&" else any(truths))
    table = {"+": left + right, "-": left - right, "*": left * right}
    table |= {"&": left & right, "|": left | right, "^": left ^ right, "!": left | (MASK ^ right)}
    return signed(table[op])


@settings(max_examples=400, deadline=None)
@given(trees)
def test_value(tree: Tree) -> None:
    try:
        expected = evaluate(tree)
    except ZeroDivisionError:
        with pytest.raises(AssemblyError, match=r"division by zero|shift by"):
            assemble_text(f".quad {show(tree)}", name="t", base=0)
        return
    image = assemble_text(f".quad {show(tree)}", name="t", base=0)
    assert image.segments[0].data == (expected & MASK).to_bytes(8, "little")


@settings(max_examples=100, deadline=None)
@given(trees)
def test_forward_references_give_the_same_value(tree: Tree) -> None:
    """The same tree with its numbers behind names that are defined later."""
    names: dict[str, int] = {}

    def rename(node: Tree) -> str:
        if isinstance(node, int):
            name = f"n{len(names)}"
            names[name] = node
            return name
        if len(node) == 2:
            return f"{node[0]}({rename(node[1])})"
        return f"({rename(node[0])}) {node[1]} ({rename(node[2])})"

    try:
        expected = evaluate(tree)
    except ZeroDivisionError:
        return
    text = f".quad {rename(tree)}\n" + "".join(f".set {name}, {value}\n" for name, value in names.items())
    assert assemble_text(text, name="t", base=0).segments[0].data == (expected & MASK).to_bytes(8, "little")


def test_differences_fold_only_where_sizes_are_known() -> None:
    source = "a: nop\nb: jmp c\nc: nop\nd:\n.if b - a == 1\n.byte 1\n.endif\n.if d - c == 1\n.byte 2\n.endif\n"
    assert assemble_text(source, name="t", base=0).segments[0].data == b"\x90\xeb\x00\x90\x01\x02"
    with pytest.raises(AssemblyError, match="known here"):  # the jump between a and c has no size yet
        assemble_text(source + ".if c - a\n.endif", name="t", base=0)


@pytest.mark.parametrize("text", ["(" * 5000 + "1" + ")" * 5000, "-" * 5000 + "1", "~" * 100000])
def test_nesting_has_a_limit(text: str) -> None:
    with pytest.raises(AssemblyError, match="nested too deeply"):
        assemble_text(f".quad {text}", name="t", base=0)


def test_length_has_none() -> None:
    flat = "+".join("1" for _ in range(5000))
    assert assemble_text(f".quad {flat}", name="t", base=0).segments[0].data == (5000).to_bytes(8, "little")


@pytest.mark.parametrize("order", [1, -1])
def test_names_that_double_do_not_take_exponential_time(order: int) -> None:
    lines = [f".set a{number + 1}, a{number} + a{number}" for number in range(90)][::order]
    with pytest.raises(AssemblyError, match="too large"):
        assemble_text("\n".join([*lines, ".quad a90", ".set a0, late", "late:"]), name="t", base=0)


@pytest.mark.parametrize("order", [1, -1])
def test_long_chains_of_names_do_not_exhaust_the_stack(order: int) -> None:
    lines = [f".set a{number + 1}, a{number} * 3" for number in range(3000)][::order]
    with pytest.raises(AssemblyError, match=r"too large|too deeply"):
        assemble_text("\n".join([*lines, ".quad a3000", ".set a0, late", "late:"]), name="t", base=0)
