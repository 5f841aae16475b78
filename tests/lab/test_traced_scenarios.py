"""Scenarios that trace, or whose frame IRETQ refuses: native runs agree, the paths are executed, breaks are noticed."""

import shutil
import subprocess

import pytest

from emu.lab.coverage import cover
from emu.lab.run import run_scenario
from emu.lab.scenario import parse_scenario
from emu.lab.shipped import find_scenario
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files
from kernel_stubs.syscalls.names import SYSCALL_NAMES

CALLS, WATCHPOINT = "classic-traced-system-calls", "classic-traced-watchpoint"
INT80, SYSENTER, CSTAR = (f"classic-ia32-traced-{entry}" for entry in ("int80", "sysenter", "cstar"))
WRITES = "classic-tracer-writes-registers"
FORK, GS = "classic-traced-fork", "classic-load-gs-index-fault"
STEPPED = "classic-single-stepped-fork"
NATIVE = (CALLS, "traced-system-calls", WATCHPOINT, "traced-watchpoint", INT80, GS, WRITES, STEPPED)
CHILD, INT3 = "classic-audited-child", "classic-schedule-after-int3"


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
@pytest.mark.parametrize("name", NATIVE)
def test_a_native_run_of_its_program_ends_as_the_scenario_expects(name, tmp_path):
    scenario = find_scenario(name).scenario
    constants = "".join(f".set SYS_{call}, {number}\n" for number, call in SYSCALL_NAMES.items())
    (tmp_path / "program.S").write_text(f".globl _start\n{constants}{scenario.user.asm}")
    subprocess.run(["gcc", "-nostdlib", "-static", "-o", "program", "program.S"], cwd=tmp_path, check=True)
    host = subprocess.run([tmp_path / "program"], capture_output=True, check=False, timeout=20)
    assert (host.returncode, host.stdout.decode()) == (scenario.expect.exit, scenario.expect.stdout or "")


def test_a_traced_system_call_executes_each_instruction_of_tracesys():
    path = {"tracesys", "int_ret_from_sys_call", "int_with_check", "int_very_careful"}
    (covered,) = cover([find_scenario(CALLS)], ["linux-2.6"])
    there = [one for one in covered.instructions if one.where.partition("+")[0] in path]
    assert {one.where for one in there} >= path
    assert [f"{one.where}: {one.text}" for one in there if not one.executed] == []


def first_complaint(name, file, routine, old, new):
    """What a scenario says first with this change behind a label of the image."""
    found = find_scenario(name)
    kernel = found.scenario.kernel
    text = source_files(kernel)[file]
    start = text.index(f"\n{routine}:")
    assert old in text[start:], f"{routine}: no {old!r}"
    image = build_image(kernel, Profile(), ((file, text[:start] + text[start:].replace(old, new, 1)),))
    # No scenario here needs more, and a break may loop for ever.
    short = parse_scenario(found.text.replace("title =", "budget = 300_000\ntitle =", 1), found.name)
    (report,) = run_scenario(short, image)
    return report.facts.violations[0].invariant if report.facts.violations else "".join(report.unmet[:1])


@pytest.mark.parametrize(
    ("routine", "old", "new", "noticed"),
    [
        ("system_call", "    jnz     tracesys\n", "", "status 99"),
        ("tracesys", "    FIXUP_TOP_OF_STACK %rdi\n", "", "frames"),
        ("tracesys", "    LOAD_ARGS\n", "", "C interface"),
        ("system_call", "    sti\n", "", "flags"),
        ("int_restore_rest", "    cli\n", "", "flags"),
        ("tracesys", "    RESTORE_REST\n", "", "stacks"),
        ("tracesys", "    ja      int_ret_from_sys_call\n", "", "progress"),
        ("tracesys", "    movq    $-ENOSYS, PT_REGS_AX(%rsp)\n", "", "status 99"),
        ("tracesys", "    movq    %rax, ARG_AX(%rsp)\n", "", "status 99"),
        ("int_very_careful", "    SAVE_REST\n", "", "stacks"),
        ("int_very_careful", "    andl    $~_TIF_WORK_SYSCALL_EXIT, %edi\n", "", "status 99"),
    ],
)
def test_a_break_of_the_traced_path_is_noticed(routine, old, new, noticed):
    assert noticed in first_complaint(CALLS, "entry_64.S", routine, old, new)


@pytest.mark.parametrize("name", [WATCHPOINT, "traced-watchpoint"])
@pytest.mark.parametrize(("old", "new"), [("%rsi, %dr7", "%rax, %dr7"), ("%rax, %dr0", "%rax, %dr1")])
def test_debug_registers_that_are_not_loaded_are_noticed(name, old, new):
    assert "status 13" in first_complaint(name, "debugreg.S", "load_debugregs", old, new)


@pytest.mark.parametrize(
    ("routine", "old", "new"),
    [
        ("error_kernelspace", "    je      error_swapgs\n", ""),
        ("error_kernelspace", "    incl    %ebx\n", ""),
    ],
)
def test_gs_that_is_wrong_when_iretq_was_refused_is_noticed(routine, old, new):
    assert first_complaint("classic-bad-iret", "traps.S", routine, old, new) == "GS nesting"


def test_bad_iret_must_begin_with_the_kernels_gs():
    old = "    jnz     retint_kernel\n"
    assert first_complaint("classic-bad-iret", "traps.S", "error_exit", old, f"    swapgs\n{old}") == "GS nesting"


@pytest.mark.parametrize(
    ("name", "file", "routine", "old", "new", "noticed"),
    [
        (INT80, "ia32entry.S", "ia32_tracesys", "    CLEAR_RREGS\n", "", "frames"),
        (INT80, "ia32entry.S", "ia32_tracesys", "    LOAD_ARGS32\n", "", "C interface"),
        (SYSENTER, "ia32entry.S", "sysenter_tracesys", "    xchgl   %r9d, %ebp\n", "", "status 220"),
        (SYSENTER, "ia32entry.S", "sysenter_tracesys", "    xchgl   %ebp, %r9d\n", "", "frames"),
        (SYSENTER, "ia32entry.S", "sysenter_tracesys", "    CLEAR_RREGS\n", "", "status 99"),
        (CSTAR, "ia32entry.S", "cstar_tracesys", "    xchgl   %r9d, %ebp\n", "", "frames"),
        (CSTAR, "ia32entry.S", "cstar_tracesys", "    xchgl   %ebp, %r9d\n", "", "frames"),
        (CSTAR, "ia32entry.S", "cstar_tracesys", "    CLEAR_RREGS\n", "", "frames"),
        (CSTAR, "ia32entry.S", "cstar_tracesys", "    movq    %r9, PT_REGS_R9(%rsp)\n", "", "frames"),
        (
            FORK,
            "entry_64.S",
            "sysret_signal",
            "    jmp     int_ret_from_sys_call\n",
            "    jmp     ret_from_sys_call\n",
            "progress",
        ),
        (CHILD, "entry_64.S", "sysret_signal", "    FIXUP_TOP_OF_STACK %r11\n", "", "frames"),
        (GS, "process.S", "gs_change", "    swapgs\n    xorl", "    xorl", "GS nesting"),
        (GS, "traps.S", "error_kernelspace", "    cmpq    $gs_change, PT_REGS_IP(%rsp)\n", "", "GS nesting"),
        (CHILD, "process.S", "ret_from_fork", "    jnz     rff_trace\n", "", "syscall_trace_leave"),
        (INT3, "paranoid.S", "paranoid_userspace", "    jnz     paranoid_schedule\n", "", "progress"),
        (INT3, "paranoid.S", "paranoid_userspace", "    movq    %rax, %rsp\n", "", "frames"),
    ],
)
def test_a_break_of_a_rare_path_is_noticed(name, file, routine, old, new, noticed):
    assert noticed in first_complaint(name, file, routine, old, new)
