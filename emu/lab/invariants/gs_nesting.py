"""GS nesting: every SWAPGS moves between exactly the user's base and this CPU's, once each way.

State of a CPU, from its two bases: *user* (GS_BASE is the task's, KERNEL_GS_BASE the per-CPU base), *kernel* (the
reverse), or, with FSGSBASE in a paranoid handler that hit the user state, both the per-CPU base. An entry that finds
the user state must swap in before its first C call and out before it returns (or replace GS_BASE and put it back); one
that finds the kernel state must not swap at all. If a user's base is the per-CPU base, values prove nothing, and only
the number of swaps is judged.
"""

from __future__ import annotations

from emu.arch import Msr, Vector
from emu.events import CCalled, Delivered, Event, GsSwapped, MsrWritten, Returned, SystemCall
from emu.lab.chain import CHANGED, REPEAT, USER, Entry, EntryChain, Return
from emu.lab.invariants.base import Invariant
from emu.lab.view import View

_LOADS_USER_GS = frozenset({"asm_load_gs_index", "native_load_gs_index", "load_gs_index", "gs_change", "bad_gs"})
"""Functions that swap out and in again to load a user's GS selector (bad selectors leave through gs_change)."""

_OF_ACCESSES = frozenset({Vector.PF, Vector.GP, Vector.SS, Vector.DF})


class GsNesting(Invariant):
    """GS_BASE and KERNEL_GS_BASE are where they belong."""

    name = "GS nesting"
    STATE = ("_user", "_swaps")
    _user: dict[int, int]
    """CPU -> the running task's user base; a CPU that is not here has not finished booting and is not judged."""
    _swaps: dict[int, dict[int, int]]
    """CPU -> entry -> SWAPGS it has executed."""

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        self._loads_gs = not _LOADS_USER_GS.isdisjoint(view.image.symbols)
        self._loading: dict[int, bool] = {}
        self._classic_iret = view.image.symbols.get("iret_label", 0) if view.classic else 0
        self.handlers = {
            SystemCall: self._system_call,
            Delivered: self._delivered,
            GsSwapped: self._swapped,
            MsrWritten: self._msr_written,
            CCalled: self._c_called,
            Returned: self._returned,
        }

    # --- from user mode ---------------------------------------------------------------------------------------------
    def _system_call(self, event: SystemCall) -> None:
        self._left_user_mode(event, event.gs_base, event.kernel_gs_base)

    def _delivered(self, event: Delivered) -> None:
        if event.frame.cs & 3:
            self._left_user_mode(event, event.gs_base, event.kernel_gs_base)
            return
        cpu, ip, percpu = event.cpu, event.frame.ip, self.view.percpu_base(event.cpu)
        if cpu not in self._user or event.gs_base == percpu:
            return
        if self._loads_gs and self._loads_user_gs(ip) and event.kernel_gs_base == percpu:
            self._user[cpu] = event.gs_base  # as the load has made it; the SWAPGS behind it is still to come
        if self.view.in_c(ip):
            # Not even its first instruction may have run: its page can be missing from the user's tables.
            self.violated(
                event,
                f"C function {self.view.symbol(ip)} is reached with GS_BASE {self._words(cpu, event.gs_base)}",
                ip=self.view.call_site_of_frame(event.frame),
            )
        elif event.vector in _OF_ACCESSES and not event.injected and "%gs:" in self.view.disassemble(ip):
            self.violated(
                event,
                f"the kernel's {self.view.disassemble(ip)} faults with GS_BASE {self._words(cpu, event.gs_base)}",
            )

    def _left_user_mode(self, event: Event, gs_base: int, kernel_gs_base: int) -> None:
        cpu = event.cpu
        self._swaps[cpu] = {}
        if kernel_gs_base == self.view.percpu_base(cpu):
            self._user[cpu] = gs_base
        elif cpu in self._user:
            self.violated(event, f"user mode ran with KERNEL_GS_BASE {self._words(cpu, kernel_gs_base)}")

    # --- changes in the kernel --------------------------------------------------------------------------------------
    def _swapped(self, event: GsSwapped) -> None:
        cpu = event.cpu
        user = self._user.get(cpu)
        if user is None:
            return
        percpu = self.view.percpu_base(cpu)
        gs_base, kernel_gs_base = event.gs_base, event.kernel_gs_base
        if self._loads_gs and self._loads_user_gs(event.ip):
            if kernel_gs_base == percpu:
                self._user[cpu] = gs_base
            return
        entry = self.chain.top(cpu)
        done = self._count_swap(cpu, entry)
        inwards, outwards = gs_base == user and kernel_gs_base == percpu, gs_base == percpu and kernel_gs_base == user
        if not inwards and not outwards:
            self.violated(
                event,
                f"SWAPGS exchanges GS_BASE {self._words(cpu, gs_base)} with KERNEL_GS_BASE "
                f"{self._words(cpu, kernel_gs_base)}; they must be the user's {user:#x} and this CPU's {percpu:#x}",
            )
        elif entry is not None and entry.event.gs_base == percpu != user:
            self.violated(event, "SWAPGS to the user's base in an entry that interrupted the kernel after its SWAPGS")
        elif entry is not None and done > (4 if self._on_the_way_by_espfix(event.ip) else 2):
            self.violated(event, f"SWAPGS number {done} of one entry: one in and one out are due")

    def _on_the_way_by_espfix(self, ip: int) -> bool:
        """The way back to a 16-bit stack writes to the per-CPU area once more, after the exit's SWAPGS."""
        return self.view.symbol(ip).partition("+")[0] == "native_irq_return_ldt"

    def _loads_user_gs(self, ip: int) -> bool:
        known = self._loading.get(ip)
        if known is None:
            known = self._loading[ip] = self.view.symbol(ip).partition("+")[0] in _LOADS_USER_GS
        return known

    def _faults_with_user_gs(self, ip: int) -> bool:
        return (self._loads_gs and self._loads_user_gs(ip)) or ip == self._classic_iret

    def _count_swap(self, cpu: int, entry: Entry | None) -> int:
        if entry is None:
            return 0
        counts = self._swaps.setdefault(cpu, {})
        done = counts[entry.serial] = counts.get(entry.serial, 0) + 1
        return done

    def _msr_written(self, event: MsrWritten) -> None:
        if event.number not in (Msr.GS_BASE, Msr.KERNEL_GS_BASE):
            return
        cpu, percpu = event.cpu, self.view.percpu_base(event.cpu)
        core = self.view.core(cpu).cpu
        booting = cpu not in self._user
        if event.number == Msr.GS_BASE:
            if booting and event.value == percpu:
                self._user[cpu] = core.kernel_gs_base
            elif not booting and event.value != percpu:
                self.violated(event, f"the kernel writes {self._words(cpu, event.value)} to GS_BASE")
        elif not booting:
            if core.gs_base == percpu:
                self._user[cpu] = event.value
            elif event.value != percpu:
                self.violated(event, f"with the user's GS live, {event.value:#x} is written to KERNEL_GS_BASE")

    def _c_called(self, event: CCalled) -> None:
        cpu, percpu = event.cpu, self.view.percpu_base(event.cpu)
        user = self._user.get(cpu)
        if user is None:
            if percpu and event.gs_base == percpu != event.kernel_gs_base:
                self._user[cpu] = event.kernel_gs_base
            return
        if event.gs_base != percpu:
            self.violated_by_call(
                event,
                f"C function {event.name} is called with GS_BASE {self._words(cpu, event.gs_base)}, "
                f"not with this CPU's per-CPU base {percpu:#x}",
            )
            return
        # __switch_to is on the next task's stack already, perhaps in an interrupt there, with the last one's base.
        expected = user if event.name == "__switch_to" else self._kernel_gs_base_in_c(cpu, user)
        if event.kernel_gs_base != expected:
            self.violated_by_call(
                event,
                f"C function {event.name} is called with KERNEL_GS_BASE {self._words(cpu, event.kernel_gs_base)}, "
                f"not with {self._words(cpu, expected)}",
            )

    def _kernel_gs_base_in_c(self, cpu: int, user: int) -> int:
        """The user's base; but a paranoid handler that replaced GS_BASE leaves KERNEL_GS_BASE as it was.

        Those have stacks of their own. Others that found the user's can only have swapped, maybe before their task lost
        the CPU to another.
        """
        entry = self.chain.top(cpu)
        if entry is None or entry.from_user or self._swaps.get(cpu, {}).get(entry.serial):
            return user
        if not entry.ist and entry.event.gs_base != self.view.percpu_base(cpu):
            return user
        return entry.event.kernel_gs_base

    # --- back -------------------------------------------------------------------------------------------------------
    def _returned(self, event: Returned) -> None:
        cpu = event.cpu
        user = self._user.get(cpu)
        back = self.chain.last_return
        if user is not None:
            if back.how is USER:
                self._check_return(event, user, self.view.percpu_base(cpu), back)
            elif back.entry is not None:
                bases = back.entry.event.gs_base, back.entry.event.kernel_gs_base
                if back.how is CHANGED and self._faults_with_user_gs(back.entry.ip):
                    # Its fixup is told to the exception table, and begins with the kernel's GS.
                    bases = self.view.percpu_base(cpu), user
                self._check_return(event, *bases, back)
        espfix = back.how is CHANGED and back.entry is not None and back.entry.vector == Vector.DF
        if back.how is USER or espfix:  # that goes on in the #GP's entry, as if user mode had just been left
            self._swaps[cpu] = {}
        elif back.entry is not None and cpu in self._swaps:
            # A repeated NMI handler starts again from the interrupted state.
            self._swaps[cpu].pop(back.entry.serial, None)

    def _check_return(self, event: Returned, gs_base: int, kernel_gs_base: int, back: Return) -> None:
        if event.gs_base == gs_base and event.kernel_gs_base == kernel_gs_base:
            return
        wrong = [
            f"{register} {self._words(event.cpu, value)} instead of {self._words(event.cpu, expected)}"
            for register, value, expected in (
                ("GS_BASE", event.gs_base, gs_base),
                ("KERNEL_GS_BASE", event.kernel_gs_base, kernel_gs_base),
            )
            if value != expected
        ]
        to, ended = "user mode", back.entry
        if back.how is not USER and back.entry is not None:
            to = f"the code that it interrupted ({self.view.where(back.entry.ip)})"
            ended = None if back.how is REPEAT else back.entry
        self.violated(event, f"{event.by.upper()} to {to} with {' and '.join(wrong)}", ended=ended)

    def _words(self, cpu: int, base: int) -> str:
        if base == self.view.percpu_base(cpu):
            return f"{base:#x} (this CPU's per-CPU base)"
        return f"{base:#x} (the user's base)" if base == self._user.get(cpu) else f"{base:#x}"
