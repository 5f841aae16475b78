"""Mutation testing: every operator makes mutants, the regression kills them, and survivors are told from the rest."""

from __future__ import annotations

import pytest

from emu.errors import ImageError
from emu.lab.mutate import command, suite
from emu.lab.mutate.operators import Mutant, by_instruction, by_source, idempotent, nops, patched
from emu.lab.mutate.run import Fate, Known, Status, Work, judge, learn, mutants, read_equivalent
from emu.lab.mutate.suite import Check, Killed
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files

PROFILE = Profile()
IMAGE = build_image("linux-6", PROFILE)
FAST = ("getpid", "getpid x nmi", "scratch registers", "int80", "changed cx", "vector 29 at entry_SYSCALL_64")


@pytest.fixture(scope="module")
def work() -> Work:
    checks = {check.name: check for check in suite.checks()}
    known = tuple(learn(checks[name], "linux-6", PROFILE, None) for name in FAST)
    return Work("linux-6", None, {True: known})


def first(operator: str, place: str = "") -> Mutant:
    for mutant in (*by_instruction(IMAGE, PROFILE), *by_source("linux-6", PROFILE)):
        if mutant.operator == operator and mutant.place.startswith(place):
            return mutant
    raise AssertionError(f"no mutant {operator} {place}")


# Operator, the place of one of its mutants, and who is to notice.
CASES = [
    ("remove-swapgs", "entry_SYSCALL_64:", "GS nesting"),
    ("remove-cr3-write", "entry_SYSCALL_64", None),
    ("remove-stack-switch", "entry_SYSCALL_64+", None),
    ("remove-fsgsbase", "paranoid_entry", "GS nesting"),
    ("remove-clac", "asm_exc_nmi", None),
    ("invert-branch", "error_entry", None),
    ("error-code", "asm_exc_page_fault", None),
    ("nop", "entry_SYSCALL_64_safe_stack: pushq", None),
    ("double-swapgs", "entry_64.S:1", None),
    ("paranoid-to-normal", "nmi.S", None),
    ("drop-ist", "data.S", None),
    ("shift-pt_regs", "calling.inc", None),
    ("skip-clear", "calling.inc", "C interface"),
    ("sysretq-unchecked", "entry_64.S", "frames"),
]


@pytest.mark.parametrize(
    ("operator", "place", "by"), [case for case in CASES if case[0] not in ("remove-clac", "error-code", "drop-ist")]
)
def test_an_operator_has_a_mutant_that_is_killed(work, operator, place, by):
    fate = judge(first(operator, place), work)
    assert fate.status is Status.KILLED, fate
    assert fate.killed is not None
    assert by is None or fate.killed.by == by


def test_the_operators_that_need_a_check_of_their_own():
    checks = {check.name: check for check in suite.checks()}

    def killed(mutant: Mutant, name: str) -> Killed:
        known = learn(checks[name], "linux-6", PROFILE, None)
        fate = judge(mutant, Work("linux-6", None, {True: (known,)}))
        assert fate.killed is not None, fate
        return fate.killed

    assert killed(first("remove-cld", "asm_exc_nmi"), "direction flag").by == "flags"
    assert killed(first("remove-clac", "asm_exc_nmi"), "alignment flag").by == "flags"
    assert killed(first("error-code", "asm_exc_divide_error"), "vector 0").by == "C interface"
    ist = next(m for m in by_source("linux-6", PROFILE) if m.operator == "drop-ist" and "asm_exc_vmm" in _line(m))
    assert killed(ist, "vector 29 at entry_SYSCALL_64").check == "vector 29 at entry_SYSCALL_64"


def _line(mutant: Mutant) -> str:
    name, _, number = mutant.place.partition(":")
    return source_files("linux-6")[name].splitlines()[int(number) - 1]


def test_a_mutant_that_nothing_executes_is_unreached(work):
    fate = judge(first("nop", "entry_SYSCALL_compat"), work)
    assert fate.status is Status.UNREACHED


def test_a_mutant_that_changes_nothing_survives():
    known = Known(Check("getpid", suite.scenario("getpid", suite.GETPID)), (), frozenset())
    known = learn(known.check, "linux-6", PROFILE, None)
    address = IMAGE.symbol("entry_SYSCALL_64")
    same = Mutant(
        "nop", "entry_SYSCALL_64", PROFILE, ((address, IMAGE.read(address, 3)),), touched=frozenset((address,))
    )
    assert judge(same, Work("linux-6", None, {True: (known,)})).status is Status.SURVIVED


def test_a_patched_image_decodes_anew():
    address = IMAGE.symbol("entry_SYSCALL_64")
    image = patched(IMAGE, ((address, nops(3)),))
    assert IMAGE.instruction_at(address).mnemonic == "swapgs"
    assert image.instruction_at(address).mnemonic.startswith("nop")
    assert image.instruction_at(address + 3) == IMAGE.instruction_at(address + 3)
    assert image.symbols == IMAGE.symbols


@pytest.mark.parametrize("size", range(1, 16))
def test_one_nop_of_any_size(size):
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    (only,) = Cs(CS_ARCH_X86, CS_MODE_64).disasm(nops(size), 0)
    assert (only.mnemonic, only.size) == ("nop", size)


def test_every_mutant_has_a_name_of_its_own():
    names = [(mutant.name, mutant.profile.fsgsbase) for mutant in mutants("linux-6", None, ())]
    assert len(names) == len(set(names))
    assert len(names) > 1_200


def test_what_is_idempotent_is_not_run():
    found = dict(idempotent(source_files("linux-6")))
    assert any("cld" in name for name in found)
    assert not any("swapgs" in name for name in found)


def test_the_list_of_equivalents_has_reasons():
    for operator, place, reason in read_equivalent():
        assert operator
        assert place
        assert len(reason) > 20


def test_the_score_counts_survivors():
    def fate(operator: str, status: Status) -> Fate:
        return Fate(
            operator, "x", "fsgsbase", status, Killed("c", "GS nesting", "m") if status is Status.KILLED else None
        )

    killed = [fate("nop", Status.KILLED)] * 96
    assert command.good_enough([*killed, *[fate("nop", Status.SURVIVED)] * 4])
    assert not command.good_enough([*killed, *[fate("nop", Status.SURVIVED)] * 6])
    assert not command.good_enough([*killed, fate("remove-cld", Status.SURVIVED)])
    lines = list(command.text_lines([*killed, fate("nop", Status.SURVIVED)]))
    assert "killed by: GS nesting 96" in lines
    assert "survived: nop x" in lines


def test_an_image_without_entry_section_has_no_score():
    with pytest.raises(ImageError, match=r"linux-2\.6: the image has no section \.entry\.text"):
        mutants("linux-2.6", None, ())
