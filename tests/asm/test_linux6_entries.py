"""linux-6: APIC vectors, task and softirq stacks, load_gs_index, espfix64, with small C stubs; the image against gas.

What is judged at every boundary is judged by the laboratory's own invariants.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gas_reference import differences, link, needs_gas
from kernel_entries import EVENTS, Lab, start

from emu.arch import PAGE_SIZE
from emu.events import CCalled, Delivered, DoubleFault, GsSwapped, Returned
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs import mm
from kernel_stubs.abi import (
    CPU_ENTRY_AREA_BASE,
    THREAD_SIZE,
    ExTableEntry,
    InactiveTaskFrame,
    PtRegs,
    SystemVector,
    TaskStruct,
    asm_constants,
)
from kernel_stubs.binding import Call, Window
from kernel_stubs.kernel_image import build_image, generated_sources, source_files

SYSCALL = """
_start:
    movl    $39, %eax
before:
    syscall
done:
    jmp     done
"""


def regs_at(cpu, address):
    return cpu.view(PtRegs, address)


# --- the image --------------------------------------------------------------------------------------------------------
@needs_gas
@pytest.mark.parametrize("fsgsbase", [False, True])
def test_the_image_is_what_gas_makes_of_it(tmp_path: Path, fsgsbase):
    image = build_image("linux-6", Profile(fsgsbase=fsgsbase))
    for name, text in (source_files("linux-6") | generated_sources("linux-6")).items():
        (tmp_path / name).write_text(text)
    table = asm_constants() | {"CONFIG_SMAP": 1, "CONFIG_FSGSBASE": int(fsgsbase)}
    head = "".join(f".set {name}, {value}\n" for name, value in table.items())
    theirs = link(head + '.include "image.S"\n', image, tmp_path, [tmp_path])
    assert differences(image, theirs) == []


# --- system vectors ---------------------------------------------------------------------------------------------------
ON_ITS_STACK = {SystemVector.RESCHEDULE}
C_NAMES = {
    SystemVector.RESCHEDULE: "sysvec_reschedule_ipi",
    SystemVector.THERMAL_APIC: "sysvec_thermal",
    SystemVector.THRESHOLD_APIC: "sysvec_threshold",
}


@pytest.mark.parametrize("vector", SystemVector, ids=lambda v: v.name.lower())
def test_each_system_vector_reaches_its_c_function(vector):
    name = C_NAMES.get(vector, f"sysvec_{vector.name.lower()}")
    calls = []

    def handler(cpu, regs):
        calls.append((cpu.core.cpu.sp, regs_at(cpu, regs).ip, regs_at(cpu, regs).orig_ax))
        cpu.core.apic.eoi()

    def do_syscall_64(cpu, regs, nr):
        yield Window()
        return 1

    lab = start(SYSCALL, do_syscall_64=do_syscall_64, **{name: handler}).to("before")
    lab.watched().core.raise_interrupt(vector)
    lab.to("entry_SYSCALL_64_after_hwframe")
    lab.core.raise_interrupt(vector)
    assert lab.finish().kind is EndKind.BREAKPOINT
    (user_sp, user_ip, _), (kernel_sp, kernel_ip, orig) = calls
    percpu = lab_percpu(lab)
    top = percpu.top_of_stack
    assert top - THREAD_SIZE < user_sp < top
    assert user_ip == lab.symbol("before")
    assert lab.symbol("do_syscall_64") <= kernel_ip < lab.symbol("do_syscall_64") + 16
    assert orig == 2**64 - 1
    on_irq_stack = percpu.hardirq_stack_ptr - 64 < kernel_sp < percpu.hardirq_stack_ptr
    assert on_irq_stack is (vector not in ON_ITS_STACK)
    assert lab.judge.violations == []


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("vector", [SystemVector.RESCHEDULE, SystemVector.CALL_FUNCTION], ids=lambda v: v.name.lower())
def test_an_event_at_any_boundary_of_a_system_vector(vector, event):
    def handler(cpu, regs):
        cpu.core.apic.eoi()
        yield Window()

    lab = start(SYSCALL, sysvec_reschedule_ipi=handler, sysvec_call_function=handler).to("before")
    lab.core.raise_interrupt(vector)
    results = set()
    for ip, end, registers, violations in lab.sweep(EVENTS[event]):
        where = lab.system.kernel.image.symbolize(ip)
        assert end.kind is EndKind.BREAKPOINT, where
        assert violations == [], where
        results.add((registers[0], *registers[2:]))
    assert len(results) == 1


def lab_percpu(lab: Lab):
    from kernel_stubs.context import Cpu

    return Cpu(lab.system.kernel, lab.core).percpu


# --- load_gs_index ----------------------------------------------------------------------------------------------------
def loading_gs(selector: int) -> Lab:
    def do_syscall_64(cpu, regs, nr):
        yield Call("asm_load_gs_index", (selector,))
        regs_at(cpu, regs).ax = 5
        return 1

    def exc_general_protection(cpu, regs, error_code):
        row = cpu.view(ExTableEntry, lab.symbol("__start___ex_table"))
        assert regs_at(cpu, regs).ip == row.insn == lab.symbol("gs_change")
        assert error_code == selector & ~3
        regs_at(cpu, regs).ip = row.fixup

    lab = start(SYSCALL, do_syscall_64=do_syscall_64, exc_general_protection=exc_general_protection).to("before")
    return lab


@pytest.mark.parametrize(("selector", "loaded"), [(0x2B, 0x2B), (0, 0), (0x1000, 0)])
@pytest.mark.parametrize("event", EVENTS)
def test_load_gs_index_with_an_event_at_any_boundary(selector, loaded, event):
    lab = loading_gs(selector)
    percpu = lab_percpu(lab).this_cpu_off
    for ip, end, _, violations in lab.sweep(EVENTS[event]):
        where = lab.system.kernel.image.symbolize(ip)
        assert end.kind is EndKind.BREAKPOINT, where
        cpu = lab.core.cpu
        assert (cpu.selector(5), cpu.gs_base, cpu.kernel_gs_base) == (loaded, 0, percpu), where
        # The fault at gs_change goes on elsewhere, with another GS: the only return that may do so.
        assert all("gs_change" in v.message for v in violations), where


# --- tasks ------------------------------------------------------------------------------------------------------------
def test_switch_to_asm_changes_stacks_and_keeps_what_c_may_count_on():
    def do_syscall_64(cpu, regs, nr):
        task = TaskStruct.from_buffer_copy(cpu.current)
        other = mm.direct_map(mm.alloc_page(cpu.memory))
        stack = mm.vmalloc(cpu.memory, THREAD_SIZE // PAGE_SIZE) + THREAD_SIZE
        frame = cpu.view(InactiveTaskFrame, stack - InactiveTaskFrame.SIZE)
        frame.ret_addr = lab.symbol("ret_from_fork_asm")
        frame.bx, frame.r12 = 0x1234, 0x5678
        cpu.view(TaskStruct, other).sp = stack - InactiveTaskFrame.SIZE
        switched.extend((task.sp, other, stack, cpu.percpu.current_task))
        yield Call("__switch_to_asm", (cpu.percpu.current_task, other))
        return 1

    def __switch_to(cpu, prev, new):
        assert (prev, new) == (switched[3], switched[1])
        assert cpu.core.cpu.sp == switched[2] - 8
        return prev

    def ret_from_fork(cpu, prev, regs, function, argument):
        forked.append((prev, regs, function, argument))
        cpu.core.finish("forked")

    switched: list[int] = []
    forked: list[tuple[int, ...]] = []
    stubs = {"do_syscall_64": do_syscall_64, "__switch_to": __switch_to, "ret_from_fork": ret_from_fork}
    lab = start(SYSCALL, **stubs).to("before")
    assert lab.finish().text == "forked"
    assert forked == [(switched[3], switched[2], 0x1234, 0x5678)]
    prev = lab.system.kernel.view(TaskStruct, switched[3])
    left = lab.system.kernel.view(InactiveTaskFrame, prev.sp)
    assert left.ret_addr == lab.symbol("do_syscall_64") + 6


def test_softirqs_run_on_the_irq_stack_and_interrupts_stay_there():
    stacks = []

    def do_syscall_64(cpu, regs, nr):
        yield Call("call_do_softirq_on_irqstack")
        assert not cpu.percpu.hardirq_stack_inuse
        return 1

    def __do_softirq(cpu):
        stacks.append(cpu.core.cpu.sp)
        cpu.core.raise_interrupt(0x30)
        yield Window()

    def common_interrupt(cpu, regs, vector):
        stacks.append(cpu.core.cpu.sp)
        cpu.core.apic.eoi()

    stubs = {"do_syscall_64": do_syscall_64, "__do_softirq": __do_softirq, "common_interrupt": common_interrupt}
    lab = start(SYSCALL, **stubs).to("before").watched()
    assert lab.finish().kind is EndKind.BREAKPOINT
    top = lab_percpu(lab).hardirq_stack_ptr
    assert stacks[0] == top - 16
    assert top - 0x200 < stacks[1] < stacks[0]
    assert lab.judge.violations == []


def test_a_task_that_cannot_go_on_dies_at_the_end_of_its_stack():
    def do_syscall_64(cpu, regs, nr):
        yield Call("rewind_stack_and_make_dead", (11,))

    def make_task_dead(cpu, signr):
        dead.append((signr, cpu.core.cpu.sp))
        cpu.core.finish("dead")

    dead = []
    lab = start(SYSCALL, do_syscall_64=do_syscall_64, make_task_dead=make_task_dead).to("before").watched()
    assert lab.finish().text == "dead"
    assert dead == [(11, lab_percpu(lab).top_of_stack - PtRegs.SIZE - 8)]
    assert lab.judge.violations == []


def test_an_unwritten_c_function_ends_the_run_by_name():
    lab = start(SYSCALL.replace("syscall", "int $0x80"), missing=("do_int80_syscall_32",)).to("before")
    end = lab.finish()
    assert end.kind is EndKind.CRASHED
    assert end.text == "do_int80_syscall_32: this C function is not implemented"


# --- espfix64 ---------------------------------------------------------------------------------------------------------
ESPFIX = CPU_ENTRY_AREA_BASE + (1 << 38)
"""For the test, where the process's tables have a table already."""
LDT_SS = 0x07
USER_SP = 0x7654_3210


def to_ldt_stack(present: bool) -> tuple[Lab, list[tuple[int, ...]]]:
    """A system call that returns to 32-bit code on a 16-bit stack segment of the LDT."""
    faults: list[tuple[int, ...]] = []

    def do_syscall_64(cpu, regs, nr):
        view = regs_at(cpu, regs)
        view.cs, view.ss, view.sp, view.ip = 0x23, LDT_SS, USER_SP, lab.symbol("done")
        return 1

    def exc_double_fault(cpu, regs, error_code, address):
        view = regs_at(cpu, regs)
        assert view.ip == lab.symbol("native_irq_return_iret")
        assert view.sp == ESPFIX | USER_SP & 0xFFFF0000 | 8
        new = cpu.percpu.tss.sp0 - PtRegs.SIZE
        frame = cpu.core.read_linear(view.sp, 40)
        cpu.core.write_linear(new + PtRegs.offset("orig_ax"), bytes(8) + frame)
        view.ip, view.sp = lab.symbol("asm_exc_general_protection"), new + PtRegs.offset("orig_ax")

    def exc_general_protection(cpu, regs, error_code):
        view = regs_at(cpu, regs)
        faults.append((regs, view.cs, view.ss, view.sp, view.ip, error_code))
        view.cs, view.ss, view.sp = 0x33, 0x2B, USER_SP

    stubs = {
        "do_syscall_64": do_syscall_64,
        "exc_double_fault": exc_double_fault,
        "exc_general_protection": exc_general_protection,
    }
    lab = start(SYSCALL, **stubs).to("before")
    memory = lab.system.machine.memory
    ldt, page = mm.alloc_page(memory), mm.alloc_page(memory)
    limit, access = 0xFFFF, 0xF3 if present else 0x73
    memory.write(ldt, struct.pack("<HHBBBB", limit, 0, 0, access, 0, 0))
    alias = ESPFIX | USER_SP & 0xFFFF0000
    for address, frame, flags in (
        (alias, page, mm.PAGE_KERNEL_RO),
        (ESPFIX + (1 << 33), ldt, mm.PAGE_KERNEL_RO),
    ):
        mm.map_kernel(memory, address, frame, flags)
        mm.map_user_visible(memory, address)
    percpu = lab_percpu(lab)
    percpu.espfix_stack, percpu.espfix_waddr = ESPFIX, mm.direct_map(page)
    state = lab.core.cpu.state
    state.ldt.selector, state.ldt.base, state.ldt.limit, state.ldt.flags = 0x50, ESPFIX + (1 << 33), 7, 0x8200
    lab.core.cpu.mark_dirty()
    lab.system.machine.flush_tlb()
    return lab, faults


@pytest.mark.parametrize("event", ["none", *EVENTS])
def test_espfix_hides_the_kernels_stack_pointer(event):
    lab, _ = to_ldt_stack(True)
    hit = EVENTS.get(event, lambda core: None)
    for ip, end, _, violations in lab.sweep(hit):
        where = lab.system.kernel.image.symbolize(ip)
        assert end.kind is EndKind.BREAKPOINT, where
        cpu = lab.core.cpu
        assert (cpu.selector(1), cpu.selector(2), cpu.sp & 0xFFFF_FFFF) == (0x23, LDT_SS, USER_SP), where
        assert not [v for v in violations if v.invariant not in ("frames", "stacks") and "number" not in v.message], (
            where, violations,
        )  # fmt: skip


def test_a_fault_on_the_espfix_stack_becomes_user_modes():
    lab, faults = to_ldt_stack(False)
    lab.watched()
    assert lab.finish().kind is EndKind.BREAKPOINT
    assert faults == [(lab_percpu(lab).top_of_stack - PtRegs.SIZE, 0x23, LDT_SS, USER_SP, lab.symbol("done"), 0)]
    assert [type(e) for e in lab.events if isinstance(e, DoubleFault)] == [DoubleFault]
    # In by SYSCALL, out and in for the frame, out to user mode, in for #GP, out.
    assert sum(isinstance(e, GsSwapped) for e in lab.events) >= 6
    assert [e.name for e in lab.events if isinstance(e, CCalled)][1:] == ["exc_double_fault", "exc_general_protection"]
    assert [e.vector for e in lab.events if isinstance(e, Delivered)][-1] == 8
    assert isinstance(next(e for e in reversed(lab.events) if isinstance(e, Returned)), Returned)
