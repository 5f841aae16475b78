"""Several CPUs: turns, shared memory, IPIs, start-up, and the same run every time."""

import pytest
from bare import CODE, HANDLERS, IDT, KERNEL, bare, gate, prepare

from emu.events import Delivered, Executed
from emu.machine.apic import Delivery
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from emu.machine.recorder import Recorder
from emu.machine.schedule import Interleaving

COUNTERS = 0x15_0000
SCRATCH = KERNEL + COUNTERS

# Both CPUs switch to x2APIC. Then CPU 0 sends an IPI and waits for the answer, which CPU 1 sends when it has come in:
# never two on the way to the same CPU, for the APIC would merge them. ROUNDS times.
PING = f"""
    movl    %edi, %r15d                 # this CPU's number
    movl    $0x1b, %ecx
    rdmsr
    orl     $0x400, %eax
    wrmsr
    movabsq ${SCRATCH}, %rbx
    leaq    (%rbx,%r15,8), %r14         # this CPU's counter
    xorl    %r13d, %r13d                # rounds
    sti
    testl   %r15d, %r15d
    jnz     answer
ask:
    incq    %r13
    call    send
    call    wait
    cmpq    $ROUNDS, %r13
    jb      ask
    jmp     done
answer:
    incq    %r13
    call    wait
    call    send
    cmpq    $ROUNDS, %r13
    jb      answer
done:
    cli
    hlt
send:
    movl    %r15d, %edx
    xorl    $1, %edx
    movl    $0x4050, %eax
    movl    $0x830, %ecx
    wrmsr
    ret
wait:
    cmpq    %r13, (%r14)
    jb      wait
    ret
handler:
    pushq   %rax
    pushq   %rcx
    pushq   %rdx
    incq    (%r14)
    movl    $0x80b, %ecx
    xorl    %eax, %eax
    xorl    %edx, %edx
    wrmsr
    popq    %rdx
    popq    %rcx
    popq    %rax
    iretq
"""


def ping(rounds, interleaving=None):
    it = bare(PING.replace("ROUNDS", str(rounds)), cpus=2, interleaving=interleaving)
    it.machine.memory.write(IDT + 16 * 0x50, gate(it.code.symbol("handler")))
    prepare(it.machine.cores[1], CODE, Profile())
    return it


def counters(it):
    return [it.machine.memory.read_u64(COUNTERS + 8 * n) for n in range(2)]


def test_two_cpus_exchange_ten_thousand_ipis_and_lose_none():
    it = ping(5_000)
    _, end = it.machine.advance(50_000_000)
    assert end.kind is EndKind.HALTED
    assert counters(it) == [5_000, 5_000]
    assert len(it.of(Delivered)) == 10_000


def trace(seed):
    it = ping(40, Interleaving(50, seed))
    for core in it.machine.cores:
        core.record(Recorder(core.index, core.cpu, core.emit, moves=frozenset(), registers=True))
    it.machine.advance(200_000)
    assert counters(it) == [40, 40]
    return it.events


def test_the_same_seed_gives_the_same_trace_and_another_seed_another():
    first, again, other = trace(1), trace(1), trace(2)
    assert first == again
    assert first != other
    assert any(isinstance(event, Executed) for event in first)


def test_limits_do_not_change_the_interleaving():
    whole, pieces = ping(100, Interleaving(37, 5)), ping(100, Interleaving(37, 5))
    whole.machine.advance(40_000)
    for limit in (*range(1_000, 40_000, 777), 40_000):
        pieces.machine.advance(limit)
    assert whole.of(Delivered) == pieces.of(Delivered)
    assert len(whole.of(Delivered)) > 100


def test_a_snapshot_in_the_middle_of_a_turn_continues_alike():
    it = ping(200, Interleaving(100, 3))
    it.machine.advance(5_000)
    saved = it.machine.snapshot()
    it.events.clear()
    it.machine.advance(20_000)
    first = list(it.events)
    it.machine.restore(saved)
    it.events.clear()
    it.machine.advance(20_000)
    assert it.events == first


def test_without_a_seed_cpus_take_turns_in_order_of_their_numbers():
    it = bare("1: jmp 1b", cpus=2, interleaving=Interleaving(10))
    prepare(it.machine.cores[1], CODE, Profile())
    it.machine.advance(25)
    assert [core.clock for core in it.machine.cores] == [25, 20]


def test_a_cpu_waits_for_init_and_startup_and_the_vector_reaches_the_starter():
    it = bare("1: jmp 1b", cpus=3)
    started = []
    it.machine.startup = lambda core, vector: started.append((core.index, vector))
    target = it.machine.cores[2]
    assert target.waits_for_startup
    it.machine.interrupt(target, Delivery.INIT, 0, level=True)
    it.machine.interrupt(target, Delivery.STARTUP, 0x98)
    it.machine.interrupt(target, Delivery.STARTUP, 0x99)  # it runs already
    assert started == [(2, 0x98)]


def test_init_stops_a_running_cpu():
    it = ping(10_000)
    it.machine.advance(3_000)
    it.machine.interrupt(it.machine.cores[1], Delivery.INIT, 0, level=True)
    before = it.machine.cores[1].cpu.ip
    it.machine.advance(6_000)
    assert it.machine.cores[1].cpu.ip == before


def test_an_nmi_ipi_reaches_the_other_cpu_only():
    it = bare("1: jmp 1b", cpus=2, interleaving=Interleaving(10))
    prepare(it.machine.cores[1], CODE, Profile())
    core = it.machine.cores[0]
    core.apic.x2apic = it.machine.cores[1].apic.x2apic = True
    core.write_apic(0x300, 1 << 32 | 0x4400)
    it.machine.advance(40)
    (event,) = it.of(Delivered)
    assert (event.cpu, event.vector, event.handler) == (1, 2, HANDLERS + 32)


def test_lowest_priority_goes_to_the_cpu_that_is_least_busy():
    it = bare("1: jmp 1b", cpus=3)
    for core, tpr in zip(it.machine.cores, (0x50, 0x20, 0x20), strict=True):
        core.apic.tpr = tpr
        core.apic.logical_id = 1 << 24 + core.index
    assert [c.index for c in it.machine.addressed(0x07, logical=True, lowest=True)] == [1]


@pytest.mark.parametrize("cpus", [1, 2])
def test_all_cpus_halted_for_good_ends_the_run(cpus):
    it = bare("cli\n hlt", cpus=cpus)
    if cpus == 2:
        prepare(it.machine.cores[1], CODE, Profile())
    assert it.machine.advance(1_000_000)[1].kind is EndKind.HALTED
