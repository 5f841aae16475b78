"""The corpus of streams and what the oracles answered, written down as one hash a stream.

A stream counts if Bochs and QEMU agree about it, by themselves or by the rulings on single fields that the conformance
corpus uses; seeds of the others are listed. The hash covers the stream and the right answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from conformance import oracles, ours
from conformance.corpus import VENDORS
from conformance.decode import Answer
from conformance.judge import judge
from conformance.rulings import FIELD_RULINGS, repair

from fuzz.image import image
from fuzz.streams import Stream, stream

SEEDS = range(2400)
CHUNK = 300
"""Streams that one image has room for."""
RECORD = Path(__file__).parent / "answers.json"
_HASH = 10


def chunks(seeds: Sequence[int] = SEEDS) -> list[Sequence[int]]:
    """The seeds in portions."""
    return [seeds[n : n + CHUNK] for n in range(0, len(seeds), CHUNK)]


def digest(one: Stream, answer: Answer) -> str:
    """The stream and an answer as a short text."""
    text = f"{one.case!r} {one.code.hex()} {json.dumps(answer, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH]


def _by_vendor(seeds: Sequence[int]) -> Iterator[tuple[Any, list[Stream]]]:
    streams = [stream(seed) for seed in seeds]
    for vendor in VENDORS:
        chosen = [one for one in streams if one.vendor == vendor]
        if chosen:
            yield vendor, chosen


def our_answers(seeds: Sequence[int]) -> dict[int, tuple[Stream, Answer]]:
    """Our machine's answers by seed."""
    return {
        one.seed: (one, answer)
        for vendor, chosen in _by_vendor(seeds)
        for one, answer in zip(chosen, ours.answers(image(chosen), vendor), strict=True)
    }


def right_answers(seeds: Sequence[int]) -> dict[int, tuple[Stream, Answer | None]]:
    """What the oracles say, both booted now; None where they disagree."""
    found: dict[int, tuple[Stream, Answer | None]] = {}
    for vendor, chosen in _by_vendor(seeds):
        built = image(chosen)
        told = {oracle.name: oracles.answers(oracle, built, vendor) for oracle in oracles.ORACLES}
        for n, one in enumerate(chosen):
            answers = {name: of_all[n] for name, of_all in told.items()}
            verdict = judge(f"fuzz/{one.case.name}/{vendor}", answers, (), FIELD_RULINGS, repair)
            found[one.seed] = (one, None if verdict.open else verdict.expected)
    return found


def record() -> dict[str, Any]:
    """Ask the oracles about every seed and write their answers down."""
    hashes, apart = {}, []
    for portion in chunks():
        for seed, (one, answer) in sorted(right_answers(portion).items()):
            if answer is None:
                apart.append(seed)
            else:
                hashes[seed] = digest(one, answer)
    provenance = {o.name: {"version": o.version(), "cpu": o.models} for o in oracles.ORACLES}
    lines = [" ".join(f"{s}:{hashes[s]}" for s in group) for group in _groups(sorted(hashes), 10)]
    data = {"oracles": provenance, "disagree": " ".join(map(str, apart)), "answers": lines}
    RECORD.write_text(json.dumps(data, indent=1) + "\n")
    return data


def _groups(seeds: Sequence[int], size: int) -> list[Sequence[int]]:
    return [seeds[n : n + size] for n in range(0, len(seeds), size)]


@cache
def recorded() -> dict[int, str]:
    """Hashes by seed."""
    lines = json.loads(RECORD.read_text())["answers"]
    pairs = (pair.split(":") for line in lines for pair in line.split())
    return {int(seed): text for seed, text in pairs}


def mismatches(seeds: Sequence[int]) -> list[int]:
    """Seeds of a portion whose recorded answer is not ours."""
    known = recorded()  # but all of the portion run: a stream's address may show in its answer
    return [
        seed
        for seed, (one, answer) in our_answers(seeds).items()
        if seed in known and digest(one, answer) != known[seed]
    ]
