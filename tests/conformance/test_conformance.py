"""Our machine against the oracles' answers."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conformance import corpus
from conformance.cases import GROUPS
from conformance.rulings import KNOWN_WRONG
from emu.machine import delivery, msr, returns
from emu.machine.alignment import AlignmentCheck
from emu.machine.core import Core
from emu.machine.debug_unit import DebugUnit

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


@pytest.mark.parametrize("group", GROUPS)
def test_every_case_has_its_own_name_and_differs_in_substance(group):
    cases = GROUPS[group]
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []
    substance = Counter(repr(replace(case, name="")) for case in cases)
    assert [text for text, count in substance.items() if count > 1] == []


def test_there_are_at_least_300_cases():
    assert sum(len(case.cpu) for cases in GROUPS.values() for case in cases) >= 300


def test_the_differences_that_are_left_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text()
    assert [pattern for pattern in KNOWN_WRONG if f"`{pattern}`" not in text] == []


def _no_dpl_check(patch):
    check = delivery._gate
    patch.setattr(delivery, "_gate", lambda linear, vector, _ext, cpl: check(linear, vector, 1, cpl))


def _nmis_always_open(patch):
    patch.setattr(Core, "nmi_blocked", property(lambda _core: False, lambda _core, _value: None), raising=False)


MUTANTS = {
    "no DPL check of gates": (_no_dpl_check, "faults", "faults/int3_user/intel"),
    "RF never saved": (
        lambda patch: patch.setattr(delivery, "_saved_rf", lambda _event: 0),
        "faults",
        "faults/ud2_kernel/intel",
    ),
    "MSR values not checked": (
        lambda patch: patch.setattr(msr, "check_write", lambda *_: None),
        "msr",
        "msr/lstar_hole/intel",
    ),
    "IRETQ does not look at SS": (
        lambda patch: patch.setattr(returns, "_check_stack_segment", lambda *_, **__: None),
        "iret",
        "iret/ss_code/intel",
    ),
    "data breakpoints lost": (
        lambda patch: patch.setattr(DebugUnit, "_hits", lambda _unit: 0),
        "debug",
        "debug/watch_user/intel",
    ),
    "alignment not checked": (
        lambda patch: patch.setattr(AlignmentCheck, "judge", lambda _check, stop: stop),
        "faults",
        "faults/misaligned_push_with_ac_user/intel",
    ),
    "frames not aligned": (
        lambda patch: patch.setattr(delivery, "_STACK_ALIGNMENT", 1),
        "stacks",
        "stacks/odd_8_ist_0_ud_kernel/intel",
    ),
    "NMIs not blocked": (
        _nmis_always_open,
        "interrupts",
        "interrupts/nmi_blocked_in_handler/intel",
    ),
}


@pytest.mark.parametrize(("breakage", "group", "case"), MUTANTS.values(), ids=MUTANTS)
def test_the_corpus_notices_a_broken_machine(monkeypatch, breakage, group, case):
    breakage(monkeypatch)
    wrong = {result.name for result in corpus.results(group) if result.wrong}
    assert case in wrong
