"""The oracles' answers as checked in: one JSON file a group, what they agree on once, what they differ in apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.decode import Answer
from conformance.model import Case, Vendor

FOLDER = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Record:
    """One case on one vendor's CPU: every oracle's answer, and a digest of the case that they answered."""

    digest: str
    answers: Mapping[str, Answer]


def key(case: Case, vendor: Vendor) -> str:
    """The name of a case on a vendor's CPU."""
    return f"{case.name}/{vendor}"


def digest(case: Case) -> str:
    """Changes when the case does: then its record is stale."""
    return hashlib.sha256(repr(case).encode()).hexdigest()[:12]


def _pack(record: Record) -> dict[str, Any]:
    answers = list(record.answers.values())
    agreed = {k: v for k, v in answers[0].items() if all(a.get(k) == v for a in answers)}
    packed: dict[str, Any] = {"case": record.digest, "agreed": agreed}
    for name, answer in record.answers.items():
        apart = {k: v for k, v in answer.items() if k not in agreed}
        if apart:
            packed[name] = apart
    return packed


def save(group: str, oracles: Mapping[str, Any], found: Mapping[str, Record]) -> None:
    """Write a group's file: the oracles with versions and CPU models, then the cases, one line each."""
    lines = [f' "{name}": {json.dumps(_pack(record), separators=(",", ":"))}' for name, record in found.items()]
    head = json.dumps(oracles, indent=1)
    FOLDER.mkdir(exist_ok=True)
    text = f'{{"oracles": {head},\n"cases": {{\n' + ",\n".join(lines) + "\n}}\n"
    (FOLDER / f"{group}.json").write_text(text)


def load(group: str) -> dict[str, Record]:
    """A group's records; empty if it was never recorded."""
    path = FOLDER / f"{group}.json"
    if not path.exists():
        return {}
    data = json.loads(path.read_text())
    found = {}
    for name, packed in data["cases"].items():
        answers = {oracle: {**packed["agreed"], **packed.get(oracle, {})} for oracle in data["oracles"]}
        found[name] = Record(packed["case"], answers)
    return found
