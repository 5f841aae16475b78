"""A broken invariant, with everything that a reader needs to find out why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PER_LINE = 4


@dataclass(frozen=True)
class Violation:
    """`ip` is the instruction where the wrong state became certain, `chain` the entries on the way, outermost first.

    `where` names it in words, `registers` are the CPU's at that moment, `reproduce` is a shell command.
    """

    invariant: str
    message: str
    ip: int
    where: str
    clock: int
    cpu: int
    chain: tuple[str, ...]
    registers: Mapping[str, int]
    reproduce: str

    def lines(self) -> list[str]:
        """The explanation, for people."""
        text = [
            f"{self.invariant}: {self.message}",
            f"  at {self.where} [{self.ip:#x}], CPU {self.cpu}, after {self.clock} instructions",
        ]
        if self.chain:
            text.append("  entered by")
            text += [f"    {'  ' * depth}{entry}" for depth, entry in enumerate(self.chain)]
        if self.registers:
            text.append("  registers")
            cells = [f"{name:>14} {value:016x}" for name, value in self.registers.items()]
            text += ["  " + " ".join(cells[at : at + _PER_LINE]) for at in range(0, len(cells), _PER_LINE)]
        if self.reproduce:
            text.append(f"  reproduce: {self.reproduce}")
        return text

    def as_dict(self) -> dict[str, object]:
        """For JSON; addresses and registers as hexadecimal text."""
        return {
            "invariant": self.invariant,
            "message": self.message,
            "ip": f"{self.ip:#x}",
            "where": self.where,
            "clock": self.clock,
            "cpu": self.cpu,
            "chain": list(self.chain),
            "registers": {name: f"{value:#x}" for name, value in self.registers.items()},
            "reproduce": self.reproduce,
        }
