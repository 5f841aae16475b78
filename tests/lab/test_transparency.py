"""An event that lands anywhere in a real program changes nothing that the program can see."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from emu.lab.injection import Injection
from emu.lab.rig import Facts, Rig
from emu.machine.core import Core
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions
from kernel_stubs.context import Kernel
from kernel_stubs.exec import load_elf
from kernel_stubs.kernel_image import build_image

BUDGET = 20_000_000
HELLO = """
#include <stdio.h>
int main(void) {
    for (int i = 0; i < 3; i++)
        printf("hello %d %.3f\\n", i, i / 7.0);
    return 5;
}
"""


def nmi(_kernel: Kernel, core: Core) -> None:
    core.raise_nmi()


def tick(_kernel: Kernel, core: Core) -> None:
    core.raise_interrupt(0x30)


def rig(path: str, *argv: str, stdin: bytes = b"") -> Rig:
    program = load_elf(Path(path).read_bytes(), path)
    profile = Profile()
    return Rig(
        BootOptions(
            build_image("linux-6", profile),
            profile,
            program,
            tuple(text.encode() for text in (path, *argv)),
            stdin=stdin,
        )
    )


def outcome(facts: Facts) -> tuple[object, ...]:
    assert facts.violations == ()
    assert facts.missed == ()
    return facts.end, facts.exit_code, facts.stream(1), facts.stream(2)


def spread(start: int, end: int, count: int) -> list[int]:
    """Different boundaries, evenly spread from the first user instruction to the last."""
    return sorted({start + (end - start) * n // count for n in range(count)})


def compiled(tmp_path: Path, compiler: str) -> str:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / "hello.c"
    source.write_text(HELLO)
    path = str(tmp_path / "hello")
    subprocess.run([compiler, "-O1", "-static", "-o", path, str(source)], check=True)
    return path


@pytest.mark.parametrize(("compiler", "number"), [("gcc", 30), ("musl-gcc", 100)])
def test_one_nmi_at_each_of_many_boundaries_of_a_c_program(tmp_path: Path, compiler: str, number: int) -> None:
    path = compiled(tmp_path, compiler)
    native = subprocess.run([path], stdout=subprocess.PIPE, check=False)
    it = rig(path)
    plain = it.run([], BUDGET, "")
    assert outcome(plain) == ("finished", native.returncode, native.stdout, b"")
    boundaries = spread(5_200, plain.clock, number)
    assert len(boundaries) == number
    for boundary in boundaries:
        facts = it.run([Injection(1, "NMI", nmi, 0, None, 1, boundary)], BUDGET, "", log=False)
        assert outcome(facts) == outcome(plain), boundary


@pytest.mark.parametrize(
    "argv",
    [
        ("echo", "hello"),
        ("seq", "1", "100"),
        ("sha256sum",),
        ("awk", "BEGIN { for (; i < 50; i++) s += i * i; print s }"),
    ],
)
@pytest.mark.parametrize("event", [nmi, tick])
def test_200_events_in_one_run_of_busybox(argv: tuple[str, ...], event: object) -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not installed")
    stdin = bytes(range(256)) * 20
    native = subprocess.run([busybox, *argv], input=stdin, stdout=subprocess.PIPE, check=False)
    it = rig(busybox, *argv, stdin=stdin)
    plain = it.run([], BUDGET, "", log=False)
    assert outcome(plain) == ("finished", native.returncode, native.stdout, b"")
    events = [Injection(n, "event", event, 0, None, 1, at) for n, at in enumerate(spread(5_200, plain.clock, 200))]
    assert outcome(it.run(events, BUDGET, "", log=False)) == outcome(plain)
