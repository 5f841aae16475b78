"""Our machine against the oracles' recorded answers to seeded streams."""

import pytest

from emu.machine import delivery
from emu.machine.cpu import Cpu
from fuzz import corpus


def test_at_least_two_thousand_streams_have_an_answer():
    assert len(corpus.recorded()) >= 2000


@pytest.mark.parametrize("portion", corpus.chunks(), ids=lambda portion: f"{portion[0]}-{portion[-1]}")
def test_our_machine_answers_as_the_oracles_did(portion):
    assert corpus.mismatches(portion) == [], "see `python -m fuzz show SEED`; new streams need `python -m fuzz record`"


def test_the_corpus_notices_flags_that_a_fault_loses(monkeypatch):
    monkeypatch.setattr(Cpu, "_settle_flags", lambda self: None)
    assert len(corpus.mismatches(corpus.chunks()[0][:100])) > 5


def test_the_corpus_notices_a_frame_without_rf(monkeypatch):
    monkeypatch.setattr(delivery, "_saved_rf", lambda *_: 0)
    assert len(corpus.mismatches(corpus.chunks()[0][:60])) > 20
