"""Small checks of linux-6, which between them execute all of its entry code."""

from __future__ import annotations

from emu.arch import Vector
from emu.lab.mutate import rare
from emu.lab.mutate.check import FLAGS, GETPID, INT80, SCRATCH, SET, Check, inject, scenario
from emu.lab.shipped import find_scenario
from kernel_stubs.abi import CpuEntryArea, SystemVector, cpu_entry_area

OTHER_CPU = 7_000
"""When the second CPU has nothing to do, and the first runs the program."""
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


def checks(*, fsgsbase: bool = True) -> tuple[Check, ...]:
    """For one build of the image."""
    found = [Check("getpid", scenario("getpid", GETPID, fsgsbase=fsgsbase))]
    for name, file_events in (("getpid", ("nmi", "mce", "db", "irq", "pf")),):
        text = scenario(name, GETPID, fsgsbase=fsgsbase)
        found += [Check(f"{name} x {event}", text, (event,)) for event in file_events]
    found.append(Check("int80", scenario("int80", INT80, fsgsbase=fsgsbase)))
    for vector in _USER_FAULTS:
        code = {"error_code": _WITH_CODE[vector]} if vector in _WITH_CODE else {}
        table = inject(event="exception", vector=vector, at="user:here", **code)
        found.append(Check(f"vector {vector}", scenario(f"vector {vector}", GETPID, table, fsgsbase=fsgsbase)))
    kernel = "do_syscall_64+0x4"
    for vector in (7,):
        table = inject(event="exception", vector=vector, at="user:here") + '[expect]\nend = "crashed"\n'
        found.append(Check(f"vector {vector}", scenario(f"vector {vector}", GETPID, table, fsgsbase=fsgsbase)))
    for vector in _SYSVECS:
        tables = [inject(event="irq", vector=vector, at=place) for place in ("user:here", kernel)]
        found.append(Check(f"interrupt {vector:#x}", scenario("interrupt", GETPID, *tables, fsgsbase=fsgsbase)))
    for vector in (1, 3, 8, 13, 18, 29):
        code = {"error_code": 0x30} if vector in _WITH_CODE else {}
        table = inject(event="exception", vector=vector, at=kernel, **code)
        end = '[expect]\nend = "crashed"\n' if vector in (3, 8, 13, 29) else ""
        found.append(
            Check(f"kernel vector {vector}", scenario(f"kernel {vector}", GETPID, table, end, fsgsbase=fsgsbase))
        )
    for vector in (1, 8, 18, 29):
        end = '[expect]\nend = "crashed"\n' if vector in (8, 29) else ""
        for at in ("entry_SYSCALL_64", "native_irq_return_iret"):
            table = inject(event="exception", vector=vector, at=at, **({"error_code": 0x72} if vector == 29 else {}))
            name = f"vector {vector} at {at}"
            found.append(Check(name, scenario(name, GETPID, table, end, fsgsbase=fsgsbase)))
    tables = [inject(event=event, at="user:place") for event in ("nmi", "timer")]
    found.append(Check("scratch registers", scenario("scratch registers", SCRATCH, *tables, fsgsbase=fsgsbase)))
    table = inject(event="machine-check", at="user:place")
    found.append(Check("scratch, check", scenario("scratch, check", SCRATCH, table, fsgsbase=fsgsbase)))
    for field in ("cx", "ip", "flags", "r11", "cs", "ss"):
        value = {"cx": 0x1234, "ip": 0x8000_0000_0000, "flags": 0x10202, "r11": 0x10202, "cs": 0x3, "ss": 0x33}[field]
        table = inject(event="memory", at=kernel, address=f"regs:{field}", value=value)
        found.append(Check(f"changed {field}", scenario(f"changed {field}", GETPID, table, fsgsbase=fsgsbase)))
    both = [
        inject(event="memory", at=kernel, address=f"regs:{field}", value=0x8000_0000_0000) for field in ("cx", "ip")
    ]
    found.append(Check("non-canonical", scenario("non-canonical", GETPID, *both, fsgsbase=fsgsbase)))
    flags = [inject(event="memory", at=kernel, address=f"regs:{field}", value=0x302) for field in ("flags", "r11")]
    found.append(Check("trap flag", scenario("trap flag", GETPID, *flags, fsgsbase=fsgsbase)))
    for flag, value in (("direction", 0x602), ("alignment", 0x40202), ("nested", 0x4202)):
        table = inject(event="register", at="user:here", register="rflags", value=value)
        asm = GETPID.replace("here:\n", "here:\n    nop\nthere:\n    movl $SYS_getpid, %eax\n    syscall\n")
        tables = [table, *(inject(event=event, at="user:there") for event in ("nmi", "timer"))]
        again = scenario(flag, asm, *tables, fsgsbase=fsgsbase)
        found.append(Check(f"{flag} flag", again))
        found.append(Check(f"{flag} flag, check", again + inject(event="machine-check", at="user:there")))
    touching = scenario("nested", GETPID, options="options = { nmi_touches_memory = true }\n", fsgsbase=fsgsbase)
    top = cpu_entry_area(0) + CpuEntryArea.offset("nmi_stack") + 4096
    asm = GETPID.removeprefix("_start:\n").replace(FLAGS, "    std\n")
    forged = scenario("forged", f"_start:\n    movabsq ${top:#x}, %rsp\n{asm}", fsgsbase=fsgsbase)
    two = [inject(event="nmi", at=place) for place in ("entry_SYSCALL_64_after_hwframe", "do_syscall_64+0x4")]
    found.append(Check("two NMIs", scenario("two NMIs", GETPID, *two, fsgsbase=fsgsbase)))
    for offset in (0x9, 0x19):
        places = {"entry_SYSCALL_64": "nmi", f"repeat_nmi+{offset:#x}": "machine-check", "exc_machine_check": "nmi"}
        nest = [inject(event=event, at=place) for place, event in places.items()]
        found.append(Check(f"NMI in repeat_nmi+{offset:#x}", scenario("repeat", GETPID, *nest, fsgsbase=fsgsbase)))
    early = [inject(event="timer", at="user:here"), inject(event="nmi", at="asm_sysvec_apic_timer_interrupt")]
    found.append(Check("NMI before CLD", scenario("NMI before CLD", GETPID, *early, fsgsbase=fsgsbase)))
    early[1] = inject(event="exception", vector=8, at="asm_sysvec_apic_timer_interrupt") + '[expect]\nend = "crashed"\n'
    found.append(Check("#DF before CLD", scenario("#DF before CLD", GETPID, *early, fsgsbase=fsgsbase)))
    asm = GETPID.replace("here:\n", "    movl $5000, %ecx\nhere:\n    loop here\n")
    other = inject(event="nmi", cpu=1, instruction=OTHER_CPU)
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
        found += [*_rare(), *rare.watchpoints("traced-watchpoint")]
    return tuple(found)


_HALTED = '[expect]\nend = "halted"\n'


def _rare() -> list[Check]:
    """What does not depend on how the per-CPU base is found."""
    found = []
    handled = GETPID.replace("_start:\n", f"_start:\n{rare.HANDLERS}") + rare.HANDLER
    for vector in _USER_FAULTS:
        code = {"error_code": _WITH_CODE[vector]} if vector in _WITH_CODE else {}
        table = inject(event="exception", vector=vector, at="user:here", **code)
        found.append(Check(f"vector {vector}, handled", scenario("handled", handled, table)))
    for vector in _SYSVECS:
        tables = [
            inject(event="memory", at="user:here", address="percpu:softirq_pending", value=0x10),
            inject(event="irq", at="user:here", vector=0x30),
            inject(event="irq", at="__do_softirq+0x4", vector=vector),
        ]
        found.append(Check(f"interrupt {vector:#x} in a softirq", scenario("softirq", GETPID, *tables)))
    # The interrupted code's flags say nothing about where it ran: here ZF is clear; as shipped, it is set.
    patching, irq = find_scenario("int3-emulates-call").text, '[[inject]]\nevent = "irq"\n'
    table = inject(event="register", at="do_syscall_64+0x4", hit=3, register="rflags", value=0x202)
    assert patching.count(irq) == 1
    found.append(Check("text patching, ZF clear", patching.replace(irq, table + irq), shipped=True))
    for name in ("user:here", "do_syscall_64+0x4"):
        table = inject(event="irq", at=name, vector=int(SystemVector.REBOOT))
        found.append(Check(f"reboot at {name}", scenario("reboot", GETPID, table, _HALTED)))
    table = inject(event="memory", at="do_syscall_64+0x4", address="regs:ss", value=0xF)
    found.append(Check("16-bit stack segment", scenario("16-bit stack segment", GETPID, table)))
    for vendor in ("intel", "amd"):  # only Intel's clear the base with a null selector
        text = scenario("selector that is gone", rare.SELECTOR_GONE, vendor=vendor)
        found.append(Check(f"selector that is gone, {vendor}", text))
    for vendor, entry in (("intel", "SYSENTER"), ("amd", "SYSCALL")):
        handler = "do_SYSENTER_32" if entry == "SYSENTER" else "do_fast_syscall_32"
        plain = rare.fast_call(0x40400)
        usual = [
            (flags, scenario(entry, rare.fast_call(flags), vendor=vendor, bits=32))
            for flags in (0x400, 0x40400, 0x4000)
        ]
        asm = f"_start:\n{SET}" + rare.IN_64_BITS.format(call=entry.lower())
        found.append(Check(f"{entry}, 64-bit registers", scenario(entry, asm, vendor=vendor)))
        found += [Check(f"{entry}, flags {flags:#x}", text) for flags, text in usual]
        table = inject(event="memory", at=f"{handler}+0x4", address="regs:flags", value=0x10202)
        found.append(Check(f"{entry}, IRETQ", scenario(entry, plain, table, vendor=vendor, bits=32)))
        for at in (f"entry_{entry}_compat", f"{handler}+0x4", "sysret32_from_system_call"):
            for event in ("nmi", "machine-check"):
                text = scenario(entry, plain, inject(event=event, at=at), vendor=vendor, bits=32)
                found.append(Check(f"{entry}, {event} at {at}", text))
    return found
