"""ftrace text of real runs: the layout of the kernel's trace file and its formats. TRAPpy 6.0.1 reads it, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab_runs import inject, text

from emu.cli import main

# Documentation/trace/ftrace.rst, "Output format": TASK-PID CPU# flags TIMESTAMP FUNCTION.
LINE = re.compile(
    r"^ *(?P<comm>\S.*)-(?P<pid>\d+) +\[(?P<cpu>\d{3})\] (?P<flags>[d.][N.][HhsZz.][0-9a-f.]) +"
    r"(?P<time>\d+\.\d{9}): (?P<event>[a-z_0-9]+): (?P<text>.+)$"
)
# The TP_printk formats of include/trace/events and arch/x86/include/asm/trace in Linux 6.1.
FORMATS = {
    "sys_enter": r"NR \d+ \((?:[0-9a-f]+, ){5}[0-9a-f]+\)",
    "sys_exit": r"NR \d+ = -?\d+",
    "irq_handler_entry": r"irq=\d+ name=\S+",
    "irq_handler_exit": r"irq=\d+ ret=(un)?handled",
    "softirq_(raise|entry|exit)": r"vec=\d+ \[action=[A-Z_]+\]",
    "(local_timer|reschedule|call_function)_(entry|exit)": r"vector=\d+",
    "sched_switch": r"prev_comm=.+ prev_pid=\d+ prev_prio=\d+ prev_state=(R\+?|[SDTtZX]) "
    r"==> next_comm=.+ next_pid=\d+ next_prio=\d+",
    "sched_wakeup(_new)?": r"comm=.+ pid=\d+ prio=\d+ target_cpu=\d{3}",
    "sched_process_fork": r"comm=.+ pid=\d+ child_comm=.+ child_pid=\d+",
    "sched_process_exit": r"comm=.+ pid=\d+ prio=\d+",
    "signal_generate": r"sig=\d+ errno=\d+ code=-?\d+ comm=.+ pid=\d+ grp=[01] res=[0-4]",
    "signal_deliver": r"sig=\d+ errno=\d+ code=-?\d+ sa_handler=[0-9a-f]+ sa_flags=[0-9a-f]+",
    "page_fault_(user|kernel)": r"address=\S+ ip=\S+ error_code=0x[0-9a-f]+",
    "nmi_handler": r"\w+\(\) delta_ns: \d+ handled: \d+",
}
PACKET = """
_start:
    leaq    path(%rip), %rdi
    xorl    %esi, %esi
    movl    $SYS_open, %eax
    syscall
    movl    %eax, %edi
    leaq    -64(%rsp), %rsi
    movl    $16, %edx
    xorl    %eax, %eax
    syscall
    movl    $SYS_getpid, %eax
    syscall
    movl    %eax, %edi
    movl    $9, %esi
    movl    $SYS_kill, %eax
    syscall
path:
    .asciz  "/dev/net"
"""


def lines(tmp_path: Path, *scenarios: str) -> list[re.Match[str]]:
    """The lines of a trace, parsed."""
    trace = tmp_path / "trace"
    result = CliRunner().invoke(main, ["run", *scenarios, "--ftrace", str(trace)])
    assert result.exit_code == 0, result.output
    first, *rest = trace.read_text().splitlines()
    assert first == "# tracer: nop"
    found = [LINE.match(line) for line in rest if not line.startswith("#")]
    assert None not in found
    return [match for match in found if match]


def told(found: list[re.Match[str]]) -> list[str]:
    return [f"{line['event']}: {line['text']}" for line in found]


@pytest.fixture(scope="module")
def switching(tmp_path_factory: pytest.TempPathFactory) -> list[re.Match[str]]:
    return lines(tmp_path_factory.mktemp("trace"), "classic-two-cpus")


def test_every_event_has_the_format_of_linux(tmp_path: Path) -> None:
    found = lines(tmp_path, "timer-interrupt", "nmi-in-syscall-gap", "softirq-on-irqstack", "signal-at-exit")
    for line in found:
        (pattern,) = (pattern for name, pattern in FORMATS.items() if re.fullmatch(name, line["event"]))
        assert re.fullmatch(pattern, line["text"]), line[0]
    assert len({line["event"] for line in found}) >= 9


@pytest.mark.parametrize(
    "line",
    [
        "user-1 [000] d... 0.000000001 sys_enter: NR 1",
        "user-1 [0] d... 0.000000001: sys_enter: NR 1",
        "user-1 [000] 0.000000001: sys_enter: NR 1",
    ],
)
def test_the_grammar_refuses_a_line_of_another_layout(line: str) -> None:
    assert LINE.match(line) is None


def test_a_switch_is_told_by_the_cpu_that_switches(switching: list[re.Match[str]]) -> None:
    found = [(line["cpu"], line["comm"], line["text"]) for line in switching if line["event"] == "sched_switch"]
    user, idle = "comm=user {0}pid={1} {0}prio=120", "comm=swapper/1 {0}pid=0 {0}prio=120"
    to_child = f"prev_{idle.format('prev_')} prev_state=R ==> next_{user.format('next_', 2)}"
    away = f"prev_{user.format('prev_', 2)} prev_state=Z ==> next_{idle.format('next_')}"
    assert ("001", "<idle>", to_child) in found
    assert ("001", "user", away) in found


def test_the_life_of_a_child_in_order(switching: list[re.Match[str]]) -> None:
    names = [line["event"] for line in switching if not line["event"].startswith(("page_fault", "reschedule"))]
    assert names == [
        "sys_enter", "sched_process_fork", "sched_wakeup_new", "sys_exit", "sys_enter", "sched_switch", "sched_switch",
        "sys_enter", "sched_process_exit", "signal_generate", "sched_wakeup", "sched_switch", "sched_switch",
        "sys_exit", "sys_enter", "sched_process_exit",
    ]  # fmt: skip


def test_a_packet_from_the_card_to_the_reader(tmp_path: Path) -> None:
    scenario = tmp_path / "packet.toml"
    wait = inject(event="irq", line=0x15, at="cpu_idle_loop+0x6")
    scenario.write_text(text(wait + "[expect]\nsignal = 9\n", PACKET))
    found = told(lines(tmp_path, str(scenario)))
    begin = next(index for index, line in enumerate(found) if line.startswith("irq_handler_entry"))
    assert found[begin : begin + 6] == [
        "irq_handler_entry: irq=53 name=net_interrupt",
        "softirq_raise: vec=3 [action=NET_RX]",
        "irq_handler_exit: irq=53 ret=handled",
        "softirq_entry: vec=3 [action=NET_RX]",
        "sched_wakeup: comm=user pid=1 prio=120 target_cpu=000",
        "softirq_exit: vec=3 [action=NET_RX]",
    ]


def test_a_fault_of_user_mode_names_address_and_code(tmp_path: Path) -> None:
    found = told(lines(tmp_path, "syscall-getpid"))
    assert found[0] == "page_fault_user: address=0x400000 ip=0x400000 error_code=0x14"


def test_a_tracepoint_tells_nobody_who_has_not_asked() -> None:
    from emu.lab.rig import Rig
    from emu.lab.run import prepare
    from emu.lab.shipped import find_scenario
    from emu.tracepoints import SysEnter

    prepared = prepare(find_scenario("syscall-getpid"))
    rig = Rig(prepared.options, prepared.user)
    machine = rig._system.machine
    seen: list[type] = []
    for asked, expected in ((False, 0), (True, 2)):
        machine.traced = asked
        core = machine.cores[0]
        machine.observers[:] = [lambda event: seen.append(type(event))]
        machine.restore(rig._start)
        machine.run(100_000)
        assert core.ended
        assert seen.count(SysEnter) == expected


def test_who_watches_changes_nothing(tmp_path: Path) -> None:
    scenarios = ["traced-watchpoint", "nmi-nested", "classic-ia32-ptregs-calls"]
    watch = ["--strace", "-o", str(tmp_path / "s"), "--ftrace", str(tmp_path / "f"), "--trace", str(tmp_path / "t")]
    plain, watched = (CliRunner().invoke(main, ["run", "--json", *scenarios, *more]).stdout for more in ([], watch))
    assert plain == watched
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 1000


# --- mistakes ---------------------------------------------------------------------------------------------------------
def run(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["run", "syscall-getpid", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    status, output = run("--ftrace", str(tmp_path / "no" / "trace"))
    assert status == 2
    assert output == f"{tmp_path / 'no' / 'trace'}: cannot be written: No such file or directory\n"


def test_a_full_disk_is_told_without_a_traceback() -> None:
    status, output = run("--ftrace", "/dev/full")
    assert status == 2
    assert "/dev/full: cannot be written: No space left on device\n" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ftrace", "-", "--trace", "-"), "--trace - and --ftrace - would mix on stdout"),
        (("--ftrace", "-", "--json"), "--json and --ftrace - would mix on stdout"),
        (("--ftrace", "x", "--trace", "./x"), "--trace and --ftrace x would mix in x"),
    ],
)
def test_two_outputs_do_not_go_to_one_place(options: tuple[str, ...], message: str) -> None:
    status, output = run(*options)
    assert status == 2
    assert message in output
