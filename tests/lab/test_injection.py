from __future__ import annotations

import pytest
from lab_runs import inject, run, run_all

from emu.errors import ScenarioError

LOOP = """
_start:
    movl    $3, %ecx
again:
    loop    again
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
"""


def calls(name: str, rest: str, asm: str = LOOP) -> int:
    return run(rest, asm).facts.calls.count(name)


def test_an_nmi_fires_before_the_named_instruction() -> None:
    report = run(inject(event="nmi", at="user:again"), LOOP)
    assert report.passed
    assert [line.split(" (")[0] for line in report.facts.path if "NMI" in line] == ["NMI in user mode at again"]


def test_hit_counts_arrivals() -> None:
    first, third = (run(inject(event="nmi", at="user:again", hit=hit), LOOP) for hit in (1, 3))
    clocks = [int(report.facts.fired[0].rpartition(" ")[2]) for report in (first, third)]
    assert clocks[1] - clocks[0] == 2


def test_an_instruction_that_an_event_interrupts_arrives_once() -> None:
    rest = inject(event="nmi", at="user:again", hit=1) + inject(event="nmi", at="user:again", hit=2)
    clocks = [int(line.rpartition(" ")[2]) for line in run(rest, LOOP).facts.fired]
    alone = run(inject(event="nmi", at="user:again", hit=1), LOOP).facts
    handler = alone.clock - run(asm=LOOP).facts.clock
    assert clocks[1] - clocks[0] == handler + 1


def test_an_instruction_that_faults_and_is_begun_again_arrives_once() -> None:
    asm = "_start: nop\ntouch: movb -0x3000(%rsp), %dil\nmovl $SYS_exit_group, %eax\nsyscall\n"
    report = run(inject(event="nmi", at="user:touch", hit=2), asm)
    assert "reached only once" in report.unmet[0]


def test_an_instruction_count_is_the_clock_of_the_injection() -> None:
    report = run(inject(event="nmi", instruction=5300), "\n".join(["_start:", *["nop"] * 400, LOOP[8:]]))
    assert report.passed
    assert report.facts.fired == ("NMI before instruction 5300, clock 5300",)


def test_injections_at_one_boundary_fire_in_the_order_of_the_file() -> None:
    rest = inject(event="register", register="rdi", value=1, at="user:after") + inject(
        event="register", register="rdi", value=2, at="user:after"
    )
    asm = "_start: nop\nafter: movl $SYS_exit_group, %eax\nsyscall\n"
    assert run(rest, asm).facts.exit_code == 2


@pytest.mark.parametrize(
    ("event", "function"),
    [
        ({"event": "machine-check"}, "exc_machine_check_user"),
        ({"event": "timer"}, "sysvec_apic_timer_interrupt"),
        ({"event": "irq", "vector": 0x55}, "common_interrupt"),
        ({"event": "irq", "line": 3}, "common_interrupt"),
        ({"event": "exception", "vector": "UD"}, "exc_invalid_op"),
        ({"event": "exception", "vector": 13, "error_code": 8}, "exc_general_protection"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["event"],
)
def test_an_event_reaches_its_c_function(event: dict[str, object], function: str) -> None:
    assert calls(function, inject(at="user:again", **event)) == 1


def test_an_injected_page_fault_carries_error_code_and_address() -> None:
    report = run(inject(event="exception", vector="PF", error_code=4, address=0x1234, at="user:again"), LOOP)
    assert any("#PF (error 0x4, CR2 0x1234)" in line for line in report.facts.path)
    assert report.facts.signal == 11


def test_a_line_is_a_vector_counted_from_0x20() -> None:
    report = run(inject(event="irq", line=3, at="user:again"), LOOP)
    assert "no irq handler for vector 0x23" in report.facts.notes


def test_a_page_that_is_taken_away_comes_back_with_its_content() -> None:
    asm = "_start: movq $5, -8(%rsp)\nhere: movq -8(%rsp), %rdi\nmovl $SYS_exit_group, %eax\nsyscall\n"
    report = run(inject(event="page-not-present", address=0x7FFF_FFFF_EE00, at="user:here"), asm)
    assert (report.facts.exit_code, report.facts.faults) == (5, 2)


def test_a_page_of_code_that_is_taken_away_comes_back() -> None:
    report = run(inject(event="page-not-present", address="user:again", at="user:again"), LOOP)
    assert (report.facts.exit_code, report.facts.faults) == (0, 2)


@pytest.mark.parametrize(("value", "expected"), [(7, 7), ("user:_start", 0), (-1, 255)])
def test_a_register_is_set(value: int | str, expected: int) -> None:
    asm = "_start: nop\nhere: movl $SYS_exit_group, %eax\nsyscall\n"
    assert run(inject(event="register", register="RDI", value=value, at="user:here"), asm).facts.exit_code == expected


def test_flags_are_set_without_bits_that_64_bit_mode_does_not_have() -> None:
    asm = "_start: nop\nhere: setc %dil\nmovzbl %dil, %edi\nmovl $SYS_exit_group, %eax\nsyscall\n"
    report = run(inject(event="register", register="rflags", value=0xFFFF_FFFF & ~0x14100, at="user:here"), asm)
    assert report.facts.exit_code == 1


def test_memory_is_written_with_the_given_size() -> None:
    asm = "_start: movq $0x1234, -8(%rsp)\nhere: movzbl -7(%rsp), %edi\nmovl $SYS_exit_group, %eax\nsyscall\n"
    report = run(inject(event="memory", address=0x7FFF_FFFF_EEA8, value=0xFF, size=1, at="user:here"), asm)
    assert report.facts.exit_code == 0x12


def test_pending_signals_are_delivered_on_the_way_to_user_mode() -> None:
    assert run(inject(event="signal", signal="SIGTERM", at="do_syscall_64")).facts.signal == 15


def test_a_thread_flag_makes_the_exit_loop_run() -> None:
    assert run(inject(event="thread-flag", flag="TIF_NOTIFY_RESUME", at="do_syscall_64"), LOOP).passed


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (inject(event="nmi", at="asm_exc_divide_error"), "the injection point was never reached"),
        (inject(event="nmi", at="user:again", hit=9), "the injection point was reached only 3 times"),
        (inject(event="nmi", instruction=10_000_000), "the run ended before that instruction"),
        (inject(event="memory", address=0x10_0000, value=1, at="user:again"), "no page at 0x100000"),
        (inject(event="memory", address=0x8000_0000_0000, value=1, at="user:again"), "0x800000000000 is not canonical"),
        (inject(event="page-not-present", address=0, at="startup_64"), "there is no task yet"),
        (inject(event="register", register="gs_base", value=1 << 62, at="user:again"), "is not canonical: gs_base"),
    ],
)
def test_an_injection_that_does_not_come_about_is_an_unmet_expectation(rest: str, why: str) -> None:
    report = run(rest, LOOP)
    assert not report.passed
    assert any(why in text for text in report.unmet)


def test_a_range_makes_one_case_of_each_boundary() -> None:
    reports = run_all(inject(event="nmi", each="entry_SYSCALL_64..entry_SYSCALL_64:pushq", hit=1))
    assert [report.case for report in reports][:2] == ["entry_SYSCALL_64", "entry_SYSCALL_64+0x3"]
    assert all(report.passed for report in reports)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            inject(event="nmi", at="entry_SYSCAL_64"),
            "s.toml:14: no symbol 'entry_SYSCAL_64' in the image; near: entry_SY",
        ),
        (inject(event="nmi", at="user:agin"), "s.toml:14: no symbol 'agin' in the image; near: again"),
        (inject(event="nmi", at="user:again", cpu=1), "s.toml:15: no CPU 1; the machine has 1"),
        (inject(event="irq", at="user:again", line=300), "s.toml:15: no interrupt line 300; there are 0 to 203"),
        (inject(event="register", at="user:again", register="eax", value=1), "s.toml:15: no register 'eax'"),
        (
            inject(event="thread-flag", at="user:again", flag="X"),
            "s.toml:15: no thread flag 'X'; there are NOTIFY",
        ),
        (inject(event="memory", at="user:again", value=1, address="idt:999"), "s.toml:16: the IDT has no gate '999'"),
    ],
)
def test_an_injection_that_cannot_be_is_refused_before_the_run(rest: str, message: str) -> None:
    with pytest.raises(ScenarioError, match="^" + message.replace("(", r"\(")):
        run(rest, LOOP)
