"""Our machine against the oracles' answers."""

from functools import cache

import pytest

from conformance import corpus
from conformance.cases import GROUPS
from emu.machine import delivery

results = cache(corpus.results)


@pytest.mark.parametrize("group", GROUPS)
def test_the_records_are_those_of_the_cases_as_they_are(group):
    assert corpus.stale(group) == [], "run `make conformance`"


@pytest.mark.parametrize("group", GROUPS)
def test_our_machine_answers_as_the_oracles_do(group):
    found = results(group)
    wrong = [result.explain() for result in found if result.wrong and not result.known]
    assert not wrong, "\n".join(wrong)
    fixed = [result.name for result in found if result.known and not result.wrong]
    assert not fixed, "listed as wrong in rulings.py and docs/fidelity.md, but right"


@pytest.mark.parametrize("group", GROUPS)
def test_every_disagreement_of_the_oracles_has_a_ruling(group):
    assert [(r.name, r.verdict.open) for r in results(group) if r.verdict.open] == []


def test_there_are_at_least_300_cases():
    assert sum(len(case.cpu) for cases in GROUPS.values() for case in cases) >= 300


def test_the_corpus_notices_a_machine_that_skips_the_dpl_check(monkeypatch):
    check = delivery._gate

    def lenient(core, event):
        return check(core, delivery.Interruption(event.vector, delivery.EventType.EXTINT, event.ip))

    monkeypatch.setattr(delivery, "_gate", lenient)
    wrong = [result.name for result in corpus.results("faults") if result.wrong]
    assert "faults/int3_user/intel" in wrong
