"""GNU as and ld as the measure: the same source, each section linked at the address that our image gave it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from asm import Image, Segment

needs_gas = pytest.mark.skipif(
    not (shutil.which("as") and shutil.which("ld") and shutil.which("nm") and shutil.which("objcopy")),
    reason="GNU binutils are not installed",
)


class Refused(Exception):
    """as or ld does not take the source; str() is what it says."""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout + done.stderr


def link(
    source: str,
    image: Image,
    directory: Path,
    include_dirs: Sequence[Path] = (),
    externals: Mapping[str, int] | None = None,
) -> Image:
    """What as and ld make of `source`, with the sections where `image` has them."""
    (directory / "source.S").write_text(source)
    includes = [part for path in include_dirs for part in ("-I", str(path))]
    run("as", "--64", *includes, "source.S", "-o", "source.o", cwd=directory)
    script = [f"  {s.name} {s.address:#x} : {{ *({s.name}) }}" for s in image.segments]
    script += ["  /DISCARD/ : { *(*) }"]
    script += [f"  {name} = {address:#x};" for name, address in (externals or {}).items()]
    (directory / "script.ld").write_text("SECTIONS {\n" + "\n".join(script) + "\n}\n")
    run("ld", "--no-relax", "-z", "noexecstack", "-e", "0", "-T", "script.ld", "source.o", "-o", "out", cwd=directory)
    return Image.from_elf((directory / "out").read_bytes())


def differences(ours: Image, theirs: Image) -> list[str]:
    """Where the two images differ, in words."""
    found: list[str] = []
    segments = {segment.name: segment for segment in theirs.segments}
    for segment in ours.segments:
        other = segments.get(segment.name, Segment(segment.name, segment.address, b"", ""))
        if other.data != segment.data:
            pairs = zip(segment.data, other.data, strict=False)
            least = min(len(segment.data), len(other.data))
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), least)
            found.append(
                f"{segment.name}+{at:#x} of {len(segment.data)} (gas: {len(other.data)}): "
                f"{segment.data[at : at + 16].hex()}, gas {other.data[at : at + 16].hex()}, "
                f"at {ours.line_at(segment.address + at)}"
            )
        elif other.address != segment.address:
            found.append(f"{segment.name} at {segment.address:#x}, gas {other.address:#x}")
    for name, address in ours.symbols.items():
        if theirs.symbols.get(name) != address:
            found.append(f"symbol {name} {address:#x}, gas {theirs.symbols.get(name)}")
    return found


def encode_lines(lines: Sequence[str], directory: Path) -> list[bytes | None]:
    """gas's code for each line by itself; None for what it refuses or warns about."""
    good = dict(enumerate(lines))
    for _ in range(3):
        text = "".join(f"L{number}: {line}\n" for number, line in good.items()) + "Lend:\n"
        (directory / "lines.s").write_text(text)
        done = subprocess.run(
            ["as", "--64", "lines.s", "-o", "lines.o"], cwd=directory, capture_output=True, text=True, check=False
        )
        numbers = list(good)
        bad = {numbers[int(line) - 1] for line in re.findall(r"lines\.s:(\d+): (?:Error|Warning)", done.stderr)}
        for number in bad:
            del good[number]
        if not bad:
            break
    run("objcopy", "-O", "binary", "-j", ".text", "lines.o", "lines.bin", cwd=directory)
    data = (directory / "lines.bin").read_bytes()
    labels = run("nm", "lines.o", cwd=directory)
    address = {name: int(value, 16) for value, name in re.findall(r"(\w+) [tT] L(\w+)", labels)}
    names = [*map(str, good), "end"]
    codes = {int(a): data[address[a] : address[b]] for a, b in pairwise(names)}
    return [codes.get(number) for number in range(len(lines))]
