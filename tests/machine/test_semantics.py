"""Instructions that the engine lacks or gets wrong: SYSCALL, SYSRET, IRETQ, MSRs, ports, CPUID, TSC; Intel and AMD."""

import struct

import pytest
from bare import CODE, GDT, GDT_WORDS, HANDLERS, KERNEL, KSTACK, SP0, USER, USER_CS, USER_DS, USER_STACK, bare
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.arch import Cr4, Efer, Msr, PageFault, Rflags, Vector
from emu.events import GsSwapped, MsrWritten, Returned, SystemCall
from emu.machine.profile import Profile
from emu.machine.registers import R11, RAX, RBX, RCX, RDX

SYSCALL_TARGET = HANDLERS + 0x1000
NON_CANONICAL = 0x0000_8000_0000_0000
INTEL, AMD = Profile("intel"), Profile("amd")
IF, TF, NT, DF, AC = (int(f) for f in (Rflags.IF, Rflags.TF, Rflags.NT, Rflags.DF, Rflags.AC))


def gp_at_cpl0(it, ip, code=0):
    assert it.entered() == Vector.GP
    error_code, saved_ip, cs, *_ = it.frame(error_code=True)
    assert (error_code, saved_ip, cs) == (code, ip, 0x10)


# --- SYSCALL ---------------------------------------------------------------------------------------------------------
def test_syscall_enters_lstar_with_rip_in_rcx_flags_in_r11_and_the_users_stack():
    it = bare("movl $39, %eax\n syscall", user=True, flags=2 | IF | DF)
    it.run()
    cpu = it.core.cpu
    assert cpu.ip == SYSCALL_TARGET + 1  # behind its HLT
    assert (cpu.cpl, cpu.selector(1), cpu.selector(2)) == (0, 0x10, 0x18)
    assert (cpu.register(RCX), cpu.register(R11), cpu.sp) == (USER + 7, 2 | IF | DF, USER_STACK)
    assert cpu.flags == 2  # FMASK 0x700
    assert it.core.clock == 3
    (event,) = it.of(SystemCall)
    assert (event.number, event.return_ip, event.target) == (39, USER + 7, SYSCALL_TARGET)


def test_syscall_without_sce_is_ud_on_the_instruction():
    it = bare("nop\n syscall", user=True)
    it.core.cpu.set_efer(int(Efer.LME | Efer.LMA | Efer.NXE))
    it.run()
    assert it.entered() == Vector.UD
    assert it.frame(error_code=False)[0] == USER + 1


def test_syscall_in_compatibility_mode_is_ud_on_intel_and_enters_cstar_on_amd():
    for profile in (INTEL, AMD):
        it = bare("nop\n syscall", user=True, profile=profile)
        segment = it.core.cpu.state.segs[1]
        segment.selector, segment.flags = 0x23, 0xCFFB00
        it.core.cpu.state.hflags &= ~(1 << 15)
        it.core.cpu.state.cstar = SYSCALL_TARGET + 0x100
        it.machine.memory.write(SYSCALL_TARGET + 0x100 - KERNEL, b"\xf4")
        it.core.cpu.mark_dirty()
        it.run()
        if profile is INTEL:
            assert it.entered() == Vector.UD
        else:
            assert it.core.cpu.ip == SYSCALL_TARGET + 0x101


# --- SYSRETQ ---------------------------------------------------------------------------------------------------------
def sysret(rcx, profile, r11=2 | IF):
    it = bare("sysretq", profile=profile)
    it.core.cpu.set_register(RCX, rcx)
    it.core.cpu.set_register(R11, r11)
    return it


def test_sysretq_returns_to_rcx_at_cpl3_with_flat_selectors():
    it = sysret(USER, INTEL)
    it.machine.memory.write(USER, b"\x90\x90")
    it.run(2)
    cpu = it.core.cpu
    assert (cpu.ip, cpu.cpl, cpu.selector(1), cpu.selector(2)) == (USER + 1, 3, USER_CS, USER_DS)
    assert cpu.flags == 2 | IF
    (event,) = it.of(Returned)
    assert (event.by, event.frame.ip, event.frame.cpl) == ("sysretq", USER, 3)


def test_non_canonical_sysretq_is_gp_at_cpl0_on_intel():
    it = sysret(NON_CANONICAL, INTEL)
    it.run()
    gp_at_cpl0(it, CODE)
    assert not it.of(Returned)


def test_non_canonical_sysretq_faults_at_cpl3_on_amd():
    it = sysret(NON_CANONICAL, AMD)
    it.run()
    assert it.entered() == Vector.GP
    error_code, ip, cs, *_ = it.frame(error_code=True)
    assert (error_code, ip, cs) == (0, NON_CANONICAL, USER_CS)


# --- IRETQ -----------------------------------------------------------------------------------------------------------
GOOD = {"ip": USER, "cs": USER_CS, "flags": 2 | IF, "sp": USER_STACK, "ss": USER_DS}


def iret(**change):
    it = bare("iretq")
    frame = GOOD | change
    it.machine.memory.write(KSTACK - KERNEL, struct.pack("<5Q", *frame.values()))
    it.machine.memory.write(USER, b"\x90\x90")
    it.core.nmi_blocked = True
    return it


def test_iretq_to_user_mode_restores_the_frame_and_unblocks_nmis():
    it = iret()
    it.run(2)
    cpu = it.core.cpu
    assert (cpu.ip, cpu.cpl, cpu.sp, cpu.selector(2)) == (USER + 1, 3, USER_STACK, USER_DS)
    assert not it.core.nmi_blocked
    (event,) = it.of(Returned)
    assert (event.by, event.frame_at, event.frame.ip) == ("iretq", KSTACK, USER)


IRET_FAULTS = {
    "non-canonical RIP": ({"ip": NON_CANONICAL}, Vector.GP, 0),
    "null CS": ({"cs": 3}, Vector.GP, 0),
    "data segment in CS": ({"cs": USER_DS}, Vector.GP, USER_DS & ~3),
    "CS beyond the GDT": ({"cs": 0x1003}, Vector.GP, 0x1000),
    "CS in an LDT that is not there": ({"cs": 0x37}, Vector.GP, 0x34),
    "CS with DPL 0 and RPL 3": ({"cs": 0x13}, Vector.GP, 0x10),
    "null SS at CPL 3": ({"ss": 0}, Vector.GP, 0),
    "SS with the wrong RPL": ({"ss": 0x28}, Vector.GP, 0x28),
    "code segment in SS": ({"ss": USER_CS}, Vector.GP, USER_CS & ~3),
    "kernel SS for CPL 3": ({"ss": 0x1B}, Vector.GP, 0x18),
}


@pytest.mark.parametrize(("change", "vector", "code"), IRET_FAULTS.values(), ids=IRET_FAULTS)
def test_iretq_refuses_a_bad_frame_before_anything_changes(change, vector, code):
    it = iret(**change)
    it.run()
    assert it.entered() == vector
    error_code, ip, cs, _flags, sp, _ss = it.frame(error_code=True)
    assert (error_code, ip, cs, sp) == (code, CODE, 0x10, KSTACK)
    assert not it.of(Returned)
    assert not it.core.nmi_blocked


@pytest.mark.parametrize(("selector", "vector"), [(USER_CS, Vector.NP), (USER_DS, Vector.SS)])
def test_iretq_to_a_segment_that_is_not_present(selector, vector):
    it = iret()
    index = selector >> 3
    it.put64(GDT + 8 * index, GDT_WORDS[index] & ~(1 << 47))
    it.run()
    assert it.entered() == vector
    assert it.frame(error_code=True)[:2] == (selector & ~3, CODE)


def test_iretq_with_nt_is_gp():
    it = iret()
    it.core.cpu.flags = 2 | NT
    it.run()
    gp_at_cpl0(it, CODE)


def test_iretq_whose_frame_cannot_be_read_is_a_page_fault():
    it = iret()
    it.set_gate(Vector.PF, ist=1)
    it.core.cpu.sp = 0x900000
    it.run()
    assert it.entered() == Vector.PF
    assert it.core.cpu.cr2 == 0x900000
    assert not it.of(Returned)


def test_iretq_to_the_same_level_restores_rsp_too():
    it = iret(ip=HANDLERS, cs=0x10, sp=SP0, ss=0x18)
    it.run()
    assert (it.core.cpu.ip, it.core.cpu.sp, it.core.cpu.cpl) == (HANDLERS + 1, SP0, 0)


def test_iretq_to_kernel_mode_with_null_ss_is_allowed():
    it = iret(ip=HANDLERS, cs=0x10, sp=SP0, ss=0)
    it.run()
    assert it.entered() == 0


# --- SWAPGS and MSRs -------------------------------------------------------------------------------------------------
def test_swapgs_exchanges_the_bases_and_says_so():
    it = bare("swapgs\n nop")
    it.core.cpu.gs_base, it.core.cpu.kernel_gs_base = 0x1000, 0xFFFF_8880_0000_0000
    it.run(2)
    assert (it.core.cpu.gs_base, it.core.cpu.kernel_gs_base) == (0xFFFF_8880_0000_0000, 0x1000)
    assert [(e.gs_base, e.kernel_gs_base) for e in it.of(GsSwapped)] == [(0x1000, 0xFFFF_8880_0000_0000)]


def msr_access(instruction, number, value=0):
    it = bare(f"nop\n {instruction}\n hlt")
    it.core.cpu.set_register(RCX, number)
    it.core.cpu.set_register(RAX, value & 0xFFFFFFFF)
    it.core.cpu.set_register(RDX, value >> 32)
    it.run()
    return it


@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
@pytest.mark.parametrize("number", [0x0, 0x12345, 0xC0000999, 0x8FF])
def test_unknown_msr_is_gp(instruction, number):
    gp_at_cpl0(msr_access(instruction, number), CODE + 1)


@pytest.mark.parametrize(
    "number", [Msr.LSTAR, Msr.CSTAR, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.FS_BASE, Msr.SYSENTER_EIP]
)
def test_non_canonical_address_in_an_msr_is_gp(number):
    it = msr_access("wrmsr", number, NON_CANONICAL)
    gp_at_cpl0(it, CODE + 1)
    assert not it.of(MsrWritten)


WRITABLE = [
    m for m in Msr if m not in (Msr.EFER, Msr.MCG_CAP, Msr.X2APIC_BASE, Msr.SYSENTER_CS, Msr.TSC, Msr.TSC_DEADLINE)
]


@given(st.sampled_from(WRITABLE), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_an_msr_holds_what_was_written_or_faults(number, value):
    it = bare("wrmsr\n xorl %eax, %eax\n xorl %edx, %edx\n rdmsr\n hlt")
    it.core.cpu.set_register(RCX, number)
    it.core.cpu.set_register(RAX, value & 0xFFFFFFFF)
    it.core.cpu.set_register(RDX, value >> 32)
    it.run()
    cpu = it.core.cpu
    if it.of(MsrWritten):
        assert cpu.register(RDX) << 32 | cpu.register(RAX) == value
        assert it.of(MsrWritten)[0].value == value
    else:
        assert it.entered() == Vector.GP


@pytest.mark.parametrize("value", [1 << 20, 0x0])
def test_efer_reserved_bits_and_lme_under_paging_are_gp(value):
    gp_at_cpl0(msr_access("wrmsr", Msr.EFER, value), CODE + 1)


def test_x2apic_timer_is_programmed_through_msrs():
    it = bare(
        "movl $0x1b, %ecx\n rdmsr\n orl $0x400, %eax\n wrmsr\n"
        "movl $0x832, %ecx\n movl $0x60, %eax\n xorl %edx, %edx\n wrmsr\n"
        "movl $0x838, %ecx\n movl $100, %eax\n wrmsr\n sti\n 1: jmp 1b"
    )
    it.run(500)
    assert it.entered() == 0x60


# --- ports, CPUID, TSC -----------------------------------------------------------------------------------------------
def test_port_at_cpl3_needs_iopl_or_the_bitmap():
    it = bare("nop\n outb %al, $0x80", user=True)
    it.run()
    assert it.entered() == Vector.GP
    assert it.frame(error_code=True)[1] == USER + 1
    allowed = bare("movl $-1, %eax\n inw $0x80, %ax\n ud2", user=True, flags=2 | 3 << 12)
    allowed.run()
    assert allowed.entered() == Vector.UD
    assert allowed.core.cpu.register(RAX) == 0xFFFFFFFF


def test_tsc_is_the_instruction_clock():
    it = bare("nop\n nop\n rdtsc\n movl %eax, %ebx\n nop\n rdtsc\n hlt", user=False)
    it.run()
    cpu = it.core.cpu
    assert (cpu.register(RBX), cpu.register(RAX)) == (3, 6)


def test_cpuid_names_the_vendor_and_no_avx():
    for profile, name in ((INTEL, b"GenuineIntel"), (AMD, b"AuthenticAMD")):
        it = bare("xorl %eax, %eax\n cpuid\n hlt", profile=profile)
        it.run()
        cpu = it.core.cpu
        found = b"".join(cpu.register(r).to_bytes(4, "little") for r in (RBX, RDX, RCX))
        assert found == name
    ecx = INTEL.cpuid(1, 0, 0)[2]
    assert not ecx & (1 << 28 | 1 << 27 | 1 << 26)  # AVX OSXSAVE XSAVE


def test_user_mode_swapgs_and_rdmsr_are_gp():
    for code in ("swapgs", "rdmsr", "movq %rax, %cr3", "hlt", "cli"):
        it = bare(code, user=True)
        it.run()
        assert it.entered() == Vector.GP, code


def far_call(sp):
    it = bare("lcall *(%rax)\n nop\n nop\n hlt", user=True, profile=Profile(smap=True))
    it.machine.memory.write(USER + 0x1000, struct.pack("<IH", USER + 0x1100, USER_CS))
    it.machine.memory.write(USER + 0x1100, b"\x90\xcb")  # NOP, RETF
    it.core.cpu.set_register(0, USER + 0x1000)
    it.core.cpu.sp = sp
    return it


def test_a_far_call_of_user_mode_and_its_return_use_the_stack_of_user_mode():
    it = far_call(USER_STACK)
    it.run(4)
    assert (it.core.cpu.ip, it.core.cpu.sp, it.events) == (USER + 3, USER_STACK, [])
    assert it.core.cpu.cr4 & Cr4.SMAP


def test_a_far_call_without_a_stack_is_a_page_fault_of_user_mode():
    it = far_call(0x70_0000)
    it.run()
    assert it.entered() == Vector.PF
    assert it.frame(error_code=True)[:2] == (PageFault.W | PageFault.U, USER)
    assert it.core.cpu.cr2 == 0x70_0000 - 4
