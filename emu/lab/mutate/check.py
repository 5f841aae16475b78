"""A part of the regression that mutants run, and the small programs that its scenarios are made of."""

from __future__ import annotations

from dataclasses import dataclass

CLEAR_VALUES = 0x1357_9BDF_0246_8ACE
"""Registers of the program hold this plus their number: values that nothing else has; and AC and DF are set."""
_REGISTERS = ("rbx", "rbp", "rdi", "rsi", "rdx", "r8", "r9", "r10", "r12", "r13", "r14", "r15")
FLAGS = "    pushfq\n    orq $0x40400, (%rsp)\n    popfq\n"
SET = FLAGS + "".join(f"    movabsq ${CLEAR_VALUES + n:#x}, %{name}\n" for n, name in enumerate(_REGISTERS))


def same(*but: str) -> str:
    """Code that goes to `bad` unless the registers, but for these, hold what SET has put there. Clobbers RCX."""
    return "".join(
        f"    movabsq ${CLEAR_VALUES + n:#x}, %rcx\n    cmpq %rcx, %{name}\n    jne bad\n"
        for n, name in enumerate(_REGISTERS)
        if name not in but
    )


SAME = same()
EXIT = """
    xorl    %edi, %edi
    movl    $SYS_exit_group, %eax
    syscall
bad:
    movl    $1, %edi
    movl    $SYS_exit_group, %eax
    syscall
"""
GETPID = f"_start:\n{SET}    movl $SYS_getpid, %eax\n    syscall\nhere:\n{SAME}{EXIT}"
INT80 = (
    f"_start:\n{SET}    movabsq ${CLEAR_VALUES + 0x101:#x}, %rcx\n    movabsq ${CLEAR_VALUES + 0x102:#x}, %r11\n"
    f"    movabsq $0x1234567800000014, %rax\n    int $0x80\n{SAME}{EXIT}"
)
_THREE = ("rax", "rcx", "r11")
SCRATCH = (
    f"_start:\n{SET}"
    + "".join(f"    movabsq ${CLEAR_VALUES + 0x100 + n:#x}, %{name}\n" for n, name in enumerate(_THREE))
    + "place:\n    nop\n"
    + "".join(f"    movq %{name}, -{8 * n + 8}(%rsp)\n" for n, name in enumerate(_THREE))
    + "".join(
        f"    movabsq ${CLEAR_VALUES + 0x100 + n:#x}, %rcx\n    cmpq %rcx, -{8 * n + 8}(%rsp)\n    jne bad\n"
        for n in range(3)
    )
    + f"{SAME}{EXIT}"
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
    shipped: bool = False
    """Whether the scenario says itself what it expects."""
    sharp: bool = False
    """Whether it notices more than most, so that it goes first."""


def scenario(
    title: str, asm: str, *tables: str, fsgsbase: bool = True, vendor: str = "intel", options: str = "", bits: int = 64,
    kernel: str = "linux-6",
) -> str:  # fmt: skip
    """A scenario's text."""
    cpu = f'cpu = {{ fsgsbase = {str(fsgsbase).lower()}, profile = "{vendor}" }}'
    head = f'title = "{title}"\nkernel = "{kernel}"\n{cpu}\n{options}'
    return f"{head}budget = 200_000\n[user]\nbits = {bits}\nasm = '''\n{asm}'''\n" + "".join(tables)


def inject(**fields: object) -> str:
    """An injection's table."""
    rows = [
        f"{name} = {value!r}" if isinstance(value, int) else f'{name} = "{value}"' for name, value in fields.items()
    ]
    return "[[inject]]\n" + "\n".join(rows) + "\n"
