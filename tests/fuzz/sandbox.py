"""Random code in a random sandbox: whatever happens is a result, in bounded time, and leaves a possible state."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator

from bare import CODE, GDT, HANDLERS, IDT, KERNEL, KSTACK, TSS, USER, USER_STACK, Bare, bare
from capstone import CS_ARCH_X86, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs

from asm import Instruction
from emu.arch import ERROR_CODE_VECTORS, Cr0, Cr4, Msr
from emu.machine.apic import Delivery
from emu.machine.core import End, EndKind
from emu.machine.profile import Profile
from emu.machine.semantics import scan
from fuzz.encode import Draw, ordinary
from fuzz.encode_system import system
from fuzz.invariant import violations

LIMIT = 600
"""Instructions a seed."""
STRETCH = 75
"""Instructions between two looks at the state."""
SIZE = 320
"""Bytes of code."""
_NEXT_BYTE = b"\x48\xff\x04\x24\x48\xcf"  # incq (%rsp); iretq
_DROP_CODE = b"\x48\x83\xc4\x08"  # add $8, %rsp
_MOV_CR3 = b"\x0f\x22\xd8"
_decoder = Cs(CS_ARCH_X86, CS_MODE_64)
_decoder.syntax = CS_OPT_SYNTAX_ATT


def _code(draw: Draw, cpl: int) -> bytes:
    """Random bytes, well-formed instructions, or a mixture."""
    code, kind = b"", draw.randrange(3)
    while len(code) < SIZE:
        if kind == 0 or (kind == 2 and draw.random() < 0.2):
            code += draw.randbytes(draw.randrange(1, 12))
        elif draw.random() < 0.4:
            code += system(draw, cpl)
        else:
            code += ordinary(draw)
    return code[:SIZE]


def _decoded(code: bytes, base: int) -> Iterator[Instruction]:
    """What begins at any byte."""
    for at in range(len(code)):
        for address, size, mnemonic, operands in _decoder.disasm_lite(code[at : at + 15], base + at, 1):
            yield Instruction(address, size, mnemonic, operands, code[at : at + size])


def _handlers(it: Bare) -> list[Instruction]:
    """Handlers that go on behind the next byte, instead of halting."""
    found: list[Instruction] = []
    for vector in range(256):
        code = (_DROP_CODE if vector in ERROR_CODE_VECTORS else b"") + _NEXT_BYTE
        it.machine.memory.write(HANDLERS - KERNEL + 16 * vector, code)
        found += _decoded(code, HANDLERS + 16 * vector)
    return [i for i in found if i.mnemonic == "iretq"]


def _tables(draw: Draw, it: Bare) -> None:
    """Random descriptors, gates, stack pointers and page-table entries, beside what is left as it should be."""
    memory = it.machine.memory
    for _ in range(draw.choice([0, 0, 3, 8])):
        it.put64(GDT + 8 * draw.randrange(1, 10), draw.choice([draw.getrandbits(64), 0x00CF93000000FFFF, 0]))
    for _ in range(draw.choice([0, 4, 30])):
        at = IDT + 16 * draw.choice([*range(20), 0x80, draw.randrange(256)])
        if draw.random() < 0.5:
            memory.write(at, draw.randbytes(16))
        else:
            memory.write(at + draw.randrange(2, 8), draw.randbytes(1))
    for _ in range(draw.choice([0, 0, 2])):
        value = draw.choice([draw.getrandbits(64), KSTACK, 0, USER_STACK, 0xFFFF_FFFF_FFFF_FFF8])
        memory.write(TSS + draw.randrange(4, 100), struct.pack("<Q", value))
    for _ in range(draw.choice([0, 0, 1, 3])):
        table = draw.choice([0x1000, 0x2000, 0x3000, 0x4000, 0x5000])
        at = table + 8 * draw.choice([0, 1, 2, 510, 511, draw.randrange(512)])
        entry = memory.read_u64(at)
        it.put64(at, draw.choice([entry ^ 1 << draw.randrange(64), draw.getrandbits(64), draw.randrange(8) | 0x6000]))


def _registers(draw: Draw, it: Bare, cpl: int) -> None:
    core = it.core
    cpu, state = core.cpu, core.cpu.state
    places = [USER + 0x1000, USER_STACK, KSTACK, CODE, KERNEL + IDT, KERNEL + GDT, 0x7FFF_FFFF_FFF8, 0xFEE0_0000, 0]
    for number in range(16):
        if number != 4 or draw.random() < 0.1:
            cpu.set_register(number, draw.choice([draw.getrandbits(64), draw.getrandbits(32), *places]))
    cpu.flags = 2 | draw.getrandbits(22) & 0x247FD5 & ~(0x4000 if draw.random() < 0.9 else 0)
    controls = int(Cr4.PAE | Cr4.OSFXSR)
    for bit in (Cr4.SMEP, Cr4.SMAP, Cr4.FSGSBASE, Cr4.UMIP, Cr4.DE, Cr4.MCE, Cr4.PGE):
        controls |= int(bit) if draw.random() < 0.4 else 0
    cpu.set_control(cr4=controls)
    if draw.random() < 0.3:
        cpu.set_control(cr0=cpu.cr0 ^ draw.choice([int(Cr0.TS), int(Cr0.EM), int(Cr0.WP)]))
    for number in (Msr.STAR, Msr.SYSCALL_MASK):
        if draw.random() < 0.3:
            core.write_msr(number, draw.getrandbits(64 if number is Msr.STAR else 32))
    for number in (Msr.LSTAR, Msr.CSTAR, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.SYSENTER_EIP, Msr.SYSENTER_ESP):
        core.write_msr(number, draw.choice([CODE + draw.randrange(SIZE), HANDLERS, 0x7FFF_FFFF_F000, USER]))
    core.write_msr(Msr.SYSENTER_CS, draw.choice([0, 0x10, 0x33]))
    if draw.random() < 0.15:
        state.dr[7] = 0x400 | draw.getrandbits(8) | (draw.getrandbits(16) & ~0x2222) << 16
        for number in range(4):
            state.dr[number] = draw.choice([(USER if cpl else CODE) + draw.randrange(SIZE), USER_STACK - 8, KSTACK - 8])
    cpu.mark_dirty()


def _event(draw: Draw, it: Bare) -> None:
    core = it.core
    match draw.randrange(6):
        case 0:
            core.raise_nmi()
        case 1:
            core.raise_interrupt(draw.randrange(256))
        case 2:
            core.raise_machine_check()
        case 3:
            it.machine.interrupt(core, draw.choice([Delivery.FIXED, Delivery.NMI]), draw.randrange(256))
        case _:
            core.apic.start_timer(
                core.clock, draw.randrange(16, 256), draw.randrange(1, 40), periodic=draw.random() < 0.5
            )


def attempt(seed: int) -> tuple[End | None, list[str]]:
    """Run a seed: how it ended (None: it was still running) and what became impossible."""
    draw = Draw(f"sandbox {seed}")
    cpl = draw.choice([0, 3])
    it = bare("nop", user=cpl == 3, profile=Profile(draw.choice(["intel", "amd"])))
    base = USER if cpl else CODE
    code = _code(draw, cpl).replace(_MOV_CR3, b"\x90\x90\x90")
    it.machine.memory.write(base - (0 if cpl else KERNEL), code)
    instructions = list(_decoded(code, base))
    it.core.cpu.stop_at(scan(instructions), (base, base + SIZE))
    if draw.random() < 0.7:
        handlers = _handlers(it)
        it.core.cpu.stop_at((i.address for i in handlers), (HANDLERS, HANDLERS + 0x1000))
        instructions += handlers
    it.machine.observe_instructions(instructions)
    _registers(draw, it, cpl)
    _tables(draw, it)
    it.machine.flush_tlb()
    wrong: list[str] = []
    while it.core.clock < LIMIT and not wrong:
        before = it.core.clock
        _, end = it.machine.advance(before + STRETCH)
        wrong = [
            f"clock {it.core.clock}: {text}" for text in violations(it.core, shut_down=end.kind is EndKind.SHUTDOWN)
        ]
        if it.core.clock > before + STRETCH:
            wrong.append(f"the clock ran from {before} to {it.core.clock}, beyond its limit")
        if end.kind not in (EndKind.LIMIT, EndKind.HALTED):
            return end, wrong
        if end.kind is EndKind.HALTED and draw.random() < 0.5:
            return end, wrong
        _event(draw, it)
        if end.kind is EndKind.HALTED:
            it.core.clock += 1  # so that one that nothing wakes comes to an end
    return None, wrong


def run(seeds: Iterable[int]) -> int:
    """Attempt seeds and print what is wrong; how they ended goes to stdout too."""
    ends: dict[str, int] = {}
    bad = 0
    for seed in seeds:
        try:
            end, wrong = attempt(seed)
        except Exception as error:  # noqa: BLE001  whatever it is, the seed is what counts
            end, wrong = None, [f"{type(error).__name__}: {error}"]
        kind = end.kind.value if end else "still running"
        ends[kind] = ends.get(kind, 0) + 1
        for text in wrong:
            bad += 1
            print(f"seed {seed}: {text}", file=sys.stderr)
    print(ends)
    return bool(bad)
