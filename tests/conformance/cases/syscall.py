"""SYSCALL, SYSRET, SYSENTER and SYSEXIT on both vendors' CPUs (SDM volume 2; APM volume 3)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from conformance import layout
from conformance.fields import DEFAULT_EFER
from conformance.layout import KERNEL_CS, USER32_CS, kernel, user
from conformance.model import Case, Value, on_user
from conformance.tables import CONFORMING, KERNEL_CODE, PRESENT, stub
from emu.arch import Rflags

BOTH = ("intel", "amd")
HOLE = 0x0000_8000_0000_0000
SYSRETL, SYSRETQ = ".byte 0x0f, 0x07", ".byte 0x48, 0x0f, 0x07"
SYSENTER, SYSEXITL, SYSEXITQ = ".byte 0x0f, 0x34", ".byte 0x0f, 0x35", ".byte 0x48, 0x0f, 0x35"
COMPATIBILITY = {"cs": USER32_CS}
USER_SP = user(layout.USTACK) + 0x400

MASKS = {"none": 0, "tf": 0x100, "if": 0x200, "everything": 0xFFFF_FFFF, "arithmetic": 0x8D5, "reserved_bit_1": 2}
FLAGS = {
    "plain": 2, "tf": 0x102, "if": 0x202, "rf": 0x10002, "nt": 0x4002, "iopl": 0x3002, "ac": 0x40002, "id": 0x200002,
    "arithmetic": 0x8D7, "df": 0x402,
}  # fmt: skip


def user_case(name: str, code: str, **state: Value) -> Case:
    return Case(name, code, 3, BOTH, set=state)


def _kernel_case(name: str, code: str, **state: Value) -> Case:
    return Case(name, f"{code}\n nop\n@target: int $0xff", 0, BOTH, set=state)


def _all() -> Iterator[Case]:
    for name, mask in MASKS.items():
        yield user_case(f"syscall_fmask_{name}", "syscall", fmask=mask, rflags=0x3ED7 & ~0x400 | 0x40000)
    for name, flags in FLAGS.items():
        yield user_case(f"syscall_flags_{name}", "nop\n syscall", fmask=0, rflags=flags)
    yield user_case("syscall_tf_masked", "syscall", fmask=0x100, rflags=0x102)
    yield user_case("syscall_tf_not_masked", "syscall", fmask=0, rflags=0x102)
    yield _kernel_case("syscall_at_cpl_0", "syscall")
    yield user_case("syscall_sce_off", "syscall", efer=DEFAULT_EFER & ~1)
    yield _kernel_case("syscall_sce_off_kernel", "syscall", efer=DEFAULT_EFER & ~1)
    yield user_case("syscall_compatibility", "syscall", **COMPATIBILITY)
    yield user_case("syscall_compatibility_sce_off", "syscall", efer=DEFAULT_EFER & ~1, **COMPATIBILITY)
    yield user_case("syscall_compatibility_fmask", "syscall", fmask=0, rflags=0x40AD7, **COMPATIBILITY)
    yield user_case("syscall_star_rpl_3", "syscall", star=0x13 << 32)
    yield user_case("syscall_star_null", "syscall", star=0)
    yield user_case("syscall_star_beyond_gdt", "syscall", star=0x1010 << 32)
    yield user_case("syscall_rsp_kept", "syscall", rsp=HOLE)
    yield user_case("syscall_target_not_mapped", "syscall", lstar=0x700000)
    yield user_case("syscall_high_bits_of_rcx_r11", "syscall", rcx=(1 << 64) - 1, r11=(1 << 64) - 1)
    yield Case("syscall_with_lock", ".byte 0xf0\n syscall", 3, BOTH)
    yield Case("syscall_with_rex", ".byte 0x48\n syscall", 3, BOTH)
    for name, code in (("sysretq", SYSRETQ), ("sysretl", SYSRETL)):
        rcx = on_user("@target")
        # Below 4 GiB: whether the upper half of RSP survives compatibility mode is undefined (SDM volume 1, 3.4.1.1).
        kernel_case = partial(_kernel_case, rsp=USER_SP) if name == "sysretl" else _kernel_case
        yield kernel_case(name, code, rcx=rcx, r11=2)
        yield kernel_case(f"{name}_sce_off", code, rcx=rcx, efer=DEFAULT_EFER & ~1)
        yield user_case(f"{name}_at_cpl_3", code)
        yield user_case(f"{name}_at_cpl_3_sce_off", code, efer=DEFAULT_EFER & ~1)
        yield kernel_case(f"{name}_non_canonical", code, rcx=HOLE, r11=2, rsp=USER_SP)
        yield kernel_case(f"{name}_non_canonical_high", code, rcx=0xFFFF_7FFF_FFFF_F000, r11=2)
        yield kernel_case(f"{name}_kernel_address", code, rcx="@target", r11=2)
        yield kernel_case(f"{name}_not_mapped", code, rcx=0x700000, r11=2)
        yield kernel_case(f"{name}_rcx_above_4g", code, rcx=f"{rcx} + 0x100000000", r11=2)
        yield kernel_case(f"{name}_star_rpl_0", code, rcx=rcx, star=0x20 << 48, r11=2)
        yield kernel_case(f"{name}_star_null", code, rcx=rcx, star=0, r11=2)
        for flag, bits in FLAGS.items():
            if flag != "plain":
                yield kernel_case(f"{name}_flags_{flag}", code, rcx=rcx, r11=bits)
        yield kernel_case(f"{name}_flags_all_ones", code, rcx=rcx, r11=(1 << 64) - 1)
        yield kernel_case(f"{name}_flags_vm", code, rcx=rcx, r11=2 | int(Rflags.VM))
    yield _kernel_case("sysretq_user_stack", SYSRETQ, rcx=on_user("@target"), r11=2, rsp=USER_SP)
    yield Case("sysretq_then_ss_use", f"{SYSRETQ}\n@target: movq %rsp, %rbp\n pushq %rax\n movl %ss, %eax", 0, BOTH,
               set={"rcx": on_user("@target"), "r11": 2, "rsp": USER_SP, "ss": 0})  # fmt: skip
    yield Case("sysretl_then_code", f"{SYSRETL}\n@target: .byte 0x41\n movl %ecx, %eax", 0, BOTH,
               set={"rcx": on_user("@target"), "r11": 2, "rsp": USER_SP})  # fmt: skip
    yield from _sysenter()


def _sysenter() -> Iterator[Case]:
    yield user_case("sysenter", SYSENTER)
    yield user_case("sysenter_if_tf_nt", SYSENTER, rflags=0x4302)
    yield user_case("sysenter_if", SYSENTER, rflags=0x202)
    yield user_case("sysenter_rf_ac", SYSENTER, rflags=0x50002)
    yield user_case("sysenter_cs_null", SYSENTER, sysenter_cs=0)
    yield user_case("sysenter_cs_rpl_3", SYSENTER, sysenter_cs=KERNEL_CS | 3)
    yield user_case("sysenter_cs_1", SYSENTER, sysenter_cs=1)
    yield user_case("sysenter_compatibility", SYSENTER, **COMPATIBILITY)
    yield user_case("sysenter_compatibility_cs_null", SYSENTER, sysenter_cs=0, **COMPATIBILITY)
    yield _kernel_case("sysenter_at_cpl_0", SYSENTER)
    yield user_case("sysenter_target_not_mapped", SYSENTER, sysenter_eip=0x700000)
    yield user_case("sysenter_sce_off", SYSENTER, efer=DEFAULT_EFER & ~1)
    for name, code in (("sysexitq", SYSEXITQ), ("sysexitl", SYSEXITL)):
        to: dict[str, Value] = {"rdx": on_user("@target"), "rcx": USER_SP}
        yield _kernel_case(name, code, **to)
        yield _kernel_case(f"{name}_cs_null", code, **to, sysenter_cs=0)
        yield _kernel_case(f"{name}_cs_elsewhere", code, **to, sysenter_cs=0x1008)
        yield user_case(f"{name}_at_cpl_3", code)
        yield _kernel_case(f"{name}_non_canonical_rip", code, rdx=HOLE, rcx=USER_SP)
        yield _kernel_case(f"{name}_non_canonical_rsp", code, rdx=on_user("@target"), rcx=HOLE)
        yield _kernel_case(f"{name}_flags", code, **to, rflags=0x43AD7 & ~0x400)
        yield _kernel_case(f"{name}_above_4g", code, rdx=f"{on_user('@target')} + 0x100000000", rcx=USER_SP | 1 << 32)
    yield Case("far_call_through_call_gate", "@far: .byte 0xff, 0x1c, 0x24", 3, BOTH,
               memory={kernel(layout.USTACK) + 0x800: 0x63 << 32},
               gdt={0x60: _call_gate(stub(0x103))[0], 0x68: _call_gate(stub(0x103))[1]})  # fmt: skip
    yield Case("far_return_to_conforming", "pushq $0x38\n leaq @target(%rip), %rax\n pushq %rax\n .byte 0x48, 0xcb\n"
               "@target: nop", 0, BOTH, gdt={0x38: KERNEL_CODE | CONFORMING})  # fmt: skip
    yield Case("far_return_to_absent", "pushq $0x38\n leaq @target(%rip), %rax\n pushq %rax\n .byte 0x48, 0xcb\n"
               "@target: nop", 0, BOTH, gdt={0x38: KERNEL_CODE & ~PRESENT})  # fmt: skip


def _call_gate(offset: int) -> tuple[int, int]:
    """A call gate of DPL 3 to 64-bit code."""
    low = offset & 0xFFFF | KERNEL_CS << 16 | 0xEC << 40 | (offset >> 16 & 0xFFFF) << 48
    return low, offset >> 32


CASES = tuple(_all())
