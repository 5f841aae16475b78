"""The chain of entries, followed through made-up events."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from emu.events import CCalled, Delivered, EventType, Frame, Returned, SystemCall
from emu.lab.chain import Closing, EntryChain, vector_name

REPEAT = 0xFFFF_FFFF_8100_0800
USER = Frame(0x400007, 0x33, 0x202, 0x7FFF_0000, 0x2B)
GAP = Frame(0xFFFF_FFFF_8100_0000, 0x10, 2, 0x7FFF_0000, 0x18)
HANDLER = Frame(0xFFFF_FFFF_8100_1234, 0x10, 2, 0xFFFF_FE00_0000_AF00, 0x18)
OUTERMOST = Frame(REPEAT, 0x10, 2, 0xFFFF_FE00_0000_AF80, 0x18)


@pytest.fixture
def chain() -> EntryChain:
    view = SimpleNamespace(
        image=SimpleNamespace(symbols={"repeat_nmi": REPEAT}),
        cr3=lambda cpu: 0x1000,
        raw_registers=lambda cpu: bytes(128),
        where=lambda address: f"{address:#x}",
    )
    return EntryChain(view)  # type: ignore[arg-type]


def syscall(cpu: int = 0) -> SystemCall:
    return SystemCall(1, cpu, 0x400005, 39, 0x400007, 0x202, 0x7FFF_0000, GAP.ip, 0, 0)


def event(frame: Frame, vector: int = 2, kind: EventType = EventType.NMI, code: int | None = None) -> Delivered:
    return Delivered(2, 0, frame.ip, vector, kind, code, frame, 0, 0, 0, 0, 0, 0x5000)


def back(frame: Frame, by: str = "iretq") -> Returned:
    return Returned(3, 0, 0, by, frame, 0, 0, 0, 0)


def follow(chain: EntryChain, *events: object) -> EntryChain:
    for one in events:
        chain(one)  # type: ignore[arg-type]
    return chain


def test_describe_lists_outermost_first(chain: EntryChain) -> None:
    follow(chain, syscall(), event(GAP))
    assert chain.describe(0) == ("SYSCALL 39 (getpid) from user 0x400005", f"NMI at {GAP.ip:#x}")


def test_describe_shows_what_a_page_fault_was_about(chain: EntryChain) -> None:
    follow(chain, event(USER, 14, EventType.HWEXC, 0x14))
    assert chain.describe(0) == ("#PF (error 0x14, CR2 0x5000) in user mode at 0x400007",)


def test_return_ends_the_entry_whose_frame_it_restores(chain: EntryChain) -> None:
    follow(chain, syscall(), event(GAP), event(HANDLER, 14, EventType.HWEXC, 0), back(HANDLER))
    assert chain.last_return.how is Closing.MATCH
    assert len(chain.stack(0)) == 2


def test_return_to_user_mode_ends_everything(chain: EntryChain) -> None:
    follow(chain, syscall(), event(GAP), back(Frame(0x999, 0x33, 0x202, 0, 0x2B), "sysretq"))
    assert (chain.last_return.how, chain.stack(0)) == (Closing.USER, ())


def test_nested_nmi_makes_the_first_go_on(chain: EntryChain) -> None:
    follow(chain, syscall(), event(GAP), event(HANDLER), back(HANDLER), back(OUTERMOST))
    assert chain.last_return.how is Closing.REPEAT
    follow(chain, back(GAP))
    assert chain.last_return.how is Closing.MATCH
    assert len(chain.stack(0)) == 1


def test_fixup_ends_the_innermost_entry(chain: EntryChain) -> None:
    elsewhere = Frame(HANDLER.ip + 0x40, 0x10, 2, HANDLER.sp, 0x18)
    follow(chain, syscall(), event(HANDLER, 14, EventType.HWEXC, 0), back(elsewhere))
    assert (chain.last_return.how, len(chain.stack(0))) == (Closing.CHANGED, 1)


def test_first_return_after_boot_ends_nothing(chain: EntryChain) -> None:
    assert follow(chain, back(USER)).last_return.entry is None


def test_entry_from_user_mode_forgets_what_never_returned(chain: EntryChain) -> None:
    follow(chain, syscall(), event(GAP), syscall())
    assert len(chain.stack(0)) == 1


def test_cpus_have_chains_of_their_own(chain: EntryChain) -> None:
    follow(chain, syscall(0), syscall(1), back(USER))
    assert (len(chain.stack(0)), len(chain.stack(1))) == (0, 1)


def test_task_switch_takes_the_chain_along(chain: EntryChain) -> None:
    def switch(before: int, after: int) -> CCalled:
        return CCalled(4, 0, 0, "__switch_to", (before, after), 0, 0, 0, 2, 0, 0, 0)

    follow(chain, syscall(), switch(0xA, 0xB))
    assert chain.stack(0) == ()
    follow(chain, syscall(), back(USER), switch(0xB, 0xA))
    assert len(chain.stack(0)) == 1


def test_an_event_counts_once(chain: EntryChain) -> None:
    one = event(GAP)
    follow(chain, syscall(), one, one)
    assert len(chain.stack(0)) == 2


def test_saved_state_comes_back(chain: EntryChain) -> None:
    state = follow(chain, syscall(), event(GAP)).save()
    follow(chain, back(GAP), back(USER)).load(state)
    assert len(chain.stack(0)) == 2


@pytest.mark.parametrize(
    ("vector", "kind", "name"),
    [
        (2, EventType.NMI, "NMI"),
        (14, EventType.HWEXC, "#PF"),
        (0x30, EventType.EXTINT, "interrupt 0x30"),
        (0x80, EventType.SWINT, "INT 0x80"),
        (3, EventType.SWEXC, "#BP"),
        (27, EventType.HWEXC, "vector 0x1b"),
    ],
)
def test_vector_names(vector: int, kind: EventType, name: str) -> None:
    assert vector_name(vector, kind) == name
