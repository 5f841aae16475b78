"""`[sweep.vary]`: corner values of what user mode controls, pair by pair."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_runs import inject, run
from sweep_runs import broken, rows

from emu.errors import ScenarioError
from emu.lab.minimise import findings
from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.sweep.case import CLEAN, CRASH
from emu.lab.sweep.command import sweep
from emu.lab.sweep.pairwise import pairwise
from emu.lab.sweep.scene import Options, Scene
from emu.lab.sweep.store import Store

ENTRY = "entry_SYSCALL_64..entry_SYSCALL_64_safe_stack"
SIGNAL = """
_start:
    movl    $SYS_rt_sigaction, %eax
    movl    $10, %edi
    leaq    action(%rip), %rsi
    xorl    %edx, %edx
    movl    $8, %r10d
    syscall
    movl    $SYS_getpid, %eax
    syscall
    movl    %eax, %edi
    movl    $10, %esi
    movl    $SYS_kill, %eax
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
handler:
    ret
restorer:
    movl    $SYS_rt_sigreturn, %eax
back:
    syscall
    .balign 8
action:
    .quad   handler, 0x04000000, restorer, 0
"""
GETPID = """
_start:
    movl    $SYS_getpid, %eax
call:
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
"""
INT80 = """
_start:
    movl    $20, %eax
call:
    int     $0x80
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
"""


def varied(values: str, at: str = "user:call", asm: str = GETPID, *, fsgsbase: bool = True) -> str:
    cpu = f"cpu = {{ fsgsbase = {str(fsgsbase).lower()} }}"
    table = f'[sweep]\nevents = ["nmi"]\n[sweep.vary]\nat = "{at}"\nvalues = {{ {values} }}\n'
    return f"title = 't'\n{cpu}\n[user]\nasm = '''{asm}'''\n{table}"


# --- covering arrays --------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_any_two_columns_take_every_pair_of_values(sizes):
    found = pairwise(sizes)
    for a, b in combinations(range(len(sizes)), 2):
        pairs = {(row[a], row[b]) for row in found} | {(0, 0)}  # that is the baseline
        assert pairs == {(x, y) for x in range(sizes[a]) for y in range(sizes[b])}
    assert all(value < size for row in found for value, size in zip(row, sizes, strict=True))
    assert len(set(found)) == len(found)


def test_each_value_comes_alone_first_and_the_array_is_far_smaller_than_the_product():
    found = pairwise([6] * 8)
    assert [sum(map(bool, row)) for row in found[:40]] == [1] * 40
    assert len(found) < 40 + 90, "the product has 1,679,616"


# --- sweeps -----------------------------------------------------------------------------------------------------------
def test_the_registers_of_a_system_call_take_their_corner_values_and_all_is_clean():
    values = "rsp = 'corners', rflags = 'corners', gs_base = 'corners', rcx = ['corners', 7]"
    found = rows(varied(values), "nmi", window="entry_SYSCALL_64..entry_SYSCALL_64+0x3")
    assert {row.verdict for row in found} == {CLEAN}
    runs = [row for row in found if row.events.startswith("vary.") and " " not in row.events]
    assert 64 <= len(runs) < 70, "22 values alone, and at least 6 times 7 pairs"
    assert runs[0].place == "user:call (rsp = 1)"
    inside = [row for row in found if row.events.startswith("vary.") and " nmi+" in row.events]
    # A trap flag ends the program behind the first system call, which has both boundaries.
    assert len(inside) >= 2 * len(runs)
    assert {row.place.partition(" > ")[2] for row in inside} == {"entry_SYSCALL_64", "entry_SYSCALL_64+0x3"}


def test_a_signal_frame_with_anything_in_it_is_no_kernels_problem():
    values = "frame_ip = 'corners', frame_cs = 'corners', frame_ss = 'corners', frame_flags = 'NT|TF|IOPL|VM|RF'"
    found = rows(varied(values, "user:back", SIGNAL), "nmi", window="native_irq_return_iret..native_irq_return_iret")
    assert {row.verdict for row in found} == {CLEAN}
    assert len([row for row in found if row.events.startswith("vary.")]) > 70


def test_what_the_program_cannot_have_is_left_out():
    def choices(source: str) -> set[str]:
        scene = Scene("t.toml", source, Options(("nmi",)))
        scene.units(0)
        assert scene._variation is not None
        return {str(choice) for row in scene._variation.rows(scene.start()) for choice in row}

    bases = choices(varied("gs_base = 'corners'", fsgsbase=False))
    assert bases == {"gs_base = 0", "gs_base = 0x7fffffffe000"}, "ARCH_SET_GS refuses what WRGSBASE takes"
    assert len(choices(varied("gs_base = 'corners'"))) == 4
    # There is no LDT, nothing at 0x63, and SS cannot be null.
    assert choices(varied("ds = 'corners', ss = 'corners'")) == {
        "ds = 0", "ds = 3", "ds = 0x2b", "ds = 0x23", "ds = 0x7b", "ss = 0x2b"
    }  # fmt: skip


# --- finds ------------------------------------------------------------------------------------------------------------
def test_a_number_that_is_not_extended_is_found_by_high_bits():
    image = broken(
        "entry_64_compat.S", "    movl    %eax, %eax\n    pushq   %rax\n    pushq   %rdi\n",
        "    pushq   %rax\n    pushq   %rdi\n",
    )  # fmt: skip
    source = varied("rax = 'corners', rdx = 'high-bits'", asm=INT80)
    window = "entry_INT80_compat..entry_INT80_compat"
    assert {row.verdict for row in rows(source, "nmi", window=window)} == {CLEAN}
    bad = [row for row in rows(source, "nmi", window=window, image=image) if row.verdict != CLEAN]
    (finding,) = findings(bad, Scene("t.toml", source, Options(("nmi",), window=window, image=image)))
    assert finding.invariant == "C interface"
    assert "orig_ax" in finding.message
    assert "rax = " in finding.place
    assert finding.reproduced
    assert finding.scenario.count("[[inject]]") == 1
    (report,) = run_scenario(parse_scenario(finding.scenario, "finding.toml"), image)
    assert report.facts.violations[0].message == finding.message


def test_a_row_that_breaks_an_invariant_itself_has_no_cases_inside():
    check = """    movq    %rcx, %rax
    shlq    $16, %rax
    sarq    $16, %rax
    cmpq    %rcx, %rax
    jne     swapgs_restore_regs_and_return_to_usermode
"""
    source = varied("frame_ip = 'corners', frame_cx = 'corners'", "user:back", SIGNAL)
    found = rows(source, "nmi", window=ENTRY, image=broken("entry_64.S", check, ""))
    bad = [row for row in found if row.verdict != CLEAN]
    assert {(row.verdict, row.invariant, row.location.partition("+")[0]) for row in bad} == {
        (CRASH, "progress", "entry_SYSRETQ_unsafe_stack")
    }
    assert {row.place for row in bad} == {"user:back (frame_ip = 0x800000000000, frame_cx = 0x800000000000)"}
    assert not [row for row in found if row.events.startswith(f"{bad[0].events} ")]


# --- keeps ------------------------------------------------------------------------------------------------------------
def test_rows_that_are_done_are_not_done_again(tmp_path, monkeypatch):
    file = parse_scenario(varied("rsp = 'corners'"), "t.toml")
    store = Store(tmp_path / "cases.db")
    (first,) = sweep([file], Options(("nmi",), window=ENTRY), 1, store, lambda *_: None)
    assert first.variations == 6
    monkeypatch.setattr("emu.lab.sweep.command.Pool", None)  # nobody to do anything
    (second,) = sweep([file], Options(("nmi",), window=ENTRY), 1, store, lambda *_: None)
    store.close()
    assert first == second


# --- messages ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "at", "message"),
    [
        ("rzp = 1", "user:call", "t.toml:19: [sweep.vary] values: nothing called 'rzp' can vary; near: rsp"),
        ("rflags = 'NX'", "user:call", "t.toml:19: no flag 'NX'; write names such as 'NT|AC', or 'corners'"),
        ("rax = 'nowhere'", "user:call", "t.toml:19: no symbol 'nowhere' in the image"),
        ("rax = 1", "entry_SYSCALL_64", "t.toml:18: [sweep.vary] at: 'entry_SYSCALL_64' is not in the program"),
        ("rax = 1", "user:never", "t.toml:18: the program never comes there so often"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(values, at, message):
    asm = GETPID + "never:\n    nop\n"
    with pytest.raises(ScenarioError) as error:
        Scene("t.toml", varied(values, at, asm), Options(("nmi",))).units(0)
    assert str(error.value).startswith(message)


# --- segment registers as injections ----------------------------------------------------------------------------------
def test_a_segment_register_gets_what_user_mode_can_load():
    asm = """
_start:
    nop
after:
    movl    %ds, %edi
    movl    $SYS_exit_group, %eax
    syscall
"""
    report = run(inject(event="register", at="user:after", register="ds", value=0x2B), asm)
    assert report.facts.exit_code == 0x2B
    report = run(inject(event="register", at="user:after", register="ds", value=0x18), asm)
    assert report.facts.missed == ("injection 1 (ds = 0x18 at user:after): DS cannot be 0x18 in user mode",)
    report = run(inject(event="register", at="user:after", register="ds", value=0x0F), asm)
    assert "beyond its table" in report.facts.missed[0]
    report = run(inject(event="register", at="do_syscall_64", register="ds", value=0x2B), asm)
    assert "in user mode only" in report.facts.missed[0]


def test_the_kernel_does_not_fault_while_rsp_is_the_users_and_lies_on_one_of_its_stacks():
    values = 'rsp = "corners", rflags = "corners", gs_base = "corners"'
    text = find_scenario("classic-adversary-syscall").text.replace(values, 'rsp = ["stack:nmi+0x800"]')
    found = rows(text, "pf", window="system_call..system_call+0x15, user:call..user:call")
    assert {row.verdict for row in found} == {CLEAN}
    assert any(row.events.startswith("vary.0@") for row in found)
