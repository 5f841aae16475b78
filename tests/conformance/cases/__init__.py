"""The corpus: each module has a tuple CASES; its name is the group's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from conformance.model import Case

GROUPS: dict[str, tuple[Case, ...]] = {
    path.stem: import_module(f"conformance.cases.{path.stem}").CASES
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))
}
