"""linux-2.6: what a booted CPU has."""

from spinning import booted

from emu.arch import Cr4
from kernel_stubs.abi import PerCpu
from kernel_stubs.abi26 import X8664Pda
from kernel_stubs.binding import registered
from kernel_stubs.boot import stacks
from kernel_stubs.context import percpu_address
from kernel_stubs.kernel_image import load_c_functions


def test_features_that_came_later_stay_off():
    _, core = booted()
    assert not core.cpu.cr4 & (Cr4.SMEP | Cr4.SMAP | Cr4.UMIP | Cr4.FSGSBASE)


def test_the_pda_waits_in_kernel_gs_base_and_leads_to_the_data_area():
    system, core = booted()
    pda = system.kernel.view(X8664Pda, core.cpu.kernel_gs_base)
    assert pda.data_offset == percpu_address(system.kernel, 0)
    assert pda.irqcount == -1


def test_sp0_is_the_end_of_the_task_stack():
    system, _ = booted()
    percpu = system.kernel.view(PerCpu, percpu_address(system.kernel, 0))
    assert percpu.tss.sp0 == percpu.top_of_stack


def test_user_mode_runs_on_the_only_page_tables():
    _, core = booted()
    assert core.cpu.cpl == 3
    assert not core.cpu.cr3 & 0x1000


def test_stacks_are_those_of_this_image():
    system, _ = booted()
    names = [stack.name for stack in stacks(system.kernel, 0)]
    assert names == ["task", "irq", "IST1 STACKFAULT", "IST2 DOUBLEFAULT", "IST3 NMI", "IST4 DEBUG", "IST5 MCE"]


def test_both_kernels_have_a_start_kernel():
    load_c_functions()
    assert registered()["start_kernel"].function is not registered("linux-2.6")["start_kernel"].function
