"""`entry64 boot`: images built here from C, as test suites for bare metal build theirs; QEMU runs the same files."""

import contextlib
import random
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from emu.errors import ImageError
from emu.lab.bare_boot import OUT_OF_BUDGET, STOPPED, BootOptions, boot

SOURCES = Path(__file__).parent / "boot_image"
TOOLS = ("gcc", "ld", "objcopy")
BUDGET = 3_000_000
COMPILE = [
    "gcc", "-m64", "-O1", "-ffreestanding", "-fno-pie", "-fno-stack-protector", "-fcf-protection=none",
    "-mno-red-zone", "-mgeneral-regs-only", "-Wall", "-Werror", "-Wno-unused-function", "-Wno-unused-variable",
    "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-Ttext-segment=0x100000",
    "-Wl,-e,start",
]  # fmt: skip


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Function: name of a source -> its image, as ELF64 or as the ELF32 that boot loaders want."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("images")

    @cache
    def make(name, bits=32):
        wide, narrow = folder / f"{name}.64", folder / f"{name}.32"
        if not wide.exists():
            source = [str(SOURCES / "start.S"), str(SOURCES / f"{name}.c")]
            subprocess.run([*COMPILE, *source, "-o", str(wide)], check=True)
            subprocess.run(["objcopy", "-O", "elf32-i386", str(wide), str(narrow)], check=True, capture_output=True)
        return str(wide if bits == 64 else narrow)

    return make


class Run:
    """A boot and what came of it."""

    def __init__(self, image, trace=None, budget=BUDGET, **options):
        sent, debug, said = bytearray(), bytearray(), []
        options = BootOptions(image, budget=budget, memory_mib=options.pop("memory_mib", 16), **options)
        self.status = boot(options, sent.append, debug.append, said.append, trace)
        self.sent, self.debug, self.said = bytes(sent), bytes(debug), "\n".join(said)


ALL_BYTES = b"hello one two\n" + bytes(range(256))


def test_an_image_prints_over_the_serial_port_byte_for_byte_and_gives_its_status(build):
    run = Run(build("hello"), arguments=("one", "two"))
    assert (run.sent, run.debug, run.status, run.said) == (ALL_BYTES, b"!", 5 << 1 | 1, "")


def test_an_elf64_image_is_entered_by_its_multiboot_header_too(build):
    assert Run(build("hello", 64), arguments=("one", "two")).sent == ALL_BYTES


@pytest.mark.parametrize("bits", [32, 64])
def test_an_image_can_be_entered_at_a_64_bit_symbol(build, bits):
    assert Run(build("hello", bits), entry="enter64", arguments=("one", "two")).sent == ALL_BYTES


def test_exceptions_arrive_with_their_codes_and_are_resumed(build):
    run = Run(build("exceptions"))
    assert run.sent.decode().split("\n") == [
        "#UD", "#BP cs 8", "#GP 38", "#GP 2aa", "#GP 0", "#PF 0", "cr2 123456789000", "#PF 2", "cr2 123456789000",
        "#GP 0", "#PF 10", "cr2 7ffffffff000", "",
    ]  # fmt: skip
    assert run.status == 3


def test_user_mode_and_back(build):
    run = Run(build("user"))
    assert run.sent == b"int from cs 2b\nsyscall 29\n#GP from cs 2b\ncode 0\n"
    assert run.status == 42 << 1 | 1


def test_the_timer_wakes_a_halted_cpu_and_ticks(build):
    assert Run(build("timer")).sent == b"initial 186a0\none shot 1\ncount 0\nperiodic 1\n"


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_cpus_are_started_in_real_mode_and_answer_interrupts(build, seed):
    run = Run(build("smp"), cpus=4, seed=seed)
    assert run.sent == b"online 4\nanswer of 1\nanswer of 2\nanswer of 3\nall\n"
    assert run.status == 1


def test_the_same_seed_gives_the_same_trace(build):
    def trace(seed):
        lines = []
        Run(build("smp"), cpus=3, seed=seed, trace=lines.append)
        return lines

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)


def test_the_serial_port_interrupts_through_the_ioapic(build):
    run = Run(build("receive"), given=b"hello, world.")
    assert run.sent == b"lines 18\nentry 44\nHELLO, WORLD.\n"


def test_memory_and_cpus_are_what_was_asked_for(build):
    run = Run(build("memory"), cpus=2, memory_mib=33)
    assert run.sent.decode().split("\n")[1:4] == [f"ram {33 << 20:x}", "cpus 2", "again 2"]
    assert b"last byte 7\n" in run.sent


QEMU = "qemu-system-x86_64"


@pytest.mark.parametrize(
    ("name", "cpus", "given"),
    [
        ("hello", 1, b""),
        ("user", 1, b""),
        ("timer", 1, b""),
        ("memory", 1, b""),
        ("smp", 4, b""),
        ("receive", 1, b"q."),
    ],
)
def test_qemu_says_the_same_about_the_same_image(build, name, cpus, given):
    if shutil.which(QEMU) is None:
        pytest.skip(f"not installed: {QEMU}")
    command = [
        QEMU, "-accel", "tcg", "-cpu", "qemu64", "-kernel", build(name), "-append", "x", "-m", "16",
        "-smp", str(cpus), "-no-reboot",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "stdio", "-display", "none", "-monitor", "none",
    ]  # fmt: skip
    theirs = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    ours = Run(build(name), cpus=cpus, given=given, arguments=("x",))
    assert (ours.sent, ours.status) == (theirs.stdout, theirs.returncode)


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("triple", STOPPED, ("shutdown at main", "triple fault", "vector 13 while delivering")),
        ("halt", STOPPED, ("every CPU halted with nothing to wake it", "main")),
        ("memory", STOPPED, ("physical memory outside RAM", "main")),
        ("loop", OUT_OF_BUDGET, (f"still running after {BUDGET} instructions at spin", "a loop of 2 instructions")),
    ],
)
def test_a_guest_that_does_not_exit_is_reported(build, how, status, words):
    run = Run(build("ends"), arguments=(how,))
    assert (run.sent, run.status) == (b"on the way\n", status)
    assert run.said.startswith("entry64 boot: cpu 0: ")
    assert all(word in run.said for word in words), run.said


def test_an_exception_before_long_mode_ends_the_run_with_a_message(build, tmp_path):
    image = bytearray(Path(build("hello")).read_bytes())
    at = image.index((0x1BADB002).to_bytes(4, "little")) + 12
    image[at : at + 2] = b"\x0f\x0b"
    broken = tmp_path / "broken"
    broken.write_bytes(image)
    run = Run(str(broken))
    assert run.status == STOPPED
    assert "vector 6 at 0x10100c outside long mode" in run.said


def test_a_trace_names_every_instruction_from_the_first(build):
    lines = []
    Run(build("hello"), trace=lines.append)
    assert lines[0].split()[:4] == ["0", "0", "start", "movl"]
    assert any(" start32+" in line and "ljmp" in line for line in lines)
    assert any(" main+" in line for line in lines)


def test_a_trace_shows_deliveries(build):
    lines = []
    Run(build("timer"), trace=lines.append)
    assert any(" vector 64 EXTINT -> on_tick" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data[:40], "not a readable ELF file"),
        (lambda data: b"", "not a readable ELF file"),
        (lambda data: data[:18] + b"\x28" + data[19:], "not an x86 ELF file"),
        (lambda data: data[:16] + b"\x03" + data[17:], "not an executable at fixed addresses"),
        (
            lambda data: data.replace((0x1BADB002).to_bytes(4, "little"), bytes(4), 1),
            "name a 64-bit entry with --entry",
        ),
    ],
)
def test_a_file_that_cannot_be_booted_is_refused(build, tmp_path, change, text):
    path = tmp_path / "image"
    path.write_bytes(change(Path(build("hello")).read_bytes()))
    with pytest.raises(ImageError, match=text):
        Run(str(path))


def test_an_unknown_entry_is_refused_with_names_like_it(build):
    with pytest.raises(ImageError, match="no symbol 'start46' in the image; near: start64"):
        Run(build("hello"), entry="start46")


def test_an_image_larger_than_memory_is_refused(build):
    with pytest.raises(ImageError, match="beyond the RAM of 1 MiB"):
        Run(build("hello"), memory_mib=1)


def test_a_missing_file_is_refused():
    with pytest.raises(ImageError, match="/nowhere: cannot be read: No such file"):
        Run("/nowhere")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_image_ends_in_a_result_or_an_error(build, tmp_path, seed):
    draw = random.Random(seed)
    data = bytearray(Path(build("hello", draw.choice([32, 64]))).read_bytes())
    for _ in range(draw.randrange(1, 30)):
        data[draw.choice([draw.randrange(400), draw.randrange(0x1000, 0x1200)])] = draw.randrange(256)
    path = tmp_path / "image"
    path.write_bytes(data)
    with contextlib.suppress(ImageError):
        Run(str(path), budget=20_000)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "emu.cli", "boot", *arguments], capture_output=True, timeout=60, check=False
    )


def test_the_command_relays_output_and_status(build):
    done = command("--memory", "16", build("hello"), "one", "two")
    assert (done.stdout, done.stderr, done.returncode) == (ALL_BYTES, b"!", 11)


def test_the_command_says_what_is_wrong_without_a_traceback(build, tmp_path):
    done = command("--entry", "nowhere", build("hello"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"no symbol 'nowhere'")
