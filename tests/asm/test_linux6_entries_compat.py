"""linux-6: the 32-bit entries and their two ways out, with small C stubs and an event at every boundary."""

from __future__ import annotations

import pytest
from kernel_entries import EVENTS, SYSCALL32_FROM_64, Lab, start

from emu.arch import Rflags
from emu.machine.core import EndKind
from emu.machine.profile import Profile
from kernel_stubs.abi import PtRegs

INT80 = """
_start:
    movl    $0x11, %ebx
    movabsq $0x1234567800000014, %rax
before:
    int     $0x80
done:
    jmp     done
"""
SYSENTER = """
_start:
    movq    %rsp, %rbp
    movl    $20, %eax
before:
    sysenter
pad64:
    jmp     pad64
pad32:
    .byte   0x90
done:
    .byte   0xeb, 0xfe
"""
SYSCALL32 = f"_start:\n{SYSCALL32_FROM_64}"


def regs_at(cpu, address):
    return cpu.view(PtRegs, address)


# --- 32-bit system calls ----------------------------------------------------------------------------------------------
def int80(profile=None) -> tuple[Lab, list[PtRegs]]:
    seen = []

    def do_int80_syscall_32(cpu, regs):
        view = regs_at(cpu, regs)
        seen.append(PtRegs.from_buffer_copy(view))
        view.ax = 0x77

    return start(INT80, profile, do_int80_syscall_32=do_int80_syscall_32).to("before"), seen


def sysenter(ip: str, cs: int, profile=None, **more) -> tuple[Lab, list[PtRegs]]:
    seen = []

    def do_SYSENTER_32(cpu, regs):
        view = regs_at(cpu, regs)
        seen.append(PtRegs.from_buffer_copy(view))
        view.ip, view.cs, view.sp = lab.symbol(ip), cs, view.bp & 0xFFFF_FFFF
        view.flags |= Rflags.IF
        view.ax = 0x77
        return int(cs == 0x23)

    lab = start(SYSENTER, profile, do_SYSENTER_32=do_SYSENTER_32, **more).to("before")
    lab.symbols["done"] = lab.symbol("done" if ip == "pad32" else "pad64")
    return lab, seen


def syscall32(fast: int) -> tuple[Lab, list[PtRegs]]:
    seen = []

    def do_fast_syscall_32(cpu, regs):
        view = regs_at(cpu, regs)
        seen.append(PtRegs.from_buffer_copy(view))
        view.ax = 0x77
        return fast

    return start(SYSCALL32, Profile(vendor="amd"), do_fast_syscall_32=do_fast_syscall_32).to("before"), seen


def test_int80_hands_over_32_bits_of_the_number():
    lab, seen = int80()
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert (seen[0].orig_ax, seen[0].ax, seen[0].bx) == (0x14, 2**64 - 38, 0x11)
    assert (seen[0].ip, seen[0].cs, seen[0].ss) == (lab.symbol("done"), 0x33, 0x2B)
    assert lab.core.cpu.register(0) == 0x77


def test_sysenter_leaves_ip_and_sp_to_c():
    lab, seen = sysenter("pad32", 0x23)
    user_sp = lab.core.cpu.sp
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert (seen[0].orig_ax, seen[0].ax, seen[0].ip, seen[0].sp) == (20, 2**64 - 38, 0, 0)
    assert (seen[0].cs, seen[0].ss, seen[0].bp) == (0x23, 0x2B, user_sp)
    cpu = lab.core.cpu
    assert (cpu.selector(1), cpu.cpl, cpu.sp, cpu.register(0)) == (0x23, 3, user_sp & 0xFFFF_FFFF, 0x77)


@pytest.mark.parametrize("fast", [0, 1])
def test_syscall_from_compatibility_mode(fast):
    lab, seen = syscall32(fast)
    user_sp = lab.core.cpu.sp
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert (seen[0].orig_ax, seen[0].cx, seen[0].bp, seen[0].ip) == (20, 0x99, 0x99, lab.symbol("after"))
    assert (seen[0].cs, seen[0].ss, seen[0].sp) == (0x23, 0x2B, user_sp)
    cpu = lab.core.cpu
    assert (cpu.selector(1), cpu.cpl, cpu.register(0)) == (0x23, 3, 0x77)
    assert cpu.register(1) == (lab.symbol("after") if fast else 0x99)


def test_user_mode_flags_do_not_reach_c_through_sysenter():
    stepped = []

    def exc_debug(cpu, regs):
        ip = regs_at(cpu, regs).ip
        first, last = (lab.symbol(f"__{end}_SYSENTER_singlestep_region") for end in ("begin", "end"))
        assert first <= ip < last
        stepped.append(ip)
        cpu.core.cpu.state.dr[6] = 0xFFFF0FF0

    lab, seen = sysenter("pad64", 0x33, exc_debug=exc_debug)
    lab.to("entry_SYSENTER_compat").watched()
    lab.core.cpu.flags |= Rflags.TF | Rflags.NT | Rflags.AC | Rflags.DF
    lab.to("do_SYSENTER_32")
    assert not lab.core.cpu.flags & (Rflags.TF | Rflags.NT | Rflags.AC | Rflags.DF | Rflags.IF)
    lab.to("swapgs_restore_regs_and_return_to_usermode")
    assert seen[0].flags & (Rflags.TF | Rflags.NT | Rflags.AC | Rflags.DF) == (
        Rflags.TF | Rflags.NT | Rflags.AC | Rflags.DF
    )
    assert len(stepped) > 30
    assert lab.judge.violations == []


RETURNS = {
    "int80": lambda profile: int80(profile)[0],
    "sysenter-iret": lambda profile: sysenter("pad64", 0x33, profile)[0],
    "sysenter-sysretl": lambda profile: sysenter("pad32", 0x23, profile)[0],
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("fsgsbase", [False, True])
@pytest.mark.parametrize("path", RETURNS)
def test_an_event_at_any_boundary_of_a_32_bit_system_call_changes_nothing(path, fsgsbase, event):
    lab = RETURNS[path](Profile(fsgsbase=fsgsbase))
    results = set()
    for ip, end, registers, violations in lab.sweep(EVENTS[event]):
        where = lab.system.kernel.image.symbolize(ip)
        assert end.kind is EndKind.BREAKPOINT, where
        assert [v for v in violations if v.invariant != "frames"] == [], where
        results.add((registers[0], *registers[2:]))
    assert len(results) == 1


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_at_any_boundary_of_syscall_compat_changes_nothing(event):
    lab, _ = syscall32(1)
    results = set()
    for ip, end, registers, violations in lab.sweep(EVENTS[event]):
        where = lab.system.kernel.image.symbolize(ip)
        assert end.kind is EndKind.BREAKPOINT, where
        assert [v for v in violations if v.invariant != "frames"] == [], where
        # An interrupt of compatibility mode returns 32 bits of RSP.
        results.add((registers[0], *(value & 0xFFFF_FFFF for value in registers[2:])))
    assert len(results) == 1
