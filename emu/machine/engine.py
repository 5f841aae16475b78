"""What we call of the engine, and the probe that refuses an engine we do not know.

The layout of its state (saved_cpu.py) is no API: a scratch engine is loaded with known values at start-up, and every
offset that we rely on is checked.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from functools import cache

import unicorn
from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_HOOK_INTR, UC_MODE_64, UC_PROT_ALL, Uc
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from emu.errors import EngineError
from emu.machine.saved_cpu import SavedCpu, set_selector

CPU_MODEL = x86.UC_CPU_X86_SKYLAKE_SERVER
"""Has SMEP, SMAP and FSGSBASE; the default model lacks SMAP."""

CC_OP_EFLAGS = 1
"""cc_op when cc_src holds the arithmetic flags themselves."""
COUNTER_OFFSET = 1368
"""Of emu_counter in the engine struct; emu_count follows it."""

# What every run calls, without the binding's argument types, whose conversions take as long as the calls. What these
# get is of the right type already: handles and addresses as ctypes objects, numbers of 32 bits as int. Python's lock is
# kept: to give it up and take it again, at each call and in each callback, costs more than most of the calls.
_library = ctypes.PyDLL(uclib._name)
emu_start, emu_stop = _library["uc_emu_start"], _library["uc_emu_stop"]
context_save, context_restore = _library["uc_context_save"], _library["uc_context_restore"]
reg_read, reg_write = _library["uc_reg_read"], _library["uc_reg_write"]
NOWHERE = ctypes.c_uint64(0)
"""No address to stop at, no time to stop after."""

# Prototypes of hooks. That of code leaves out the last two parameters, size and data, which nobody wants: the caller of
# a C function need not know that it takes fewer, and each one costs.
CODE_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)
BLOCK_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
INTR_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
FLAG_CB = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
IN_CB = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
MEMORY_CB = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)
OUT_CB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


def view(context: unicorn.UcContext) -> SavedCpu:
    """The structure over a context's buffer; valid as long as the context lives."""
    return SavedCpu.from_address(ctypes.cast(context.context, ctypes.c_void_p).value or 0)


def context_size(uc: Uc) -> int:
    """Bytes of a saved context."""
    uclib.uc_context_size.restype = ctypes.c_size_t
    return int(uclib.uc_context_size(uc._uch))


def handle(uc: Uc) -> int:
    """Address of the engine struct."""
    raw = uc._uch
    return int(raw.value if hasattr(raw, "value") else raw)


def expect(what: str, found: object, wanted: object) -> None:
    """EngineError, with the difference, if this build of the engine is not the measured one."""
    if found != wanted:
        raise EngineError(
            f"unicorn {unicorn.__version__}: {what} is {found!r} where {wanted!r} was expected; "
            "entry64 knows the 2.1.4 wheel: pip install unicorn==2.1.4"
        )


def scratch_engine() -> tuple[Uc, mmap.mmap]:
    """Long mode with 2 MiB at 0x200000 mapped user and 0 mapped kernel; GDT at 0x6000."""
    ram = mmap.mmap(-1, 4 << 20)
    uc = Uc(UC_ARCH_X86, UC_MODE_64, CPU_MODEL)
    uc.mem_map_ptr(0, len(ram), UC_PROT_ALL, ctypes.addressof(ctypes.c_char.from_buffer(ram)))
    for at, words in (
        (0x1000, (0x2007,)),
        (0x2000, (0x3007,)),
        (0x3000, (0x83, 0x200087)),
        (0x6000, (0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)),
    ):
        struct.pack_into(f"<{len(words)}Q", ram, at, *words)
    uc.reg_write(x86.UC_X86_REG_GDTR, (0, 0x6000, 55, 0))
    uc.reg_write(x86.UC_X86_REG_CR4, 0x620)
    uc.msr_write(0xC0000080, 0xD01)
    uc.reg_write(x86.UC_X86_REG_CR3, 0x1000)
    uc.reg_write(x86.UC_X86_REG_CR0, 0x80050033)
    return uc, ram


def _check_registers(uc: Uc) -> None:
    """Every MSR and table register is where we think it is."""
    msrs = {
        "star": 0xC0000081, "lstar": 0xC0000082, "cstar": 0xC0000083, "fmask": 0xC0000084,
        "kernel_gs_base": 0xC0000102, "sysenter_cs": 0x174, "sysenter_esp": 0x175, "sysenter_eip": 0x176,
    }  # fmt: skip
    for n, number in enumerate(msrs.values()):
        uc.msr_write(number, 0x1100 + n)
    uc.msr_write(0xC0000101, 0xFFFF888011110100)
    uc.reg_write(x86.UC_X86_REG_CR2, 0x123456789ABC)
    uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0xFFFF888011110101, 0xFFF, 0))
    uc.reg_write(x86.UC_X86_REG_TR, (0x40, 0xFFFF888011110102, 0x67, 0x8B00))
    uc.reg_write(x86.UC_X86_REG_DR0, 0x11110103)
    for n, register in enumerate((x86.UC_X86_REG_RAX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX, x86.UC_X86_REG_RBX)):
        uc.reg_write(register, 0x2220 + n)
    uc.reg_write(x86.UC_X86_REG_R15, 0x222F)
    context = uc.context_save()
    cpu = view(context)
    for n, name in enumerate(msrs):
        expect(f"saved {name}", getattr(cpu, name), 0x1100 + n)
    expect("saved GS base", cpu.segs[5].base, 0xFFFF888011110100)
    expect("saved EFER", cpu.efer, 0xD01)
    expect("saved CR2", cpu.cr[2], 0x123456789ABC)
    expect("saved CR3", cpu.cr[3], 0x1000)
    expect("saved CR4", cpu.cr[4], 0x620)
    expect("saved IDT base", cpu.idt.base, 0xFFFF888011110101)
    expect("saved GDT base", cpu.gdt.base, 0x6000)
    expect("saved TR base", cpu.tr.base, 0xFFFF888011110102)
    expect("saved DR0", cpu.dr[0], 0x11110103)
    expect("saved registers", [cpu.regs[n] for n in (0, 1, 2, 3, 15)], [0x2220, 0x2221, 0x2222, 0x2223, 0x222F])


def _check_execution(uc: Uc, ram: mmap.mmap) -> None:
    """CPL through IRETQ, the error code inside the #GP hook, the exact instruction counter."""
    seen: list[tuple[int, int]] = []
    context = uc.context_save()
    cpu = view(context)

    def on_interrupt(engine: Uc, vector: int, _: object) -> None:
        engine.context_update(context)
        seen.append((vector, cpu.error_code))
        engine.emu_stop()

    uc.hook_add(UC_HOOK_INTR, on_interrupt)
    set_selector(cpu.segs[1], 0x10, 0xAF9B00)
    cpu.regs[4] = 0x7000
    uc.context_restore(context)
    struct.pack_into("<5Q", ram, 0x7000, 0x200000, 0x33, 0x202 | 0xCD5, 0x300000, 0x2B)
    ram[0x8000:0x8003] = b"\x90\x48\xcf"  # nop; iretq
    ram[0x200000:0x200009] = b"\xb8\x68\x00\x00\x00\x90\x8e\xd8\x90"  # mov $0x68,%eax; nop; mov %eax,%ds
    uc.emu_start(0x8000, 0xDEADBEEF00000000, 0, 7)
    at = handle(uc) + COUNTER_OFFSET
    counter, count = ctypes.c_uint64.from_address(at).value, ctypes.c_uint64.from_address(at + 8).value
    uc.context_update(context)
    expect("CPL after IRETQ", cpu.hflags & 3, 3)
    expect("CS after IRETQ", cpu.segs[1].selector, 0x33)
    expect("RIP of the fault", cpu.rip, 0x200006)
    expect("RFLAGS at rest", cpu.eflags & 0xFFFF, 0xED7)
    expect("vector and error code", seen, [(13, 0x68)])
    expect("instruction counter", (counter, count), (5, 7))


def _check_flags_of_fault(uc: Uc, ram: mmap.mmap) -> None:
    """A fault behind a CMP leaves the CMP's flags in cc_src, and cc_op as if they were not worked out yet."""
    context = uc.context_save()
    cpu = view(context)
    cpu.old_exception = -1
    cpu.regs[0], cpu.regs[2] = 0x4000_0000, 0x6530_B8D4
    uc.context_restore(context)
    ram[0x200010:0x200017] = b"\x48\x83\xfa\x7f\x48\x89\x18"  # cmp $0x7f,%rdx; mov %rbx,(%rax)
    uc.emu_start(0x200010, 0xDEADBEEF00000000, 0, 7)
    uc.context_update(context)
    expect("RIP of a fault behind CMP", cpu.rip, 0x200014)
    expect("flags of a fault behind CMP", (cpu.cc_op == CC_OP_EFLAGS, cpu.cc_src), (False, 0x14))


def _check_code_hook(uc: Uc) -> None:
    """emu_stop in a code hook stops before the instruction, which the counter already includes."""
    context = uc.context_save()
    cpu = view(context)
    hook = uc.hook_add(UC_HOOK_CODE, lambda engine, *_: engine.emu_stop(), None, 0x200005, 0x200005)
    uc.ctl_flush_tb()
    uc.emu_start(0x200000, 0xDEADBEEF00000000, 0, 9)
    uc.context_update(context)
    expect("RIP at a code hook", cpu.rip, 0x200005)
    expect("counter at a code hook", ctypes.c_uint64.from_address(handle(uc) + COUNTER_OFFSET).value, 2)
    uc.hook_del(hook)


@cache
def probe() -> None:
    """Check once a process that this engine build is the measured one; EngineError with the difference if not."""
    uc, ram = scratch_engine()
    if context_size(uc) < ctypes.sizeof(SavedCpu):
        expect("the context's size", context_size(uc), f">= {ctypes.sizeof(SavedCpu)}")
    _check_registers(uc)
    _check_execution(uc, ram)
    _check_flags_of_fault(uc, ram)
    _check_code_hook(uc)
