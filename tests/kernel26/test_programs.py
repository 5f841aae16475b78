"""linux-2.6: real programs."""

import shutil
import subprocess
from pathlib import Path

import pytest
from classic import run_program

from kernel_stubs.elf import load_elf

HELLO = '#include <stdio.h>\nint main(int c, char **v) { printf("hello %d %s\\n", c, v[c - 1]); return 3; }\n'


def execute(path, *argv):
    return run_program(
        load_elf(Path(path).read_bytes(), argv[0]), argv=tuple(text.encode() for text in argv), ram_bytes=64 << 20
    )


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_hello_world(compiler, tmp_path):
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    (tmp_path / "hello.c").write_text(HELLO)
    subprocess.run([compiler, "-static", "-o", tmp_path / "hello", tmp_path / "hello.c"], check=True)
    facts = execute(tmp_path / "hello", "hello", "you")
    assert (facts.exit_code, facts.stream(1), facts.violations) == (3, b"hello 2 you\n", ())


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (("busybox", "echo", "hi", "there"), b"hi there\n"),
        (("busybox", "seq", "1", "5"), b"1\n2\n3\n4\n5\n"),
        (("busybox", "sh", "-c", "echo a; (echo b)"), b"a\nb\n"),
    ],
)
def test_busybox(argv, output):
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not installed")
    facts = execute(busybox, *argv)
    assert (facts.exit_code, facts.stream(1), facts.violations) == (0, output, ())
