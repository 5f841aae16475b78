"""Scenario + kernel image -> reports: one for each case, with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from shlex import join

from asm import AssemblyError, Image, assemble_untrusted
from emu.errors import ImageError, ProgramError, ScenarioError, UnknownSymbolError
from emu.lab.both_modes import check_both_modes
from emu.lab.injection import Injection, resolve
from emu.lab.judge import unmet, unmet_cells
from emu.lab.outcome import LONGEST_INSTRUCTION, Subject
from emu.lab.places import Places
from emu.lab.rig import Facts, Rig, Tracing
from emu.lab.scenario import Scenario, ScenarioFile
from emu.lab.violation import Violation
from emu.machine.schedule import Interleaving
from kernel_stubs.abi26 import LINUX_26, is_linux26
from kernel_stubs.binding import DEFAULT_KERNEL, registered
from kernel_stubs.boot import BootOptions
from kernel_stubs.exec import KERNEL_VSYSCALL, check_arguments, program_from_image
from kernel_stubs.holes import KERNEL as HOLES_KERNEL
from kernel_stubs.holes import hole_in
from kernel_stubs.kernel_image import Overrides, build_image
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES

USER_BASE = 0x400000
SYSCALL_CONSTANTS = {f"SYS_{name}": number for number, name in SYSCALL_NAMES.items()}
"""What a program in a scenario may call a system call."""
IA32_CONSTANTS = {f"SYS_{name}": number for number, name in IA32_SYSCALL_NAMES.items()} | {
    "__kernel_vsyscall": KERNEL_VSYSCALL
}
"""The same for 32-bit programs, and where their vDSO enters the kernel."""

_ALLOWED = {
    "crashed": frozenset({"oops", "double-fault"}),
    "shutdown": frozenset({"triple-fault", "double-fault"}),
    "halted": frozenset({"halt"}),
    "stuck": frozenset({"stuck", "double-fault"}),
    "budget": frozenset({"budget"}),
}
"""Expected end -> what the progress invariant is to let pass."""


@dataclass(frozen=True, slots=True)
class Report:
    """One case of a scenario: the facts, what of the expectations they do not meet, and the verdict."""

    name: str
    """The scenario file."""
    title: str
    shows: str
    case: str
    """The boundary, for a scenario with `each`; else empty."""
    facts: Facts
    violations: tuple[Violation, ...]
    """Those that the scenario does not expect."""
    unmet: tuple[str, ...]
    reproduce: str

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not self.violations and not self.unmet


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a scenario."""

    name: str
    injections: tuple[Injection, ...]


@dataclass(frozen=True)
class Prepared:
    """A scenario whose names are resolved and whose program is assembled: nothing of it can be wrong any more."""

    file: ScenarioFile
    options: BootOptions
    user: Image
    cases: tuple[Case, ...] = field(default=())
    subjects: tuple[Subject, ...] = ()
    """The instructions of the cells."""

    def case(self, name: str) -> Prepared:
        """This scenario with one of its cases only."""
        chosen = tuple(case for case in self.cases if case.name == name)
        if not chosen:
            known = ", ".join(case.name for case in self.cases[:8])
            raise ScenarioError(f"{self.file.name}: no case {name!r}; there are {known or 'none'} ...")
        return replace(self, cases=chosen)


def prepare(file: ScenarioFile, image: Image | None = None, own_sources: Overrides | None = None) -> Prepared:
    """Check everything that can be checked before the run.

    `image` replaces the kernel that the scenario names; `own_sources` is what to assemble it from.
    """
    scenario = file.scenario
    profile = scenario.cpu.profile_of_machine()
    if image is None:
        if own_sources is not None and scenario.kernel != HOLES_KERNEL and (hole := hole_in(own_sources)):
            raise ScenarioError(f"{file.where('kernel')}: {hole} is a hole of {HOLES_KERNEL}, not of {scenario.kernel}")
        try:
            image = build_image(scenario.kernel, profile, own_sources=own_sources)
        except ImageError as error:
            raise ScenarioError(f"{file.where('kernel')}: {error}") from None
    if scenario.options.init_thread and not is_linux26(image):
        where = file.where("options", "init_thread")
        raise ScenarioError(f"{where}: init_thread is for kernel = {LINUX_26!r}, which has kernel_execve")
    user = _assemble(file)
    ia32 = scenario.user.bits == 32
    if ia32:
        check_both_modes(user, file.where("user", "bits"))
    try:
        program = program_from_image(user, "user", ia32=ia32)
    except ProgramError as error:
        raise ScenarioError(f"{file.where('user', 'asm')}: {error}") from None
    argv = tuple(text.encode() for text in scenario.user.argv)
    try:
        check_arguments(argv, ())
    except ProgramError as error:
        raise ScenarioError(f"{file.where('user', 'argv')}: {error}") from None
    options = BootOptions(
        image=image,
        profile=profile,
        program=program,
        argv=argv,
        stdin=scenario.user.stdin.encode(),
        seed=scenario.seed,
        cpus=scenario.cpus,
        interleaving=Interleaving(scenario.schedule.quantum, scenario.schedule.seed),
        nmi_scratch=scenario.options.nmi_touches_memory,
        panic_on_oops=scenario.options.panic_on_oops,
        init_thread=scenario.options.init_thread,
        ram_bytes=scenario.options.ram << 20,
        timer_period=scenario.timer.period if scenario.timer else 0,
    )
    _check_function_names(file, image)
    places = Places(image, lambda: user)
    each = next((index for index, spec in enumerate(scenario.inject) if spec.each is not None), None)
    cases = []
    specs, cpus = scenario.inject, scenario.cpus
    for injections in resolve(specs, lambda index, key: file.where("inject", index, key), places, cpus):
        boundary = None if each is None else injections[each].boundary
        cases.append(Case(boundary.name if boundary else "", tuple(injections)))
    return Prepared(file, options, user, tuple(cases), tuple(_subjects(file, places, image, user)))


def _subjects(file: ScenarioFile, places: Places, image: Image, user: Image) -> Iterator[Subject]:
    """The instruction of each cell."""
    for index, cell in enumerate(file.scenario.cell):
        where = file.where("cell", index, "at")
        if cell.behind is not None:
            start, end = places.label(cell.at, where), places.label(cell.behind, file.where("cell", index, "behind"))
            if not 0 < end - start <= LONGEST_INSTRUCTION:
                raise ScenarioError(f"{where}: {cell.behind} is not the end of an instruction that begins at {cell.at}")
            yield Subject(start, end - start)
            continue
        address, *more = places.boundary(cell.at, where).addresses
        instruction = (user if cell.at.startswith("user:") else image).instruction_at(address)
        if more or instruction is None:
            raise ScenarioError(f"{where}: {cell.at} is not one instruction")
        yield Subject(address, instruction.size)


def _assemble(file: ScenarioFile) -> Image:
    user = file.scenario.user
    try:
        return _assembled(user.asm, file.name, file.lines.text(("user", "asm")), user.bits)
    except AssemblyError as error:
        raise ScenarioError(str(error)) from None


@lru_cache(maxsize=512)  # a program may be run on many images
def _assembled(text: str, name: str, first_line: int, bits: int) -> Image:
    constants = SYSCALL_CONSTANTS if bits == 64 else IA32_CONSTANTS
    return assemble_untrusted(text, name=name, base=USER_BASE, first_line=first_line, constants=constants)


def _check_function_names(file: ScenarioFile, image: Image) -> None:
    """A misspelt function in an expectation would be one that is never called."""
    from asm.errors import near_names

    expect, known = file.scenario.expect, registered(LINUX_26 if is_linux26(image) else DEFAULT_KERNEL)
    for key, names in (("calls", expect.calls), ("never", expect.never), ("count", tuple(expect.count))):
        for index, name in enumerate(names):
            if name not in known:
                where = file.where("expect", key, name if key == "count" else index)
                raise UnknownSymbolError(where, name, near_names(name, known))


def run_prepared(
    prepared: Prepared,
    command: str,
    watch: Callable[[str], Sequence[Tracing]] | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[Report]:
    """Run the cases one after the other.

    `command` is the file as the user gave it and `options` what else decides the run, both for the line that
    reproduces a case; `watch(case)` gives who else observes each.
    """
    scenario = prepared.file.scenario
    rig = Rig(prepared.options, prepared.user)
    for case in prepared.cases:
        reproduce = join(["entry64", "run", *options, command, *(["--case", case.name] if case.name else [])])
        facts = rig.run(
            case.injections,
            scenario.budget,
            reproduce,
            allowed=allowed_endings(scenario),
            watch=watch(case.name) if watch else (),
            subjects=prepared.subjects,
        )
        yield _report(prepared.file.name, scenario, case.name, facts, reproduce)


def allowed_endings(scenario: Scenario) -> frozenset[str]:
    """What the progress invariant is to let pass, for the end that a scenario expects."""
    return _ALLOWED.get(scenario.expect.end or "", frozenset())


def _report(name: str, scenario: Scenario, case: str, facts: Facts, reproduce: str) -> Report:
    known = scenario.expect.violation
    # What follows the violation that a scenario announces is its consequence.
    announced = known is not None and facts.violations[:1] and facts.violations[0].invariant == known
    unexpected = () if announced else facts.violations
    shortfalls = (*unmet(scenario.expect, facts), *unmet_cells(scenario.cell, facts.outcomes))
    return Report(name, scenario.title, scenario.shows.strip(), case, facts, unexpected, shortfalls, reproduce)


def run_scenario(file: ScenarioFile, image: Image | None = None) -> list[Report]:
    """All reports of a scenario."""
    return list(run_prepared(prepare(file, image), file.name))
