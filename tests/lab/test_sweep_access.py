"""Faults at what user mode controls: the sweep finds the sites by itself, and the machine makes the faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from lab_runs import WAIT
from sweep_runs import broken, rows, text

from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.sweep import events
from emu.lab.sweep.access import ACCESS, REFUSED
from emu.lab.sweep.case import CLEAN, CRASH, PENDING, VIOLATION
from emu.lab.sweep.event import Ending
from emu.lab.sweep.store import Row

WRITE = """
title = "write from the stack"
[user]
asm = '''
_start:
    movl    $0x0a6968, (%rsp)
    movl    $SYS_write, %eax
    movl    $1, %edi
    movq    %rsp, %rsi
    movl    $3, %edx
    syscall
    movl    %eax, %edi
    movl    $SYS_exit_group, %eax
    syscall
'''
"""


def kinds(found: list[Row]) -> Counter[str]:
    """How many cases each kind of event has."""
    return Counter(row.events.partition("@")[0].removeprefix("access.") for row in found)


def bad(found: list[Row]) -> set[tuple[str, str, str]]:
    """What is not clean: event, invariant, symbol."""
    return {
        (row.events.partition("@")[0].removeprefix("access."), row.invariant, row.location.partition("+")[0])
        for row in found
        if row.verdict != CLEAN
    }


FORKS = f"""
title = "a child forks too"
[user]
asm = '''
_start:
    call    fork
    jnz     again
    call    fork
    jmp     end
again:
    call    wait
    call    fork
    jz      end
    call    wait
end:
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
fork:
    movl    $SYS_fork, %eax
    syscall
    testl   %eax, %eax
    ret
wait:
{WAIT}    ret
'''
"""


# --- clean ------------------------------------------------------------------------------------------------------------
def test_a_new_task_that_never_comes_to_user_mode_is_not_taken_for_the_next_one():
    """The second fork's child is killed at its first IRETQ, and a third fork begins another task."""
    found = rows(FORKS, "access", window="do_syscall_64..do_syscall_64+0x6")
    assert bad(found) == set()
    assert kinds(found)["regs-rip-noncanonical"] > 5


def test_every_slot_of_every_frame_of_user_mode_is_made_bad():
    found = rows(text(), "access")
    assert {row.verdict for row in found} == {CLEAN}
    assert len(kinds(found)) == 22
    iret = [row for row in found if ".iret-" in row.events]
    assert {row.place for row in iret} == {"native_irq_return_iret"}
    assert len(iret) == 11 * 2, "the first way to user mode, and that of a page fault"
    assert {row.place for row in found if ".regs-" in row.events} == {"do_syscall_64+0x4", "exc_page_fault+0x4"}


def test_every_slot_of_a_frame_on_the_espfix_stack_is_made_bad():
    """There the fault becomes a double fault, of which C makes user mode's #GP."""
    found = rows(find_scenario("espfix64").text, "access", window="native_irq_return_iret..native_irq_return_iret")
    assert {row.verdict for row in found} == {CLEAN}
    by_espfix = [row for row in found if int(row.events.partition("@")[2]) > 200]
    assert len(by_espfix) == 11, "each of the eleven that a frame elsewhere has"


def test_every_segment_load_gets_bad_selectors():
    found = rows(find_scenario("espfix64-own-segments").text, "access", window="load_user_segments..load_LDT")
    found += rows(find_scenario("load-gs-index-fault").text, "access", window="asm_load_gs_index..gs_change")
    assert {row.verdict for row in found} == {CLEAN}
    assert {row.place.partition("+")[0] for row in found} >= {"gs_change"}
    assert set(kinds(found)) == {"segment-beyond", "segment-kernel", "segment-system", "segment-absent"}


def test_a_page_that_c_reads_is_brought_in_or_the_call_fails():
    found = [row for row in rows(WRITE, "access", window="do_syscall_64..do_syscall_64") if ".c-page" in row.events]
    assert {row.verdict for row in found} == {CLEAN}
    assert kinds(found) == {"c-page-absent": 1, "c-page-denied": 1}


def test_a_page_that_the_entry_code_itself_reads_is_brought_in_or_the_call_fails():
    """linux-2.6 reads the sixth argument of SYSENTER from the user's stack."""
    source = find_scenario("classic-ia32-traced-sysenter").text
    found = rows(source, "access", window="ia32entry.S:60..ia32entry.S:60")
    assert {row.verdict for row in found} == {CLEAN}
    assert {row.place.partition("+")[0] for row in found} == {"ia32_sysenter_target"}
    assert set(kinds(found)) == {"page-absent", "page-denied"}


# --- finds ------------------------------------------------------------------------------------------------------------
def test_an_iret_fault_that_is_not_known_by_its_address_is_found():
    check = """    leaq    native_irq_return_iret(%rip), %rcx
    cmpq    %rcx, PT_REGS_IP(%rsp)
    je      .Lerror_entry_bad_iret
"""
    found = rows(text(), "access", image=broken("entry_64.S", check, ""))
    assert {event for event, _, _ in bad(found)} > {"iret-ss-null", "iret-cs-null", "iret-rip-noncanonical"}
    assert all(row.verdict in (VIOLATION, CRASH) for row in found if ".iret-" in row.events)
    assert not any(event.startswith("c-page") for event, _, _ in bad(found))


def test_a_sysretq_that_takes_any_rip_is_found():
    check = """    movq    %rcx, %rax
    shlq    $16, %rax
    sarq    $16, %rax
    cmpq    %rcx, %rax
    jne     swapgs_restore_regs_and_return_to_usermode
"""
    found = rows(text(), "access", image=broken("entry_64.S", check, ""))
    assert {event for event, _, _ in bad(found)} == {"regs-rip-noncanonical"}


def test_linux_26_returns_from_the_stack_fault_of_an_iretq_with_the_users_gs():
    """CVE-2014-9322: #SS has a stack of its own there, and the paranoid exit swaps back."""
    found = rows(find_scenario("classic-bad-iret").text, "access")
    assert bad(found) == {("iret-ss-absent", "GS nesting", "iret_label (irq.S:84)")}


def test_a_missing_exception_table_entry_is_found():
    source = find_scenario("load-gs-index-fault").text
    image = broken("data.S", "    .quad   gs_change, .Lbad_gs\n", "")
    found = rows(source, "access", window="asm_load_gs_index..gs_change", image=image)
    assert {row.verdict for row in found} == {CRASH}


# --- judges -----------------------------------------------------------------------------------------------------------
def only(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    """Have `access` stand for one kind of event, with something else about it."""
    (event,) = (event for event in ACCESS if event.name == f"access.{name}")
    monkeypatch.setitem(events.EVENTS, "access", (replace(event, **changes),))


def test_an_instruction_that_ought_to_fault_and_does_not_is_a_finding(monkeypatch):
    only(monkeypatch, "regs-rflags-ac", faults=True, arms=False)
    (row,) = rows(text(), "access", window="do_syscall_64..do_syscall_64+0x6")[:1]
    assert (row.verdict, row.invariant) == (VIOLATION, "delivery")
    assert "does not fault" in row.message


def test_another_signal_than_linuxs_is_a_finding(monkeypatch):
    only(monkeypatch, "iret-ss-null", ending=Ending(frozenset({"SIGILL"}), recovers=False))
    assert {row.invariant for row in rows(text(), "access")} == {"ending"}


def test_a_run_that_goes_on_after_a_refused_frame_is_a_finding(monkeypatch):
    only(monkeypatch, "c-page-absent", ending=REFUSED)
    assert {row.invariant for row in rows(WRITE, "access", window="do_syscall_64..do_syscall_64")} == {"ending"}


def test_what_nests_in_a_refused_frames_fault_is_compared_with_that_run(monkeypatch):
    """The program dies of SIGSEGV: an interrupt that stays pending until it does, or comes in meanwhile, is no news."""
    only(monkeypatch, "iret-ss-null")
    window = "native_irq_return_iret..native_irq_return_iret"
    found = rows(text(), "access", "timer", "mce", depth=2, window=window)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    nested = [row for row in found if row.events.startswith("access.") and " " in row.events]
    assert len([row for row in nested if " mce+" in row.events]) > 100
    assert len([row for row in nested if " timer+" in row.events]) > 100


def test_the_reproducer_of_a_finding_with_two_changes_shows_it():
    """A descriptor that is not present, and a selector of it in the frame."""
    row = next(row for row in rows(find_scenario("classic-bad-iret").text, "access") if row.verdict != CLEAN)
    assert row.reproducer.count('event = "memory"') == 3
    (report,) = run_scenario(parse_scenario(row.reproducer, "finding.toml"))
    first = report.facts.violations[0]
    assert (first.invariant, first.where) == (row.invariant, row.location)
