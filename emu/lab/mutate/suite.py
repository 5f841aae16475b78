"""The regression that every mutant runs: small scenarios, short sweeps, and the shipped scenarios of its kernel.

What a check expects is what the unbroken image does: the same end, exit, output, C calls and returns, and no violation;
a shipped scenario may announce one. A mutant runs only what executes an instruction that it changes; by
determinism, nothing else can differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from asm import Image
from emu.errors import Entry64Error
from emu.lab.mutate import linux6, linux26
from emu.lab.mutate.check import Check
from emu.lab.rig import Facts, Tracing
from emu.lab.run import Report, prepare, run_prepared
from emu.lab.scenario import ScenarioFile, parse_scenario
from emu.lab.shipped import find_scenario, shipped_names
from emu.lab.sweep.case import VERDICTS
from emu.lab.sweep.scene import Options, Scene
from emu.machine.profile import Profile
from kernel_stubs.abi26 import LINUX_26


@dataclass(frozen=True, slots=True)
class Killed:
    """What noticed a mutant."""

    check: str
    by: str
    """The invariant, or `outcome` if what the program or the C side sees is different."""
    message: str


def checks(kernel: str, profile: Profile, own: tuple[ScenarioFile, ...] = ()) -> tuple[Check, ...]:
    """The suite for one build of an image; `own` are further scenarios."""
    if kernel == LINUX_26:
        small = linux26.checks()
    else:
        small = linux6.checks(fsgsbase=profile.fsgsbase)
    shipped = [file for name in shipped_names() if _belongs(file := find_scenario(name), kernel, profile)]
    mine = [file for file in own if _belongs(file, kernel, profile)]
    return (*small, *(Check(file.name, file.text, shipped=True) for file in (*shipped, *mine)))


def _belongs(file: ScenarioFile, kernel: str, profile: Profile) -> bool:
    """Whether a scenario runs on this build of this kernel."""
    scenario = file.scenario
    machine = scenario.cpu.profile_of_machine()
    return (
        scenario.kernel == kernel
        and replace(machine, vendor=profile.vendor, smep=profile.smep, umip=profile.umip) == profile
    )


# --- running ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mutant must not change."""

    end: tuple[object, ...]
    """Not even if it executes more instructions."""
    way: tuple[object, ...]
    complaints: tuple[tuple[str, str], ...]
    """(invariant, message and place): of a known hole, always the same."""


def outcome(facts: Facts) -> Outcome:
    """Of one run."""
    text = facts.text if facts.end == "crashed" else ""
    return Outcome(
        (facts.end, facts.exit_code, facts.signal, facts.output),
        (facts.calls, facts.returns, facts.faults, facts.missed, text),
        tuple((one.invariant, f"{one.message} at {one.where}") for one in facts.violations),
    )


def reports(check: Check, image: Image, watch: tuple[Tracing, ...] = ()) -> Iterator[Report]:
    """A check that is no sweep, run on an image: one report for each of its cases."""
    prepared = prepare(parse_scenario(check.text, check.name), image)
    return run_prepared(prepared, check.name, lambda _case: watch)


def judge(check: Check, image: Image, wanted: tuple[Outcome, ...], *, longer: bool = False) -> Killed | None:
    """Run a check on a mutant; `wanted` are the outcomes of its cases on the unbroken image.

    `longer`: the mutant executes more instructions, so events that come by the clock may come elsewhere.
    """
    try:
        if check.events:
            return _judge_sweep(check, image)
        for number, report in enumerate(reports(check, image)):
            killed = _judge_report(check, report, wanted[number : number + 1], longer)
            if killed is not None:
                return killed
    except Entry64Error as error:
        return Killed(check.name, "image", str(error))
    return None


def _judge_report(check: Check, report: Report, wanted: tuple[Outcome, ...], longer: bool) -> Killed | None:
    facts, name = report.facts, f"{check.name} {report.case}".strip()
    found = outcome(facts)
    if report.violations or (facts.violations and not check.shipped):
        return Killed(name, *found.complaints[0])
    if check.shipped and report.unmet:
        return Killed(name, "outcome", "; ".join(report.unmet))
    for before in wanted:
        if found.complaints != before.complaints and not longer:
            more = [one for one in found.complaints if one not in before.complaints]
            return Killed(name, *(more or found.complaints or before.complaints)[0])
        if found.end != before.end or (found.way != before.way and not longer):
            return Killed(name, "outcome", f"{facts.end} {facts.text} at {facts.where}")
    return None


def _judge_sweep(check: Check, image: Image) -> Killed | None:
    scene = Scene(check.name, check.text, Options(check.events, check.depth, check.window, image=image))
    for unit in scene.units(0):
        for case in scene.cases(unit):
            if case.verdict not in VERDICTS[:2]:
                found = case.violation
                words = f"{found.message} at {found.where}" if found else case.verdict
                return Killed(f"{check.name}: {case.key}", found.invariant if found else "sweep", words)
    return None
