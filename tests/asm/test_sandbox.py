"""Untrusted text: the child's limits, and that the parent survives."""

from __future__ import annotations

import os
import threading
import time

import pytest

from asm import AssemblyError, assemble_text, assemble_untrusted, sandbox

SOURCE = ".globl _start\n_start: movq $1, %rax\n.macro M\nsyscall\n.endm\nM\njmp _start\n.data\nd: .quad f\n"


def test_same_image_as_trusted() -> None:
    one = assemble_untrusted(SOURCE, name="t", base=0x1000, externals={"f": 5}, constants={"C": 1})
    two = assemble_text(SOURCE, name="t", base=0x1000, externals={"f": 5}, constants={"C": 1})
    assert (one.segments, one.symbols, one.globals, one.externals, one.statements, one.entry) == (
        two.segments,
        two.symbols,
        two.globals,
        two.externals,
        two.statements,
        two.entry,
    )


def test_same_errors_as_trusted() -> None:
    source = ".macro M\nfrob\n.endm\nM\n.bogus"
    with pytest.raises(AssemblyError) as one:
        assemble_untrusted(source, name="t", base=0, first_line=10)
    with pytest.raises(AssemblyError) as two:
        assemble_text(source, name="t", base=0, first_line=10)
    assert one.value.diagnostics == two.value.diagnostics
    assert [d.position.line for d in one.value.diagnostics] == [11, 14]


def test_include_is_refused() -> None:
    with pytest.raises(AssemblyError, match="cannot read files"):
        assemble_untrusted('.include "/etc/passwd"', name="t", base=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_no_interpreter_is_started_where_the_platform_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 10 ms instead of some 300."""
    monkeypatch.setattr(sandbox, "_in_interpreter", lambda request, timeout: pytest.fail("an interpreter"))
    assert assemble_untrusted(SOURCE, name="t", base=0, externals={"f": 5}).segments


def test_a_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_work", lambda request: time.sleep(60))
    began = time.perf_counter()
    with pytest.raises(AssemblyError, match="t:7: the assembler took too long"):
        assemble_untrusted("nop", name="t", base=0, first_line=7, timeout=0.2)
    assert time.perf_counter() - began < 30  # the child would take 60, however busy the machine is


def test_a_child_that_closes_its_pipe_and_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(request: object) -> bytes:
        os.closerange(3, 256)
        time.sleep(60)
        return b""

    monkeypatch.setattr(sandbox, "_work", work)
    began = time.perf_counter()
    with pytest.raises(AssemblyError, match="the assembler"):
        assemble_untrusted("nop", name="t", base=0, timeout=0.2)
    assert time.perf_counter() - began < 30  # the child would take 60, however busy the machine is


@pytest.mark.parametrize("status", [0, 1])
def test_a_child_that_dies(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(sandbox, "_work", lambda request: os._exit(status))
    with pytest.raises(AssemblyError, match="the assembler died"):
        assemble_untrusted("nop", name="t", base=0)


def test_a_child_that_raises(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sandbox, "_work", lambda request: 1 // 0)
    with pytest.raises(AssemblyError, match="the assembler died"):
        assemble_untrusted("nop", name="t", base=0)
    assert capfd.readouterr().err == ""


def test_a_child_that_needs_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(request: dict[str, float]) -> bytes:
        sandbox._limit(request["timeout"])
        try:
            return b'{"failure": "had %d bytes"}' % len(bytes(1 << 32))
        except MemoryError:
            return b'{"failure": "ran out of memory"}'

    monkeypatch.setattr(sandbox, "_work", work)
    with pytest.raises(AssemblyError, match="ran out of memory"):
        assemble_untrusted("nop", name="t", base=0)


def test_a_child_that_answers_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (b"", b"nonsense", b"[]", b"{}", b'{"errors": 5}', b'{"segments": [[1]]}'):
        monkeypatch.setattr(sandbox, "_work", lambda request, answer=answer: answer)
        with pytest.raises(AssemblyError, match="the assembler died"):
            assemble_untrusted("nop", name="t", base=0)


def test_leaves_no_child_and_no_descriptor() -> None:
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    for _ in range(5):
        assemble_untrusted("nop", name="t", base=0)
    assert (sorted(os.listdir("/proc/self/fd")) if before else []) == before


def test_works_beside_threads() -> None:
    results: list[int] = []

    def work() -> None:
        for _ in range(5):
            results.append(len(assemble_untrusted("nop", name="t", base=0).segments))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 20


def test_without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    assert assemble_untrusted("nop", name="t", base=0).segments[0].data == b"\x90"
    with pytest.raises(AssemblyError, match="unknown directive"):
        assemble_untrusted(".bogus", name="t", base=0)
