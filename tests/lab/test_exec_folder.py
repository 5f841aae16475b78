"""`entry64 exec --folder`: a folder of the host is the program's, and changes only if that is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asm import assemble_text
from emu.cli import main

WRITES = """
_start:
    movl    $2, %eax            # open("new", O_WRONLY | O_CREAT, 0644)
    leaq    name(%rip), %rdi
    movl    $0101, %esi
    movl    $0644, %edx
    syscall
    testl   %eax, %eax
    js      failed
    movl    %eax, %edi
    movl    $1, %eax
    leaq    name(%rip), %rsi
    movl    $3, %edx
    syscall
    xorl    %eax, %eax
failed:
    negl    %eax
    movl    %eax, %edi
    {end}
    movl    $231, %eax
    syscall
name:
    .asciz  "new"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "inside"
    inside.mkdir()
    return inside


def execute(tmp_path: Path, *options: str, end: str = "") -> Result:
    program = tmp_path / "program"
    program.write_bytes(assemble_text(WRITES.format(end=end), name="p.S", base=0x40_0000, entry="_start").to_elf())
    return CliRunner().invoke(main, ["exec", *options, str(program)])


def test_a_folder_is_read_only_unless_said_otherwise(tmp_path: Path, folder: Path) -> None:
    assert execute(tmp_path, "--folder", str(folder)).exit_code == 30  # EROFS
    assert list(folder.iterdir()) == []


def test_a_writable_folder_becomes_what_the_program_made_of_it(tmp_path: Path, folder: Path) -> None:
    assert execute(tmp_path, "--folder", str(folder), "--writable").exit_code == 0
    assert (folder / "new").read_text() == "new"


def test_a_run_that_goes_wrong_leaves_the_folder_as_it_was(tmp_path: Path, folder: Path) -> None:
    found = execute(tmp_path, "--folder", str(folder), "--writable", "--budget", "20000", end="forever: jmp forever")
    assert found.exit_code == 125
    assert list(folder.iterdir()) == []
    assert f"{folder} is left as it was" in found.output


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--writable"], "there is none"), (["--folder", "/dev/null"], "/dev/null: not a folder")],
)
def test_what_cannot_be_a_folder_gives_status_2(tmp_path: Path, options: list[str], message: str) -> None:
    found = execute(tmp_path, *options)
    assert found.exit_code == 2 or "not a folder" in str(found.exception)
    assert message in found.output + str(found.exception)
