"""The regression that every mutant runs: small scenarios that between them execute all of the entry code, and sweeps.

What a check expects is what the unbroken image does: the same end, exit, output, C calls and returns, and no violation.
A mutant runs only the checks that execute an instruction which it changes; by determinism, others cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asm import Image
from emu.arch import Vector
from emu.errors import Entry64Error
from emu.lab.mutate import rare
from emu.lab.rig import Facts, Rig, Trace
from emu.lab.run import allowed_endings, prepare
from emu.lab.scenario import ScenarioFile, parse_scenario
from emu.lab.shipped import find_scenario
from emu.lab.sweep.case import VERDICTS
from emu.lab.sweep.scene import Options, Scene
from kernel_stubs.abi import CpuEntryArea, SystemVector, cpu_entry_area

OTHER_CPU = 7_000
"""When the second CPU has nothing to do, and the first runs the program."""
CLEAR_VALUES = 0x1357_9BDF_0246_8ACE
"""Registers of the program hold this plus their number: values that nothing else has; and AC and DF are set."""
_REGISTERS = ("rbx", "rbp", "rdi", "rsi", "rdx", "r8", "r9", "r10", "r12", "r13", "r14", "r15")
_FLAGS = "    pushfq\n    orq $0x40400, (%rsp)\n    popfq\n"
_SET = _FLAGS + "".join(f"    movabsq ${CLEAR_VALUES + n:#x}, %{name}\n" for n, name in enumerate(_REGISTERS))
_CHECK = "".join(
    f"    movabsq ${CLEAR_VALUES + n:#x}, %rcx\n    cmpq %rcx, %{name}\n    jne bad\n"
    for n, name in enumerate(_REGISTERS)
)
_EXIT = """
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
bad:
    movl    $1, %edi
    movl    $SYS_exit_group, %eax
    syscall
"""
GETPID = f"_start:\n{_SET}    movl $SYS_getpid, %eax\n    syscall\nhere:\n{_CHECK}{_EXIT}"
_INT80 = (
    f"_start:\n{_SET}    movabsq ${CLEAR_VALUES + 0x101:#x}, %rcx\n    movabsq ${CLEAR_VALUES + 0x102:#x}, %r11\n"
    f"    movabsq $0x1234567800000014, %rax\n    int $0x80\n{_CHECK}{_EXIT}"
)
_THREE = ("rax", "rcx", "r11")
_SCRATCH = (
    f"_start:\n{_SET}"
    + "".join(f"    movabsq ${CLEAR_VALUES + 0x100 + n:#x}, %{name}\n" for n, name in enumerate(_THREE))
    + "place:\n    nop\n"
    + "".join(f"    movq %{name}, -{8 * n + 8}(%rsp)\n" for n, name in enumerate(_THREE))
    + "".join(
        f"    movabsq ${CLEAR_VALUES + 0x100 + n:#x}, %rcx\n    cmpq %rcx, -{8 * n + 8}(%rsp)\n    jne bad\n"
        for n in range(3)
    )
    + f"{_CHECK}{_EXIT}"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the regression: a scenario, run as it is, or swept."""

    name: str
    text: str
    events: tuple[str, ...] = ()
    """Swept with these, if any."""
    window: str = ""
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Killed:
    """What noticed a mutant."""

    check: str
    by: str
    """The invariant, or `outcome` if what the program or the C side sees is different."""
    message: str


def scenario(
    title: str, asm: str, *tables: str, fsgsbase: bool = True, vendor: str = "intel", options: str = "", bits: int = 64
) -> str:
    """A scenario's text."""
    head = f'title = "{title}"\ncpu = {{ fsgsbase = {str(fsgsbase).lower()}, profile = "{vendor}" }}\n{options}'
    return f"{head}budget = 200_000\n[user]\nbits = {bits}\nasm = '''\n{asm}'''\n" + "".join(tables)


def _inject(**fields: object) -> str:
    rows = [
        f"{name} = {value!r}" if isinstance(value, int) else f'{name} = "{value}"' for name, value in fields.items()
    ]
    return "[[inject]]\n" + "\n".join(rows) + "\n"


_WITH_CODE = {Vector.TS: 0x18, Vector.NP: 0x20, Vector.SS: 0x28, Vector.GP: 0x30, Vector.AC: 0, Vector.CP: 3, 29: 0x72}
_USER_FAULTS = (0, 1, 3, 4, 5, 6, 9, 10, 11, 12, 13, 15, 16, 17, 19, 20, 21, 29)
_SYSVECS = (
    *(vector.value for vector in SystemVector if vector is not SystemVector.REBOOT),
    0xEC,
    0xFE,
    0xFF,
    0x30,
    0xF0,
)


def checks(*, fsgsbase: bool = True, own: tuple[ScenarioFile, ...] = ()) -> tuple[Check, ...]:
    """The suite for one build of the image; `own` are further scenarios, which run as they are."""
    found = [Check("getpid", scenario("getpid", GETPID, fsgsbase=fsgsbase))]
    for name, file_events in (("getpid", ("nmi", "mce", "db", "irq", "pf")),):
        text = scenario(name, GETPID, fsgsbase=fsgsbase)
        found += [Check(f"{name} x {event}", text, (event,)) for event in file_events]
    found.append(Check("int80", scenario("int80", _INT80, fsgsbase=fsgsbase)))
    for vector in _USER_FAULTS:
        code = {"error_code": _WITH_CODE[vector]} if vector in _WITH_CODE else {}
        table = _inject(event="exception", vector=vector, at="user:here", **code)
        found.append(Check(f"vector {vector}", scenario(f"vector {vector}", GETPID, table, fsgsbase=fsgsbase)))
    kernel = "do_syscall_64+0x4"
    for vector in (7,):
        table = _inject(event="exception", vector=vector, at="user:here") + '[expect]\nend = "crashed"\n'
        found.append(Check(f"vector {vector}", scenario(f"vector {vector}", GETPID, table, fsgsbase=fsgsbase)))
    for vector in _SYSVECS:
        tables = [_inject(event="irq", vector=vector, at=place) for place in ("user:here", kernel)]
        found.append(Check(f"interrupt {vector:#x}", scenario("interrupt", GETPID, *tables, fsgsbase=fsgsbase)))
    for vector in (1, 3, 8, 13, 18, 29):
        code = {"error_code": 0x30} if vector in _WITH_CODE else {}
        table = _inject(event="exception", vector=vector, at=kernel, **code)
        end = '[expect]\nend = "crashed"\n' if vector in (3, 8, 13, 29) else ""
        found.append(
            Check(f"kernel vector {vector}", scenario(f"kernel {vector}", GETPID, table, end, fsgsbase=fsgsbase))
        )
    for vector in (1, 8, 18, 29):
        end = '[expect]\nend = "crashed"\n' if vector in (8, 29) else ""
        for at in ("entry_SYSCALL_64", "native_irq_return_iret"):
            table = _inject(event="exception", vector=vector, at=at, **({"error_code": 0x72} if vector == 29 else {}))
            name = f"vector {vector} at {at}"
            found.append(Check(name, scenario(name, GETPID, table, end, fsgsbase=fsgsbase)))
    tables = [_inject(event=event, at="user:place") for event in ("nmi", "timer")]
    found.append(Check("scratch registers", scenario("scratch registers", _SCRATCH, *tables, fsgsbase=fsgsbase)))
    table = _inject(event="machine-check", at="user:place")
    found.append(Check("scratch, check", scenario("scratch, check", _SCRATCH, table, fsgsbase=fsgsbase)))
    for field in ("cx", "ip", "flags", "r11", "cs", "ss"):
        value = {"cx": 0x1234, "ip": 0x8000_0000_0000, "flags": 0x10202, "r11": 0x10202, "cs": 0x3, "ss": 0x33}[field]
        table = _inject(event="memory", at=kernel, address=f"regs:{field}", value=value)
        found.append(Check(f"changed {field}", scenario(f"changed {field}", GETPID, table, fsgsbase=fsgsbase)))
    both = [
        _inject(event="memory", at=kernel, address=f"regs:{field}", value=0x8000_0000_0000) for field in ("cx", "ip")
    ]
    found.append(Check("non-canonical", scenario("non-canonical", GETPID, *both, fsgsbase=fsgsbase)))
    flags = [_inject(event="memory", at=kernel, address=f"regs:{field}", value=0x302) for field in ("flags", "r11")]
    found.append(Check("trap flag", scenario("trap flag", GETPID, *flags, fsgsbase=fsgsbase)))
    for flag, value in (("direction", 0x602), ("alignment", 0x40202), ("nested", 0x4202)):
        table = _inject(event="register", at="user:here", register="rflags", value=value)
        asm = GETPID.replace("here:\n", "here:\n    nop\nthere:\n    movl $SYS_getpid, %eax\n    syscall\n")
        tables = [table, *(_inject(event=event, at="user:there") for event in ("nmi", "timer"))]
        again = scenario(flag, asm, *tables, fsgsbase=fsgsbase)
        found.append(Check(f"{flag} flag", again))
        found.append(Check(f"{flag} flag, check", again + _inject(event="machine-check", at="user:there")))
    touching = scenario("nested", GETPID, options="options = { nmi_touches_memory = true }\n", fsgsbase=fsgsbase)
    top = cpu_entry_area(0) + CpuEntryArea.offset("nmi_stack") + 4096
    asm = GETPID.removeprefix("_start:\n").replace(_FLAGS, "    std\n")
    forged = scenario("forged", f"_start:\n    movabsq ${top:#x}, %rsp\n{asm}", fsgsbase=fsgsbase)
    two = [_inject(event="nmi", at=place) for place in ("entry_SYSCALL_64_after_hwframe", "do_syscall_64+0x4")]
    found.append(Check("two NMIs", scenario("two NMIs", GETPID, *two, fsgsbase=fsgsbase)))
    for offset in (0x9, 0x19):
        places = {"entry_SYSCALL_64": "nmi", f"repeat_nmi+{offset:#x}": "machine-check", "exc_machine_check": "nmi"}
        nest = [_inject(event=event, at=place) for place, event in places.items()]
        found.append(Check(f"NMI in repeat_nmi+{offset:#x}", scenario("repeat", GETPID, *nest, fsgsbase=fsgsbase)))
    early = [_inject(event="timer", at="user:here"), _inject(event="nmi", at="asm_sysvec_apic_timer_interrupt")]
    found.append(Check("NMI before CLD", scenario("NMI before CLD", GETPID, *early, fsgsbase=fsgsbase)))
    early[1] = (
        _inject(event="exception", vector=8, at="asm_sysvec_apic_timer_interrupt") + '[expect]\nend = "crashed"\n'
    )
    found.append(Check("#DF before CLD", scenario("#DF before CLD", GETPID, *early, fsgsbase=fsgsbase)))
    asm = GETPID.replace("here:\n", "    movl $5000, %ecx\nhere:\n    loop here\n")
    other = _inject(event="nmi", cpu=1, instruction=OTHER_CPU)
    found.append(Check("second CPU", scenario("second CPU", asm, other, options="cpus = 2\n", fsgsbase=fsgsbase)))
    plain = scenario("plain", GETPID, fsgsbase=fsgsbase)
    gap, stack = "entry_SYSCALL_64..entry_SYSCALL_64+0x3", "entry_SYSCALL_64_safe_stack..entry_SYSCALL_64_safe_stack"
    found += [
        Check("nested", touching, ("nmi",), gap, 2),
        Check("nmi x mce", plain, ("nmi", "mce", "db"), stack, 2),
        Check("forged", forged, ("nmi",), gap),
        Check("in user", plain, ("nmi", "mce"), "user:here..user:here", 2),
    ]
    if fsgsbase:
        found += [Check(name, find_scenario(name).text) for name in ("double-fault", "syscall-noncanonical-rip")]
        found += _rare()
    return (*found, *(Check(file.name, file.text) for file in own))


_HALTED = '[expect]\nend = "halted"\n'


def _rare() -> list[Check]:
    """What does not depend on how the per-CPU base is found."""
    found = []
    handled = GETPID.replace("_start:\n", f"_start:\n{rare.HANDLERS}") + rare.HANDLER
    for vector in _USER_FAULTS:
        code = {"error_code": _WITH_CODE[vector]} if vector in _WITH_CODE else {}
        table = _inject(event="exception", vector=vector, at="user:here", **code)
        found.append(Check(f"vector {vector}, handled", scenario("handled", handled, table)))
    for vector in _SYSVECS:
        tables = [
            _inject(event="memory", at="user:here", address="percpu:softirq_pending", value=0x10),
            _inject(event="irq", at="user:here", vector=0x30),
            _inject(event="irq", at="__do_softirq+0x4", vector=vector),
        ]
        found.append(Check(f"interrupt {vector:#x} in a softirq", scenario("softirq", GETPID, *tables)))
    found.append(Check("text patching", find_scenario("int3-emulates-call").text))
    for name in ("user:here", "do_syscall_64+0x4"):
        table = _inject(event="irq", at=name, vector=int(SystemVector.REBOOT))
        found.append(Check(f"reboot at {name}", scenario("reboot", GETPID, table, _HALTED)))
    table = _inject(event="memory", at="do_syscall_64+0x4", address="regs:ss", value=0xF)
    found.append(Check("16-bit stack segment", scenario("16-bit stack segment", GETPID, table)))
    found.append(Check("selector that is gone", scenario("selector that is gone", rare.SELECTOR_GONE)))
    for vendor, entry in (("intel", "SYSENTER"), ("amd", "SYSCALL")):
        handler = "do_SYSENTER_32" if entry == "SYSENTER" else "do_fast_syscall_32"
        plain = rare.fast_call(0x40400)
        usual = [
            (flags, scenario(entry, rare.fast_call(flags), vendor=vendor, bits=32))
            for flags in (0x400, 0x40400, 0x4000)
        ]
        asm = f"_start:\n{_SET}" + rare.IN_64_BITS.format(call=entry.lower())
        found.append(Check(f"{entry}, 64-bit registers", scenario(entry, asm, vendor=vendor)))
        found += [Check(f"{entry}, flags {flags:#x}", text) for flags, text in usual]
        table = _inject(event="memory", at=f"{handler}+0x4", address="regs:flags", value=0x10202)
        found.append(Check(f"{entry}, IRETQ", scenario(entry, plain, table, vendor=vendor, bits=32)))
        for at in (f"entry_{entry}_compat", f"{handler}+0x4", "sysret32_from_system_call"):
            for event in ("nmi", "machine-check"):
                text = scenario(entry, plain, _inject(event=event, at=at), vendor=vendor, bits=32)
                found.append(Check(f"{entry}, {event} at {at}", text))
    return found


# --- running ----------------------------------------------------------------------------------------------------------
Outcome = tuple[object, ...]


def outcome(facts: Facts) -> Outcome:
    """What a mutant must not change."""
    return (
        facts.end, facts.exit_code, facts.signal, facts.output, facts.calls, facts.returns, facts.faults, facts.missed,
        facts.text if facts.end == "crashed" else "",
    )  # fmt: skip


def run_facts(check: Check, image: Image | None) -> Facts:
    """A check's scenario, run as it is."""
    return rig_of(check, image)(None)


def rig_of(check: Check, image: Image | None) -> Callable[[Trace | None], Facts]:
    """A check's scenario, ready to run once."""
    prepared = prepare(parse_scenario(check.text, check.name), image)
    file = prepared.file.scenario
    rig = Rig(prepared.options, prepared.user)
    injections, allowed = prepared.cases[0].injections, allowed_endings(file)
    return lambda trace: rig.run(injections, file.budget, "", allowed=allowed, watch=(trace,) if trace else ())


def judge(check: Check, image: Image, wanted: Outcome) -> Killed | None:
    """Run a check on a mutant; `wanted` is the unbroken image's outcome."""
    try:
        if check.events:
            return _judge_sweep(check, image)
        facts = run_facts(check, image)
    except Entry64Error as error:
        return Killed(check.name, "image", str(error))
    if facts.violations:
        first = facts.violations[0]
        return Killed(check.name, first.invariant, f"{first.message} at {first.where}")
    if outcome(facts) != wanted:
        return Killed(check.name, "outcome", f"{facts.end} {facts.text} at {facts.where}")
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
