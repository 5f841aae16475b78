"""Real programs: what gcc and musl-gcc make, and busybox, compared with the host's kernel."""

import shutil
import subprocess
from pathlib import Path

import pytest
from booted import start

from emu.machine.end import EndKind
from emu.machine.profile import Profile
from kernel_stubs.elf import load_elf
from kernel_stubs.syscalls.table import unknown_syscalls

LIMIT = 20_000_000

HELLO = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv, char **envp)
{
    char *block = malloc(300000);
    memset(block, 'x', 300000);
    for (int i = 0; i < argc; i++) printf("%d %s\\n", i, argv[i]);
    for (; *envp; envp++) puts(*envp);
    printf("%d %c\\n", 1 << argc, block[299999]);
    free(block);
    fprintf(stderr, "to stderr\\n");
    return 42;
}
"""


def run(path, argv, stdin=b"", **options):
    program = load_elf(Path(path).read_bytes(), str(path))
    it = start(program, argv=tuple(a.encode() for a in argv), stdin=stdin, **options)
    return it, it.run(LIMIT)


@pytest.fixture(scope="module", params=["gcc -static", "musl-gcc -static", "gcc -static-pie", "gcc -static -O0"])
def hello(request, tmp_path_factory):
    compiler, *flags = request.param.split()
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    folder = tmp_path_factory.mktemp("hello")
    (folder / "hello.c").write_text(HELLO)
    subprocess.run([compiler, *flags, "-o", folder / "hello", folder / "hello.c"], check=True)
    return folder / "hello"


def test_a_program_starts_with_the_fpu_as_linux_gives_it():
    it = start("""
    _start: subq $16, %rsp
        fnstcw (%rsp)
        stmxcsr 8(%rsp)
        movl 8(%rsp), %edi
        shll $16, %edi
        movw (%rsp), %di
        xorl $0x1f80037f, %edi
        setnz %dil
        movzbl %dil, %edi
        movl $60, %eax
        syscall
    """)
    assert it.run().text == "exited with status 0"


@pytest.mark.parametrize("vendor", ["intel", "amd"])
def test_hello_world(hello, vendor):
    it, end = run(hello, ["hello", "a", "b c"], envp=(b"KEY=value",), profile=Profile(vendor=vendor))
    assert end.kind is EndKind.FINISHED
    assert end.text == "exited with status 42"
    host = subprocess.run(
        ["hello", "a", "b c"], executable=hello, env={"KEY": "value"}, capture_output=True, check=False
    )
    assert it.stdout == host.stdout
    assert b"".join(data for fd, data in it.system.kernel.output if fd == 2) == host.stderr
    assert unknown_syscalls(it.system.kernel) == {}


def test_a_busy_timer_changes_nothing(hello):
    quiet, _ = run(hello, ["hello"])
    busy, end = run(hello, ["hello"], timer_period=777)
    assert end.text == "exited with status 42"
    assert busy.stdout == quiet.stdout
    assert busy.cpu.percpu.timer_ticks > 5


def test_runs_are_repeatable(hello):
    one, _ = run(hello, ["hello"], timer_period=991, seed=3)
    two, _ = run(hello, ["hello"], timer_period=991, seed=3)
    assert one.events == two.events
    assert one.core.clock == two.core.clock


@pytest.mark.skipif(not shutil.which("musl-gcc"), reason="musl-gcc is not installed")
def test_answers_are_those_of_the_hosts_kernel(tmp_path):
    target = tmp_path / "differential"
    source = Path(__file__).with_name("differential.c")
    subprocess.run(["musl-gcc", "-static", "-O1", "-o", target, source], check=True)
    host = subprocess.run([target], input=b"", capture_output=True, check=True)
    it, end = run(target, ["differential"])
    assert end.text == "exited with status 0"
    assert it.stdout.decode().splitlines() == host.stdout.decode().splitlines()


BUSYBOX = shutil.which("busybox")


@pytest.mark.skipif(not BUSYBOX, reason="busybox is not installed")
@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (["busybox", "echo", "hello", "there"], b""),
        (["seq", "1", "100"], b""),
        (["sha256sum"], b"foo\n" * 1000),
        (["sha256sum"], b""),
        (["awk", '{ s += $1; print $2, s } END { printf "%.3f\\n", s / NR }'], b"1 a\n2 b\n4 c\n"),
        (["wc"], b"some words here\nand there\n"),
        (["sort", "-r"], b"b\nc\na\n"),
        (["false"], b""),
        (["nonsense"], b""),
    ],
    ids=lambda value: " ".join(value)[:16] if isinstance(value, list) else "",
)
def test_busybox(argv, stdin):
    it, end = run(BUSYBOX, argv, stdin)
    host = subprocess.run(argv, executable=BUSYBOX, input=stdin, capture_output=True, check=False)
    assert end.text == f"exited with status {host.returncode}"
    assert it.stdout == host.stdout
