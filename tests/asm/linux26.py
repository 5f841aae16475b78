"""linux-2.6 on a machine of its own, with C stubs: the checks that matter at each C call and each return are made here.

The stubs are functions of (lab, cpu, integer arguments); what a test does not give does nothing and returns 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import CO_GENERATOR

from asm import Image, assemble_text
from emu.arch import PAGE_SIZE, STAR_VALUE, Efer, Msr, Rflags, Selector
from emu.events import CCalled, Event, Returned
from emu.machine.core import Core, End, EndKind
from emu.machine.machine import Machine
from emu.machine.paging import Pte
from emu.machine.profile import Profile
from kernel_stubs import abi26, cpu_entry, mm
from kernel_stubs.abi import (
    EXCEPTION_STACK_SIZE,
    INIT_PGD,
    IRQ_STACK_SIZE,
    THREAD_SIZE,
    CpuBoot,
    CpuEntryArea,
    PerCpu,
    PtRegs,
    TaskStruct,
    cpu_entry_area,
)
from kernel_stubs.abi26 import Ist26, ThreadInfo26, Tif26, X8664Pda
from kernel_stubs.binding import CFunction
from kernel_stubs.boot import _map_image
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.kernel_image import build_image, load_c_functions
from kernel_stubs.layout import S
from kernel_stubs.running import Binding

USER_BASE = 0x40_0000
USER_STACK = 0x60_0000
USER_GS = 0x7777_0000
LIMIT = 100_000
IST_FIELDS = {
    Ist26.STACKFAULT: "vc_stack",
    Ist26.DOUBLEFAULT: "df_stack",
    Ist26.NMI: "nmi_stack",
    Ist26.DEBUG: "db_stack",
    Ist26.MCE: "mce_stack",
}
PARANOID = {"do_nmi": Ist26.NMI, "do_machine_check": Ist26.MCE, "do_debug": Ist26.DEBUG, "do_int3": Ist26.DEBUG}
TAKES_REGS = {"do_IRQ", "do_notify_resume", "syscall_trace_enter", "syscall_trace_leave"}
Stub = Callable[..., object]

EVENTS: dict[str, Callable[[Core], None]] = {
    "nmi": lambda core: core.raise_nmi(),
    "mce": lambda core: core.raise_machine_check(),
    "irq": lambda core: core.raise_interrupt(0x30),
}


def profile(vendor: str = "intel") -> Profile:
    return Profile(vendor=vendor, smep=False, smap=False, umip=False, fsgsbase=False)


def image(vendor: str = "intel", overrides: tuple[tuple[str, str], ...] = ()) -> Image:
    return build_image("linux-2.6", profile(vendor), overrides)


@dataclass
class Lab:
    """The machine and what tests look at."""

    machine: Machine
    kernel: Kernel
    symbols: dict[str, int]
    pda_at: int
    percpu_at: int
    stack: int
    """End of the first task's stack."""
    calls: list[tuple[object, ...]] = field(default_factory=list)
    """(name, arguments) of each C call."""
    returns: list[str] = field(default_factory=list)
    """Instruction of each return to user mode."""
    problems: list[str] = field(default_factory=list)

    # --- structures -------------------------------------------------------------------------------------------------
    @property
    def core(self) -> Core:
        return self.machine.cores[0]

    def view(self, kind: type[S], address: int) -> S:
        return self.kernel.view(kind, address)

    @property
    def pda(self) -> X8664Pda:
        return self.view(X8664Pda, self.pda_at)

    @property
    def percpu(self) -> PerCpu:
        return self.view(PerCpu, self.percpu_at)

    @property
    def thread_info(self) -> ThreadInfo26:
        return self.view(ThreadInfo26, self.pda.kernelstack + abi26.PDA_STACKOFFSET - THREAD_SIZE)

    def regs(self, address: int) -> PtRegs:
        return self.view(PtRegs, address)

    @property
    def task_regs(self) -> int:
        return self.stack - PtRegs.SIZE

    def set_flag(self, flag: Tif26) -> None:
        self.thread_info.flags |= 1 << flag

    def clear_flag(self, flag: Tif26) -> None:
        self.thread_info.flags &= ~(1 << flag)

    def symbol(self, name: str) -> int:
        return self.symbols.get(name) or self.kernel.image.symbol(name)

    def where(self, address: int) -> str:
        return self.kernel.image.symbolize(address)

    def names(self) -> list[object]:
        return [name for name, *_ in self.calls]

    # --- running ----------------------------------------------------------------------------------------------------
    def to(self, *names: str) -> Lab:
        self.core.set_breakpoints({self.symbol(name) for name in names})
        end = self.core.advance(self.core.clock + LIMIT)
        self.core.set_breakpoints(set())
        assert end.kind is EndKind.BREAKPOINT, end
        return self

    def finish(self) -> End:
        self.core.set_breakpoints({self.symbol("done")})
        end = self.core.advance(self.core.clock + LIMIT)
        self.core.set_breakpoints(set())
        return end

    def forget(self) -> None:
        self.calls.clear()
        self.returns.clear()
        self.problems.clear()

    def state(self) -> tuple[int, ...]:
        """What user mode can see."""
        cpu = self.core.cpu
        return (cpu.ip, cpu.flags & ~Rflags.RF, cpu.cpl, cpu.gs_base, *(cpu.register(n) for n in range(16)))

    def sweep(self, hit: Callable[[Core], None]) -> Iterator[tuple[str, End]]:
        """`hit` at every boundary from here to `done`."""
        saved = self.machine.snapshot()
        assert self.finish().kind is EndKind.BREAKPOINT
        first, last = saved.cores[0].clock, self.core.clock
        assert first < last
        for clock in range(first, last):
            self.machine.restore(saved)
            self.forget()
            if clock > first:
                self.core.advance(clock)
            at = self.where(self.core.cpu.ip)
            hit(self.core)
            yield at, self.finish()
        self.machine.restore(saved)

    # --- checks -----------------------------------------------------------------------------------------------------
    def observe(self, event: Event) -> None:
        if isinstance(event, CCalled):
            self._called(event)
        elif isinstance(event, Returned) and event.frame.cpl == 3:
            self.returns.append(event.by)
            self._expect(event, "return", event.gs_base == USER_GS, "GS_BASE is not the user's")
            self._expect(event, "return", event.kernel_gs_base == self.pda_at, "KERNEL_GS_BASE is not the PDA")
            self._expect(event, "return", self.pda.irqcount == -1, "irqcount is not -1")

    def _called(self, event: CCalled) -> None:
        self.calls.append((event.name, *event.args))
        if event.name == "start_kernel":
            return
        name = event.name
        self._expect(event, name, event.gs_base == self.pda_at, "GS_BASE is not the PDA")
        self._expect(event, name, event.cpl == 0, "CPL is not 0")
        self._expect(event, name, not event.flags & (Rflags.DF | Rflags.TF), "DF or TF is set")
        stack = self._stack_of(event.sp)
        wanted = {"do_IRQ": ("irq",), "__do_softirq": ("irq",)}.get(name, ("task", "irq"))
        if name in PARANOID:
            wanted = (PARANOID[name].name,)
        if name not in ("sync_regs", "__switch_to"):
            self._expect(event, name, stack in wanted, f"RSP {event.sp:#x} is on stack {stack}")
        if name in TAKES_REGS or name in PARANOID:
            frame = self.regs(event.args[0])
            self._expect(event, name, frame.cs in (0x10, 0x23, 0x33), f"CS in the frame is {frame.cs:#x}")
            if frame.cs & 3:
                end = event.args[0] + PtRegs.SIZE
                ist = {self._ist_end(ist) for ist in PARANOID.values()}
                self._expect(event, name, end == self.stack or end in ist, f"the frame ends at {end:#x}")

    def _expect(self, event: Event, what: str, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(f"{what} at {self.where(event.ip)}: {problem}")

    def _ist_end(self, ist: Ist26) -> int:
        return cpu_entry_area(0) + CpuEntryArea.offset(IST_FIELDS[ist]) + EXCEPTION_STACK_SIZE

    def _stack_of(self, sp: int) -> str:
        percpu = self.percpu
        if self.pda.kernelstack - THREAD_SIZE < sp <= self.pda.kernelstack + abi26.PDA_STACKOFFSET:
            return "task"
        if percpu.hardirq_stack_ptr - IRQ_STACK_SIZE < sp <= percpu.hardirq_stack_ptr:
            return "irq"
        for ist in Ist26:
            end = self._ist_end(ist)
            if end - EXCEPTION_STACK_SIZE < sp <= end:
                return ist.name
        return "unknown"


def start(text: str, vendor: str = "intel", overrides: tuple[tuple[str, str], ...] = (), **stubs: Stub) -> Lab:
    """Booted by the image's own code and run to `_start` of an assembled user program."""
    load_c_functions()
    built = image(vendor, overrides)
    machine = Machine(8 << 20, 1, profile(vendor))
    memory = machine.memory
    mm.init_memory(memory, -(-max(mm.image_physical(s.end) for s in built.segments) // PAGE_SIZE) * PAGE_SIZE)
    _map_image(memory, built)
    percpu_at = cpu_entry.make_percpu(memory, 0, 0)
    cpu_entry.make_entry_area(memory, 0, percpu_at)
    cpu_entry.make_idt_alias(memory, built)
    memory.write_u64(mm.image_physical(built.symbol("__per_cpu_offset")), percpu_at)
    pda_at = mm.direct_map(mm.alloc_page(memory))
    kernel = Kernel(machine, built)
    record = cpu_entry.make_boot_record(memory, built, machine.profile, 0, percpu_at)
    stack = kernel.view(CpuBoot, record).stack
    user = assemble_text(text, name="user.S", base=USER_BASE)
    lab = Lab(machine, kernel, dict(user.symbols), pda_at, percpu_at, stack)
    _boot_record(lab, kernel.view(CpuBoot, record))
    _per_cpu(lab)
    _user_memory(lab, user)
    machine.observe_instructions(built.instructions())
    table = {"start_kernel": lambda lab, cpu, boot: None, "do_IRQ": _do_irq} | stubs
    names = [name for name, at in built.symbols.items() if _in_slots(built, at)]
    functions = {name: _c_function(lab, name, table.get(name)) for name in names}
    Binding(kernel).attach(functions)
    machine.observers.append(lab.observe)
    lab.core.reset_long_mode(INIT_PGD, built.symbol("startup_64"), record)
    lab.to("_start").forget()
    return lab


def _in_slots(built: Image, address: int) -> bool:
    first, last = built.symbol("__c_stubs_start"), built.symbol("__c_stubs_end")
    return first <= address < last and address % 16 == 0 and built.segment_at(address) is not None


def _c_function(lab: Lab, name: str, stub: Stub | None) -> CFunction:
    count = 6 if stub is None else stub.__code__.co_argcount - 2
    if name == "__c_stubs_start":
        stub = None
    if stub is None:
        return CFunction(name, lambda cpu, *args: 0, (int,) * count, False)
    interruptible = bool(stub.__code__.co_flags & CO_GENERATOR)
    return CFunction(name, lambda cpu, *args: stub(lab, cpu, *args), (int,) * count, interruptible)


def _do_irq(lab: Lab, cpu: Cpu, regs: int) -> None:
    vector = ~lab.regs(regs).orig_ax & 0xFF
    assert vector >= 0x20
    cpu.core.apic.eoi()


def _boot_record(lab: Lab, boot: CpuBoot) -> None:
    symbol = lab.kernel.image.symbol
    settings = {
        Msr.EFER: int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE),
        Msr.STAR: STAR_VALUE,
        Msr.LSTAR: symbol("system_call"),
        Msr.CSTAR: symbol("ia32_cstar_target"),
        Msr.SYSCALL_MASK: abi26.SYSCALL_MASK_VALUE,
        Msr.SYSENTER_CS: Selector.KERNEL_CS,
        Msr.SYSENTER_ESP: 0,
        Msr.SYSENTER_EIP: symbol("ia32_sysenter_target"),
        Msr.GS_BASE: lab.pda_at,
        Msr.KERNEL_GS_BASE: USER_GS,
    }
    boot.msr_count = len(settings)
    for setting, (number, value) in zip(boot.msrs, settings.items(), strict=False):
        setting.index, setting.low, setting.high = number, value & 0xFFFF_FFFF, value >> 32


def _per_cpu(lab: Lab) -> None:
    percpu, pda = lab.percpu, lab.pda
    pda.data_offset = lab.percpu_at
    pda.kernelstack = lab.stack - abi26.PDA_STACKOFFSET
    pda.irqcount = -1
    pda.irqstackptr = percpu.hardirq_stack_ptr - 64
    pda.pcurrent = new_task(lab, lab.stack)
    percpu.tss.sp0 = lab.stack
    for ist in Ist26:
        percpu.tss.ist[ist - 1] = lab._ist_end(ist)
    lab.thread_info.sysenter_return = lab.symbols.get("landing", 0)
    regs = lab.regs(lab.task_regs)
    regs.ip, regs.cs, regs.ss = USER_BASE, Selector.USER_CS, Selector.USER_DS
    regs.sp, regs.flags = USER_STACK, Rflags.IF | Rflags.FIXED


def new_task(lab: Lab, stack: int) -> int:
    """A task_struct, with its thread_info at the bottom of its stack."""
    task = mm.direct_map(mm.alloc_page(lab.machine.memory))
    lab.view(TaskStruct, task).stack = stack - THREAD_SIZE
    lab.view(ThreadInfo26, stack - THREAD_SIZE).task = task
    return task


def new_stack(lab: Lab) -> int:
    """The end of a fresh task stack."""
    return mm.vmalloc(lab.machine.memory, THREAD_SIZE // PAGE_SIZE) + THREAD_SIZE


def _user_memory(lab: Lab, user: Image) -> None:
    memory = lab.machine.memory
    tables = mm.kernel_tables(memory)
    flags = int(Pte.P | Pte.RW | Pte.US | Pte.A | Pte.D)
    for address in (USER_BASE, USER_STACK - PAGE_SIZE, USER_STACK):
        frame = mm.take_frame(memory)
        tables.map(INIT_PGD, address, frame, flags)
        if address == USER_BASE:
            memory.write(frame, user.segments[0].data)


def read_words(lab: Lab, address: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", lab.core.read_linear(address, 8 * count))
