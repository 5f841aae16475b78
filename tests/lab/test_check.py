"""`entry64 check` and the pytest plugin: the same results for people, JUnit and SARIF; a broken image is found."""

import json
import re
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from report_formats import junit_errors, sarif_errors

from emu.cli import main
from emu.lab.check.regression import collect
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import FOLDER
from kernel_stubs.kernel_image import source_files

pytest_plugins = ("pytester",)

GETPID = """
title = "getpid"
cpu = { fsgsbase = false }
[user]
asm = '''
_start:
    movl    $SYS_getpid, %eax
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
[[inject]]
event = "nmi"
at = "entry_SYSCALL_64"
[expect]
exit = 0
"""
SWEEP = """
[sweep]
events = ["nmi"]
window = "entry_SYSCALL_64..entry_SYSCALL_64_safe_stack"
"""
WITHOUT_SWAPGS = ("paranoid.S", "    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n")


@pytest.fixture
def broken(tmp_path):
    """A folder of sources whose paranoid_entry does not swap."""
    folder = tmp_path / "entry"
    folder.mkdir()
    for name, text in source_files("linux-6").items():
        changed = text.replace(*WITHOUT_SWAPGS[1:]) if name == WITHOUT_SWAPGS[0] else text
        (folder / name).write_text(changed)
    return folder


def check(*arguments):
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_a_sound_image_passes_and_the_reports_say_so(tmp_path):
    (tmp_path / "a.toml").write_text(GETPID + SWEEP)
    done = check(tmp_path, "--junit", tmp_path / "j.xml", "--sarif", tmp_path / "s.json", "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "1 scenarios, 1 runs, 1 sweeps: PASS"
    suites = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suites.tag, suites.get("tests"), suites.get("failures")) == ("testsuites", "2", "0")
    assert [case.get("name") for case in suites.iter("testcase")] == ["run", "sweep nmi"]
    assert json.loads((tmp_path / "s.json").read_text())["runs"][0]["results"] == []
    assert junit_errors((tmp_path / "j.xml").read_text()) == sarif_errors((tmp_path / "s.json").read_text()) == []


def test_a_break_is_reported_at_the_line_of_the_users_source(tmp_path, broken):
    (tmp_path / "a.toml").write_text(GETPID + SWEEP)
    arguments = (tmp_path / "a.toml", "--sources", broken, "--jobs", "1")
    done = check(*arguments, "--junit", tmp_path / "j.xml", "--sarif", tmp_path / "s.json")
    assert done.exit_code == 1, done.output
    run, swept = ElementTree.parse(tmp_path / "j.xml").getroot().iter("testcase")
    assert "GS nesting" in run.find("failure").text
    assert "reproduce: entry64 run --sources" in run.find("failure").text
    assert swept.find("failure").get("type") == "GS nesting"
    log = json.loads((tmp_path / "s.json").read_text())
    assert log["version"] == "2.1.0"
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    first, *_ = log["runs"][0]["results"]
    assert rules[first["ruleIndex"]]["id"] == first["ruleId"] == "GS nesting"
    place = first["locations"][0]["physicalLocation"]
    line = (broken / "nmi.S").read_text().splitlines()[place["region"]["startLine"] - 1]
    assert place["artifactLocation"]["uri"] == f"{broken}/nmi.S"
    assert line.split() == ["call", "exc_nmi"]
    steps = first["codeFlows"][0]["threadFlows"][0]["locations"]
    assert steps[1]["location"]["message"]["text"].startswith("NMI at entry_SYSCALL_64")
    assert junit_errors((tmp_path / "j.xml").read_text()) == sarif_errors((tmp_path / "s.json").read_text()) == []


def test_reports_are_the_same_each_time(tmp_path, broken):
    (tmp_path / "a.toml").write_text(GETPID)
    texts = set()
    for number in range(2):
        target = tmp_path / f"{number}.json"
        check(tmp_path / "a.toml", "--sources", broken, "--sarif", target)
        texts.add(target.read_text())
    assert len(texts) == 1


def test_an_unmet_expectation_is_reported_at_the_scenarios_line(tmp_path):
    (tmp_path / "a.toml").write_text(GETPID.replace("exit = 0", "exit = 1"))
    assert check(tmp_path / "a.toml", "--sarif", tmp_path / "s.json").exit_code == 1
    (result,) = json.loads((tmp_path / "s.json").read_text())["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert result["ruleId"] == "expectation"
    assert GETPID.splitlines()[place["region"]["startLine"] - 1] == "[expect]"


KNOWN = '[[sweep.known]]\ninvariant = "GS nesting"\nat = "end_repeat_nmi"\nreason = "for this test"\n'


def test_a_known_hole_passes_where_it_is_and_fails_where_it_is_not(tmp_path, broken):
    quiet = GETPID.partition("[[inject]]")[0]
    (tmp_path / "a.toml").write_text(quiet + SWEEP + KNOWN)
    assert check(tmp_path / "a.toml", "--sources", broken, "--jobs", "1").exit_code == 0
    done = check(tmp_path / "a.toml", "--jobs", "1")
    assert done.exit_code == 1
    assert "the known hole is not there any more: GS nesting at end_repeat_nmi (for this test)" in done.output


SYSENTER = FOLDER / "classic-ia32-sysenter.toml"
"""Its run breaks `frames` at SYSEXIT without any event; its sweep, at the IRETQ of INT 0x80 as well."""
IN_INT80 = 'events = ["irq"]\nwindow = "ia32_syscall..ia32_syscall+0x4"\n'


def swept_sysenter(tmp_path, without):
    head, *known = SYSENTER.read_text().partition("[sweep]")[0], *SYSENTER.read_text().split("\n[[sweep.known]]")[1:]
    holes = [hole for hole in known if '"frames"' in hole]
    assert len(holes) == 2
    known = "".join(f"[[sweep.known]]{hole}\n" for hole in holes if f'"{without}"' not in hole)
    (tmp_path / "a.toml").write_text(f"{head}[sweep]\n{IN_INT80}{known}")
    return check(tmp_path / "a.toml", "--jobs", "1")


def test_a_known_hole_that_needs_no_event_does_not_end_the_sweep(tmp_path):
    done = swept_sysenter(tmp_path, without="nothing")
    assert (done.exit_code, "sweep irq:" in done.output) == (0, True), done.output


def test_what_a_run_breaks_without_any_event_is_not_swept_if_nobody_knows(tmp_path):
    done = swept_sysenter(tmp_path, without="sysexit_from_sys_call")
    assert (done.exit_code, "not swept, for it fails without any event" in done.output) == (1, True)


def test_the_same_invariant_at_another_place_than_the_known_one_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("emu.lab.minimise.MAX_TRIES", 0)
    done = swept_sysenter(tmp_path, without="iret_label")
    assert (done.exit_code, "frames at iret_label" in done.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nosuch",), "nosuch: neither a file nor a shipped scenario"),
        (("{empty}",), "no scenario files"),
        (("syscall-getpid", "--junit", "{empty}"), "it is a folder"),
        (("syscall-getpid", "--sarif", "{empty}/x/y.json"), "there is no folder"),
        (("syscall-getpid", "--junit", "{empty}/a", "--sarif", "{empty}/a"), "would write the same file"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(arguments, message, tmp_path):
    done = check(*(argument.format(empty=tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert message in done.output


def test_an_event_that_no_sweep_has_is_named_with_its_line(tmp_path):
    (tmp_path / "a.toml").write_text(GETPID + SWEEP.replace('"nmi"', '"nmy"'))
    done = check(tmp_path / "a.toml")
    assert done.exit_code == 2
    assert "a.toml:20" in done.output


# --- the pytest plugin ------------------------------------------------------------------------------------------------
def test_the_plugin_collects_runs_and_sweeps(pytester):
    pytester.makefile(".toml", good=GETPID + SWEEP, bad=GETPID.replace("exit = 0", "exit = 1"), other="x = 1")
    done = pytester.runpytest_subprocess("--entry64")
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*expected exit status 1*", "*reproduce: entry64 run bad.toml*"])


def test_the_plugin_takes_the_users_sources(pytester, broken):
    pytester.makeini(f"[pytest]\nentry64 = true\nentry64_sources = {broken}\n")
    pytester.makefile(".toml", a=GETPID)
    done = pytester.runpytest_subprocess()
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*GS nesting: C function exc_nmi*"])


# --- the full sweep ---------------------------------------------------------------------------------------------------
EXIT = """
title = "exit"
[user]
asm = "movl $SYS_exit_group, %eax\\nsyscall"
"""


def full_run(tmp_path, sweep):
    (tmp_path / "a.toml").write_text(EXIT + sweep)
    return check(tmp_path / "a.toml", "--full", "--jobs", "1")


def test_the_full_sweep_raises_every_event_at_every_instruction(tmp_path):
    done = full_run(tmp_path, "[sweep]\nfull = true\n")
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if "sweep " in line)
    assert "sweep nmi,irq,timer,resched,mce,db,pf,access: " in line
    boundaries, cases = (int(re.search(f"([0-9,]+) {word}", line)[1].replace(",", "")) for word in ("boundar", "cases"))
    assert cases > 5 * boundaries > 400


def test_a_hole_that_only_the_full_sweep_comes_to_is_looked_for_by_that_one_alone(tmp_path):
    done = full_run(tmp_path, SWEEP + KNOWN + "full = true\n")
    assert done.exit_code == 1
    assert "sweep nmi,irq,timer,resched,mce,db,pf,access: " in done.output
    assert "the known hole is not there any more: GS nesting at end_repeat_nmi" in done.output
    assert check(tmp_path / "a.toml", "--jobs", "1").exit_code == 0


def test_a_regression_that_is_run_again_takes_the_results_of_its_sweeps_from_the_database(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text(EXIT + "[sweep]\nevents = ['nmi']\n")
    arguments = (tmp_path / "a.toml", "--db", tmp_path / "results.db", "--jobs", "1")
    first = check(*arguments)
    monkeypatch.setattr("emu.lab.sweep.command.Pool", None)  # no workers are needed
    again = check(*arguments)
    assert first.exit_code == again.exit_code == 0, again.output
    assert first.output == again.output
    assert "1 sweeps: PASS" in again.output


def test_an_interrupted_regression_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "a.toml").write_text(EXIT + "[sweep]\nevents = ['nmi']\n")
    monkeypatch.setattr("emu.lab.sweep.command.Pool", interrupt)
    done = check(tmp_path / "a.toml", "--db", tmp_path / "results.db")
    assert (done.exit_code, done.stderr) == (130, f"interrupted; the same command goes on from {tmp_path}/results.db\n")


def test_a_scenario_that_says_why_it_has_no_sweep_is_not_swept_even_then(tmp_path):
    done = full_run(tmp_path, '[sweep]\nomitted = "it is only an example"\n')
    assert done.output.splitlines()[-1] == "1 scenarios, 1 runs, 0 sweeps: PASS"


def test_a_scenario_with_the_full_sweep_only_is_not_swept_every_day(tmp_path):
    (tmp_path / "a.toml").write_text(EXIT + "[sweep]\nfull = true\n")
    assert check(tmp_path / "a.toml").output.splitlines()[-1] == "1 scenarios, 1 runs, 0 sweeps: PASS"


@pytest.mark.parametrize(
    ("sweep", "message"),
    [("omitted = 'why'\nevents = ['nmi']", "there can be nothing else in it"), ("depth = 1", "name some, or say"),
     ("events = []", "name some, or say"), ("full = true\nevents = ['nmi']", "that sweep is of all events")],
)  # fmt: skip
def test_a_scenario_is_swept_or_says_why_not(tmp_path, sweep, message):
    done = full_run(tmp_path, f"[sweep]\n{sweep}\n")
    assert done.exit_code == 2
    assert message in done.output


def test_the_plugin_names_what_is_wrong_with_a_file(pytester):
    pytester.makefile(".toml", a=GETPID + "[nonsense]\n")
    done = pytester.runpytest_subprocess("--entry64")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*a.toml:*nonsense*"])


def test_the_plugin_leaves_files_alone_unless_it_is_asked(pytester):
    pytester.makefile(".toml", a=GETPID)
    assert pytester.runpytest_subprocess().ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_examples_of_the_documentation_are_right():
    text = (FOLDER.parent / "docs" / "ci.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)
    spec = parse_scenario(GETPID + example, "ci.md").scenario.sweep
    assert spec is not None
    assert [known.at for known in spec.known] == ["paranoid_exit"]


def test_shipped_scenarios_are_what_check_runs_by_default():
    assert len(collect(())) == len(list(FOLDER.glob("*.toml")))
