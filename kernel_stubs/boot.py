"""From a kernel image and a program to a machine that is ready to execute `startup_64`.

This is the boot loader's part, and that of the kernel's early set-up which needs no CPU: page tables, per-CPU areas,
descriptor tables. The image's own code (boot.S) loads them; `start_kernel` (kernel_stubs.init) goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from asm import Image
from emu.arch import PAGE_SIZE
from emu.errors import Entry64Error, ImageError
from emu.machine.machine import Machine
from emu.machine.memory import Memory
from emu.machine.profile import Profile
from emu.machine.schedule import Interleaving
from kernel_stubs import cpu_entry, mm
from kernel_stubs.abi import (
    EXCEPTION_STACK_SIZE,
    INIT_PGD,
    IRQ_STACK_SIZE,
    MAX_CPUS,
    THREAD_SIZE,
    VMALLOC_LAZY,
    CpuEntryArea,
    PerCpu,
    cpu_entry_area,
    page_align,
)
from kernel_stubs.abi26 import Ist26, is_linux26
from kernel_stubs.context import InputFile, Kernel, percpu_address
from kernel_stubs.errno import OutOfMemoryError
from kernel_stubs.exec import UserProgram, check_arguments
from kernel_stubs.hostfs import HostFolder
from kernel_stubs.kernel_image import load_c_functions
from kernel_stubs.linux26 import setup
from kernel_stubs.running import Binding

USER_VISIBLE_SECTION = ".entry.text"
MIN_RAM = 2 << 20
MAX_RAM = 1 << 32


@dataclass(frozen=True)
class BootOptions:
    """Everything that a run depends on."""

    image: Image
    profile: Profile
    program: UserProgram
    argv: tuple[bytes, ...]
    envp: tuple[bytes, ...] = ()
    stdin: bytes = b""
    seed: int = 0
    cpus: int = 1
    ram_bytes: int = 32 << 20
    nmi_scratch: bool = False
    """Have the NMI handler touch an unmapped page, so that a page fault and its IRETQ happen inside every NMI."""
    interleaving: Interleaving | None = None
    """How several CPUs take turns."""
    panic_on_oops: bool = True
    """An exception in kernel mode ends the run, not only the task (sysctl kernel.panic_on_oops)."""
    init_thread: bool = False
    """linux-2.6: the program begins as a kernel thread, by kernel_execve, as the first program of a real one does."""
    timer_period: int = 0
    """Instructions between two APIC timer interrupts; 0: no timer."""
    files: tuple[InputFile, ...] = ()
    """Files of the guest's tree, named by their paths."""
    folder: HostFolder | None = None
    """A folder of the host that the guest sees as /host."""


@dataclass
class System:
    """A booted machine: nothing has run yet."""

    kernel: Kernel
    machine: Machine
    binding: Binding


class StackRange(NamedTuple):
    """A stack of one CPU: `low` <= RSP <= `high`."""

    name: str
    low: int
    high: int


def boot(options: BootOptions) -> System:
    """Make the machine and put the kernel into it."""
    if not 1 <= options.cpus <= MAX_CPUS:
        raise Entry64Error(f"{options.cpus} CPUs: there can be 1 to {MAX_CPUS}")
    if options.ram_bytes % PAGE_SIZE or not MIN_RAM <= options.ram_bytes <= MAX_RAM:
        raise Entry64Error(
            f"{options.ram_bytes:#x} bytes of RAM: give a multiple of 4096 from {MIN_RAM:#x} to {MAX_RAM:#x}"
        )
    if options.init_thread and not is_linux26(options.image):
        raise Entry64Error("init_thread: only linux-2.6 has kernel_execve")
    argv = options.argv or (b"",)  # as Linux does, for programs that count on argv[0]
    check_arguments(argv, options.envp)
    load_c_functions()
    if is_linux26(options.image):
        options = replace(options, profile=setup.usable_profile(options.profile))
    machine = Machine(options.ram_bytes, options.cpus, options.profile, options.interleaving)
    given = options.files + (options.folder.files if options.folder else ())
    files = (InputFile(options.program.name, options.program.data), InputFile("stdin", options.stdin), *given)
    kernel = Kernel(machine, options.image, files, options.seed, program=options.program, argv=argv, envp=options.envp)
    try:
        records = _fill_memory(machine.memory, options)
    except OutOfMemoryError:
        raise Entry64Error(f"{options.ram_bytes:#x} bytes of RAM do not hold the kernel") from None
    binding = Binding(kernel)
    machine.observe_instructions(options.image.instructions())
    binding.attach()
    entry = options.image.symbol("startup_64")
    machine.startup = lambda core, vector: core.reset_long_mode(INIT_PGD, entry, records[core.index])
    machine.startup(machine.cores[0], 0)
    return System(kernel, machine, binding)


def _fill_memory(memory: Memory, options: BootOptions) -> list[int]:
    """Everything up to the addresses of the CPUs' CpuBoots."""
    image = options.image
    end = max(mm.image_physical(segment.end) for segment in image.segments)
    if page_align(end) > memory.size:
        raise OutOfMemoryError
    mm.init_memory(memory, page_align(end))
    _map_image(memory, image)
    data = mm.kernel_data(memory)
    data.timer_period = options.timer_period
    data.oops_is_survived = int(not options.panic_on_oops)
    data.init_thread = int(options.init_thread)
    mm.kernel_data(memory).no_isolation = is_linux26(image)
    records = []
    per_cpu_offset = mm.image_physical(image.symbol("__per_cpu_offset"))
    for cpu in range(options.cpus):
        scratch = VMALLOC_LAZY + cpu * PAGE_SIZE if options.nmi_scratch else 0
        percpu = cpu_entry.make_percpu(memory, cpu, scratch)
        memory.write_u64(per_cpu_offset + 8 * cpu, percpu)
        cpu_entry.make_entry_area(memory, cpu, percpu)
        records.append(cpu_entry.make_boot_record(memory, image, options.profile, cpu, percpu))
        if is_linux26(image):
            setup.set_up_cpu(memory, image, cpu, percpu, records[-1])
    cpu_entry.make_idt_alias(memory, image)
    return records


def _map_image(memory: Memory, image: Image) -> None:
    """Load the image's sections and map them with their rights; no page may need two kinds."""
    rights = {"r": mm.PAGE_KERNEL_RO, "rx": mm.PAGE_KERNEL_RX, "rw": mm.PAGE_KERNEL}
    owner: dict[int, str] = {}
    for segment in image.segments:
        if not segment.data:
            continue
        if segment.flags not in rights:
            raise ImageError(f"section {segment.name} of the kernel image is {segment.flags}: writable code")
        physical = mm.image_physical(segment.address)
        memory.write(physical, segment.data)
        for page in range(segment.address & -PAGE_SIZE, page_align(segment.end), PAGE_SIZE):
            if owner.setdefault(page, segment.flags) != segment.flags:
                raise ImageError(f"section {segment.name} of the kernel image shares page {page:#x} with other rights")
            mm.map_kernel(memory, page, mm.image_physical(page), rights[segment.flags])
            if segment.name == USER_VISIBLE_SECTION:
                mm.map_user_visible(memory, page)


def stacks(kernel: Kernel, cpu: int) -> tuple[StackRange, ...]:
    """The stacks that this CPU may be on at CPL 0, as they are now."""
    percpu = kernel.view(PerCpu, percpu_address(kernel, cpu))
    ranges = [
        StackRange("task", percpu.top_of_stack - THREAD_SIZE, percpu.top_of_stack),
        StackRange("irq", percpu.hardirq_stack_ptr - IRQ_STACK_SIZE, percpu.hardirq_stack_ptr),
    ]
    if kernel.classic:
        ranges += [StackRange(f"IST{ist.value} {ist.name}", *setup.ist_stack(cpu, ist)) for ist in Ist26]
        return tuple(ranges)
    area = cpu_entry_area(cpu)
    entry = area + CpuEntryArea.offset("entry_stack")
    ranges.append(StackRange("entry", entry, entry + PAGE_SIZE))
    for ist, field in cpu_entry.IST_STACKS.items():
        low = area + CpuEntryArea.offset(field)
        ranges.append(StackRange(f"IST{ist.value} {ist.name}", low, low + EXCEPTION_STACK_SIZE))
    return tuple(ranges)
