"""`entry64 boot`: a bare-metal test image on a small PC: serial port, exit port, firmware configuration, I/O APIC.

docs/boot.md says what the image finds. The exit status is the guest's, as QEMU's isa-debug-exit gives it (odd), or one
of ours (even).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from capstone import CS_ARCH_X86, CS_MODE_32, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs

from emu.arch import PAGE_SIZE
from emu.errors import ImageError
from emu.events import Delivered, DoubleFault, Event, Executed, Shutdown
from emu.lab.bare_image import LOADER_MAGIC, BareImage, load
from emu.machine import startup
from emu.machine.core import Core
from emu.machine.end import End, EndKind
from emu.machine.fw_cfg import FwCfg
from emu.machine.machine import Machine
from emu.machine.paging import Pte
from emu.machine.profile import Profile
from emu.machine.recorder import Recorder
from emu.machine.registers import RAX, RBX, RDI
from emu.machine.schedule import Interleaving
from emu.machine.semantics import scan
from emu.machine.serial import COM1_LINE, SerialPort
from emu.machine.stop import Stop, StopKind

OUT_OF_BUDGET, STOPPED = 124, 126
"""Exit statuses: the budget is used up; triple fault, crash, or every CPU halted for good."""
EXIT_PORT, DEBUG_PORT = 0xF4, 0xE9
DEBUG_SIGNATURE = 0xE9
"""What the debug port reads as."""
_CONVENTIONAL = range(0x8000, 0x9_F000, PAGE_SIZE)
_LOW_KIB, _ONE_MIB = 639, 1 << 20
_MANY_HOOKS = 100
"""With more instructions to watch than this, one hook over all the code costs less than one for each."""
_LOOP_SAMPLE = 2000
_GDT = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)


@dataclass(frozen=True)
class BootOptions:
    """What `entry64 boot` was asked for."""

    image: str
    arguments: Sequence[str] = ()
    entry: str | None = None
    cpus: int = 1
    memory_mib: int = 128
    budget: int = 1_000_000_000
    seed: int | None = None
    given: bytes = b""
    """Input of the serial port."""
    vendor: str = "intel"


class Pc:
    """The machine around an image. `send` gets the serial port's bytes, `debug` those of port 0xE9."""

    def __init__(self, options: BootOptions, send: Callable[[int], None], debug: Callable[[int], None]) -> None:
        self.image = load(options.image)
        self.status: int | None = None
        self._debug = debug
        interleaving = Interleaving(seed=options.seed)
        profile = Profile("amd" if options.vendor == "amd" else "intel")
        self.machine = machine = Machine(options.memory_mib << 20, options.cpus, profile, interleaving)
        machine.startup = startup.startup_ipi
        machine.memory.reach(machine.memory.size)
        self.serial = SerialPort(
            lambda high: machine.ioapic.set_line(COM1_LINE, high=high), options.given, listen=send
        )  # fmt: skip
        self._firmware = FwCfg(machine.memory.size, options.cpus)
        for device in (self.serial, self._firmware):
            machine.add_device(device)
        for core in machine.cores:
            self.serial.attach(core)
            self._firmware.attach(core)
            core.ports |= {EXIT_PORT: self._exit, DEBUG_PORT: self._debug_port}
        self._load()
        self._watch()
        self._enter(options)

    # --- ports ------------------------------------------------------------------------------------------------------
    def _exit(self, core: Core, stop: Stop) -> int:
        """isa-debug-exit: the status is the value written, doubled, plus one."""
        if stop.kind is StopKind.OUT:
            self.status = (stop.value << 1 | 1) & 0xFF
            core.finish("the guest wrote to the exit port")
        return 0

    def _debug_port(self, _core: Core, stop: Stop) -> int:
        if stop.kind is StopKind.OUT:
            self._debug(stop.value & 0xFF)
        return DEBUG_SIGNATURE

    # --- the image --------------------------------------------------------------------------------------------------
    def _load(self) -> None:
        memory = self.machine.memory
        for part in self.image.loads:
            if part.end > memory.size:
                raise ImageError(
                    f"the image reaches {part.end:#x}, beyond the RAM of {memory.size >> 20} MiB: --memory"
                )
            memory.write(part.address, part.data)

    def _watch(self) -> None:
        """Semantics for the instructions that need it, found by disassembling the code from its beginning."""
        instructions = self.image.code.instructions()
        special = scan(instructions)
        if len(special) > _MANY_HOOKS:
            for segment in self.image.code.segments:
                for core in self.machine.cores:
                    inside = [a for a in special if segment.address <= a < segment.end]
                    if inside:
                        core.cpu.stop_at(inside, (min(inside), max(inside)))
        self.machine.observe_instructions(instructions)

    def _free(self, size: int) -> int:
        """Conventional memory that the image leaves alone."""
        for at in _CONVENTIONAL:
            if at + size <= _CONVENTIONAL.stop and all(at >= p.end or at + size <= p.address for p in self.image.loads):
                return at
        raise ImageError(f"the image leaves no {size} bytes of memory below 640 KiB free")

    # --- entry ------------------------------------------------------------------------------------------------------
    def _enter(self, options: BootOptions) -> None:
        image, core = self.image, self.machine.cores[0]
        tables = 0 if options.entry is None and image.multiboot else 7 * PAGE_SIZE
        command_line = " ".join((options.image, *options.arguments)).encode(errors="surrogateescape") + b"\0"
        at = self._free(tables + 2 * PAGE_SIZE + len(command_line))
        information = at + tables
        self.machine.memory.write(information, self._multiboot_information(information, command_line))
        if not tables:
            startup.multiboot(core, image.entry, LOADER_MAGIC, information)
            return
        if options.entry is None and not image.is_64:
            raise ImageError(f"{options.image}: no multiboot header; name a 64-bit entry with --entry")
        entry = image.entry if options.entry is None else image.symbol(options.entry)
        self._enter_long_mode(core, entry, at, information)

    def _multiboot_information(self, at: int, command_line: bytes) -> bytes:
        """Memory sizes, command line, no modules, memory map, loader's name (Multiboot Specification 0.6.96, 3.3)."""
        upper = self.machine.memory.size - _ONE_MIB
        name, regions = b"entry64\0", ((0, _LOW_KIB << 10), (_ONE_MIB, upper))
        memory_map = b"".join(struct.pack("<IQQI", 20, start, size, 1) for start, size in regions)
        map_at, name_at = at + 128, at + 128 + len(memory_map)
        flags = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
        words = [0] * 32
        words[:7] = [flags, _LOW_KIB, upper >> 10, 0, name_at + len(name), 0, 0]
        words[11:13] = [len(memory_map), map_at]
        words[16] = name_at
        return struct.pack("<32I", *words) + memory_map + name + command_line

    def _enter_long_mode(self, core: Core, entry: int, at: int, information: int) -> None:
        """64-bit mode, the first 4 GiB mapped where they are, flat segments, a page of stack, no IDT."""
        memory, leaf = self.machine.memory, int(Pte.P | Pte.RW)
        memory.write_u64(at, (at + PAGE_SIZE) | leaf)
        for n in range(4):
            table = at + (2 + n) * PAGE_SIZE
            memory.write_u64(at + PAGE_SIZE + 8 * n, table | leaf)
            for m in range(512):
                memory.write_u64(table + 8 * m, n << 30 | m << 21 | int(Pte.PS) | leaf)
        gdt = at + 6 * PAGE_SIZE
        memory.write(gdt, struct.pack("<3Q", *_GDT))
        core.reset_long_mode(at, entry, information)
        cpu, state = core.cpu, core.cpu.state
        cpu.load_code_segment(0x08, 0x00AF9B00, 0)
        cpu.load_stack_segment(0x10, 0x00CF9300)
        state.gdt.base, state.gdt.limit = gdt, 8 * len(_GDT) - 1
        state.idt.base, state.idt.limit = 0, 0
        cpu.sp = gdt + PAGE_SIZE
        cpu.set_register(RAX, LOADER_MAGIC)
        cpu.set_register(RBX, information)
        cpu.set_register(RDI, information)

    # --- running ----------------------------------------------------------------------------------------------------
    def run(self, budget: int) -> tuple[int, End]:
        """Run up to `budget` instructions a CPU: (number of the CPU that ended it, why)."""
        return self.machine.advance(budget)


class _Memory:
    """The exceptions delivered last, for a report."""

    def __init__(self, image: BareImage) -> None:
        self._image = image
        self._last: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Delivered) and event.vector < 32:
            code = "" if event.error_code is None else f", error code {event.error_code:#x}"
            self._note(f"cpu {event.cpu}: vector {event.vector} at {self._image.code.symbolize(event.ip)}{code}")
        elif isinstance(event, DoubleFault):
            self._note(f"cpu {event.cpu}: vector {event.second} while delivering vector {event.first}")
        elif isinstance(event, Shutdown):
            self._note(f"cpu {event.cpu}: {event.why}")

    def _note(self, text: str) -> None:
        self._last = [*self._last[-3:], text]

    def lines(self) -> list[str]:
        """The last of them."""
        return [f"  {text}" for text in self._last]


def _trace(pc: Pc, write: Callable[[str], object]) -> None:
    """One line an instruction: clock, CPU, place, text; one for each event delivered."""
    decoders = {True: Cs(CS_ARCH_X86, CS_MODE_64), False: Cs(CS_ARCH_X86, CS_MODE_32)}
    for decoder in decoders.values():
        decoder.syntax = CS_OPT_SYNTAX_ATT
    symbolize, memory = pc.image.code.symbolize, pc.machine.memory

    def text(address: int, *, long_mode: bool) -> str:
        # Code is where it was loaded: a linear address is its physical one.
        code = memory.read(address, 15) if address + 15 <= memory.size else b""
        for decoder in (decoders[long_mode], decoders[not long_mode]):  # the mode is that of the run's end
            for _, _, mnemonic, operands in decoder.disasm_lite(code, address, 1):
                return f"{mnemonic} {operands}".rstrip()
        return "?"

    def observe(event: Event) -> None:
        if isinstance(event, Executed):
            long_mode = pc.machine.cores[event.cpu].cpu.long_mode_code
            for n, address in enumerate(event.addresses):
                write(
                    f"{event.clock + n:>9} {event.cpu} {symbolize(address):<32} {text(address, long_mode=long_mode)}\n"
                )
        elif isinstance(event, Delivered):
            write(
                f"{event.clock:>9} {event.cpu} vector {event.vector} {event.type.value} -> {symbolize(event.handler)}\n"
            )

    pc.machine.observers.append(observe)
    for core in pc.machine.cores:
        core.record(Recorder(core.index, core.cpu, core.emit, moves=frozenset(), registers=False))


def boot(
    options: BootOptions,
    send: Callable[[int], None],
    debug: Callable[[int], None],
    complain: Callable[[str], None],
    trace: Callable[[str], object] | None = None,
) -> int:
    """Boot an image and run it to its end: the exit status."""
    pc = Pc(options, send, debug)
    recent = _Memory(pc.image)
    pc.machine.observers.append(recent)
    if trace is not None:
        _trace(pc, trace)
    number, end = pc.run(options.budget)
    if pc.status is not None:
        return pc.status
    where = pc.image.code.symbolize(end.ip)
    match end.kind:
        case EndKind.LIMIT:
            why = f"still running after {options.budget} instructions at {where}{_loop(pc, number)}"
        case EndKind.HALTED:
            why = f"every CPU halted with nothing to wake it; cpu {number} at {where}"
        case _:
            why = f"{end.kind.value} at {where}: {end.text}"
    complain("\n".join((f"entry64 boot: cpu {number}: {why}", *recent.lines())))
    return OUT_OF_BUDGET if end.kind is EndKind.LIMIT else STOPPED


def boot_at_terminal(options: BootOptions, trace_file: IO[str] | None) -> int:
    """Boot with the serial port on stdout, and everything else on stderr."""
    out, error = sys.stdout.buffer, sys.stderr

    def send(byte: int) -> None:
        out.write(bytes((byte,)))
        if byte == ord("\n"):
            out.flush()

    def debug(byte: int) -> None:
        error.write(chr(byte))

    def complain(text: str) -> None:
        print(text, file=error)

    try:
        return boot(options, send, debug, complain, trace_file.write if trace_file else None)
    finally:
        out.flush()


def _loop(pc: Pc, number: int) -> str:
    """What the CPU does from here on, if that is a loop."""
    core = pc.machine.cores[number]
    seen: set[int] = set()
    for _ in range(_LOOP_SAMPLE):
        seen.add(core.cpu.ip)
        if core.advance(core.clock + 1).kind is not EndKind.LIMIT:
            return ""
    symbolize = pc.image.code.symbolize
    if len(seen) > _LOOP_SAMPLE // 4:
        return ""
    return f", in a loop of {len(seen)} instructions between {symbolize(min(seen))} and {symbolize(max(seen))}"
