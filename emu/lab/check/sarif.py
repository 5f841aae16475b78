"""SARIF 2.1.0 (OASIS): each violation as a result at the file and line of the assembly source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from emu.lab.check.regression import Checked, Problem

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
RULES = {
    "GS nesting": "SWAPGS runs exactly once on each way into the kernel and out of it",
    "stacks": "RSP is on a live stack of this CPU, and no frame is overwritten",
    "page tables": "user mode runs on the user's page tables, C on the kernel's",
    "flags": "C is called with IF, DF, NT, TF and AC clear",
    "frames": "pt_regs hold what was interrupted, and a return restores them",
    "C interface": "no register holds user mode's values when C is called; error code and vector are right",
    "NMI": "NMIs are blocked until IRETQ, and the handler keeps CR2",
    "work": "nothing that is due before user mode runs is left",
    "progress": "the kernel neither crashes nor hangs",
    "transparency": "a run with an event ends as the run without it",
    "delivery": "the handler of a delivered event runs",
    "lost": "a case of the sweep ended its process",
    "expectation": "the scenario's expectations hold",
    "known": "a hole that is listed as known is still there",
}


def sarif(results: Sequence[Checked], folder: str) -> str:
    """The document. `folder`: where the user's own sources of the image lie; empty for those of this project."""
    found = [(result, problem) for result in results for problem in result.problems]
    names = sorted({problem.rule for _, problem in found} | set(RULES))
    rules = [{"id": name, "shortDescription": {"text": RULES.get(name, name)}} for name in names]
    driver = {"name": "entry64", "version": version("entry64"), "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": [_result(result, problem, folder, names) for result, problem in found],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(result: Checked, problem: Problem, folder: str, names: list[str]) -> dict[str, Any]:
    path = f"{folder or f'asm/{problem.kernel}'}/{problem.file}" if problem.kernel else problem.file
    uri = quote(path)  # a URI reference, so no space and no colon
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": max(problem.line, 1)}}
    }
    if problem.symbol:
        location["logicalLocations"] = [{"fullyQualifiedName": problem.symbol, "kind": "function"}]
    text = f"{problem.rule}: {problem.message} [{result.scenario}, {result.name}]"
    same = f"{problem.rule}|{uri}|{problem.symbol}|{result.scenario}|{result.name}"
    entry: dict[str, Any] = {
        "ruleId": problem.rule,
        "ruleIndex": names.index(problem.rule),
        "level": "error",
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"entry64/v1": hashlib.sha256(same.encode()).hexdigest()[:32]},
    }
    if problem.chain:
        steps = [*problem.chain, text]
        entry["codeFlows"] = [
            {"threadFlows": [{"locations": [{"location": {"message": {"text": step}}} for step in steps]}]}
        ]
    if problem.reproduce:
        entry["properties"] = {"reproduce": problem.reproduce}
    return entry
