"""Validates reports against the published schemas of their formats (tests/lab/schemas)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jsonschema
import xmlschema

SCHEMAS = Path(__file__).parent / "lab" / "schemas"


@cache
def _sarif() -> jsonschema.protocols.Validator:
    schema = json.loads((SCHEMAS / "sarif-2.1.0.json").read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@cache
def _junit() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(str(SCHEMAS / "junit-10.xsd"))


def sarif_errors(text: str) -> list[str]:
    """What of a SARIF log the schema does not allow."""
    return [f"{error.json_path}: {error.message}" for error in _sarif().iter_errors(json.loads(text))]


def junit_errors(text: str) -> list[str]:
    """What of a JUnit report the schema does not allow."""
    return [f"{error.path}: {error.reason}" for error in _junit().iter_errors(text)]
