"""Encodings, compared with GNU as over thousands of forms, and what is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from gas_reference import encode_lines, needs_gas

from asm import AssemblyError, assemble_text

REGISTERS = {
    "b": ["%al", "%bl", "%sil", "%r9b", "%dh"],
    "w": ["%ax", "%bx", "%r10w"],
    "l": ["%eax", "%ebx", "%r11d"],
    "q": ["%rax", "%rbx", "%r12"],
}
MEMORY = [
    "(%rax)", "8(%rsp)", "-8(%rbp)", "0x1234(%rbx,%rcx,4)", "%gs:0x10", "0x20", "%fs:8(%rax)", "(%r13)", "(%r12)",
    "16(%rip)", "(,%rax,8)", "0(%rbp,%rcx)", "(%eax)", "%gs:0x10(%rip)", "%ds:(%rax)", "%ds:(%rbp)", "%ss:(%rsp)",
    "%es:(%rdi)", "-1", "8(%eip)", "0xffffffffffffff00(%rax)",
]  # fmt: skip
IMMEDIATES = [
    "0", "1", "-1", "127", "128", "-128", "-129", "255", "0x7fff", "0x8000", "0xffff", "0x7fffffff", "0x80000000",
    "0xffffffff", "-0x80000000", "0xffffffff80000000", "0x123456789abc", "~0x200",
]  # fmt: skip
SEGMENTS = ["%es", "%cs", "%ss", "%ds", "%fs", "%gs"]
CONDITIONS_TEXT = "o no b c nae ae nb nc e z ne nz be na a nbe s ns p pe np po l nge ge nl le ng g nle"
CONDITIONS = CONDITIONS_TEXT.split()
SYSTEM_TEXT = """lgdt lidt sgdt sidt invlpg lmsw smsw lldt sldt ltr str verr verw clflush clflushopt clwb prefetchnta
 prefetcht0 prefetchw fxsave fxsave64 fxrstor fxrstor64 xsave xsave64 xrstor xrstor64 xsaveopt xsavec xsaves xrstors
 ldmxcsr stmxcsr fnstcw fldcw vmptrld vmclear rdrand rdseed rdpid rdfsbase wrfsbase rdgsbase wrgsbase bswap incsspq
 rdsspq ptwrite nopw nopl nopq cldemote"""
SYSTEM = SYSTEM_TEXT.split()
ALONE_TEXT = """swapgs sysretq sysretl syscall sysenter sysexitq sysexitl iretq iretl iretw wrmsr rdmsr rdpmc rdtsc
 rdtscp cpuid lretq lretl lretw ret retq leave leaveq cld std cli sti clc stc cmc clac stac pause hlt
 nop ud2 int3 int1 lfence mfence sfence endbr64 endbr32 wbinvd wbnoinvd invd clts cltq cqto cltd cwtl
 cwtd cbtw pushf pushfq popf popfq sahf lahf xlat movsb movsw movsl movsq stosb stosw stosl stosq
 lodsb lodsq scasb scasq cmpsb cmpsq insb insl outsb outsl monitor mwait vmcall vmmcall vmlaunch
 vmresume vmxoff vmrun vmload vmsave stgi clgi xgetbv xsetbv serialize rdpkru wrpkru saveprevssp
 setssbsy rsm fninit fnclex emms rep lock cs ds gs"""
ALONE = ALONE_TEXT.split()


def forms() -> list[str]:
    lines: list[str] = list(ALONE)
    for name, (suffix, registers) in product(["add", "and", "cmp", "mov", "test", "xchg", "sbb"], REGISTERS.items()):
        for register in registers:
            lines += [f"{name}{suffix} {register},{memory}" for memory in MEMORY]
            lines += [f"{name} {memory},{register}" for memory in MEMORY if name != "test"]
            lines += [f"{name} {register},{other}" for other in registers]
            lines += [f"{name} ${value},{register}" for value in IMMEDIATES if name != "xchg"]
        lines += [f"{name}{suffix} ${value},(%rax)" for value in IMMEDIATES if name != "xchg"]
        lines += [f"lock {name}{suffix} {registers[1]},%gs:8"]
    for name, (suffix, registers) in product(["inc", "neg", "not", "mul", "idiv"], REGISTERS.items()):
        lines += [f"{name}{suffix} {operand}" for operand in registers + MEMORY[:5]]
    for name, (suffix, registers) in product(["shl", "sar", "rol", "rcr"], REGISTERS.items()):
        for count, operand in product(["", "$1,", "$5,", "%cl,", "$255,"], registers + MEMORY[:3]):
            lines.append(f"{name}{suffix} {count}{operand}")
    for name, suffix in product(["bt", "bts", "btr", "btc"], "wlq"):
        for first, operand in product(["$5", "$63", "$200", REGISTERS[suffix][1]], REGISTERS[suffix] + MEMORY[:3]):
            lines.append(f"{name}{suffix} {first},{operand}")
    for condition in CONDITIONS:
        lines += [f"set{condition} %al", f"set{condition} (%rax)", f"cmov{condition} %rax,%rbx"]
        lines += [f"cmov{condition}l (%rax),%r9d", f"cmov{condition}w %ax,%bx"]
    for segment, suffix in product(SEGMENTS, ["", "w", "l", "q"]):
        for other in ["%ax", "%eax", "%rax", "%r9w", "%r9d", "%r9", "(%rax)"]:
            lines += [f"mov{suffix} {other},{segment}", f"mov{suffix} {segment},{other}"]
        lines += [f"push{suffix} {segment}", f"pop{suffix} {segment}"]
    for name, suffix in product(["push", "pop"], ["", "w", "q"]):
        lines += [f"{name}{suffix} {operand}" for operand in ["%rax", "%ax", "%r12", *MEMORY]]
        lines += [f"{name}{suffix} ${value}" for value in IMMEDIATES]
    for control, register in product(["%cr0", "%cr2", "%cr3", "%cr8", "%dr0", "%dr7", "%db6"], ["%rax", "%r15"]):
        lines += [f"mov {control},{register}", f"movq {register},{control}"]
    for name, operand in product(SYSTEM, [*MEMORY[:6], "%ax", "%eax", "%rax", "%r9", "%r9w", "%r9d"]):
        lines.append(f"{name} {operand}")
    for name, source, target in product(
        ["lar", "lsl", "lsll", "lslq", "bsf", "popcnt", "lzcnt", "movzwl", "movsbq", "movslq", "ud1", "imul"],
        ["%ax", "%eax", "%rax", "%al", "(%rax)", "%gs:8"],
        ["%bx", "%ebx", "%rbx", "%r9"],
    ):
        lines.append(f"{name} {source},{target}")
    for name, operand in product(
        ["jmp", "call", "notrack jmp", "bnd call", "ljmpl", "lcalll"], ["*%rax", "*(%rax)", "*8(,%rax,8)", "*%gs:8"]
    ):
        lines.append(f"{name} {operand}")
    for prefix, name in product(["rep", "repz", "repne"], ["movsb", "movsq", "stosl", "scasb", "cmpsw", "lodsq"]):
        lines.append(f"{prefix} {name}")
    lines += ["movsq (%rsi),(%rdi)", "movsb %ds:(%rsi),%es:(%rdi)", "cmpsb (%rdi),(%rsi)", "stosq %rax,%es:(%rdi)"]
    lines += ["lodsl (%rsi),%eax", "scasb (%rdi),%al", "insb %dx,(%rdi)", "outsl (%rsi),%dx", "gs lodsb", "gs movsq"]
    return lines


# gas takes these, we do not. The rest of what gas takes without a warning must give gas's bytes.
DELIBERATELY_REFUSED = {
    "imm": "an immediate with bits beyond the operand's size, which gas cuts silently (0xffffffff for a byte)",
    "moffs": "mov with an address of more than 32 bits: write movabs, as the address is seldom meant",
}


@needs_gas
def test_same_code_as_gas(tmp_path: Path) -> None:
    lines = forms()
    expected = encode_lines(lines, tmp_path)
    wrong: list[str] = []
    compared = 0
    good = [line for line, code in zip(lines, expected, strict=True) if code is not None]
    errors: dict[int, str] = {}
    while True:
        text = "\n".join("" if number in errors else line for number, line in enumerate(good, 1))
        try:
            image = assemble_text(text, name="forms", base=0)
            break
        except AssemblyError as error:
            errors |= {diagnostic.position.line: diagnostic.message for diagnostic in error.diagnostics}
    codes = {statement.position.line: image.read(statement.address, statement.size) for statement in image.statements}
    for number, (line, code) in enumerate(
        ((line, code) for line, code in zip(lines, expected, strict=True) if code is not None), 1
    ):
        if number in errors:
            if "does not fit in" not in errors[number]:
                wrong.append(f"{line}: {errors[number]}")
        elif codes[number] != code:
            wrong.append(f"{line}: {codes[number].hex()}, gas {code.hex()}")
        compared += 1
    assert wrong == []
    assert compared > 4000


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("movq", "no instruction with these operands"),
        ("movq $,%rax", "bad immediate"),
        ("jmp *", "missing operand"),
        ("movq %foo,%rax", "unknown register %foo"),
        ("movq %rx,%rbx", "did you mean"),
        ("mov $1,(%rax)", "operand"),
        ("jmp %rax", "needs *"),
        ("movb %sil,%ah", "REX"),
        ("movb %ah,%r8b", "REX"),
        ("lock nop", "lock"),
        ("lock movq %rax,(%rbx)", "lock"),
        ("lock addq (%rax),%rbx", "lock"),
        ("lock lock incl (%rax)", "two prefixes"),
        ("addq $0x80000000,%rax", "does not fit in 32 bits"),
        ("movl $0x100000000,%eax", "does not fit in 32 bits"),
        ("movb $256,%al", "does not fit in 8 bits"),
        ("int $256", "does not fit in 8 bits"),
        ("movq 0x80000000(%rax),%rbx", "displacement"),
        ("movq (%rax,%rsp),%rbx", "%rsp cannot be an index"),
        ("movq (%rax,%rbx,3),%rcx", "not 1, 2, 4 or 8"),
        ("movq (%ax),%rbx", "%ax cannot be used in an address"),
        ("movq (%rax,,4),%rbx", "index"),
        ("movl (%rax),%es", "movw"),
        ("into", "64-bit mode"),
        ("movs", "suffix"),
        ("data16", "cannot stand alone"),
        ("* nop", "not a statement"),
        (", nop", "not a statement"),
        ("(%rax)", "not a statement"),
        ("%rax", "not a statement"),
        ("nop \\", "unexpected"),
        ("movq %rax,,%rbx", "missing operand"),
        ("movq (%rax,%rbx", "parenthes"),
        ("movq %rax),%rbx", "parenthes"),
        ("loop far; .skip 200; far:", "does not fit in 8 bits"),
        ("jrcxz far; .skip 200; far:", "does not fit in 8 bits"),
        ("push %rip", "address only"),
        ("movsb (%rbx),(%rdi)", "is (%rsi)"),
        ("scasq (%rsi)", "is (%rdi)"),
        ("lodsb 8(%rsi)", "is (%rsi)"),
        ("xlatb (%rax)", "is (%rbx)"),
        ("lodsb %gs:(%rsi)", "gs lodsb"),
        ("frobnicate %rax", "unknown instruction"),
    ],
)
def test_refused(source: str, reason: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, name="t", base=0)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("movl $label, %eax\nlabel:", "does not fit in 32 bits"),
        (".long label\nlabel:", "does not fit in 32 bits"),
        ("movb $label, %al\nlabel:", "does not fit in 8 bits"),
        ("addq $far, %rax", "does not fit in 32 bits"),
        ("movq far(%rip), %rax", "does not fit in 32 bits"),
        ("call far", "does not fit in 32 bits"),
        ("jne far", "does not fit in 32 bits"),
        (".long far - .", "does not fit in 32 bits"),
        (".quad label * 2\nlabel:", "cannot be an operand"),
        (".quad label + label\nlabel:", "not a number, an address"),
        (".quad -label\nlabel:", "cannot be the operand"),
    ],
)
def test_field_too_small_or_not_an_address(source: str, reason: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, name="t", base=0xFFFF_FFFF_8100_0000, externals={"far": 0x1234_5678_9ABC})
    assert reason in str(caught.value)


def test_every_distant_branch_is_reported() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text("frobnicate\njne far\njmp far\n", name="t", base=0, externals={"far": 1 << 40})
    assert [diagnostic.position.line for diagnostic in caught.value.diagnostics] == [1, 2, 3]
