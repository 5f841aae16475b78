"""Whatever runs and whatever is injected, a run ends in a report: no exception, no hang."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lab_runs import inject, text

from asm import Image, Segment
from emu.lab.injection import SYSTEM_REGISTERS
from emu.lab.rig import Rig
from emu.lab.run import prepare, run_prepared
from emu.lab.scenario import parse_scenario
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions
from kernel_stubs.exec import program_from_image
from kernel_stubs.kernel_image import build_image

IMAGE = build_image("linux-6", Profile())
CODE = [i.address for i in IMAGE.instructions() if (s := IMAGE.segment_at(i.address)) and s.name == ".entry.text"]
ENDS = {"finished", "halted", "crashed", "shutdown", "stuck", "budget"}


@pytest.mark.parametrize("group", range(10))
def test_random_bytes_as_a_program_end_in_a_report(group: int) -> None:
    for seed in range(group * 50, group * 50 + 50):
        dice = random.Random(seed)
        code = dice.randbytes(dice.randrange(1, 400))
        program = program_from_image(Image(segments=[Segment(".text", 0x400000, code, "rwx")], symbols={}), "random")
        options = BootOptions(image=IMAGE, profile=Profile(), program=program, argv=(b"random",))
        facts = Rig(options).run([], 100_000, "")
        broken = {violation.invariant for violation in facts.violations}
        assert (facts.end, broken) in (("finished", set()), ("budget", {"progress"})), (seed, facts)


_ODD_VALUES = (0, 1, 8, 0x10, 0x33, 0x100, 0x7FFF_FFFF_FFFF, 0x8000_0000_0000, -1)
_VALUE = st.sampled_from(_ODD_VALUES) | st.integers(0, (1 << 64) - 1)
_REGISTER = st.sampled_from(("rax", "rcx", "rsp", "rdi", "r11", "rip", "rflags", *SYSTEM_REGISTERS))
_STATE = """
    tss:sp0 tss:sp2 tss:ist1 tss:ist2 tss:ist4 idt:2 idt:8 idt:14 percpu:current_task percpu:top_of_stack
    percpu:this_cpu_off percpu:hardirq_stack_ptr task:mm task:files task:thread_info task:pending regs:ip regs:cs
    regs:flags regs:sp regs:ss stack:nmi entry_SYSCALL_64 idt_table __per_cpu_offset user:_start
"""
_ADDRESS = st.sampled_from(_STATE.split())
_EVENT = st.one_of(
    st.sampled_from([{"event": name} for name in ("nmi", "machine-check", "timer")]),
    st.builds(lambda v: {"event": "irq", "vector": v}, st.integers(16, 255)),
    st.builds(
        lambda v, e: {"event": "exception", "vector": v, "error_code": e}, st.integers(0, 31), st.integers(0, 999)
    ),
    st.builds(lambda a: {"event": "page-not-present", "address": a}, _ADDRESS),
    st.builds(lambda r, v: {"event": "register", "register": r, "value": v}, _REGISTER, _VALUE),
    st.builds(lambda a, v: {"event": "memory", "address": a, "value": v}, _ADDRESS, _VALUE),
    st.builds(lambda s: {"event": "signal", "signal": s}, st.integers(1, 64)),
)
_PLACE = st.one_of(
    st.sampled_from(CODE).map(lambda address: {"at": f"{address:#x}"}),
    st.sampled_from(["user:after", "do_syscall_64", "entry_SYSCALL_64", "exc_page_fault", "error_entry"]).map(
        lambda name: {"at": name}
    ),
    st.integers(5000, 5300).map(lambda count: {"instruction": count}),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([inject(event="memory", address="__per_cpu_offset", value=0, instruction=5124)])
@example([inject(event="memory", address="__per_cpu_offset", value=0x7FFF_FFFF_FFFF, instruction=5124)])
@example([inject(event="memory", address="percpu:current_task", value=0x7FFF_FFFF_FFFF, instruction=5124)])
@given(st.lists(st.builds(lambda event, place: inject(**event, **place), _EVENT, _PLACE), min_size=1, max_size=3))
def test_any_injections_end_in_a_report(injections: list[str]) -> None:
    file = parse_scenario("budget = 20000\n" + text("".join(injections)), "s.toml")
    (report,) = run_prepared(prepare(file), "s.toml")
    assert report.facts.end in ENDS
    assert report.facts.clock <= 20_000


def test_an_endless_storm_of_interrupts_ends_the_run() -> None:
    file = parse_scenario("budget = 100000\n" + text("[timer]\nperiod = 1\n"), "s.toml")
    (report,) = run_prepared(prepare(file), "s.toml")
    assert report.facts.text.startswith("endless loop: ")
    assert report.violations[0].invariant == "progress"
