"""SARIF and JUnit reports are valid by the formats' own schemas, whatever is in them; and the schemas do notice."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest
from report_formats import junit_errors, sarif_errors

from emu.lab.check.junit import junit
from emu.lab.check.regression import Checked, Problem
from emu.lab.check.sarif import sarif

CHAIN = ("NMI at entry_SYSCALL_64", "#PF at exc_nmi")
PROBLEMS = (
    Problem("GS nesting", "a message", "nmi.S", 12, "linux-6", "end_repeat_nmi+0x3", CHAIN, "entry64 run a.toml"),
    Problem("expectation", "expected exit status 1", "a.toml", 0, ""),
    Problem("a rule of tomorrow", "<&\x00\ud800\"']]> \N{SNOWMAN}", "with space/100%#1?.S", 1, "linux-6"),
)
RESULTS = (
    Checked("a", "run", "exit 0", (), ()),
    Checked("a", "sweep nmi", "1 case", ("details", "\x1b[0m\x00]]>"), PROBLEMS),
    Checked("b", "entry_SYSCALL_64+0x3", "fails without a problem", ("details",), ()),
)


@pytest.mark.parametrize("results", [(), RESULTS[:1], RESULTS], ids=["none", "passed", "failed"])
def test_reports_are_valid(results):
    assert sarif_errors(sarif(results, "")) == []
    assert junit_errors(junit(results)) == []


def test_names_of_files_are_uri_references():
    log = json.loads(sarif(RESULTS, "my entry:code"))
    places = [result["locations"][0]["physicalLocation"] for result in log["runs"][0]["results"]]
    uris = [place["artifactLocation"]["uri"] for place in places]
    assert uris[2] == "my%20entry%3Acode/with%20space/100%25%231%3F.S"
    assert [unquote(uri) for uri in uris] == ["my entry:code/nmi.S", "a.toml", "my entry:code/with space/100%#1?.S"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": "2.1.0"', '"version": "2.2.0"'),
        ('"startLine": 12', '"startLine": 0'),
        ('"level": "error"', '"level": "fatal"'),
        ('"ruleId": "GS nesting"', '"ruleId": 7'),
        ('"codeFlows"', '"codeFlow"'),
    ],
)
def test_the_sarif_schema_notices(old, new):
    text = sarif(RESULTS, "")
    assert old in text
    assert sarif_errors(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [(' name="run"', ""), ("<system-out>", "<system-aut>"), ("<failure ", "<faliure ")],
)
def test_the_junit_schema_notices(old, new):
    text = junit(RESULTS)
    assert old in text
    close = (old.replace("<", "</").strip().rstrip(">") + ">", new.replace("<", "</").strip().rstrip(">") + ">")
    assert junit_errors(text.replace(old, new).replace(*close))
