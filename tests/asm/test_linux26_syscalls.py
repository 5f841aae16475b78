"""linux-2.6: system calls by each entry and each way out, with C stubs; and the image against gas."""

from __future__ import annotations

from pathlib import Path

import pytest
from gas_reference import differences, link, needs_gas
from linux26 import EVENTS, Lab, image, start
from linux26_programs import INT80, SYSCALL, SYSCALL32, SYSENTER

from emu.arch import Rflags
from emu.machine.core import EndKind
from kernel_stubs.abi import ExTableEntry
from kernel_stubs.abi26 import Tif26
from kernel_stubs.kernel_image import generated_sources, kernel_constants, source_files


def result(value: int):
    return lambda lab, cpu, a, b, c, d, e, f: value


@needs_gas
def test_the_image_is_what_gas_makes_of_it(tmp_path: Path):
    ours = image()
    for name, text in (source_files("linux-2.6") | generated_sources("linux-2.6")).items():
        (tmp_path / name).write_text(text)
    constants = kernel_constants("linux-2.6") | {"CONFIG_SMAP": 0, "CONFIG_FSGSBASE": 0}
    head = "".join(f".set {name}, {value}\n" for name, value in constants.items())
    assert differences(ours, link(head + '.include "image.S"\n', ours, tmp_path, [tmp_path])) == []


# --- the fast way -----------------------------------------------------------------------------------------------------
def test_the_fast_path_calls_through_the_table_and_returns_by_sysret():
    lab = start(SYSCALL, sys_getpid=result(42)).to("before")
    before = lab.state()
    assert lab.finish().kind is EndKind.BREAKPOINT
    # RDI RSI RDX R10 R8 R9.
    assert lab.calls == [("sys_getpid", 0x109, 0x10A, 0x10B, 0x104, 0x102, 0x103)]
    assert (lab.returns, lab.problems) == (["sysretq"], [])
    after = list(lab.state())
    assert after[4] == 42
    assert (after[5], after[15]) == (lab.symbol("done"), before[1])  # RCX, R11
    kept = [n for n in range(1, 20) if n not in (4, 5, 15)]
    assert [after[n] for n in kept] == [before[n] for n in kept]


def test_a_number_that_is_none_is_enosys():
    lab = start(SYSCALL.replace("$39", "$100000")).to("before")
    lab.finish()
    assert (lab.calls, lab.core.cpu.register(0), lab.returns) == ([], 2**64 - 38, ["sysretq"])


def test_interrupts_are_on_in_a_system_call():
    seen = []
    lab = start(SYSCALL, sys_getpid=lambda lab, cpu, a, b, c, d, e, f: seen.append(cpu.core.cpu.flags)).to("before")
    lab.finish()
    assert seen[0] & Rflags.IF


# --- work -------------------------------------------------------------------------------------------------------------
def with_work(*flags: Tif26, **stubs) -> Lab:
    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        for flag in flags:
            lab.set_flag(flag)
        return 42

    def schedule(lab, cpu):
        lab.clear_flag(Tif26.NEED_RESCHED)

    def do_notify_resume(lab, cpu, regs, unused, work):
        frame = lab.regs(regs)
        assert regs == lab.task_regs
        assert (frame.bx, frame.r15, frame.ip, frame.ax) == (0x100, 0x108, lab.symbol("done"), 42)
        assert (frame.cs, frame.ss, frame.sp, frame.flags) == (0x33, 0x2B, 0x60_0000, Rflags.IF | 2)
        assert work & 1 << Tif26.SIGPENDING
        lab.clear_flag(Tif26.SIGPENDING)

    all_stubs = {
        "sys_getpid": sys_getpid,
        "schedule": schedule,
        "preempt_schedule_irq": schedule,
        "do_notify_resume": do_notify_resume,
    } | stubs
    return start(SYSCALL, **all_stubs).to("before")


def test_rescheduling_keeps_the_fast_way_out():
    lab = with_work(Tif26.NEED_RESCHED)
    lab.finish()
    assert (lab.names(), lab.returns, lab.problems) == (["sys_getpid", "schedule"], ["sysretq"], [])


def test_a_signal_makes_it_iret():
    lab = with_work(Tif26.NEED_RESCHED, Tif26.SIGPENDING)
    lab.finish()
    assert lab.names() == ["sys_getpid", "schedule", "do_notify_resume"]
    assert (lab.returns, lab.problems, lab.core.cpu.register(0)) == (["iretq"], [], 42)
    assert lab.core.cpu.register(3) == 0x100


def test_a_signal_frame_is_what_user_mode_gets():
    def do_notify_resume(lab, cpu, regs, unused, work):
        lab.regs(regs).bx, lab.regs(regs).r8 = 0x5555, 0x6666
        lab.clear_flag(Tif26.SIGPENDING)

    lab = with_work(Tif26.SIGPENDING, do_notify_resume=do_notify_resume)
    lab.finish()
    assert (lab.core.cpu.register(3), lab.core.cpu.register(8)) == (0x5555, 0x6666)


def test_a_traced_system_call_is_told_twice_and_may_be_changed():
    def syscall_trace_enter(lab, cpu, regs):
        frame = lab.regs(regs)
        assert (frame.orig_ax, frame.ax, frame.bx, frame.r12) == (39, 2**64 - 38, 0x100, 0x105)
        frame.di = 0x999
        return 110  # getppid

    def syscall_trace_leave(lab, cpu, regs):
        assert lab.regs(regs).ax == 7
        lab.regs(regs).ax = 8

    lab = start(
        SYSCALL, sys_getppid=result(7), syscall_trace_enter=syscall_trace_enter, syscall_trace_leave=syscall_trace_leave
    ).to("before")
    lab.set_flag(Tif26.SYSCALL_TRACE)
    lab.finish()
    assert lab.names() == ["syscall_trace_enter", "sys_getppid", "syscall_trace_leave"]
    assert lab.calls[1][1] == 0x999
    assert (lab.returns, lab.problems, lab.core.cpu.register(0)) == (["iretq"], [], 8)


def test_a_tracer_that_comes_during_the_call_is_told_of_its_end():
    def syscall_trace_leave(lab, cpu, regs):
        assert (lab.regs(regs).bx, lab.regs(regs).sp, lab.regs(regs).cs) == (0x100, 0x60_0000, 0x33)

    lab = with_work(Tif26.SYSCALL_TRACE, syscall_trace_leave=syscall_trace_leave)
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert lab.names() == ["sys_getpid", "syscall_trace_leave"]
    assert (lab.returns, lab.problems, lab.core.cpu.register(0)) == (["iretq"], [], 42)


def test_a_tracer_may_skip_the_call():
    lab = start(SYSCALL, syscall_trace_enter=lambda lab, cpu, regs: 2**64 - 1).to("before")
    lab.set_flag(Tif26.SYSCALL_TRACE)
    lab.finish()
    assert lab.names() == ["syscall_trace_enter", "syscall_trace_leave"]
    assert lab.core.cpu.register(0) == 2**64 - 38


# --- 32-bit programs --------------------------------------------------------------------------------------------------
def start32(text: str, vendor: str = "intel", **stubs) -> Lab:
    return start(text, vendor, **stubs).to("before")


def test_int80_moves_the_arguments():
    lab = start32(INT80, sys_getpid=result(42))
    before = lab.state()
    lab.finish()
    assert lab.calls == [("sys_getpid", 0x100, 0x103, 0x10B, 0x10A, 0x109, 0x101)]
    assert (lab.returns, lab.problems, lab.core.cpu.register(0)) == (["iretq"], [], 42)
    kept = [4 + n for n in (1, 2, 3, 5, 6, 7, 12, 13, 14, 15)]
    assert [lab.state()[n] for n in kept] == [before[n] for n in kept]


@pytest.mark.parametrize("traced", [False, True])
def test_sysenter(traced):
    lab = start32(SYSENTER, sys_getpid=result(42), syscall_trace_enter=lambda lab, cpu, regs: 20)
    if traced:
        lab.set_flag(Tif26.SYSCALL_TRACE)
    assert lab.finish().kind is EndKind.BREAKPOINT
    call = next(call for call in lab.calls if call[0] == "sys_getpid")
    assert call[6] == 0x66
    cpu = lab.core.cpu
    assert (cpu.selector(1), cpu.cpl, cpu.register(0), cpu.gs_base) == (0x23, 3, 42, 0x7777_0000)
    assert (cpu.sp, cpu.flags & Rflags.IF, lab.problems) == (0x60_0000 - 4096, Rflags.IF, [])
    assert not lab.thread_info.status


@pytest.mark.parametrize("traced", [False, True])
def test_syscall_from_compatibility_mode(traced):
    lab = start32(SYSCALL32, "amd", sys_getpid=result(42), syscall_trace_enter=lambda lab, cpu, regs: 20)
    if traced:
        lab.set_flag(Tif26.SYSCALL_TRACE)
    assert lab.finish().kind is EndKind.BREAKPOINT
    call = next(call for call in lab.calls if call[0] == "sys_getpid")
    assert (call[2], call[6]) == (0x99, 0x66)
    cpu = lab.core.cpu
    assert (cpu.selector(1), cpu.cpl, cpu.register(0), cpu.register(5)) == (0x23, 3, 42, 0x99)
    assert (cpu.sp & 0xFFFF_FFFF, lab.problems) == (0x60_0000 - 4096, [])


def test_a_bad_sixth_argument_is_efault():
    def do_page_fault(lab, cpu, regs, error_code, *_):
        rows = [lab.symbol("__start___ex_table"), lab.symbol("__stop___ex_table")]
        for at in range(rows[0], rows[1], ExTableEntry.SIZE):
            if lab.view(ExTableEntry, at).insn == lab.regs(regs).ip:
                lab.regs(regs).ip = lab.view(ExTableEntry, at).fixup
                return
        raise AssertionError(lab.where(lab.regs(regs).ip))

    def stub(lab, cpu, regs, error_code, c, d):
        do_page_fault(lab, cpu, regs, error_code)

    lab = start32(SYSENTER.replace("subl    $4096, %ebp", "movl $0x100000, %ebp"), do_page_fault=stub)
    lab.core.set_breakpoints({lab.symbol("iret_label")})
    lab.core.advance(lab.core.clock + 1000)
    assert "do_page_fault" in lab.names()
    assert "sys_getpid" not in lab.names()
    lab.core.set_breakpoints(set())
    lab.finish()
    assert lab.core.cpu.register(0) == 2**64 - 14


# --- an event at every boundary ---------------------------------------------------------------------------------------
PATHS = {
    "sysret": lambda: start(SYSCALL, sys_getpid=result(42)).to("before"),
    "badsys": lambda: start(SYSCALL.replace("$39", "$100000")).to("before"),
    "work": lambda: with_work(Tif26.NEED_RESCHED, Tif26.SIGPENDING),
    "fork": lambda: start(SYSCALL.replace("$39", "$57"), sys_fork=result(5)).to("before"),
    "execve": lambda: start(SYSCALL.replace("$39", "$59"), sys_execve=result(0)).to("before"),
    "sigreturn": lambda: start(SYSCALL.replace("$39", "$15"), sys_rt_sigreturn=result(9)).to("before"),
    "traced": lambda: _traced(start(SYSCALL, sys_getpid=result(1), syscall_trace_enter=lambda lab, cpu, regs: 39)),
    "int80": lambda: start32(INT80, sys_getpid=result(42)),
    "sysenter": lambda: start32(SYSENTER, sys_getpid=result(42)),
    "syscall32": lambda: start32(SYSCALL32, "amd", sys_getpid=result(42)),
}


def _traced(lab: Lab) -> Lab:
    lab.set_flag(Tif26.SYSCALL_TRACE)
    return lab.to("before")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("path", PATHS)
def test_an_event_at_any_boundary_changes_nothing(path, event):
    lab = PATHS[path]()
    narrow = 0xFFFF_FFFF if path == "syscall32" else 2**64 - 1
    # R8 to R11 are not saved by the 32-bit entries: image.S.
    lost = range(4 + 8, 4 + 12) if path in ("int80", "sysenter", "syscall32") else ()
    results = set()
    for where, end in lab.sweep(EVENTS[event]):
        assert end.kind is EndKind.BREAKPOINT, (where, end)
        assert lab.problems == [], where
        results.add(tuple(value & narrow for n, value in enumerate(lab.state()) if n not in lost))
    assert len(results) == 1, [[hex(value) for value in row] for row in results]


# --- the checks can fail ----------------------------------------------------------------------------------------------
BREAKS = {
    "no swap in paranoidentry": ("paranoid.S", "    js      .Lparanoid_gs", "    jmp     .Lparanoid_gs", "nmi"),
    "paranoid_exit never swaps": ("paranoid.S", "paranoid_swapgs:\n    swapgs\n", "paranoid_swapgs:\n", "mce"),
    "an interrupt swaps always": ("irq.S", "    jz      .Lirq_from_kernel_\\@\n", "", "irq"),
    "the way out does not swap": ("irq.S", "retint_swapgs:\n    swapgs\n", "retint_swapgs:\n", "irq"),
    "irqcount is not counted down": ("irq.S", "    decl    %gs:PDA_IRQCOUNT\n", "", "irq"),
    "DF is not cleared": ("paranoid.S", "    SAVE_ALL\n    cld\n", "    SAVE_ALL\n    std\n", "nmi"),
    "RSP before oldrsp": (
        "entry_64.S",
        "    movq    %rsp, %gs:PDA_OLDRSP\n    movq    %gs:PDA_KERNELSTACK, %rsp\n",
        "    movq    %gs:PDA_KERNELSTACK, %rsp\n    movq    %rsp, %gs:PDA_OLDRSP\n",
        "nmi",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_image_is_noticed(what):
    file, old, new, event = BREAKS[what]
    source = source_files("linux-2.6")[file]
    assert source.count(old) == 1
    try:
        lab = start(SYSCALL, overrides=((file, source.replace(old, new)),), sys_getpid=result(42)).to("before")
        good = lab.core.cpu.sp
        found = any(
            end.kind is not EndKind.BREAKPOINT or lab.problems or lab.core.cpu.sp != good
            for _, end in lab.sweep(EVENTS[event])
        )
    except AssertionError:
        found = True  # not even the boot or the baseline works
    assert found
