"""Binding: how arguments get in, results out, and that a broken kernel ends itself only."""

import pytest
from booted import in_user, start

from emu.events import CCalled, CReturned
from emu.machine.end import EndKind
from emu.machine.registers import RAX, RDI, RSI
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Window, c_function, registered
from kernel_stubs.context import Cpu
from kernel_stubs.kernel_image import load_c_functions
from kernel_stubs.running import CALLEE_SAVED, CALLER_SAVED, POISON


def test_the_signature_is_checked():
    load_c_functions()
    with pytest.raises(TypeError, match="first parameter must be cpu"):

        @c_function
        def no_cpu(regs: PtRegs) -> None:
            """Bad."""

    with pytest.raises(TypeError, match="neither int nor a Struct"):

        @c_function
        def bad_argument(cpu: Cpu, text: str) -> None:
            """Bad."""

    with pytest.raises(TypeError, match="more than 6"):

        @c_function
        def many(cpu: Cpu, a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> None:
            """Bad."""

    with pytest.raises(ValueError, match="defined twice"):

        @c_function
        def exc_nmi(cpu: Cpu, regs: PtRegs) -> None:
            """Another."""

    assert {"no_cpu", "bad_argument", "many"}.isdisjoint(registered())


def test_calls_and_returns_are_reported_in_pairs():
    it = start("_start: movl $39, %eax\nsyscall\nmovl $60, %eax\nsyscall")
    it.run()
    depth = 0
    for event in it.events:
        depth += isinstance(event, CCalled)
        depth -= isinstance(event, CReturned)
        assert depth in (0, 1)
    calls = [e for e in it.events if isinstance(e, CCalled) and e.name == "do_syscall_64"]
    assert [e.args[1] for e in calls] == [39, 60]
    assert all(e.cpl == 0 and not e.flags & 0x200 for e in calls)


def test_caller_saved_registers_are_poisoned():
    it = in_user("_start: movl $39, %eax\nsyscall\njmp _start").to("do_syscall_64+0x1")
    values = [it.core.cpu.register(r) for r in CALLER_SAVED if r != RAX]
    assert all(value & 0xFFFF_FFFF_0000_0000 == POISON for value in values)
    assert it.core.cpu.register(RAX) == 1
    assert Window() == Window()


def test_c_has_values_of_its_own_in_callee_saved_registers_while_it_calls():
    it = in_user("_start: movl $57, %eax\nsyscall\nmovl $24, %eax\nsyscall\nmovl $60, %eax\nsyscall")
    while it.to("do_syscall_64").core.cpu.register(RSI) != 24:  # sched_yield
        pass
    before, sp = [it.core.cpu.register(r) for r in CALLEE_SAVED], it.core.cpu.sp
    it.to("__switch_to_asm")
    own = [it.core.cpu.register(r) for r in CALLEE_SAVED]
    assert len({*own, *before}) == len(own) + len(set(before))
    saved = it.core.linear.read(sp - 48, 48)
    assert [int.from_bytes(saved[at : at + 8], "little") for at in range(0, 48, 8)] == before
    it.core.set_breakpoints({it.system.kernel.image.symbol("do_syscall_64") + 1})
    while it.run().kind is EndKind.BREAKPOINT and it.core.cpu.sp != sp:
        pass
    assert it.core.cpu.sp == sp
    assert [it.core.cpu.register(r) for r in CALLEE_SAVED] == before


@pytest.mark.parametrize(
    "address", [0, 0x1000, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_F000, 0xFFFF_8880_0000_0000 - 8]
)
def test_a_bad_pointer_argument_is_a_crash(address):
    it = in_user("_start: syscall").to("do_syscall_64")
    it.core.cpu.set_register(RDI, address)
    end = it.run()
    assert end.kind is EndKind.CRASHED
    assert end.text.startswith("do_syscall_64: ")


def test_a_bad_stack_pointer_is_a_crash():
    it = in_user("_start: syscall").to("do_syscall_64")
    it.core.cpu.sp = 0x1234_5678
    assert it.run().kind is EndKind.CRASHED


def test_resuming_nothing_is_a_crash():
    it = in_user("_start: syscall").to("do_syscall_64+0x3")
    assert not it.system.binding.at_rest
    it.system.binding.go_back(())
    assert it.system.binding.at_rest
    end = it.run()
    assert (end.kind, "nothing to resume" in end.text) == (EndKind.CRASHED, True)


def test_a_function_in_flight_is_gone_back_to_until_it_goes_on():
    it = in_user("_start: syscall").to("do_syscall_64+0x3")
    machine, binding = it.system.machine, it.system.binding
    state, functions = machine.snapshot(), binding.in_flight()
    binding.go_back(())
    assert binding.can_go_back(functions)
    binding.go_back(functions)
    assert binding.in_flight() == functions
    machine.restore(state)
    it.to("do_syscall_64+0x1")
    assert binding.at_rest
    assert not binding.can_go_back(functions)


def test_a_function_that_is_never_returned_to_is_not_gone_back_to():
    it = in_user("_start: syscall").to("do_syscall_64+0x3")
    binding = it.system.binding
    functions = binding.in_flight()
    binding._forget_stack(0, 1 << 64)
    assert binding.at_rest
    assert not binding.can_go_back(functions)
