"""What boot leaves in memory, and what start_kernel makes of it."""

import pytest
from booted import SPIN, in_user, start, user_program

from emu.arch import PAGE_SIZE, Cr4, Msr, Rflags, Selector
from emu.errors import Entry64Error, ProgramError
from emu.machine import msr
from emu.machine.end import EndKind
from emu.machine.paging import ADDRESS_MASK, Pte, mappings
from emu.machine.profile import Profile
from kernel_stubs import mm
from kernel_stubs.abi import (
    CPU_ENTRY_AREA_BASE,
    INIT_PGD,
    KERNEL_BASE,
    PAGE_OFFSET,
    PTI_USER_PGTABLE,
    CpuEntryArea,
    MmStruct,
    PerCpu,
    PtRegs,
    cpu_entry_area,
)
from kernel_stubs.boot import BootOptions, boot, stacks
from kernel_stubs.context import percpu_address
from kernel_stubs.cpu_entry import IST_STACKS
from kernel_stubs.espfix import is_espfix
from kernel_stubs.kernel_image import build_image

KERNEL_HALF = 1 << 63


def kernel_half(it, pgd):
    return {a: e for a, e, _ in mappings(it.system.machine.memory, pgd) if a & KERNEL_HALF}


def test_no_page_is_writable_and_executable():
    it = in_user()
    for address, entry, _ in mappings(it.system.machine.memory, it.cpu.mm.pgd):
        assert not (entry & Pte.RW and not entry & Pte.NX), hex(address)
        assert bool(entry & Pte.US) == (not address & KERNEL_HALF), hex(address)


def test_the_image_is_mapped_by_its_sections():
    it = in_user()
    entries = kernel_half(it, INIT_PGD)
    rights = {"r": (False, False), "rx": (False, True), "rw": (True, False)}
    table = it.system.kernel.image.symbol("idt_table") & -PAGE_SIZE
    for segment in it.system.kernel.image.segments:
        for page in range(segment.address & -PAGE_SIZE, segment.end, PAGE_SIZE):
            entry = entries[page]
            expected = (False, False) if page == table else rights[segment.flags]
            assert (bool(entry & Pte.RW), not entry & Pte.NX) == expected, hex(page)


def test_user_tables_show_only_what_entries_need():
    it = start(cpus=2)
    kernel = it.system.kernel
    entry_text = next(s for s in kernel.image.segments if s.name == ".entry.text")
    allowed = set(range(entry_text.address, entry_text.end, PAGE_SIZE)) | {CPU_ENTRY_AREA_BASE}
    for cpu in range(2):
        area = cpu_entry_area(cpu)
        allowed |= set(range(area, area + CpuEntryArea.SIZE, PAGE_SIZE))
        allowed.add(percpu_address(kernel, cpu))
    visible = kernel_half(it, INIT_PGD + PTI_USER_PGTABLE)
    espfix = [address for address in visible if is_espfix(address)]
    assert set(visible) - set(espfix) <= allowed
    assert {visible[address] & Pte.RW for address in espfix} == {0}
    assert len({visible[address] for address in espfix}) == 1
    everything = kernel_half(it, INIT_PGD)
    assert all(everything[address] == entry for address, entry in visible.items())


def test_a_process_has_two_pgds_with_one_user_half():
    it = in_user()
    memory, pgd = it.system.machine.memory, it.cpu.mm.pgd
    assert pgd % (2 * PAGE_SIZE) == 0
    for index in range(256):
        kernel, user = (memory.read_u64(pgd + offset + 8 * index) for offset in (0, PTI_USER_PGTABLE))
        assert kernel & ~Pte.NX == user
        assert bool(kernel & Pte.NX) == bool(kernel)
    for offset in (0, PTI_USER_PGTABLE):
        half = slice(2048, 4096)
        assert memory.read(pgd + offset, PAGE_SIZE)[half] == memory.read(INIT_PGD + offset, PAGE_SIZE)[half]
    assert it.core.cpu.cr3 == pgd | PTI_USER_PGTABLE


def test_guard_pages_are_not_mapped():
    it = start()
    entries = kernel_half(it, INIT_PGD)
    area = cpu_entry_area(0)
    for name, *_ in CpuEntryArea._fields_:
        if name.startswith("pad_guard"):
            assert area + CpuEntryArea.offset(name) not in entries, name
    for stack in stacks(it.system.kernel, 0):
        if stack.name not in ("entry",):
            assert stack.low - PAGE_SIZE not in entries, stack
        assert all(page in entries for page in range(stack.low, stack.high, PAGE_SIZE))


def test_descriptor_tables_are_read_only_once_the_kernel_runs():
    it = in_user()
    entries = kernel_half(it, it.cpu.mm.pgd)
    table = it.system.kernel.image.symbol("idt_table")
    for page in (CPU_ENTRY_AREA_BASE, table & -PAGE_SIZE, cpu_entry_area(0)):
        assert not entries[page] & Pte.RW
    assert entries[CPU_ENTRY_AREA_BASE] & ADDRESS_MASK == entries[table & -PAGE_SIZE] & ADDRESS_MASK
    tss = cpu_entry_area(0) + CpuEntryArea.offset("tss")
    assert not entries[tss] & Pte.RW
    assert entries[tss] & ADDRESS_MASK == percpu_address(it.system.kernel, 0) - PAGE_OFFSET


def test_the_cpu_holds_what_boot_asked_for():
    it = in_user(cpus=1)
    core, image = it.core, it.system.kernel.image
    assert msr.read(core, Msr.LSTAR) == image.symbol("entry_SYSCALL_64")
    assert msr.read(core, Msr.KERNEL_GS_BASE) == percpu_address(it.system.kernel, 0)
    assert msr.read(core, Msr.GS_BASE) == msr.read(core, Msr.FS_BASE) == 0
    assert core.cpu.selector(1) == Selector.USER_CS
    assert core.cpu.selector(2) == Selector.USER_DS
    tss = it.cpu.percpu.tss
    assert tss.sp0 == cpu_entry_area(0) + CpuEntryArea.offset("entry_stack") + PAGE_SIZE
    for ist, field in IST_STACKS.items():
        low = cpu_entry_area(0) + CpuEntryArea.offset(field)
        assert low < tss.ist[ist - 1] == low + 2 * PAGE_SIZE


@pytest.mark.parametrize("feature", ["smep", "smap", "umip", "fsgsbase"])
def test_cr4_follows_the_profile(feature):
    bit = Cr4[feature.upper()]
    assert in_user().core.cpu.cr4 & bit
    assert not in_user(profile=Profile(**{feature: False})).core.cpu.cr4 & bit


def test_the_first_task_enters_user_mode_with_clean_registers():
    it = in_user()
    core, task = it.core, it.cpu.current
    assert [core.cpu.register(n) for n in range(16) if n != 4] == [0] * 15
    assert core.cpu.sp == it.cpu.mm.start_stack
    assert core.cpu.sp % 16 == 0
    # RF: the first fetch faulted, and is repeated.
    assert core.cpu.flags & ~Rflags.RF == 0x202
    assert (task.pid, task.comm) == (1, b"user")


def test_other_cpus_idle():
    it = in_user(cpus=2)  # by then the first CPU has started them
    other = it.system.machine.cores[1]
    end = it.system.machine.run(100_000, cpu=1)
    assert end.kind is EndKind.HALTED
    assert it.system.kernel.image.symbolize(other.cpu.ip).startswith("cpu_idle_loop")
    assert other.cpu.gs_base == percpu_address(it.system.kernel, 1)
    assert other.cpu.cr3 == INIT_PGD


def test_an_nmi_wakes_an_idle_cpu_and_leaves_it_idle():
    it = in_user(cpus=2)  # the first CPU has made the IDT
    other = it.system.machine.cores[1]
    it.system.machine.run(100_000, cpu=1)
    other.raise_nmi()
    end = it.system.machine.run(100_000, cpu=1)
    assert it.system.kernel.view(PerCpu, percpu_address(it.system.kernel, 1)).nmi_count == 1
    assert end.kind is EndKind.HALTED


def test_all_state_is_in_the_snapshot():
    it = in_user("_start: movl $39, %eax\n syscall\n movl %eax, %edi\n movl $60, %eax\n syscall")
    saved = it.system.machine.snapshot()
    ends = []
    for _ in range(3):
        it.system.machine.restore(saved)
        it.system.binding.go_back(())
        end = it.run()
        ends.append((end, it.core.clock, it.system.machine.memory.snapshot().data))
    assert ends[0][0].text == "exited with status 1"
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": 0}, "CPUs"),
        ({"cpus": 9}, "CPUs"),
        ({"ram_bytes": 12345}, "RAM"),
        ({"ram_bytes": 1 << 20}, "RAM"),
        ({"ram_bytes": 1 << 40}, "RAM"),
    ],
)
def test_impossible_machines_are_refused(options, message):
    with pytest.raises(Entry64Error, match=message):
        start(**options)


@pytest.mark.parametrize(
    ("argv", "message"), [((b"a\0b",), "NUL"), ((b"x" * 200_000,), "too long"), ((b"x" * 1000,) * 3000, "too long")]
)
def test_impossible_arguments_are_refused(argv, message):
    with pytest.raises(ProgramError, match=message):
        start(argv=argv)


def test_little_memory_is_a_panic_not_a_traceback():
    image = build_image("linux-6", Profile())
    options = BootOptions(image, Profile(), user_program(SPIN), (b"user",), ram_bytes=2 << 20)
    system = boot(options)
    info = mm.memory_info(system.machine.memory)
    info.end = info.next_frame + 4 * PAGE_SIZE
    end = system.machine.run(1_000_000)
    assert end.kind is EndKind.CRASHED
    assert "No working init found: ENOMEM" in end.text


def test_first_pt_regs_lie_at_the_end_of_the_task_stack():
    it = start().to("return_to_first_task")
    cpu = it.cpu
    regs = cpu.view(PtRegs, cpu.percpu.top_of_stack - PtRegs.SIZE)
    assert regs.user_mode
    assert regs.ip == it.program.entry
    assert cpu.view(MmStruct, cpu.current.mm).pgd == it.core.cpu.cr3
    assert it.core.cpu.ip > KERNEL_BASE
