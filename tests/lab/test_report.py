from __future__ import annotations

import json

from lab_runs import inject, run, run_all

from emu.lab.report import summary, text_report, verdict_line

SKIP_SWAPGS = inject(
    event="register", at="entry_SYSRETQ_unsafe_stack", register="rip", value="entry_SYSRETQ_unsafe_stack+0x3"
)


def test_a_passing_report_shows_title_path_and_verdict() -> None:
    text = text_report([run(inject(event="nmi", at="entry_SYSCALL_64"))])
    lines = text.splitlines()
    assert lines[0] == "t  [s.toml]"
    assert any("--SYSCALL 39 (getpid)--> entry_SYSCALL_64 -> SWAPGS -> kernel CR3" in line for line in lines)
    assert max(len(line) for line in lines) <= 120
    assert any(line.strip().startswith("NMI at entry_SYSCALL_64 (entry_64.S:") for line in lines)
    assert lines[-1].startswith("  PASS: the program exited with status 0 after ")
    assert lines[-1].endswith(" instructions; every invariant held")


def test_a_violation_is_explained() -> None:
    text = text_report([run(SKIP_SWAPGS)])
    assert "  GS nesting: " in text
    assert "entry_SYSRETQ_unsafe_stack+0x3 (entry_64.S:" in text
    assert "SYSCALL 39 (getpid) from user after_mov" in text
    assert "reproduce: entry64 run s.toml" in text
    assert "  FAIL: " in text


def test_an_unmet_expectation_is_shown_with_the_command_that_reproduces_it() -> None:
    text = text_report([run("[expect]\nexit = 3\n")])
    assert "  unmet: expected exit status 3, but the program exited with status 0\n" in text
    assert "  reproduce: entry64 run s.toml\n" in text


def test_cases_are_listed_by_their_boundary() -> None:
    reports = run_all(inject(event="nmi", each="entry_SYSCALL_64..entry_SYSCALL_64+0xc"))
    assert text_report(reports).splitlines()[1:] == [
        "  PASS entry_SYSCALL_64",
        "  PASS entry_SYSCALL_64+0x3",
        "  PASS entry_SYSCALL_64+0xc",
        "  PASS: 3 of 3 cases passed",
    ]


def test_a_signal_is_named_in_the_verdict() -> None:
    report = run('[expect]\nsignal = "SIGILL"\n', "_start: ud2\n")
    assert verdict_line(report).startswith("PASS: SIGILL killed the program after ")


def test_expected_violations_are_counted_in_the_verdict() -> None:
    report = run(SKIP_SWAPGS + '[expect]\nviolation = "GS nesting"\n')
    assert verdict_line(report).endswith(" expected violations")


def test_json_has_every_report() -> None:
    document = json.loads(json.dumps(summary([run(), run("[expect]\nexit = 3\n"), run(SKIP_SWAPGS)])))
    assert (document["passed"], document["failed"]) == (1, 2)
    good, unmet, violated = document["reports"]
    assert (good["verdict"], good["exit"], good["end"]) == ("PASS", 0, "finished")
    assert unmet["unmet"] == ["expected exit status 3, but the program exited with status 0"]
    assert violated["violations"][0]["invariant"] == "GS nesting"


def test_output_that_is_not_text_is_still_json() -> None:
    asm = """
_start:
    movl $SYS_write, %eax
    movl $1, %edi
    leaq text(%rip), %rsi
    movl $2, %edx
    syscall
    movl $SYS_exit_group, %eax
    syscall
text: .byte 0xff, 0x41
"""
    (report,) = json.loads(json.dumps(summary([run(asm=asm)])))["reports"]
    assert report["stdout"] == "\ufffdA"
