"""Mutation testing: every operator makes mutants, the regression kills them, and survivors are told from the rest."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from asm import Image
from emu.errors import ImageError
from emu.lab.mutate import command, suite
from emu.lab.mutate.doubled import doubled_kind, same_twice
from emu.lab.mutate.instructions import inverted
from emu.lab.mutate.learn import learn
from emu.lab.mutate.listed import Equivalent, equivalents, parse, without_mutant
from emu.lab.mutate.mutant import Mutant, nops, patched
from emu.lab.mutate.record import document
from emu.lab.mutate.run import Fate, Outcome, Status, Work, judge, mutants
from emu.lab.mutate.suite import Killed
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image

PROFILE = Profile()
KERNELS = ("linux-6", "linux-2.6")
FAST = {
    "linux-6": ("getpid", "getpid x nmi", "scratch registers", "int80", "changed cx", "vector 29 at entry_SYSCALL_64"),
    "linux-2.6": (
        "getpid",
        "vector 0",
        "vector 3",
        "vector 13",
        "interrupt 0x30",
        "scratch, nmi",
        "vector 18 at system_call",
    ),
}


def image_of(kernel: str) -> Image:
    return build_image(kernel, PROFILE)


@cache
def all_mutants(kernel: str) -> tuple[Mutant, ...]:
    return tuple(mutants(kernel, None))


@cache
def work(kernel: str, *names: str) -> Work:
    """What a worker has that knows these checks only, or the fast ones."""
    checks = {check.name: check for check in suite.checks(kernel, PROFILE)}
    known = tuple(learn(checks[name], image_of(kernel)) for name in names or FAST[kernel])
    return Work(kernel, None, {PROFILE: known, Profile(fsgsbase=False): ()})


def first(operator: str, place: str = "", kernel: str = "linux-6") -> Mutant:
    for mutant in all_mutants(kernel):
        if mutant.operator == operator and mutant.place.startswith(place):
            return mutant
    raise AssertionError(f"no mutant {operator} {place}")


def fate_of(mutant: Mutant, known: Work) -> Fate:
    fate = judge(mutant, known)
    assert fate is not None, mutant.name
    return fate


# Kernel, operator, the place of one of its mutants, and who is to notice.
CASES = [
    ("linux-6", "remove-swapgs", "entry_SYSCALL_64:", "GS nesting"),
    ("linux-6", "remove-cr3-write", "entry_SYSCALL_64", None),
    ("linux-6", "remove-stack-switch", "entry_SYSCALL_64+", None),
    ("linux-6", "remove-fsgsbase", "paranoid_entry", "GS nesting"),
    ("linux-6", "invert-branch", "error_entry", None),
    ("linux-6", "nop", "entry_SYSCALL_64_safe_stack: pushq", None),
    ("linux-6", "double-swapgs", "entry_64.S:1", None),
    ("linux-6", "paranoid-to-normal", "nmi.S", None),
    ("linux-6", "shift-pt_regs", "calling.inc", None),
    ("linux-6", "skip-clear", "calling.inc", "C interface"),
    ("linux-6", "sysretq-unchecked", "entry_64.S", "frames"),
    ("linux-2.6", "remove-swapgs", "system_call:", "GS nesting"),
    ("linux-2.6", "remove-stack-switch", "system_call+", None),
    ("linux-2.6", "remove-cld", "error_entry:", "flags"),
    ("linux-2.6", "invert-branch", "error_entry", None),
    ("linux-2.6", "invert-branch", "common_interrupt+", None),
    ("linux-2.6", "error-code", "divide_error:", "C interface"),
    ("linux-2.6", "error-code", "interrupt+0x100:", "C interface"),
    ("linux-2.6", "paranoid-to-normal", "paranoid.S:98", "GS nesting"),
    ("linux-2.6", "drop-ist", "data.S:35", None),
    ("linux-2.6", "shift-pt_regs", "calling.inc", "frames"),
    ("linux-2.6", "double-swapgs", "entry_64.S", None),
]


@pytest.mark.parametrize(("kernel", "operator", "place", "by"), CASES)
def test_an_operator_has_a_mutant_that_is_killed(kernel, operator, place, by):
    fate = fate_of(first(operator, place, kernel), work(kernel))
    assert fate.status is Status.KILLED, fate
    assert fate.killed is not None
    assert by is None or fate.killed.by == by


@pytest.mark.parametrize(
    ("operator", "place", "check", "by"),
    [
        ("remove-cld", "asm_exc_nmi", "direction flag", "flags"),
        ("remove-clac", "asm_exc_nmi", "alignment flag", "flags"),
        ("error-code", "asm_exc_divide_error", "vector 0", "C interface"),
        ("drop-ist", "data.S:40", "vector 29 at entry_SYSCALL_64", None),
        ("nop", "asm_exc_int3+0x6: testb", "text patching, ZF clear", "progress"),
    ],
)
def test_an_operator_that_needs_a_check_of_its_own(operator, place, check, by):
    fate = fate_of(first(operator, place), work("linux-6", check))
    assert fate.killed is not None, fate
    assert fate.killed.check == check
    assert by is None or fate.killed.by == by


# --- what is not killed -----------------------------------------------------------------------------------------------
def test_a_mutant_that_nothing_executes_is_unreached():
    assert fate_of(first("nop", "entry_SYSCALL_compat"), work("linux-6")).status is Status.UNREACHED


def test_a_mutant_that_nothing_can_execute_has_the_reason_of_the_list():
    fate = fate_of(first("nop", "asm_exc_device_not_available+0x13: jmp"), work("linux-6"))
    assert fate.status is Status.UNEXECUTED
    assert "CR0.TS" in fate.reason


def test_a_list_of_equivalents_does_not_hide_what_no_check_executes():
    mutant = first("nop", "entry_SYSCALL_compat")
    listing = replace(work("linux-6"), listed=(Equivalent("*", "*", "it may be anything"),))
    assert fate_of(mutant, listing).status is Status.UNREACHED


def test_a_survivor_is_equivalent_only_if_it_is_listed():
    address = image_of("linux-6").symbol("entry_SYSCALL_64")
    removed = Mutant("remove-swapgs", "x", PROFILE, ((address, nops(3)),))
    swapgs = image_of("linux-6").read(address, 3)
    known = work("linux-6", "getpid")
    harmless = first("nop", "error_entry+0x1a: xorl %eax, %eax")
    assert fate_of(harmless, known).status is Status.SURVIVED
    listing = replace(known, listed=(Equivalent("nop", "error_entry+*: xorl %eax, %eax", "not needed"),))
    assert fate_of(harmless, listing) == Fate("nop", harmless.place, "fsgsbase", Status.EQUIVALENT, None, "not needed")
    assert fate_of(removed, listing).status is Status.KILLED
    assert judge(replace(removed, patch=((address, swapgs),)), known) is None  # changes nothing: no mutant


def test_what_is_killed_is_not_equivalent_whatever_the_list_says():
    listing = replace(work("linux-6"), listed=(Equivalent("*", "*", "wrong"),))
    assert fate_of(first("remove-swapgs", "entry_SYSCALL_64:"), listing).status is Status.KILLED


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_listed_as_equivalent_is_there_and_has_a_reason(kernel):
    rows = equivalents(kernel)
    assert rows
    assert without_mutant(rows, [(mutant.operator, mutant.place) for mutant in all_mutants(kernel)]) == []
    assert all(len(row.reason) > 20 for row in rows)


def test_a_listed_equivalent_whose_instruction_is_gone_is_found():
    text = '[[equivalent]]\noperator = "nop"\nreason = "r"\nplaces = ["error_entry+*: xorl %eax, %eax", "gone+*: *"]\n'
    known = [(mutant.operator, mutant.place) for mutant in all_mutants("linux-6")]
    assert [row.place for row in without_mutant(parse(text), known)] == ["gone+*: *"]


@pytest.mark.parametrize("text", ['operator = "nop"\nplaces = ["x"]', 'operator = "nop"\nreason = ""\nplaces = ["x"]'])
def test_a_listed_equivalent_without_a_reason_is_refused(text):
    with pytest.raises(ValueError, match="a row has an operator, places and a reason"):
        parse(f"[[equivalent]]\n{text}\n")


@pytest.mark.parametrize(
    ("code", "kind", "same"),
    [
        ("cld", "cld", True),
        ("cli", "cli-sti", True),
        ("sti", "cli-sti", False),  # the second one is in the first one's shadow, what follows is not
        ("swapgs", "swapgs", False),
        ("movq %rax, %cr3", "cr3-write", True),
        ("wrgsbase %rbx", "fsgsbase", True),
        ("movq %gs:PDA_KERNELSTACK, %rsp", "stack-switch", True),
        ("movq 5*8(%rsp), %rsp", "stack-switch", False),
        ("popq %rsp", "stack-switch", False),
        ("subq $8, %rsp", "stack-switch", False),
        ("leave", "stack-switch", False),
        ("pushq %rax", "", False),
    ],
)
def test_what_is_the_same_when_it_is_done_twice(code, kind, same):
    assert doubled_kind(code) == kind
    assert bool(same_twice(code)) is same


def test_a_doubled_sti_in_front_of_sysexit_is_no_equivalent():
    mutant = first("double-cli-sti", "ia32entry.S:89 sti", "linux-2.6")
    assert not mutant.same
    fate = fate_of(mutant, work("linux-2.6", "interrupt in SYSEXIT's shadow"))
    assert fate.killed is not None
    assert fate.killed.by == "GS nesting"


# --- images -----------------------------------------------------------------------------------------------------------
def test_a_patched_image_decodes_anew():
    image = image_of("linux-6")
    address = image.symbol("entry_SYSCALL_64")
    broken = patched(image, ((address, nops(3)),))
    assert image.instruction_at(address).mnemonic == "swapgs"
    assert broken.instruction_at(address).mnemonic.startswith("nop")
    assert broken.instruction_at(address + 3) == image.instruction_at(address + 3)
    assert broken.symbols == image.symbols


@pytest.mark.parametrize("size", range(1, 16))
def test_one_nop_of_any_size(size):
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    (only,) = Cs(CS_ARCH_X86, CS_MODE_64).disasm(nops(size), 0)
    assert (only.mnemonic, only.size) == ("nop", size)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [("7405", "7505"), ("0f8500000000", "0f8400000000"), ("65480f442425b0030000", "65480f452425b0030000")],
)
def test_a_branch_or_a_conditional_move_inverted(code, wanted):
    assert inverted(bytes.fromhex(code)).hex() == wanted


@pytest.mark.parametrize(("kernel", "least"), [("linux-6", 1_400), ("linux-2.6", 1_700)])
def test_every_mutant_has_a_name_of_its_own(kernel, least):
    names = [(mutant.name, mutant.profile.fsgsbase) for mutant in all_mutants(kernel)]
    assert len(names) == len(set(names))
    assert len(names) >= least


def test_an_operator_that_there_is_not_is_an_error():
    with pytest.raises(ImageError, match=r"no operator is called remove-nothing; there are .*remove-swapgs"):
        mutants("linux-6", None, ("remove-nothing",))


# --- the score --------------------------------------------------------------------------------------------------------
def made(operator: str, status: Status) -> Fate:
    killed = Killed("c", "GS nesting", "m") if status is Status.KILLED else None
    return Fate(operator, "x", "fsgsbase", status, killed)


KILLED = [made("nop", Status.KILLED)] * 96


@pytest.mark.parametrize(
    ("fates", "good"),
    [
        ([*KILLED, *[made("nop", Status.SURVIVED)] * 4], True),
        ([*KILLED, *[made("nop", Status.SURVIVED)] * 6], False),
        ([*KILLED, *[made("nop", Status.UNREACHED)] * 6], False),
        ([*KILLED, *[made("nop", Status.UNEXECUTED)] * 6], True),
        ([*KILLED, made("remove-cld", Status.SURVIVED)], False),
        ([*KILLED, made("remove-cld", Status.UNREACHED)], False),
        ([*KILLED, made("remove-cld", Status.EQUIVALENT)], True),
        ([made("nop", Status.UNEXECUTED)], False),
        ([], False),
    ],
)
def test_what_is_good_enough(fates, good):
    assert command.good_enough(Outcome(tuple(fates))) is good


def test_a_row_of_the_list_that_no_mutant_needs_fails_the_run():
    stale = Outcome(tuple(KILLED), (Equivalent("nop", "gone", "it was so"),))
    assert not command.good_enough(stale)
    assert "listed as equivalent, but no mutant needs it: nop gone" in command.text_lines(stale)


def test_nothing_has_no_score():
    assert command.score([]) is None
    assert command.score([made("nop", Status.UNEXECUTED)]) is None
    assert "named operators n/a, any instruction n/a" in command.text_lines(Outcome(()))


def test_the_table_names_survivors():
    lines = list(command.text_lines(Outcome((*KILLED, made("nop", Status.SURVIVED)))))
    assert "killed by: GS nesting 96" in lines
    assert "survived: nop x" in lines
    assert "named operators n/a, any instruction 99.0%" in lines


# --- the record -------------------------------------------------------------------------------------------------------
def test_the_page_counts_what_the_run_found():
    fates = (
        *KILLED,
        replace(made("nop", Status.EQUIVALENT), place="here", reason="it is the same"),
        replace(made("remove-cld", Status.SURVIVED), place="there"),
    )
    page = document([json.loads(command.as_json("linux-6", Outcome(fates)))])
    assert "98 mutants. Killed or equivalent: 0.0% of the named operators', 100.0% of the generic one's" in page
    assert "| `nop` | 97 | 96 | 1 |  |  |  |  |" in page
    assert "| `remove-cld` | 1 |  |  |  | 1 |  |  |" in page
    assert "| all | 98 | 96 | 1 |  | 1 |  |  |" in page
    assert "| GS nesting | 96 |" in page
    assert "- it is the same: `nop` here" in page
    assert "- `remove-cld` there" in page


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_recorded_results_know_every_operator(kernel):
    page = (Path(__file__).parents[2] / "docs" / "mutation.md").read_text()
    section = page.partition(f"\n## {kernel}\n")[2].partition("\n## ")[0]
    recorded = set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE))
    assert recorded == {mutant.operator for mutant in all_mutants(kernel)}
