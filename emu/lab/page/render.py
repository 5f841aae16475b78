"""The page: a template with the data in it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from emu.lab.sweep.case import VERDICTS


def render(data: list[dict[str, Any]]) -> str:
    """One HTML document without any reference to another file."""
    text = json.dumps({"verdicts": VERDICTS, "sweeps": data}, separators=(",", ":"), ensure_ascii=True)
    # Inside <script> only these could end it or begin a comment.
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    template = files(__package__).joinpath("page.html").read_text("utf-8")
    before, after = template.split("/*DATA*/")
    return before + text + after
