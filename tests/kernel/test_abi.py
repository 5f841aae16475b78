"""Structures: the layouts that hardware and Linux fix, and live views."""

import ctypes

from hypothesis import given
from hypothesis import strategies as st

from emu.arch import PAGE_SIZE
from kernel_stubs import abi
from kernel_stubs.abi import CpuEntryArea, IrqTable, MmStruct, PerCpu, PtRegs, SyscallCounts, TaskStruct, Tss, VmArea
from kernel_stubs.signal_abi import KernelSiginfo, KSigAction, SighandStruct, SignalStruct
from kernel_stubs.syscalls.paths import Stat


def test_layouts_that_are_not_ours_to_choose():
    assert PtRegs.SIZE == 168
    assert [PtRegs.offset(name) for name in ("r15", "di", "orig_ax", "ip", "ss")] == [0, 112, 120, 128, 160]
    assert Tss.SIZE == 104
    assert [Tss.offset(name) for name in ("sp0", "ist", "io_bitmap_base")] == [4, 36, 102]
    assert (KSigAction.SIZE, KernelSiginfo.SIZE) == (32, 48)
    assert Stat.SIZE == 144
    assert Stat.offset("st_mode") == 24


def test_pages_hold_what_they_must():
    assert PerCpu.offset("this_cpu_off") == PAGE_SIZE
    assert CpuEntryArea.SIZE % PAGE_SIZE == 0
    assert TaskStruct.SIZE <= abi.TASK_FPU
    assert SighandStruct.SIZE <= PAGE_SIZE
    assert SignalStruct.SIZE <= PAGE_SIZE
    assert ctypes.sizeof(MmStruct) + abi.MAX_AREAS * ctypes.sizeof(VmArea) <= PAGE_SIZE
    assert SyscallCounts.SIZE == PAGE_SIZE
    assert IrqTable.SIZE == PAGE_SIZE


def test_fixed_pages_do_not_overlap():
    places = [abi.MEMORY_INFO, abi.KERNEL_DATA, abi.SYSCALL_COUNTS, abi.IRQ_TABLE, abi.INIT_PGD, abi.INIT_PGD + 4096]
    assert len({place // PAGE_SIZE for place in places}) == len(places)


@given(st.sampled_from([name for name, *_ in PtRegs._fields_]), st.integers(0, 2**64 - 1))
def test_a_view_reads_and_writes_memory(name, value):
    ram = bytearray(PtRegs.SIZE)
    regs = PtRegs.from_buffer(ram)
    setattr(regs, name, value)
    at = PtRegs.offset(name)
    assert int.from_bytes(ram[at : at + 8], "little") == value
    assert sum(byte != 0 for byte in ram) == sum(byte != 0 for byte in value.to_bytes(8, "little"))


@given(st.integers(0, 2**16 - 1))
def test_user_mode_is_the_rpl_of_cs(cs):
    assert PtRegs(cs=cs).user_mode == (cs & 3 != 0)
