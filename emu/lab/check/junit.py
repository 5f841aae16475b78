"""JUnit XML, as CI systems read it: a test suite for each scenario, a test case for each run and sweep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from emu.lab.check.regression import Checked

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""


def junit(results: Sequence[Checked]) -> str:
    """The document. It has no times: the same results give the same bytes."""
    root = ElementTree.Element("testsuites", name="entry64", tests=str(len(results)), errors="0")
    root.set("failures", str(sum(not result.passed for result in results)))
    for scenario, group in groupby(results, key=lambda result: result.scenario):
        cases = list(group)
        suite = ElementTree.SubElement(root, "testsuite", name=scenario, tests=str(len(cases)), errors="0", skipped="0")
        suite.set("failures", str(sum(not case.passed for case in cases)))
        for case in cases:
            element = ElementTree.SubElement(suite, "testcase", classname=scenario, name=case.name)
            if not case.passed:
                message = case.problems[0].message if case.problems else case.summary
                failure = ElementTree.SubElement(element, "failure", message=_clean(message))
                failure.set("type", case.problems[0].rule if case.problems else "failure")
                failure.text = _clean("\n".join(case.details))
            ElementTree.SubElement(element, "system-out").text = _clean(case.summary)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
