"""C programs that trace or step themselves: compiled here, run by the host's kernel and by both of ours, judged."""

import pytest
from c_programs import HAS_GCC, compiled, has_m32
from programs import native

from emu.lab.invariants import Judge
from emu.lab.view import View
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions, boot
from kernel_stubs.elf import load_elf
from kernel_stubs.kernel_image import build_image

BUDGET = 100_000_000
"""Idle time is cheap."""
BOOTED = 10_000
"""Instructions after which there is an IDT."""
MANY = 100
"""NMIs that a run must have had for it to show anything."""

pytestmark = pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")


def outcome(path, *arguments, kernel="linux-6", vendor="intel", nmi_every=0, **options):
    """(how it ended, standard output) under our kernel, with all invariants on."""
    program = load_elf(path.read_bytes(), path.name, ia32=True)
    profile = Profile(vendor)
    argv = (b"program", *(text.encode() for text in arguments))
    system = boot(BootOptions(build_image(kernel, profile), profile, program, argv=argv, ram_bytes=64 << 20, **options))
    machine = system.machine
    judge = Judge(View(system, None, program.symbols), "", frozenset())
    machine.observers.append(judge)
    nmis = 0
    limit = BOOTED if nmi_every else BUDGET
    while True:
        _, end = machine.advance(limit)
        if end.kind is not EndKind.LIMIT or limit >= BUDGET:
            break
        limit += nmi_every
        if not machine.cores[0].nmi_blocked:  # its handler is longer than that: one after the other, nothing else runs
            machine.cores[0].raise_nmi()
            nmis += 1
    assert nmis > MANY or not nmi_every
    found = judge.finish(end)
    assert not found, "\n".join(found[0].lines())
    output = b"".join(data for descriptor, data in system.kernel.output if descriptor == 1)
    return end.text, output.decode().splitlines()


@pytest.mark.parametrize("kernel", ["linux-6", "linux-2.6"])
def test_a_tracer_sees_what_it_sees_natively(kernel):
    path = compiled("tracer")
    assert outcome(path, kernel=kernel) == native(path)


@pytest.mark.parametrize("kernel", ["linux-6", "linux-2.6"])
def test_a_process_that_has_stopped_stops_again_when_its_tracer_goes(kernel):
    path = compiled("tracer")
    assert outcome(path, "group_stop", kernel=kernel) == native(path, "group_stop")


def test_a_32_bit_tracer_sees_what_it_sees_natively():
    if not has_m32():
        pytest.skip("gcc -m32 -static does not work here")
    path = compiled("tracer", "-m32", "-DNO_SIGNALS")
    assert outcome(path) == native(path)


@pytest.mark.parametrize("kernel", ["linux-6", "linux-2.6"])
def test_nmis_change_nothing_for_a_tracer(kernel):
    path = compiled("tracer")
    assert outcome(path, "watchpoint", kernel=kernel, nmi_every=97) == native(path, "watchpoint")


@pytest.mark.parametrize(("kernel", "cpus"), [("linux-6", 2), ("linux-2.6", 1)])
def test_a_busy_timer_changes_nothing_for_a_tracer(kernel, cpus):
    path = compiled("tracer")
    assert outcome(path, kernel=kernel, cpus=cpus, timer_period=211) == native(path)


FAST_CALLS = {"intel": "vDSO:0f34", "amd": "vDSO:0f05"}
"""What the vDSO enters the kernel by: SYSENTER, SYSCALL."""


def any_vendors(result):
    """The same, whichever of the two it was."""
    text, lines = result
    return text, [line.replace(FAST_CALLS["intel"], FAST_CALLS["amd"]) for line in lines]


@pytest.mark.parametrize("vendor", FAST_CALLS)
def test_a_32_bit_program_that_steps_itself_traps_where_it_does_natively(vendor):
    if not has_m32():
        pytest.skip("gcc -m32 -static does not work here")
    path = compiled("step32", "-m32")
    ours = outcome(path, vendor=vendor)
    assert sum(FAST_CALLS[vendor] in line for line in ours[1]) == 2
    assert any_vendors(ours) == any_vendors(native(path))


def test_a_64_bit_program_that_steps_itself_traps_where_it_does_natively():
    path = compiled("step")
    assert outcome(path) == native(path)


def test_in_linux_26_a_step_over_syscall_traps_at_once():
    """SYSRETQ that sets TF traps before the next instruction, IRETQ, which today's kernels take then, behind it."""
    path = compiled("step")
    text, lines = native(path)
    replaced = {
        "syscall: 6 traps, others 0, at 5 8": "syscall: 7 traps, others 0, at 5 7 8",
        "bad syscall: 5 traps, others 0, at 5 8": "bad syscall: 6 traps, others 0, at 5 7 8",
    }
    expected = []
    for line in lines:
        head = next((head for head in replaced if line.startswith(head)), "")
        expected.append(replaced.get(head, "") + line[len(head) :])
    assert sum(line != other for line, other in zip(lines, expected, strict=True)) == len(replaced)
    assert outcome(path, kernel="linux-2.6") == (text, expected)


def test_tf_that_is_lost_at_the_first_instructions_of_sysenter_is_noticed(monkeypatch):
    if not has_m32():
        pytest.skip("gcc -m32 -static does not work here")
    path = compiled("step32", "-m32")
    monkeypatch.setattr("kernel_stubs.debug._is_sysenter_singlestep", lambda _cpu, _regs: False)
    with pytest.raises(AssertionError, match=r"do_SYSENTER_32 gets pt_regs .* flags is 0x2, was 0x102"):
        outcome(path)


@pytest.mark.parametrize("kernel", ["linux-6", "linux-2.6"])
def test_stops_and_deaths_are_told_as_natively(kernel):
    path = compiled("jobs")
    assert outcome(path, kernel=kernel) == native(path)


def test_stops_and_deaths_are_told_on_two_cpus_with_a_busy_timer():
    path = compiled("jobs")
    assert outcome(path, cpus=2, timer_period=211) == native(path)


NT = "0x4000"
"""linux-2.6, as it was, lets user mode's NT into the kernel, where IRETQ faults on it: a violation of its own."""


@pytest.mark.parametrize(
    ("kernel", "seed", "kept_from"), [("linux-6", 1, ()), ("linux-6", 6, ()), ("linux-2.6", 1, (NT,))]
)
def test_whatever_a_tracer_does_to_a_task_the_kernel_is_sound(kernel, seed, kept_from):
    assert outcome(compiled("tracefuzz"), str(seed), "12", *kept_from, kernel=kernel)[0] == "exited with status 0"
