"""A network card: its path through the kernel is interrupt, NET_RX softirq, reader or SIGIO (net/core/dev.c).

Each interrupt on its vector stands for a packet. `/dev/net` reads them, one a read(2); with O_ASYNC and F_SETOWN the
owner gets SIGIO for each, on its next way to user mode.
"""

from __future__ import annotations

from contextlib import suppress

from kernel_stubs import irq, mm
from kernel_stubs.abi import WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.irq import irq_handler
from kernel_stubs.pipe import POLL_CHANNEL
from kernel_stubs.sched import all_tasks, sleep_on, wake_up
from kernel_stubs.siginfo import SI_KERNEL, Sig, Siginfo
from kernel_stubs.signal import send_signal
from kernel_stubs.softirq import Softirq, open_softirq, raise_softirq, softirq_action

NET_VECTOR = 0x35
READ_CHANNEL = 10


def net_open(kernel: Kernel) -> None:
    """The first open file brings the card up."""
    open_softirq(kernel, Softirq.NET_RX, "net_rx_action")
    if not any(irq.irq_desc(kernel, NET_VECTOR).actions):
        irq.request_irq(kernel, NET_VECTOR, "net_interrupt")


@irq_handler
def net_interrupt(cpu: Cpu, vector: int) -> bool:
    """A packet came: that is all that is done with interrupts off."""
    mm.kernel_data(cpu.memory).net_ring += 1
    raise_softirq(cpu, Softirq.NET_RX)
    return True


@softirq_action
def net_rx_action(cpu: Cpu) -> None:
    """NET_RX_SOFTIRQ: packets go from the card to whoever wants them."""
    data = mm.kernel_data(cpu.memory)
    data.net_queue, data.net_ring = data.net_queue + data.net_ring, 0
    wake_up(cpu, READ_CHANNEL)
    wake_up(cpu, POLL_CHANNEL)
    if data.net_async and data.net_owner:
        for _, task in all_tasks(cpu.kernel):
            if task.pid == data.net_owner:
                with suppress(SyscallError):  # no room for its siginfo
                    send_signal(cpu, task, Siginfo(Sig.SIGIO, SI_KERNEL))


def net_read(cpu: Cpu, length: int, *, wait: bool) -> Steps:
    """Wait for a packet: how many bytes of it fit."""
    data = mm.kernel_data(cpu.memory)
    while not data.net_queue:
        if not wait:
            raise SyscallError(Errno.EAGAIN)
        if (yield from sleep_on(cpu, READ_CHANNEL)) == WaitResult.SIGNAL:
            raise SyscallError(Restart.ERESTARTSYS)
    return min(length, len(packet(cpu)))


def packet(cpu: Cpu) -> bytes:
    """The content of the packet that is next."""
    return f"packet {mm.kernel_data(cpu.memory).net_read + 1}\n".encode()


def consume(cpu: Cpu) -> None:
    """It has been read."""
    data = mm.kernel_data(cpu.memory)
    data.net_queue -= 1
    data.net_read += 1
