"""The sweep: clean on the image as it is, and finds what is broken on purpose."""

from __future__ import annotations

import pytest
from sweep_runs import broken, rows, swept, text

from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.sweep.case import CLEAN, PENDING, VIOLATION
from emu.lab.sweep.events import EVENTS, events_named
from emu.lab.sweep.pool import Job, Workshop
from emu.lab.sweep.scene import Options, Scene, Unit
from emu.lab.sweep.store import Row
from emu.lab.sweep.track import Track


# --- clean ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fsgsbase", [True, False])
def test_every_event_at_every_boundary_of_getpid_is_clean(fsgsbase):
    found = rows(text(fsgsbase=fsgsbase), *EVENTS)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    by_event = {
        name: [row for row in found if row.events.startswith(f"{name}@")] for name in EVENTS if name != "access"
    }
    assert all(len(by_event[name]) > 250 for name in ("nmi", "mce", "irq", "timer", "resched", "db"))
    assert len(by_event["pf"]) > 100
    # What the CPU always takes is hardly ever pending, and what IF masks nearly always, in kernel mode.
    assert sum(row.verdict == PENDING for row in by_event["mce"]) == 0
    assert sum(row.verdict == CLEAN for row in by_event["irq"]) < 30
    # Almost every state comes back to the baseline's, so nothing has to run to the end.
    assert sum(row.to_end for row in found if not row.events.startswith("access.")) < 40


def test_an_nmi_inside_an_nmi_a_check_a_trap_and_a_fault_is_clean():
    found = rows(text(), "nmi", "mce", "db", "pf", depth=2, window="entry_SYSCALL_64..entry_SYSCALL_64+0xc")
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert sum(" nmi+" in row.events for row in found) > 400


def test_the_lazy_page_in_the_nmi_handler_unblocks_nmis_early_and_that_is_clean():
    source = text() + "[options]\nnmi_touches_memory = true\n"
    window = "entry_SYSCALL_64..entry_SYSCALL_64+0x3"
    found = rows(source, "nmi", depth=2, window=window)
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert sum(row.verdict == CLEAN and " nmi+" in row.events for row in found) > 50, "no NMI came in early"


def test_a_pending_event_is_the_case_of_the_boundary_where_it_comes_in():
    found = {row.events: row for row in rows(text(), "irq")}
    merged = [row for row in found.values() if row.merged]
    assert len(merged) > 250
    for row in merged:
        assert row.verdict == PENDING
        # The first boundary behind it where the interrupt comes in, or the last of that unit of work.
        assert int(row.merged.removeprefix("irq@")) > int(row.events.removeprefix("irq@"))
        assert not found[row.merged].merged


TICKING = """
[user]
asm = '''
_start:
    rdtsc
    movl    %eax, %ebx
    movl    $3, %ecx
again:
    loop    again
    rdtsc
    subl    %ebx, %eax
    leal    -6(%rax), %edi      # 0, if nobody has taken any time in between
    movl    $8, %ecx
later:
    loop    later
    movl    $SYS_exit_group, %eax
    syscall
'''
[timer]
period = 100000
"""


def test_cases_that_differ_in_time_alone_are_one_as_far_as_nobody_looks_at_the_clock():
    found = rows('title = "t"\n' + TICKING, "nmi")
    by_key = {row.events: row for row in found}
    late = [row for row in found if row.verdict == VIOLATION]
    first = [row.place for row in found].index("user:_start+0x2")
    assert late == found[first : first + 6], "from behind one RDTSC to the other"
    assert {row.invariant for row in late} == {"transparency"}
    assert not any(row.merged for row in late)
    merged = [row for row in found if row.merged and row.verdict == CLEAN]
    assert len(merged) > len(found) // 2
    assert all(by_key[row.merged].verdict == CLEAN and by_key[row.merged].to_end for row in merged)
    assert not any(by_key[row.merged].merged for row in found if row.merged)
    in_kernel = [row for row in found if not row.place.startswith("user:")]
    assert sum(row.to_end for row in in_kernel) < len(in_kernel) // 5


def found_in(source: str, *units: Unit, events: tuple[str, ...]) -> list[Row]:
    workshop = Workshop(Job((("t.toml", source),), Options(events)))
    return [row for unit in units for row in workshop.rows(unit, lambda key: None)]


TWO_TASKS = """
title = "two tasks: who writes first depends on the tick"
[user]
asm = '''
_start:
    movl    $200, %ecx
again:
    decl    %ecx
    jnz     again
    movl    $SYS_fork, %eax
    syscall
    leaq    c(%rip), %rsi
    testl   %eax, %eax
    jz      out
    movl    $200, %ecx
more:
    decl    %ecx
    jnz     more
    leaq    p(%rip), %rsi
out:
    movl    $SYS_write, %eax
    movl    $1, %edi
    movl    $1, %edx
    syscall
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
c:  .byte 'C'
p:  .byte 'P'
'''
[timer]
period = 900
"""


def test_a_tick_that_comes_later_because_of_an_event_is_no_case_of_its_neighbours():
    verdicts = {row.events: row.verdict for row in found_in(TWO_TASKS, Unit(0, 380, 410), events=("timer",))}
    assert len(verdicts) == 30
    assert [int(key.removeprefix("timer@")) for key, verdict in verdicts.items() if verdict != CLEAN] == [
        *range(395, 410)
    ]


@pytest.mark.parametrize("unit", [Unit(0, 128, 192), Unit(0, 192, 256)])
def test_the_rows_of_a_unit_do_not_depend_on_the_units_before(unit):
    source = TICKING.replace("    loop    again\n", "    leaq    -64(%rsp), %rdi\n    rep stosb\n")
    source = 'title = "t"\n' + source.replace("$3, %ecx", "$40, %ecx")
    before = [Unit(0, at, at + 64) for at in range(0, unit.first, 64)]
    alone = found_in(source, unit, events=("nmi",))
    assert found_in(source, *before, unit, events=("nmi",))[-len(alone) :] == alone
    assert any(row.merged for row in alone)


@pytest.mark.parametrize("name", ["timer-interrupt", "classic-timer"])
def test_merging_what_differs_in_time_changes_no_verdict(name, monkeypatch):
    source, unit, events = find_scenario(name).text, Unit(0, 440, 560), ("nmi", "irq", "mce", "timer", "resched")
    merged = {row.events: row for row in found_in(source, unit, events=events)}
    monkeypatch.setattr(Track, "plain", property(lambda track: False, lambda track, value: None), raising=False)
    apart = {row.events: row for row in found_in(source, unit, events=events)}
    assert {key: row.verdict for key, row in merged.items()} == {key: row.verdict for key, row in apart.items()}
    # A timer interrupt, and a reschedule, begin a new time slice: that of the neighbour ends at another time.
    exact = [key for key in merged if not key.startswith(("timer", "resched"))]
    assert 4 * sum(merged[key].to_end for key in exact) < sum(apart[key].to_end for key in exact)


def test_a_scenario_keeps_its_own_injections():
    source = find_scenario("syscall-iretq").text
    found = rows(source, "nmi", window="swapgs_restore_regs_and_return_to_usermode..native_irq_return_iret")
    assert found
    assert {row.verdict for row in found} == {CLEAN}


@pytest.mark.parametrize("name", ["signal-at-exit", "nmi-nested"])
def test_an_injection_of_the_scenario_happens_once_in_every_case(name):
    found = rows(find_scenario(name).text, "nmi", "timer", window="do_syscall_64..do_syscall_64+0x6")
    assert len(found) >= 12
    assert {row.verdict for row in found} <= {CLEAN, PENDING}


JUMPS = """
title = "a jump to the kernel's text"
[user]
asm = "_start: movabsq $0xffffffff81000000, %rax\\njmp *%rax"
"""


def test_the_page_of_an_instruction_that_is_the_kernels_is_left_alone():
    found = rows(JUMPS, "pf")
    assert {row.verdict for row in found} == {CLEAN}
    assert {row.place for row in found if "user:" in row.place} == {"user:_start", "user:_start+0xa"}


def test_the_classic_image_is_clean_too():
    found = rows('kernel = "linux-2.6"\n' + text(), "nmi", "mce", "db", "irq", "timer")
    assert {row.verdict for row in found} == {CLEAN, PENDING}
    assert len(found) > 600
    assert sum(row.to_end for row in found) < len(found) // 10  # the others meet the baseline again


# --- finds ------------------------------------------------------------------------------------------------------------
NO_SWAPGS = ("paranoid.S", "    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n")


def test_a_missing_swapgs_is_found_minimised_and_reproduced():
    image = broken(*NO_SWAPGS, fsgsbase=False)
    result = swept(text(fsgsbase=False), "nmi", image=image)
    (finding,) = result.findings
    assert not result.clean
    assert finding.invariant == "GS nesting"
    assert finding.where.startswith("end_repeat_nmi+")
    assert "(nmi.S:" in finding.where
    assert "exc_nmi is called with GS_BASE 0x0 (the user's base)" in finding.message
    assert finding.reproduced
    assert finding.scenario.count("[[inject]]") == 1
    assert "exit_group" not in finding.scenario, "the second system call is not needed"
    (report,) = run_scenario(parse_scenario(finding.scenario, "finding.toml"), image)
    assert not report.passed
    first = report.facts.violations[0]
    assert (first.invariant, first.where, first.message) == (finding.invariant, finding.where, finding.message)


def test_a_hole_that_takes_two_events_is_found_at_depth_2():
    """Without the look at NMI executing, an NMI that nests overwrites the frames of the first."""
    image = broken("nmi.S", "    je      nested_nmi\n", "    nop\n    nop\n")
    source = text() + "[options]\nnmi_touches_memory = true\n"
    window = "entry_SYSCALL_64..entry_SYSCALL_64+0x3"
    assert swept(source, "nmi", window=window, image=image).clean
    result = swept(source, "nmi", depth=2, window=window, image=image)
    assert result.findings
    assert result.findings[0].events.count("nmi") == 2
    assert result.findings[0].reproduced


def test_a_scenario_that_fails_by_itself_is_not_swept():
    result = swept(find_scenario("swapgs-skipped").text, "nmi")
    assert not result.clean
    assert result.broken[0].invariant == "GS nesting"


def test_unknown_events_are_named():
    with pytest.raises(Exception, match=r"there are nmi, irq, timer, resched, mce, db, pf, access, and all"):
        events_named("nmi,smi")


def test_the_cases_that_run_to_the_end_do_not_grow_with_the_program():
    """Or the cost would grow with the square of its length: but for the last call, user mode's state is met again."""
    source = text().replace("    syscall\n", "    syscall\n" * 5, 1)
    late = [row for row in rows(source, "mce", "timer", "irq") if row.to_end]
    last = max(int(row.events.partition("@")[2]) for row in late)
    assert all(int(row.events.partition("@")[2]) > last - 64 for row in late)


def test_what_the_program_has_written_comes_back_with_a_later_state():
    write = "    movl $SYS_write, %eax\n    movl $1, %edi\n    leaq text(%rip), %rsi\n    movl $3, %edx\n    syscall\n"
    head, program = text().split("_start:\n")
    source = f'{head}text:\n    .ascii "ok\\n"\n_start:\n{write}{program}'
    bench = Scene("t.toml", source, Options(("nmi",))).start()
    output, before = bench.system.kernel.output, bench.save()
    bench.go(bench.budget, lambda: bool(output) and bench.core.cpu.cpl == 3)
    after = bench.save()
    bench.load(before)
    assert output == []
    bench.load(after)
    assert output == [(1, b"ok\n")]
