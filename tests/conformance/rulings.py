"""Who is right where the oracles disagree, or where both differ from the manuals.

Section numbers are those of the Intel SDM and the AMD APM. "Selftest" is a program of the Linux kernel's
tools/testing/selftests/x86 that records what CPUs really do where the manuals say little.
"""

from __future__ import annotations

from conformance import layout
from conformance.decode import Answer
from conformance.judge import CaseRuling, Disagreement, FieldRuling
from conformance.tables import stub
from emu.arch import Rflags

_FAULTS = frozenset({0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21})
_RF = int(Rflags.RF)
_ARITHMETIC = 0x8D5
_NOTHING = "0xff"
"""The vector of a case that ran to its end."""


def _vector(answer: Answer) -> int:
    try:
        return int(answer["vector"], 16)
    except ValueError:
        return -1


def _same_vector(apart: Disagreement) -> bool:
    return apart.bochs["vector"] == apart.qemu["vector"]


def _only_differs_in(apart: Disagreement, field: str, bit: int) -> bool:
    """Whether the field is this one and its values differ in these bits only."""
    bochs, qemu = apart.number(apart.bochs), apart.number(apart.qemu)
    return apart.field == field and bochs >= 0 and qemu >= 0 and bochs ^ qemu == bit


def _fault_without_rf(apart: Disagreement) -> bool:
    frame = _only_differs_in(apart, "frame.rflags", _RF) and bool(apart.number(apart.bochs) & _RF)
    return frame and _vector(apart.bochs) in _FAULTS and _same_vector(apart)


def _rf_kept(apart: Disagreement) -> bool:
    return _only_differs_in(apart, "frame.rflags", _RF) and bool(apart.number(apart.qemu) & _RF)


def _double_fault_rf(apart: Disagreement) -> bool:
    return _only_differs_in(apart, "frame.rflags", _RF) and _vector(apart.bochs) == 8 and _same_vector(apart)


def _idt_error_code(apart: Disagreement) -> bool:
    bochs, qemu = apart.number(apart.bochs), apart.number(apart.qemu)
    return apart.field == "error" and bochs & 2 == 2 and qemu & ~3 == (bochs & ~3) * 2


def _ext_bit(apart: Disagreement) -> bool:
    selector_fault = _vector(apart.bochs) in (10, 11, 12, 13)
    return _only_differs_in(apart, "error", 1) and bool(apart.number(apart.bochs) & 1) and selector_fault


def _null_ss(apart: Disagreement) -> bool:
    null = apart.qemu.get(apart.field) in ("0x0", "0x3")
    return apart.field in ("ss", "frame.ss") and null and _same_vector(apart)


def _reserved_bit(apart: Disagreement) -> bool:
    return _only_differs_in(apart, "error", 1) and _vector(apart.bochs) == 14 and bool(apart.number(apart.bochs) & 8)


def _modify(apart: Disagreement) -> bool:
    return _only_differs_in(apart, "error", 2) and _vector(apart.bochs) == 14 and bool(apart.number(apart.bochs) & 2)


def _accessed(apart: Disagreement) -> bool:
    return apart.field.startswith("gdt+") and apart.field in apart.bochs and apart.field not in apart.qemu


def _stack_vector(apart: Disagreement) -> bool:
    return _vector(apart.bochs) == 12 and _vector(apart.qemu) in (13, 14)


def _syscall_flags(apart: Disagreement) -> bool:
    entered = apart.bochs["vector"] in ("syscall", "syscall32") and _same_vector(apart)
    return apart.field == "rflags" and entered and not apart.number(apart.qemu) & _ARITHMETIC


def _lenient_msr(apart: Disagreement) -> bool:
    return apart.case.startswith("msr/") and _vector(apart.bochs) == 13 and apart.qemu["vector"] == _NOTHING


FIELD_RULINGS = (
    FieldRuling("RF of a fault", "qemu", "SDM 3B 17.3.1.1",
                "A fault-class exception pushes RF = 1; QEMU never does.", _fault_without_rf),
    FieldRuling("RF of a double fault", "bochs", "SDM 3B 17.3.1.1, 3A 6.15",
                "#DF is an abort: RF is pushed as it was. Bochs pushes the 1 of the fault before it.",
                _double_fault_rf),
    FieldRuling("RF lasts one instruction", "qemu", "SDM 3B 17.3.1.1",
                "RF is cleared after every instruction; QEMU clears it at the end of a translated block.", _rf_kept),
    FieldRuling("IDT error code", "qemu", "SDM 3A 6.13",
                "The vector is in bits 15:3 of an error code that refers to the IDT; QEMU puts it into 15:4.",
                _idt_error_code),
    FieldRuling("EXT bit", "qemu", "SDM 3A 6.13",
                "An error during the delivery of what is not INT n, INT3, INTO has EXT set; QEMU forgets it.",
                _ext_bit),
    FieldRuling("SS with IST", "qemu", "SDM 3A 6.14.4; APM 2 8.9.4; SDM 2 IRET",
                "SS becomes null on a change of CPL only, and a null SS keeps its RPL. QEMU clears it on every IST.",
                _null_ss),
    FieldRuling("P with reserved bits", "qemu", "SDM 3A 4.7",
                "P is set when a reserved bit in a present entry is the cause; QEMU 7.2 leaves it clear.",
                _reserved_bit),
    FieldRuling("read-modify-write", "qemu", "SDM 3A 4.7",
                "The access of a read-modify-write instruction is a write; QEMU reads first and reports a read.",
                _modify),
    FieldRuling("accessed bit", "qemu", "SDM 3A 3.4.5.1",
                "Loading a segment sets its accessed bit; QEMU does so for data segments only.", _accessed),
    FieldRuling("#SS", "qemu", "SDM 3A 6.15 (interrupt 12)",
                "A non-canonical stack-segment access is #SS(0); QEMU has #GP, or #PF for the canonical part.",
                _stack_vector),
    FieldRuling("flags of SYSCALL", "qemu", "SDM 2 SYSCALL",
                "RFLAGS is the old one without the FMASK bits; QEMU loses the arithmetic flags and DF.",
                _syscall_flags),
    FieldRuling("refused MSR values", "qemu", "SDM 2 WRMSR, RDMSR",
                "Unknown MSRs, reserved bits and non-canonical addresses are #GP(0); QEMU accepts them.", _lenient_msr),
)  # fmt: skip


def repair(oracle: str, answer: Answer) -> Answer:
    """An oracle's answer with what is always wrong in it put right: QEMU's RF of a fault."""
    flags = answer.get("frame.rflags")
    if oracle == "qemu" and flags is not None and _vector(answer) in _FAULTS:
        return {**answer, "frame.rflags": f"{int(flags, 16) | _RF:#x}"}
    return dict(answer)


def _bochs(section: str, why: str, *cases: str) -> CaseRuling:
    return CaseRuling(cases, "bochs", section, why)


def _qemu(section: str, why: str, *cases: str) -> CaseRuling:
    return CaseRuling(cases, "qemu", section, why)


def _in_handler(vector: int, *, user: bool) -> dict[str, str | None]:
    """#DB before the first instruction of a handler entered from the case."""
    stack = layout.kernel(layout.SP0) if user else layout.kernel(layout.KSTACK) - 0x100
    first = (stack & ~0xF) - 40
    return {
        "vector": "0x1", "frame.rip": f"{stub(vector):#x}", "frame.cs": "0x10", "frame.rflags": "0x2",
        "frame.rsp": f"{first:#x}", "frame.ss": "0x0" if user else "0x18", "rsp": f"{(first & ~0xF) - 40:#x}",
        "dr6": "0xffff0ff1",
    }  # fmt: skip


_DELAYED = "The trap of MOV SS's operand comes after the kernel was entered (CVE-2018-8897); both oracles lose it."
_GP_AT_START = {
    "vector": "0xd", "error": "0x0", "frame.rip": "code+0x0", "frame.rflags": "0x10002", "rsp": "0xffffffff80083ed0",
    "rflags": None, "rax": None, "rdx": None, "fmask": None, "tsc_aux": None,
}  # fmt: skip
_UD_IN_COMPATIBILITY_MODE = {
    "vector": "0x6", "error": None, "frame.rip": "ucode+0x0", "frame.cs": "0x23", "frame.rflags": "0x10002",
    "frame.rsp": "0x490800", "frame.ss": "0x2b", "rsp": "0xffffffff80085fd8", "cs": "0x10", "ss": "0x0",
}  # fmt: skip
_NULL_BASE = (
    "A null selector leaves the base alone on AMD before Zen 3 (Linux: X86_BUG_NULL_SEG); both oracles clear it."
)

CASE_RULINGS: tuple[CaseRuling, ...] = (
    # Both oracles differ from the manuals or from CPUs.
    CaseRuling(("iret/ss_not_present/*",), "qemu", "APM 3 IRET; selftest sigreturn",
               "A stack segment that is not present is #SS(selector); both have #NP.", {"vector": "0xc"}),
    CaseRuling(("iret/stack_not_mapped/*",), "bochs", "SDM 2 IRET; SDM 3A 4.7",
               "RIP is popped first, so CR2 is RSP (QEMU); the access is a user one (Bochs).", {"cr2": "0x700000"}),
    CaseRuling(("stacks/frame_ends_at_the_hole/*", "stacks/ist_non_canonical/*"), "bochs", "SDM 2 INT n",
               "#SS(EXT): the error code holds a null selector.", {"error": "0x1"}),
    _qemu("SDM 2 INT n", "The new SS is null, so the error code is 0.", "stacks/ist_non_canonical_user_int/*"),
    *(
        CaseRuling((f"debug/mov_ss_watched_then_{name}{level}/*",), "bochs", "SDM 3A 6.8.3; selftest mov_ss_trap",
                   _DELAYED, _in_handler(vector, user=not level))
        for name, vector in (("int3", 3), ("int_0x80", 0x80)) for level in ("", "_kernel")
    ),
    CaseRuling(("debug/mov_ss_watched_then_syscall_tf/*",), "bochs", "SDM 2 SYSCALL; selftest mov_ss_trap",
               "The data breakpoint traps at the entry; FMASK has cleared TF, so BS is not set.",
               {"dr6": "0xffff0ff1"}),
    CaseRuling(("debug/watch_*_rep_stos/*",), "bochs", "SDM 3B 17.3.1.1",
               "A trap between two iterations of a REP instruction pushes RF = 1.", {"frame.rflags": "0x10002"}),
    CaseRuling(("msr/fmask_high/intel", "msr/fmask_bit_32/intel", "msr/tsc_aux_high/intel", "msr/tsc_aux_bit_32/intel"),
               "bochs", "SDM 4 (table 2-2: bits 63:32 reserved); SDM 2 WRMSR", "A reserved bit is #GP(0).",
               _GP_AT_START),
    CaseRuling(("segments/fs_null_after_based/amd",), "bochs", "APM 2 4.5.3", _NULL_BASE, {"fs_base": "0x7654"}),
    CaseRuling(("segments/gs_null_after_based/amd",), "bochs", "APM 2 4.5.3", _NULL_BASE, {"gs_base": "0x7654"}),
    CaseRuling(("segments/fs_null*/amd", "segments/pop_fs_null/amd", "segments/lfs_null/amd"), "bochs", "APM 2 4.5.3",
               _NULL_BASE, {"fs_base": None}),
    CaseRuling(("segments/gs_null*/amd", "segments/pop_gs_null/amd", "segments/lgs_null/amd"), "bochs", "APM 2 4.5.3",
               _NULL_BASE, {"gs_base": None}),
    CaseRuling(("syscall/sysenter_compatibility*/amd",), "qemu", "APM 3 SYSENTER",
               "Not recognized in long mode, which compatibility mode is part of.", _UD_IN_COMPATIBILITY_MODE),
    CaseRuling(("syscall/sysret?_flags_all_ones/*",), "qemu", "SDM 2 SYSRET",
               "RFLAGS is (R11 & 3C7FD7H) | 2, VIF and VIP included (Bochs); the trap of TF comes at once (QEMU).",
               {"frame.rflags": "0x3c7fd7", "rflags": "0x3c3cd7"}),
    # QEMU is right.
    _qemu("SDM 2 SYSCALL (RFLAGS AND NOT FMASK), SDM 3B 17.3.1.4",
          "The single step is over when FMASK clears TF: kernels rely on it.",
          "debug/tf_syscall_*", "debug/tf_after_nop_syscall/*", "syscall/syscall_tf_masked/*"),
    _qemu("SDM 2 SYSRET; SDM 3B 17.3.1.4", "TF loaded by SYSRET traps before the next instruction, and only that TF.",
          "syscall/sysret?_flags_tf/*", "debug/tf_sysretq/*", "debug/tf_before_sysretq/*"),
    _qemu("SDM 3A 6.9 (table 6-2)", "Traps of the previous instruction, then interrupts, then instruction breakpoints.",
          "interrupts/sysretq_sets_if_and_tf/*", "interrupts/breakpoint_after_interrupt/*"),
    _qemu("SDM 2 STI", "Behind STI, MOV SS need not inhibit interrupts again; a REP instruction is one instruction.",
          "interrupts/sti_mov_ss/*", "interrupts/sti_then_rep/*"),
    _qemu("APM 3 SYSRET", "AMD loads the non-canonical RIP and faults at CPL 3.", "syscall/sysretq_non_canonical*/amd"),
    _qemu("APM 3 SYSENTER, SYSEXIT", "#UD in long mode.", "syscall/sysenter*/amd", "syscall/sysexit*/amd"),
    _qemu("SDM 3B 17.2.3", "B0-B3 of breakpoints that are not enabled may stay clear.",
          "debug/watch_and_disabled_match/*"),
    # Bochs is right.
    _bochs("SDM 2 INT1", "INT1 is a trap with vector 1; QEMU knows no such instruction.",
           "*/icebp*", "debug/tf*icebp*", "double_fault/1_*"),
    _bochs("SDM 3A 6.8.3; selftest mov_ss_trap",
           "MOV SS delays the trap by one instruction, and a fault or ICEBP there drops it; QEMU does not delay it.",
           "debug/mov_ss_watched*"),
    _bochs("SDM 3B 17.3.1.1", "An instruction breakpoint behind MOV SS is suppressed.", "debug/execute_after_mov_ss/*"),
    CaseRuling(("debug/gd_*",), "bochs", "SDM 3B 17.2.4, 17.3.1.1",
               "General detect, which QEMU ignores, is a fault and no instruction breakpoint: RF is pushed as 1.",
               {"frame.rflags": "0x10002"}),
    _bochs("SDM 2 STI; SDM 3B 17.3.1.4", "STI and PAUSE are stepped like any other instruction.",
           "debug/tf*sti*", "debug/tf*pause*", "interrupts/tf_before_interrupt/*"),
    _bochs("SDM 3A 6.7.1", "IRET unblocks NMIs even if it faults.", "interrupts/nmi_unblocked_by_*"),
    _bochs("SDM 3B 17.2.5", "The address is aligned to the length; every match of one instruction is in one #DB.",
           "debug/watch_misaligned_address/*", "debug/watch_and_tf/*", "debug/watch_two/*"),
    _bochs("SDM 3B 17.3.1.2", "A data breakpoint on the frame traps when the event is delivered; QEMU shuts down.",
           "debug/watch_frame_push/*"),
    _bochs("SDM 3B 17.2.2-17.2.4", "Reserved bits of DR6 and DR7 read as their fixed values.", "debug/dr?_*"),
    _bochs("SDM 3B 17.2.4", "R/W = 2 breaks on I/O with CR4.DE only.", "debug/io_breakpoint*"),
    _bochs("SDM 1 3.3.7.1", "An access that ends at a non-canonical address is #GP(0).",
           "faults/load_across_the_hole*"),
    _bochs("SDM 2 JMP, CALL, RET", "A branch to a non-canonical address faults itself: RIP and RSP are the branch's.",
           "faults/jump_*", "faults/call_non_canonical*", "faults/ret_non_canonical*"),
    _bochs("SDM 3A 6.15 (interrupt 19)", "Unmasked SIMD exceptions: QEMU does not raise them.", "faults/simd_divide*"),
    _bochs("SDM 3A 6.15 (interrupt 17)", "Alignment checks: QEMU has none.", "faults/misaligned_*"),
    _bochs("SDM 2 INT n", "The target is checked before anything is pushed.", "gates/non_canonical_handler*"),
    _bochs("SDM 2 IRET", "IRET checks RIP, L and D, and null SS before it changes anything; QEMU after it or never.",
           "iret/*non_canonical*", "iret/cs_long_and_default/*", "iret/to_kernel_compatibility_null_ss/*",
           "iret/to_compatibility*"),
    _bochs("SDM 2 IRET", "VIF and VIP are loaded at CPL 0.", "iret/flags_vi?_*"),
    _bochs("SDM 2 IRET", "A null selector becomes 0 on a return to an outer level.", "iret/?s_null_rpl_3_on_return/*"),
    _bochs("SDM 2 IRET", "The 32-bit form pops through RSP; QEMU truncates it.", "iret/iretl*"),
    _bochs("SDM 2 IRET", "At CPL 3 the pops are user accesses.", "iret/stack_crosses_into_a_hole/*"),
    _bochs("SDM 2 XSETBV, RDPMC", "#UD without CR4.OSXSAVE; #GP for a counter that is not there.",
           "privileged/xsetbv_user/*", "privileged/rdpmc*"),
    _bochs("SDM 2 MOV (control registers), LGDT", "Reserved bits and combinations are #GP(0), bits of CR0[31:0] that "
           "do not exist are dropped, LOCK is #UD on Intel; QEMU takes nearly everything.", "control/*"),
    _bochs("SDM 2 MOV", "A null SS must have RPL = CPL.", "segments/ss_null_rpl_3_kernel/*"),
    _bochs("SDM 2 WRFSBASE", "A non-canonical base is #GP(0).", "segments/wr?sbase_*non_canonical*"),
    _bochs("SDM 2 LOCK", "#UD on every instruction that cannot be locked.",
           "segments/swapgs_lock*", "msr/*_lock/*", "syscall/syscall_with_lock/*"),
    _bochs("SDM 2 LLDT, LTR", "A null selector or one of the wrong type is #GP.", "segments/l?dt_*", "segments/ltr_*"),
    _bochs("SDM 2 SYSCALL", "#UD outside 64-bit mode on Intel.", "syscall/syscall_compatibility*/intel"),
    _bochs("SDM 2 SYSENTER, SYSEXIT", "IA32_SYSENTER_CS[15:2] = 0 is #GP(0); so are non-canonical addresses; the "
           "32-bit form truncates.", "syscall/sysenter_cs_1/intel", "syscall/sysexit*/intel"),
    _bochs("SDM 2 SYSRET", "#UD outside 64-bit mode on Intel.", "compat/sysretl_*/intel"),
    _bochs("SDM 3A 5.3-5.5", "Outside 64-bit mode limits, types and null selectors are checked.",
           "compat/*_limit*", "compat/null_data_segment/*", "compat/read_only_segment/*"),
    _bochs("SDM 2 RDMSR", "An unknown MSR is #GP(0).", "compat/rdmsr_kernel/*"),
    _bochs("SDM 2 SYSRET", "Intel checks RCX at CPL 0.", "syscall/sysretq_non_canonical*/intel"),
    _bochs("SDM 2 SYSRET", "RF and VM are not loaded.", "syscall/sysret?_flags_vm/*"),
    _bochs("APM 2 6.1.1", "The upper half of SFMASK and TSC_AUX reads as zero.",
           "msr/fmask_*/amd", "msr/tsc_aux_*/amd"),
    _bochs("SDM 4 (table 2-2)", "IA32_SYSENTER_CS has 32 bits of storage.", "msr/sysenter_cs_*"),
    _bochs("SDM 2 CLFLUSH", "Faults like a load.", "paging/clflush_*"),
    _bochs("SDM 2 PUSHF", "RF is pushed as 0.", "privileged/pushf_shows_rf_clear/*"),
)  # fmt: skip

_CLFLUSH = "the engine's CLFLUSH touches nothing"
_CR3 = "MOV to CR3 is left to the engine, which checks nothing: a stop at each would slow every entry"
_LIMITS = "the engine checks no limits, types and null selectors of data segments"
_LOCK = "the engine ignores LOCK where it cannot stand"
_BRANCH = "the engine reports the fault at the target and does not know where it came from"

KNOWN_WRONG: dict[str, str] = {
    "faults/movaps_misaligned*": "the engine checks no alignment of SSE operands",
    "faults/simd_divide*": "the engine raises no SIMD exceptions",
    "faults/jump_non_canonical*": _BRANCH,
    "faults/jump_memory_non_canonical*": _BRANCH,
    "faults/call_non_canonical*": _BRANCH,
    "faults/ret_non_canonical*": _BRANCH,
    "paging/clflush_absent/*": _CLFLUSH,
    "paging/clflush_supervisor_in_low_half/*": _CLFLUSH,
    "compat/data_limit*": _LIMITS,
    "compat/stack_limit/*": _LIMITS,
    "compat/null_data_segment/*": _LIMITS,
    "compat/read_only_segment/*": _LIMITS,
    "segments/swapgs_lock*": _LOCK,
    "msr/*_lock/*": _LOCK,
    "syscall/syscall_with_lock/*": _LOCK,
    "control/cr0_read_with_lock/*": _LOCK + "; AMD's LOCK MOV CR0 is not CR8 here",
    "control/cr3_reserved_bit_52/*": _CR3,
    "control/cr3_bit_63/*": _CR3,
    "debug/tf_after_nop_pause/*": "the engine leaves its loop at PAUSE without the single-step trap",
}
"""Cases (patterns of "group/name/vendor") in which our machine differs, with the reason; see docs/fidelity.md."""
