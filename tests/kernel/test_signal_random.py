"""Nothing that user mode does with signals hurts the C side: random calls, random frames for rt_sigreturn."""

import random

import pytest
from booted import in_user

from emu.machine.core import EndKind
from emu.machine.registers import R8, R9, R10, RAX, RDI, RDX, RSI, RSP
from kernel_stubs import uaccess
from kernel_stubs.signal_frame64 import FRAME_SIZE, SIGCONTEXT, UC_MCONTEXT, UCONTEXT
from kernel_stubs.syscalls.names import SYSCALL_NAMES

NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
CALLS = [
    NUMBERS[name]
    for name in (
        "rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "rt_sigsuspend",
        "rt_sigreturn", "sigaltstack", "kill", "tkill", "tgkill", "rt_tgsigqueueinfo", "restart_syscall", "pause",
    )
]  # fmt: skip
PROGRAM = """
_start: syscall
back:   jmp back
handler: ret
restorer: movl $15, %eax
    syscall
"""
SEEDS = 500
BATCH = 50
ALIVE = (EndKind.LIMIT, EndKind.FINISHED, EndKind.BREAKPOINT, EndKind.HALTED)


@pytest.fixture(scope="module")
def it():
    return in_user(PROGRAM)


def fresh(it, saved):
    it.system.machine.restore(saved)
    it.system.binding.go_back(())
    it.events.clear()


def interesting(rng, it):
    stack = it.core.cpu.sp
    return rng.choice([
        0, 1, 2, 7, 8, 9, 10, 11, 15, 17, 32, 33, 64, 65, 128, 4096, stack, stack - 512, stack & -4096,
        0x7FFF_FFFF_F000, 2**31, 2**32 - 1, 2**47, 2**63, 2**64 - 1, 2**64 - 8, 0xFFFF_FFFF_8100_0000,
        0xFFFF_8880_0000_0000, it.program.symbols["handler"], it.program.symbols["back"], rng.getrandbits(64),
    ])  # fmt: skip


@pytest.mark.parametrize("batch", range(SEEDS // BATCH))
def test_random_calls_end_well(it, batch):
    saved = it.system.machine.snapshot()
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = random.Random(seed)
        cpu = it.core.cpu
        uaccess.copy_to_user(it.cpu, cpu.sp - 2048, rng.randbytes(2048))
        for _ in range(8):
            cpu.ip = it.program.symbols["_start"]
            cpu.set_register(RAX, rng.choice(CALLS))
            for register in (RDI, RSI, RDX, R10, R8, R9):
                cpu.set_register(register, interesting(rng, it))
            it.core.set_breakpoints({it.program.symbols["back"]})
            end = it.run(3000)
            assert end.kind in ALIVE, (seed, end)
            if end.kind is not EndKind.BREAKPOINT:
                break
        it.core.set_breakpoints(set())
        fresh(it, saved)


def random_frame(rng, it):
    """A frame that is sometimes nearly good."""
    frame = bytearray(FRAME_SIZE if rng.random() < 0.5 else rng.randbytes(FRAME_SIZE))
    at = UCONTEXT + UC_MCONTEXT
    selectors = [0x33, 0x2B, 0x23, 0, 0x10, 0x18, 0x40, 0x7B, rng.getrandbits(16)]
    words = [interesting(rng, it) for _ in range(18)]
    if rng.random() < 0.5:
        words[16] = it.program.symbols["back"]
    rest = [interesting(rng, it) for _ in range(5)]
    if rng.random() < 0.5:
        rest[4] = 0
    pair = (0x33, 0, 0, 0x2B) if rng.random() < 0.7 else (rng.choice(selectors), 0, 0, rng.choice(selectors))
    frame[at : at + SIGCONTEXT.size] = SIGCONTEXT.pack(*words, *pair, *rest)
    frame[UCONTEXT] = rng.getrandbits(3)
    return bytes(frame)


@pytest.mark.parametrize("batch", range(SEEDS // BATCH))
def test_random_frames_end_well(it, batch):
    saved, kinds = it.system.machine.snapshot(), set()
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = random.Random(seed)
        cpu = it.core.cpu
        at = cpu.sp - 4096 + rng.choice([0, 0, 0, 8, 1])
        uaccess.copy_to_user(it.cpu, at, random_frame(rng, it))
        cpu.set_register(RSP, at + 8 if rng.random() < 0.9 else interesting(rng, it))
        cpu.set_register(RAX, NUMBERS["rt_sigreturn"])
        end = it.run(1500)
        assert end.kind in ALIVE, (seed, end)
        kinds.add(end.kind)
        fresh(it, saved)
    assert kinds >= {EndKind.LIMIT, EndKind.FINISHED}  # some frames are good: the program goes on
