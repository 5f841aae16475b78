"""The view on a real system: names, stacks, registers."""

from __future__ import annotations

import pytest

from asm import assemble_text
from emu.lab.view import View
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.abi import PerCpu
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.elf import program_from_image
from kernel_stubs.kernel_image import build_image

PROGRAM = ".globl _start\n_start:\n    movl $39, %eax\n    syscall\n    jmp _start\n"


@pytest.fixture(scope="module")
def system() -> System:
    user = assemble_text(PROGRAM, name="user.S", base=0x400000)
    image = build_image("linux-6", Profile())
    found = boot(BootOptions(image, Profile(), program_from_image(user, "loop"), (b"loop",)))
    assert found.machine.run(20_000).kind is EndKind.LIMIT
    return found


@pytest.fixture(scope="module")
def view(system: System) -> View:
    return View(system, assemble_text(PROGRAM, name="user.S", base=0x400000), {"main": 0x500000})


def test_where_names_symbol_and_line(system: System, view: View) -> None:
    address = system.kernel.image.symbol("entry_SYSCALL_64") + 3
    line = system.kernel.image.line_at(address)
    assert line is not None
    assert view.where(address) == f"entry_SYSCALL_64+0x3 (entry_64.S:{line.position.line})"


def test_where_names_the_users_program(view: View) -> None:
    assert view.where(0x400005) == "_start+0x5 (user.S:4)"


def test_symbol_of_a_program_without_an_image(view: View) -> None:
    assert view.symbol(0x500010) == "main+0x10"


def test_symbol_far_behind_the_last_one_is_not_named(view: View) -> None:
    assert view.symbol(0x7FFF_FFFF_0000) == "0x7fffffff0000"


def test_disassemble_names_the_target_of_a_call(system: System, view: View) -> None:
    instructions = system.kernel.image.instructions()
    call = next(i for i in instructions if i.mnemonic == "callq")
    assert view.disassemble(call.address) == f"callq {view.symbol(int(call.operands, 16))}"


def test_disassemble_reads_guest_memory_without_an_image(system: System) -> None:
    system.machine.cores[0].set_breakpoints({0x400000})
    assert system.machine.run(100_000).kind is EndKind.BREAKPOINT
    system.machine.cores[0].set_breakpoints(set())
    assert View(system).disassemble(0x400000) == "movl $0x27, %eax"


def test_disassemble_of_nothing(view: View) -> None:
    assert view.disassemble(0x12345000) == "(bad)"


def test_stack_names(view: View) -> None:
    names = {view.stack_name(0, stack.high) for stack in view.stacks(0)}
    assert {"task", "irq", "entry", "IST2 NMI"} <= names
    assert view.stack_name(0, 0x7FFF_0000) == "user"
    assert view.stack_name(0, 0xFFFF_8000_0000_0000) == "?"


def test_percpu_base_is_what_the_area_says(system: System, view: View) -> None:
    base = view.percpu_base(0)
    area = system.kernel.view(PerCpu, base)
    assert (area.this_cpu_off, view.top_of_stack(0)) == (base, area.top_of_stack)


def test_gs_owner(view: View) -> None:
    assert (view.gs_owner(0, view.percpu_base(0)), view.gs_owner(0, 0)) == ("kernel", "user")


def test_moves_are_what_changes_stack_or_gs(system: System, view: View) -> None:
    texts = {str(system.kernel.image.instruction_at(address)) for address in view.moves if address >> 63}
    assert {"swapgs", "iretq", "sysretq", "popq %rsp", "wrgsbaseq %rax"} <= texts
    assert not any(text.startswith(("push", "cmp", "xorl")) for text in texts)


def test_call_site_is_the_call_before_the_return_address(system: System, view: View) -> None:
    call = next(i for i in system.kernel.image.instructions() if i.mnemonic == "callq")
    assert view.call_site(call.address + call.size) == call.address


def test_registers_at_rest(system: System, view: View) -> None:
    registers = view.registers(0)
    assert registers["rip"] == system.machine.cores[0].cpu.ip
    assert {"rax", "r15", "rflags", "gs_base", "kernel_gs_base", "cr2", "cr3"} <= set(registers)


def test_unmapped_pt_regs(view: View) -> None:
    assert view.pt_regs(0xFFFF_C900_7777_0000) is None
