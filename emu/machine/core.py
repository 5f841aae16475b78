"""One logical processor that runs: what it executes, where it stops, what it accepts between instructions.

`advance` runs to the next thing that the machine or the laboratory must know. Events are accepted at instruction
boundaries only, by the priorities of SDM table 6-2: machine check, NMI, maskable interrupt; faults come by execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from emu.arch import Cr4, Efer, Rflags, Vector
from emu.events import EventType, Passed
from emu.machine import engine_faults, semantics
from emu.machine.delivery import Interruption
from emu.machine.descriptors import CpuFault
from emu.machine.device import MappedDevice
from emu.machine.end import End, EndKind
from emu.machine.exceptions import Exceptions
from emu.machine.operands import repeats_itself
from emu.machine.processor import Board, CoreSnapshot
from emu.machine.recorder import Recorder
from emu.machine.stop import BREAK, BUS, COUNT, FAULT, HALT, MMIO, SOFTWARE, SYSCALL, Stop
from emu.machine.stop_points import StopPoints

_RF, _LMA = int(Rflags.RF), int(Efer.LMA)
_TF_RF = int(Rflags.TF | Rflags.RF)
_NMI_VECTOR, _NMI = int(Vector.NMI), EventType.NMI
_UNTIL, _LIMIT = EndKind.UNTIL, EndKind.LIMIT


class Core(Exceptions):
    """A CPU that runs."""

    def __init__(self, index: int, board: Board) -> None:
        super().__init__(index, board)
        self.sites: dict[int, Callable[[Core], None]] = {}
        """C functions by address: run instead of the instruction there."""
        self.stops = StopPoints(self.cpu)
        self.ports: dict[int, Callable[[Core, Stop], int]] = {}
        """I/O ports by number: called for IN (StopKind.IN) and OUT; the result is IN's value."""
        self.stops_at_delivery = False
        """End `advance` at the first instruction of a handler."""
        self._devices: list[MappedDevice] = []
        self._passed: tuple[int, int] | None = None
        self._reported: tuple[int, int] | None = None
        """Clock and address of the breakpoint reported last: passed when the CPU goes on from there."""
        self._code_generation = 0
        self._recorder: Recorder | None = None

    # --- where it stops ---------------------------------------------------------------------------------------------
    def add_special(self, special: dict[int, str]) -> None:
        """Stop before these instructions to apply `semantics`."""
        self.stops.add_special(special)

    def add_sites(self, sites: dict[int, Callable[[Core], None]], span: tuple[int, int]) -> None:
        """Run C functions at these addresses; `span` is the range of stub slots that holds them."""
        self.sites.update(sites)
        self.stops.add_sites(sites, span)

    def set_milestones(self, addresses: Iterable[int]) -> None:
        """Emit Passed before these instructions, from now on."""
        self.stops.set_milestones(addresses)

    def set_breakpoints(self, addresses: Set[int]) -> None:
        """End `advance` before these instructions."""
        self.stops.set_breakpoints(addresses)

    # --- running ----------------------------------------------------------------------------------------------------
    def advance(self, limit: int, until: Callable[[], bool] | None = None) -> End:
        """Run until the clock is `limit` or something else ends it; what is due at the limit is still pending then.

        `until` is asked whenever the engine has stopped, which it does at every event that observers are told of, and
        after a delivery. With `stops_at_delivery` it ends at the first instruction of a handler, as at a breakpoint.
        """
        delivered = self.delivered
        while True:
            if self._end is not None:
                return self._end
            if until is not None and until():
                return End(_UNTIL, self.cpu.ip)
            if self.clock >= limit:
                return End(_LIMIT, self.cpu.ip)
            if self.stops_at_delivery and self.delivered != delivered:
                return End(EndKind.BREAKPOINT, self.cpu.ip)
            if self.waits_for_startup:
                return End(EndKind.HALTED, self.cpu.ip, "waits for a startup IPI")
            if self.apic.deadline is not None:
                self.apic.tick(self.clock)
            for device in self.timed:
                device.tick(self.clock)
            one_step = self._accept()
            if self._end is not None:
                continue
            if self.delivered != delivered:
                if until is not None and until():
                    return End(_UNTIL, self.cpu.ip)
                if self.stops_at_delivery:
                    return End(EndKind.BREAKPOINT, self.cpu.ip)
            if self.halted:
                end = self._sleep(limit)
                if end is not None:
                    return end
                continue
            end = self._run(self.clock + 1 if one_step else limit)
            if end is not None:
                return end

    def _accept(self) -> bool:
        """Deliver what is pending and may come in; True if only one instruction may run before the next look."""
        cpu = self.cpu
        if self.mce_pending:
            self.mce_pending, self.halted = False, False
            if not cpu.cr4 & Cr4.MCE:
                self._shutdown(Vector.MC, "machine check with CR4.MCE clear")
            else:
                self.deliver(Interruption(Vector.MC, EventType.HWEXC, cpu.ip, injected=True))
            return False
        if self.nmi_pending and not self.nmi_blocked:
            if cpu.shadow:
                return True
            self.nmi_pending, self.halted = 0, False
            self.deliver(Interruption(_NMI_VECTOR, _NMI, cpu.state.rip, injected=True))
            return False
        if not self.apic.irr:
            if not self.stops.quiet:
                self.stops.set_quiet(True)
            return False
        if self.stops.quiet:
            self.stops.set_quiet(False)
        if cpu.interrupts_enabled and self.apic.deliverable() is not None:
            if cpu.shadow:
                return True
            self.halted = False
            self.deliver(Interruption(self.apic.acknowledge(), EventType.EXTINT, cpu.ip, injected=True))
        return False

    def _sleep(self, limit: int) -> End | None:
        """HLT: time passes until something wakes the CPU."""
        deadline = self.deadline
        if deadline is None:
            return End(EndKind.HALTED, self.cpu.ip, "halted with nothing to wake it")
        self.clock = min(max(deadline, self.clock), limit)
        return End(EndKind.LIMIT, self.cpu.ip) if self.clock >= limit else None

    def _run(self, limit: int) -> End | None:
        clock, deadline = self.clock, self.deadline
        if deadline is not None and clock < deadline < limit:
            limit = deadline
        passed, self._passed = self._passed, None
        steps = self.debug.begin()
        if steps:
            limit = min(limit, clock + steps)
        step_over = passed is not None and passed == (clock, self.cpu.state.rip)
        stop = self._execute(limit - clock, step_over=step_over)
        kind = stop.kind
        if kind is BREAK:
            return self._at_stop(stop.ip)
        if kind is FAULT and engine_faults.is_smap_alone(self, stop):
            stop = self._without_smap(stop)
            kind = stop.kind
        if kind is COUNT or kind is MMIO:
            if steps:
                self.debug.executed()
            return None
        if kind is FAULT:
            self._fault(stop)
        elif kind is HALT:
            self.halted = True
        elif kind is BUS:
            self._no_memory(stop)
        else:
            self._complete(stop)
        return None

    def _without_smap(self, stop: Stop) -> Stop:
        """Once more, the instruction that the engine took for the kernel's."""
        cpu, cr4 = self.cpu, self.cpu.cr4
        cpu.cr2 = stop.old_cr2
        cpu.set_control(cr4=cr4 & ~Cr4.SMAP)
        again = self._execute(1, step_over=True)
        cpu.set_control(cr4=cr4)
        return again

    def _complete(self, stop: Stop) -> None:
        """The engine has passed an instruction that it leaves to us."""
        kind, flags = stop.kind, self.cpu.flags
        watched = bool(flags & _TF_RF) or self.debug.busy
        if watched:
            self.debug.passed()
        try:
            semantics.AFTER[kind](self, stop)
        except CpuFault as fault:
            self._raise(fault)
            return
        if not watched:
            return
        # A single step over SYSCALL is over if FMASK clears TF; INT n clears TF itself.
        steps = self.cpu.flags if kind is SYSCALL else 0 if kind is SOFTWARE else flags
        self.debug.retired(steps=steps)

    def _execute(self, count: int, *, step_over: bool) -> Stop:
        """The engine runs; the clock and the recorder follow."""
        cpu = self.cpu
        self.flush_stale_code()
        ip = cpu.ip if count == 1 else -1
        stop = cpu.run(count, step_over=step_over)
        if self.alignment.on:
            stop = self.alignment.judge(stop)
        if stop.ip == ip and stop.kind is COUNT and not repeats_itself(self.read_code(ip, 15)):
            # It writes to its own page: the engine begins it again, and counts it twice, so one step never passes it.
            stop = cpu.run(2, step_over=True)
            stop.retired = 1
        if cpu.notes:
            self._tell_notes()
        if self._recorder is not None:
            self._recorder.flush(self.clock, stop.retired)
        self.clock += stop.retired
        if cpu.mmio_writes:
            writes = tuple(cpu.mmio_writes)
            cpu.mmio_writes.clear()
            for address, size, value in writes:
                self._device_at(address).write(self, address, size, value)
        return stop

    def flush_stale_code(self) -> None:
        """Drop translations of code that the host has written since."""
        if self._code_generation != self.memory.code_generation:
            frames = self.memory.code_changed_since(self._code_generation)
            self._code_generation = self.memory.code_generation
            self.cpu.forget_code(frames)

    @property
    def recording(self) -> bool:
        """Whether somebody is told of every instruction."""
        return self._recorder is not None

    def _tell_notes(self) -> None:
        """Observers learn of each SWAPGS and milestone that was passed, with the registers as they were there."""
        cpu = self.cpu
        now = cpu.save()
        try:
            for retired, context in cpu.notes:
                cpu.show(context)
                if cpu.ip in self.stops.milestones:
                    self.emit(Passed(self.clock + retired, self.index, cpu.ip))
                if self.stops.special.get(cpu.ip) == "swapgs":
                    semantics.tell_swapgs(self, self.clock + retired)
        finally:
            cpu.show(now)

    def _no_memory(self, stop: Stop) -> None:
        self.crash(f"physical memory outside RAM touched at {stop.ip:#x}")

    def record(self, recorder: Recorder | None) -> None:
        """Emit Executed events from now on (None: no more)."""
        self._recorder = recorder
        self.stops.set_recording(recorder is not None)
        self.cpu.trace(recorder.note if recorder else None)

    def _at_stop(self, ip: int) -> End | None:
        """Before an instruction with a stop on it: breakpoint first, then a C function or semantics."""
        stops, here = self.stops, (self.clock, ip)
        if ip in stops.breakpoints and self._reported != here:
            self._reported = here
            return End(EndKind.BREAKPOINT, ip)
        self._reported = None
        if ip in stops.milestones:
            self.emit(Passed(self.clock, self.index, ip))
        site = self.sites.get(ip)
        if site is not None:
            site(self)
            return None
        mnemonic, state = stops.special.get(ip), self.cpu.state
        self._passed = here
        if not state.efer & _LMA:
            self._pass_outside_long_mode(ip)
        elif mnemonic is not None:
            try:
                flags = state.eflags
                if semantics.BEFORE[mnemonic](self):
                    self._passed = None
                    if self._end is None and mnemonic not in semantics.EXECUTING:
                        # TF as it was when the instruction began; SYSRET's takes effect at once.
                        self.debug.retired(steps=state.eflags if mnemonic in semantics.SYSRET else flags)
            except CpuFault as fault:
                self._passed = None
                self._raise(fault)
        return None

    def _pass_outside_long_mode(self, ip: int) -> None:
        """Start-up code is the engine's alone: `semantics` are those of long mode. RIP lacks CS's base in real mode."""
        self._passed = None
        self.cpu.quiet(frozenset((ip,)))
        self.execute_one()
        self.stops.set_quiet(self.stops.quiet)

    def port(self, stop: Stop) -> int:
        """IN or OUT that is allowed: the device's value; a port without a device floats."""
        device = self.ports.get(stop.port)
        return 0xFFFF_FFFF if device is None else device(self, stop)

    def map_device(self, device: MappedDevice) -> None:
        """Let a device answer in its range of physical memory."""
        self._devices.append(device)
        self.cpu.map_device(device.base, device.size, lambda address, size: device.read(self, address, size))

    def _device_at(self, address: int) -> MappedDevice:
        return next(d for d in self._devices if d.base <= address < d.base + d.size)

    # --- for semantics ----------------------------------------------------------------------------------------------
    def skip(self, size: int) -> None:
        """The instruction at RIP is done, without the engine."""
        if self._recorder is not None:
            self._recorder.single(self.clock, self.cpu.ip)
        self.debug.begin()
        if size:
            self.cpu.ip += size
        self.cpu.end_instruction()
        self.clock += 1

    def execute_one(self) -> Stop:
        """Let the engine execute the instruction at RIP; its faults are delivered."""
        stop = self._execute(1, step_over=True)
        if stop.kind is FAULT:
            self._fault(stop)
        elif stop.kind is BUS:
            self._no_memory(stop)
        return stop

    def take_back(self, start: int | None = None) -> None:
        """The instruction that the engine passed faults after all (SYSCALL, SYSENTER, INT: two bytes)."""
        self.cpu.ip = self.cpu.ip - 2 if start is None else start
        self.clock -= 1

    def restore(self, saved: CoreSnapshot) -> None:
        """Back to a snapshot of this core."""
        super().restore(saved)
        self._passed = self._reported = None
