"""Delivery through the IDT: frames, stacks, checks, double and triple faults (SDM volume 3A, chapter 6)."""

import struct

import pytest
from bare import GDT, GDT_WORDS, HANDLERS, IDT, IST1, KERNEL, KSTACK, SP0, TSS, USER, USER_STACK, Bare, bare, gate

from emu.arch import Rflags, Vector
from emu.events import Delivered, DoubleFault, EventType, Shutdown
from emu.machine.end import EndKind
from emu.machine.paging import Access

IF = int(Rflags.IF)
RF = int(Rflags.RF)


def stacked(it: Bare, *, error_code: bool) -> tuple[int, ...]:
    assert it.core.cpu.cpl == 0
    return it.frame(error_code=error_code)


def test_fault_from_user_mode_pushes_the_frame_on_sp0():
    it = bare("nop\n ud2", user=True, flags=2 | IF)
    it.run()
    assert it.entered() == Vector.UD
    assert it.core.cpu.sp == SP0 - 40
    assert stacked(it, error_code=False) == (USER + 1, 0x33, 2 | IF | RF, USER_STACK, 0x2B)
    assert (it.core.cpu.selector(1), it.core.cpu.selector(2)) == (0x10, 0)  # null SS
    assert not it.core.cpu.interrupts_enabled


def test_fault_with_error_code_pushes_it_below_the_frame():
    it = bare("movl $0x68, %eax\n movl %eax, %ds", user=True)
    it.run()
    assert it.entered() == Vector.GP
    assert stacked(it, error_code=True)[:3] == (0x68, USER + 5, 0x33)


def test_fault_at_cpl0_stays_on_its_stack_aligned_to_16():
    it = bare("subq $8, %rsp\n ud2")
    it.run()
    assert it.core.cpu.sp == ((KSTACK - 8) & ~15) - 40
    assert stacked(it, error_code=False)[3] == KSTACK - 8


def test_ist_gate_switches_stack_even_at_cpl0():
    it = bare("ud2")
    it.set_gate(Vector.UD, ist=1)
    it.run()
    assert it.core.cpu.sp == IST1 - 40


@pytest.mark.parametrize("ist", range(1, 8))
def test_each_ist_number_has_its_own_stack(ist):
    it = bare("ud2", user=True)
    stacks = [KERNEL + 0xA_0000 + 0x1000 * n for n in range(7)]
    it.machine.memory.write(TSS + 36, struct.pack("<7Q", *stacks))
    it.set_gate(Vector.UD, ist=ist)
    it.run()
    assert it.core.cpu.sp == stacks[ist - 1] - 40


def test_the_event_tells_where_the_frame_is():
    for code, vector in (("ud2", Vector.UD), ("movl $0x68, %eax\n movl %eax, %ds", Vector.GP)):
        it = bare(code, user=True)
        it.run()
        (event,) = it.of(Delivered)
        assert (event.vector, event.frame_at) == (vector, SP0 - 40)
        assert it.core.linear.read_u64(event.frame_at, Access()) == event.frame.ip


def test_cs_has_the_new_cpl_whatever_the_gates_selector_has():
    it = bare("ud2", user=True)
    it.set_gate(Vector.UD, selector=0x13)
    it.run()
    assert (it.entered(), it.core.cpu.selector(1), it.core.cpu.cpl) == (Vector.UD, 0x10, 0)


def test_delivery_ends_the_shadow_of_sti():
    it = bare("sti\n ud2")
    it.set_gate(Vector.UD, kind=0x8F)
    it.core.raise_interrupt(0x40)
    it.run()
    assert [(event.vector, event.clock) for event in it.of(Delivered)] == [(Vector.UD, 1), (0x40, 1)]


def test_trap_gate_leaves_if_alone_and_interrupt_gate_clears_it():
    for kind, expected in ((0x8F, True), (0x8E, False)):
        it = bare("ud2", flags=2 | IF)
        it.set_gate(Vector.UD, kind=kind)
        it.run()
        assert it.core.cpu.interrupts_enabled is expected


def test_tf_nt_rf_are_cleared_and_ac_df_are_kept():
    kept = int(Rflags.AC | Rflags.DF)
    it = bare("ud2", flags=2 | kept | int(Rflags.NT))
    it.run()
    assert it.core.cpu.flags & (kept | int(Rflags.NT | Rflags.RF | Rflags.TF)) == kept


def test_int_n_saves_the_next_rip_without_rf():
    it = bare("int $0x80\n nop", user=True)
    it.set_gate(0x80, kind=0xEE)
    it.run()
    assert it.entered() == 0x80
    assert stacked(it, error_code=False)[:3] == (USER + 2, 0x33, 2)
    assert it.of(Delivered)[0].type is EventType.SWINT


@pytest.mark.parametrize(("code", "vector"), [("int3", 3), (".byte 0xcd, 3", 3), ("int $0x80", 0x80)])
def test_int_without_gate_privilege_is_gp_on_the_instruction(code, vector):
    it = bare(f"nop\n {code}", user=True)
    it.run()
    assert it.entered() == Vector.GP
    assert stacked(it, error_code=True)[:2] == (vector << 3 | 2, USER + 1)
    assert it.core.clock == 2  # NOP and the handler's HLT; the INT did not retire


def test_hardware_exceptions_ignore_the_gates_dpl():
    it = bare("ud2", user=True)
    it.set_gate(Vector.UD, kind=0x8E)
    it.run()
    assert it.entered() == Vector.UD


CHECKS = {
    "not present": ({"kind": 0x0E}, Vector.NP, 6 << 3 | 3),
    "bad type": ({"kind": 0x8C}, Vector.GP, 6 << 3 | 3),
    "null selector": ({"selector": 0}, Vector.GP, 1),
    "data selector": ({"selector": 0x18}, Vector.GP, 0x19),
    "selector beyond the GDT": ({"selector": 0x1000}, Vector.GP, 0x1001),
    "32-bit code selector": ({"selector": 8}, Vector.GP, 9),
}


def test_no_gate_leads_to_less_privilege():
    it = bare("ud2")
    it.set_gate(Vector.UD, selector=0x33)
    it.run()
    assert it.entered() == Vector.GP
    assert stacked(it, error_code=True)[0] == 0x31


@pytest.mark.parametrize(("change", "vector", "code"), CHECKS.values(), ids=CHECKS)
def test_gate_check(change, vector, code):
    it = bare("ud2", user=True)
    it.set_gate(Vector.UD, **change)
    it.run()
    assert it.entered() == vector
    assert stacked(it, error_code=True)[:2] == (code, USER)


def test_not_present_code_segment_is_np_with_its_selector():
    it = bare("ud2", user=True)
    it.put64(GDT, *GDT_WORDS[:2], GDT_WORDS[2] & ~(1 << 47))
    it.set_gate(Vector.NP, selector=8)  # so that #NP itself fails: contributory on contributory
    it.run()
    assert [(e.first, e.second) for e in it.of(DoubleFault)] == [(Vector.NP, Vector.GP)]


def test_vector_beyond_the_idt_limit_is_gp():
    it = bare("int $0x90", user=True)
    it.core.cpu.state.idt.limit = 0x8FF
    it.core.cpu.mark_dirty()
    it.run()
    assert it.entered() == Vector.GP
    assert stacked(it, error_code=True)[0] == 0x90 << 3 | 2


def test_non_canonical_handler_is_gp_with_ext():
    it = bare("ud2", user=True)
    it.machine.memory.write(IDT + 16 * 6, gate(0x8000_0000_0000_0000))
    it.run()
    assert it.entered() == Vector.GP
    assert stacked(it, error_code=True)[0] == 1


def test_non_canonical_stack_pointer_in_the_tss_is_ss_on_an_ist():
    it = bare("ud2", user=True)
    it.machine.memory.write(TSS + 4, struct.pack("<Q", 0x8000_0000_0000_0000))
    it.set_gate(Vector.SS, ist=1)
    it.run()
    assert it.entered() == Vector.SS
    assert it.core.cpu.sp == IST1 - 48


def test_page_fault_during_delivery_of_a_contributory_fault_is_delivered_itself():
    it = bare("movl $0x68, %eax\n movl %eax, %ds", user=True)
    it.machine.memory.write(IDT + 16 * Vector.GP, gate(HANDLERS, ist=2))  # IST2 is 0: page fault on the push
    it.run()
    assert it.entered() == Vector.PF
    assert not it.of(DoubleFault)
    assert it.core.cpu.cr2 == 0xFFFF_FFFF_FFFF_FFF8


def test_page_fault_during_delivery_of_a_page_fault_is_a_double_fault_with_code_0():
    it = bare("movq 0x900000, %rax", user=True)
    it.set_gate(Vector.PF, ist=2)
    it.run()
    assert it.entered() == Vector.DF
    assert stacked(it, error_code=True)[:2] == (0, USER)
    assert [(e.first, e.second) for e in it.of(DoubleFault)] == [(Vector.PF, Vector.PF)]


def test_benign_first_event_never_makes_a_double_fault():
    it = bare("ud2", user=True)
    it.set_gate(Vector.UD, kind=0x0E)
    it.run()
    assert it.entered() == Vector.NP
    assert not it.of(DoubleFault)


def test_fault_while_delivering_a_double_fault_shuts_the_cpu_down():
    it = bare("movq 0x900000, %rax", user=True)
    it.set_gate(Vector.PF, ist=2)
    it.set_gate(Vector.DF, kind=0x0E)
    assert it.run().kind is EndKind.SHUTDOWN
    assert it.of(Shutdown)
    assert it.run().kind is EndKind.SHUTDOWN  # for good


def test_contributory_faults_in_turn_are_not_remembered_across_handlers():
    it = bare("nop\n ud2", user=True)
    it.run()
    it.core.halted = False
    it.core.cpu.ip = HANDLERS + 16 * 0x100
    it.machine.memory.write(HANDLERS - KERNEL + 16 * 0x100, b"\x31\xc9\xf7\xf1")  # xor ecx,ecx; div ecx
    it.run()
    assert it.entered() == Vector.DE
    assert not it.of(DoubleFault)


@pytest.mark.parametrize(
    "code",
    ["movabsq $0x8000000000000000, %rsp\n pushq %rax", "movabsq $0x8000000000000000, %rsp\n call .",
     "movabsq $0x8000000000000000, %rbp\n movq (%rbp), %rax"],
)  # fmt: skip
def test_non_canonical_stack_access_is_ss(code):
    it = bare(code, user=True)
    it.run()
    assert it.entered() == Vector.SS
    assert stacked(it, error_code=True)[0] == 0


def test_non_canonical_data_access_is_gp():
    it = bare("movabsq $0x8000000000000000, %rax\n movq (%rax), %rax", user=True)
    it.run()
    assert it.entered() == Vector.GP


def test_icebp_is_a_debug_trap_that_ignores_dpl():
    it = bare(".byte 0xf1\n nop", user=True)
    it.run()
    assert it.entered() == Vector.DB
    assert stacked(it, error_code=False)[0] == USER + 1


def test_single_step_is_reported_behind_the_instruction_with_dr6_bs():
    it = bare("nop\n nop\n nop", user=True, flags=2 | int(Rflags.TF))
    it.run()
    assert it.entered() == Vector.DB
    assert stacked(it, error_code=False)[:3] == (USER + 1, 0x33, 2 | int(Rflags.TF))
    assert it.core.cpu.state.dr[6] & 1 << 14
    assert not it.core.cpu.flags & Rflags.TF


def test_faults_that_never_let_an_instruction_retire_end_the_run():
    it = bare("ud2", user=True)
    it.machine.memory.write(IDT + 16 * 6, gate(0xFFFF_FFFF_9000_0000, ist=1))
    it.machine.memory.write(IDT + 16 * 14, gate(0xFFFF_FFFF_9000_0000, ist=1))
    end = it.run()
    assert end.kind is EndKind.STUCK
    assert "vector 14" in end.text
    assert it.core.clock == 0
