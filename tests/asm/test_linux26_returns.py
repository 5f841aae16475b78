"""linux-2.6: calls that need the whole frame, and faults of the way out."""

from __future__ import annotations

import pytest
from linux26 import EVENTS, read_words, start
from linux26_programs import SYSCALL

from emu.machine.core import EndKind
from kernel_stubs.abi import ExTableEntry
from kernel_stubs.binding import Call

# --- the whole frame --------------------------------------------------------------------------------------------------
STUBS = {"clone": (56, 4), "fork": (57, 0), "vfork": (58, 0), "sigaltstack": (131, 2), "iopl": (172, 1)}


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_hands_over_all_registers(name):
    number, index = STUBS[name]
    seen = []

    def function(lab, cpu, a, b, c, d, e, f):
        regs = (a, b, c, d, e, f)[index]
        frame = lab.regs(regs)
        seen.append((regs, frame.bx, frame.bp, frame.r15, frame.sp, frame.cs, frame.orig_ax))
        return 5

    lab = start(SYSCALL.replace("$39", f"${number}"), **{f"sys_{name}": function}).to("before")
    before = lab.state()
    lab.finish()
    assert seen == [(lab.task_regs, 0x100, 0x101, 0x108, 0x60_0000, 0x33, number)]
    assert (lab.returns, lab.problems) == (["sysretq"], [])
    kept = [4 + n for n in (3, 5, 8, 9, 10, 12, 13, 14, 15)]
    assert [lab.state()[n] for n in kept] == [before[n] for n in kept]
    assert lab.core.cpu.register(0) == 5


@pytest.mark.parametrize(("name", "number", "index"), [("execve", 59, 3), ("rt_sigreturn", 15, 0)])
def test_execve_and_sigreturn_leave_by_iret_where_the_frame_says(name, number, index):
    def function(lab, cpu, a, b, c, d, e, f):
        frame = lab.regs((a, b, c, d, e, f)[index])
        frame.ip, frame.bx, frame.sp = lab.symbol("done"), 0xB, 0x60_0100
        return 3

    lab = start(SYSCALL.replace("$39", f"${number}"), **{f"sys_{name}": function}).to("before")
    lab.finish()
    cpu = lab.core.cpu
    assert (lab.returns, lab.problems) == (["iretq"], [])
    assert (cpu.register(0), cpu.register(3), cpu.sp) == (3, 0xB, 0x60_0100)


# --- faults of the way out --------------------------------------------------------------------------------------------
def fixing(handler: str):
    def stub(lab, cpu, regs, error_code, c, d):
        frame = lab.regs(regs)
        assert frame.cs == 0x10
        for at in range(lab.symbol("__start___ex_table"), lab.symbol("__stop___ex_table"), ExTableEntry.SIZE):
            if lab.view(ExTableEntry, at).insn == frame.ip:
                frame.ip = lab.view(ExTableEntry, at).fixup
                return
        raise AssertionError(lab.where(frame.ip))

    return {handler: stub}


def test_an_iret_that_faults_kills_the_task():
    def sys_rt_sigreturn(lab, cpu, regs, b, c, d, e, f):
        lab.regs(regs).cs = 0x1233
        return 0

    def do_exit(lab, cpu, code):
        cpu.core.finish(f"exit {code}")

    stubs = {"sys_rt_sigreturn": sys_rt_sigreturn, "do_exit": do_exit, **fixing("do_general_protection")}
    lab = start(SYSCALL.replace("$39", "$15"), **stubs).to("before")
    assert lab.finish().text == "exit 11"
    assert lab.problems == []
    assert read_words(lab, lab.stack - 40, 2) == (lab.symbol("done"), 0x1233)


@pytest.mark.parametrize(("selector", "loaded"), [(0x2B, 0x2B), (0x1000, 0), (0, 0)])
@pytest.mark.parametrize("event", EVENTS)
def test_load_gs_index_with_an_event_at_any_boundary(selector, loaded, event):
    def sys_getpid(lab, cpu, a, b, c, d, e, f):
        yield Call("load_gs_index", (selector,))
        return 5

    lab = start(SYSCALL, sys_getpid=sys_getpid, **fixing("do_general_protection")).to("before")
    for where, end in lab.sweep(EVENTS[event]):
        assert end.kind is EndKind.BREAKPOINT, where
        cpu = lab.core.cpu
        assert (cpu.selector(5), cpu.gs_base, cpu.kernel_gs_base) == (loaded, 0, lab.pda_at), where
        assert not [p for p in lab.problems if "the user's" not in p], (where, lab.problems)
