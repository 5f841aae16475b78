"""Sending interrupts to other CPUs through the local APIC (arch/x86/kernel/apic/ipi.c)."""

from __future__ import annotations

from emu.machine.apic import ICR_HIGH, ICR_LOW, Delivery
from kernel_stubs.context import Cpu

_ASSERT = 1 << 14


def send_ipi(cpu: Cpu, number: int, vector: int, delivery: Delivery = Delivery.FIXED) -> None:
    """To one CPU; APIC ids are CPU numbers."""
    command = vector | delivery << 8 | _ASSERT
    if cpu.core.apic.x2apic:
        cpu.core.write_apic(ICR_LOW, number << 32 | command)
        return
    cpu.core.write_apic(ICR_HIGH, number << 24)
    cpu.core.write_apic(ICR_LOW, command)
