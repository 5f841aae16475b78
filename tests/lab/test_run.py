from __future__ import annotations

import pytest
from lab_runs import GETPID, inject, run, run_all, text

from emu.errors import ScenarioError
from emu.lab.run import prepare, run_prepared
from emu.lab.scenario import parse_scenario

EXIT = "_start: movl ${status}, %edi\nmovl $SYS_exit_group, %eax\nsyscall\n"
WRITE = """
_start:
    movl    $SYS_write, %eax
    movl    $1, %edi
    leaq    text(%rip), %rsi
    movl    $3, %edx
    syscall
    movl    $SYS_write, %eax
    movl    $2, %edi
    movl    $1, %edx
    syscall
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
text: .ascii "abc"
"""
ECHO = """
_start:
    xorl    %eax, %eax          # read
    xorl    %edi, %edi
    leaq    -64(%rsp), %rsi
    movl    $64, %edx
    syscall
    movl    %eax, %edx
    movl    $SYS_write, %eax
    movl    $1, %edi
    syscall
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
"""


def test_a_program_that_exits_passes_whatever_its_status() -> None:
    report = run(asm=EXIT.format(status=7))
    assert report.passed
    assert (report.facts.end, report.facts.exit_code, report.facts.signal) == ("finished", 7, None)


def test_output_is_collected_by_stream() -> None:
    facts = run(asm=WRITE).facts
    assert (facts.stream(1), facts.stream(2)) == (b"abc", b"a")


def test_standard_input_is_the_scenarios() -> None:
    file = parse_scenario(text(asm=ECHO).replace("[user]", '[user]\nstdin = "h\\u00e9"'), "s.toml")
    (report,) = run_prepared(prepare(file), "s.toml")
    assert report.facts.stream(1) == "hé".encode()


def test_calls_and_returns_are_listed_in_order() -> None:
    facts = run().facts
    assert facts.calls[-2:] == ("do_syscall_64", "do_syscall_64")
    assert facts.returns[-1] == "sysretq"


def test_a_system_call_that_does_not_exist_is_counted() -> None:
    asm = "_start: movl $SYS_socket, %eax\nsyscall\nmovl $SYS_exit_group, %eax\nsyscall\n"
    assert run(asm=asm).facts.unknown_syscalls == {"socket": 1}


def test_an_endless_loop_uses_up_its_budget_and_fails() -> None:
    file = parse_scenario("budget = 20000\n" + text(asm="_start: jmp _start\n"), "s.toml")
    (report,) = run_prepared(prepare(file), "s.toml")
    assert report.facts.text == "endless loop: instruction budget 20000 exhausted"
    assert report.facts.clock == 20000
    assert [violation.invariant for violation in report.violations] == ["progress"]


def test_an_expected_end_is_no_violation() -> None:
    file = parse_scenario("budget = 20000\n" + text('[expect]\nend = "budget"\n', "_start: jmp _start\n"), "s.toml")
    (report,) = run_prepared(prepare(file), "s.toml")
    assert report.passed


EXPECTATIONS = {
    "exit": ("exit = 1", "expected exit status 1, but the program exited with status 0"),
    "signal": ('signal = "SIGSEGV"', "expected SIGSEGV, but the program exited with status 0"),
    "stdout": ('stdout = "abd"', "expected stdout 'abd', got 'abc'"),
    "stderr": ('stderr = ""', "expected stderr '', got 'a'"),
    "calls": (
        'calls = ["do_syscall_64", "exc_nmi"]',
        "expected a call of exc_nmi after do_syscall_64; the calls were start_kernel",
    ),
    "never": ('never = ["do_syscall_64"]', "expected no call of do_syscall_64; there were 3"),
    "count": ("count = { do_syscall_64 = 2 }", "expected 2 calls of do_syscall_64, got 3"),
    "returns": ('returns = ["iretq"]', "expected the last returns to user mode to be iretq; they were sysretq"),
    "faults": ("faults = 0", "expected 0 page faults, got 1"),
    "console": ('console = "oops"', "expected a note with 'oops'; there were page 0x400000 brought in for read"),
    "end": ('end = "shutdown"', "expected the run to end with 'shutdown', but it exited with status 0"),
    "violation": (
        'violation = "stacks"',
        "expected the first violation to be of 'stacks'; violated were, in this order: none",
    ),
}


@pytest.mark.parametrize("key", EXPECTATIONS)
def test_an_expectation_that_is_not_met_is_named(key: str) -> None:
    line, message = EXPECTATIONS[key]
    report = run(f"[expect]\n{line}\n", WRITE)
    assert not report.passed
    assert [entry[: len(message)] for entry in report.unmet] == [message]


MET = """
exit = 0
stdout = "abc"
stderr = "a"
calls = ["start_kernel", "exc_page_fault", "do_syscall_64", "do_syscall_64", "do_syscall_64"]
never = ["exc_nmi"]
count = { do_syscall_64 = 3, exc_nmi = 0 }
returns = ["sysretq", "sysretq"]
faults = 1
end = "finished"
console = "brought in"
"""


def test_expectations_that_are_met_pass() -> None:
    assert run(f"[expect]{MET}", WRITE).unmet == ()


SKIP_SWAPGS = inject(
    event="register", at="entry_SYSRETQ_unsafe_stack", register="rip", value="entry_SYSRETQ_unsafe_stack+0x3"
)


def test_a_violation_fails_the_run() -> None:
    report = run(SKIP_SWAPGS)
    assert not report.passed
    assert report.violations[0].invariant == "GS nesting"


def test_a_violation_carries_the_command_that_reproduces_it() -> None:
    report = run(SKIP_SWAPGS)
    assert report.violations[0].reproduce == "entry64 run s.toml"


def test_a_violation_that_is_announced_passes_with_its_consequences() -> None:
    report = run(SKIP_SWAPGS + '[expect]\nviolation = "GS nesting"\n')
    assert report.passed
    assert len(report.facts.violations) > 1


def test_a_violation_of_another_invariant_than_announced_fails() -> None:
    report = run(SKIP_SWAPGS + '[expect]\nviolation = "frames"\n')
    assert report.violations
    assert "violated were, in this order: GS nesting" in report.unmet[0]


def test_an_error_of_the_program_is_reported_at_its_line_of_the_scenario() -> None:
    with pytest.raises(ScenarioError, match=r"^s.toml:5: "):
        run(asm="\n    nop\n    bogus %rax\n")


def test_all_errors_of_the_program_are_reported() -> None:
    with pytest.raises(ScenarioError) as caught:
        run(asm="\n    bogus %rax\n    nop\n    jmp nowhere\n")
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == ["s.toml:4", "s.toml:6"]


def test_an_empty_program_is_reported() -> None:
    with pytest.raises(ScenarioError, match=r"^s.toml:3: .*nothing to load"):
        run(asm="")


def test_an_argument_with_a_null_byte_is_reported() -> None:
    file = parse_scenario(text().replace("[user]", '[user]\nargv = ["a\\u0000"]'), "s.toml")
    with pytest.raises(ScenarioError, match=r"^s.toml:3: the argument .* has a NUL byte"):
        prepare(file)


def test_a_program_cannot_include_a_file() -> None:
    with pytest.raises(ScenarioError, match=r"^s.toml:3: "):
        run(asm='.include "/etc/passwd"\n')


def test_an_unknown_kernel_is_reported_at_its_line() -> None:
    with pytest.raises(ScenarioError, match=r"^s.toml:1: no kernel image 'linux-7'; there are .*linux-6"):
        prepare(parse_scenario('kernel = "linux-7"\n' + text(), "s.toml"))


@pytest.mark.parametrize("line", ['calls = ["exc_nmy"]', 'never = ["exc_nmy"]', "count = { exc_nmy = 1 }"])
def test_a_misspelt_function_is_reported(line: str) -> None:
    with pytest.raises(ScenarioError, match=r"^s.toml:\d+: no symbol 'exc_nmy' in the image; near: exc_nmi"):
        run(f"[expect]\n{line}\n")


def test_a_case_can_be_chosen() -> None:
    file = parse_scenario(text(inject(event="nmi", each="entry_SYSCALL_64..entry_SYSCALL_64:pushq")), "s.toml")
    (report,) = run_prepared(prepare(file).case("entry_SYSCALL_64+0xc"), "s.toml")
    assert report.reproduce == "entry64 run s.toml --case entry_SYSCALL_64+0xc"


def test_a_case_that_does_not_exist_is_reported() -> None:
    with pytest.raises(ScenarioError, match=r"^s.toml: no case 'x'"):
        prepare(parse_scenario(text(), "s.toml")).case("x")


def test_cases_do_not_influence_each_other() -> None:
    places = "user:_start..user:after"
    together = run_all(inject(event="nmi", each=places))
    alone = [run(inject(event="nmi", at=report.case)) for report in together]
    assert [report.facts for report in together] == [report.facts for report in alone]


def test_the_same_scenario_gives_the_same_facts() -> None:
    rest = "[timer]\nperiod = 300\n" + inject(event="nmi", at="entry_SYSCALL_64")
    assert run(rest).facts == run(rest).facts


def test_an_nmi_handler_that_touches_memory_faults() -> None:
    rest = "[options]\nnmi_touches_memory = true\n" + inject(event="nmi", at="entry_SYSCALL_64")
    assert run(rest, GETPID).facts.faults == 2


@pytest.mark.parametrize("profile", ["intel", "amd"])
@pytest.mark.parametrize("feature", ["smap", "smep", "umip", "fsgsbase"])
def test_every_cpu_boots_and_runs(profile: str, feature: str) -> None:
    assert run(f'[cpu]\nprofile = "{profile}"\n{feature} = false\n').passed
