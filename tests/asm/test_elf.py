"""ELF out and in, read by the GNU tools."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from gas_reference import needs_gas

from asm import BadElf, Image, assemble_file, assemble_text

BASE = 0xFFFF_FFFF_8100_0000
SOURCE = """\
.globl _start
_start:
    swapgs
    call helper
    call outside
    ret
.section .entry.text, "ax"
helper:
    nop
    jmp helper
.section .rodata, "a"
table: .quad _start, helper
.bss
buffer: .skip 64
"""


@pytest.fixture(scope="module")
def image() -> Image:
    return assemble_text(SOURCE, name="dir/code.S", base=BASE, externals={"outside": BASE + 0x10_0000})


@pytest.fixture(scope="module")
def path(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elf") / "image"
    path.write_bytes(image.to_elf())
    return path


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "arning" not in done.stderr
    return done.stdout


def test_round_trip(image: Image) -> None:
    again = Image.from_elf(image.to_elf())
    assert again.segments == image.segments
    assert again.symbols == image.symbols
    assert again.globals == image.globals
    assert again.externals == image.externals
    assert again.entry == image.entry
    assert again.to_elf() == Image.from_elf(again.to_elf()).to_elf()


def test_round_trip_keeps_lines(image: Image) -> None:
    again = Image.from_elf(image.to_elf())
    code = [s for s in image.statements if s.address < image.symbol("table")]
    assert [(s.address, s.size, s.position) for s in again.statements] == [
        (s.address, s.size, s.position) for s in code
    ]


def test_foreign_image_is_decoded_without_lines(image: Image) -> None:
    again = Image(segments=image.segments, symbols=image.symbols)
    found = again.instruction_at(BASE)
    assert found is not None
    assert found.mnemonic == "swapgs"
    assert again.instructions()[0] == found


@needs_gas
def test_objdump_disassembles(path: Path) -> None:
    text = output("objdump", "-d", path)
    assert "<_start>:" in text
    assert "swapgs" in text
    assert "<helper>" in text


@needs_gas
def test_nm_lists_symbols(path: Path) -> None:
    lines = {line.split()[2]: line.split()[:2] for line in output("nm", path).splitlines()}
    assert lines["_start"] == ["ffffffff81000000", "T"]
    assert lines["helper"][1] == "t"
    assert lines["table"][1] == "r"
    assert lines["outside"] == ["ffffffff81100000", "A"]


@needs_gas
def test_readelf_finds_no_fault(path: Path) -> None:
    text = output("readelf", "-aW", path)
    assert "EXEC" in text
    assert "FUNC    GLOBAL" in text
    assert "OBJECT  LOCAL" in text


@needs_gas
def test_decoded_line_table(path: Path) -> None:
    text = output("objdump", "--dwarf=decodedline", path)
    assert "0xffffffff81000003" in text


@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed")
def test_gdb_names_file_and_line(path: Path) -> None:
    text = output("gdb", "-nx", "-batch", "-ex", f"info line *{BASE + 3:#x}", "-ex", "info symbol helper", path)
    assert 'Line 4 of "dir/code.S" starts at address 0xffffffff81000003 <_start+3>' in text
    assert "helper in section .entry.text" in text


@needs_gas
@pytest.mark.skipif(not shutil.which("ld"), reason="ld is not installed")
def test_reads_what_ld_links(tmp_path: Path) -> None:
    (tmp_path / "a.s").write_text(".globl _start, weak\n.weak weak\n_start: nop\nweak: local: ret\n.bss\nb: .skip 8\n")
    subprocess.run(["as", "a.s", "-o", "a.o"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "a.o", "-o", "a"], cwd=tmp_path, check=True)
    image = Image.from_elf((tmp_path / "a").read_bytes())
    assert image.read(image.symbol("_start"), 2) == b"\x90\xc3"
    assert image.read(image.symbol("b"), 8) == bytes(8)
    assert image.symbolize(image.symbol("local")) in ("local", "weak")
    with pytest.raises(BadElf, match="ET_REL"):
        Image.from_elf((tmp_path / "a.o").read_bytes())


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(100), b"text" * 100])
def test_not_an_elf_file(data: bytes) -> None:
    with pytest.raises(BadElf):
        Image.from_elf(data)


def test_cut_file_gives_bad_elf_or_an_image(image: Image) -> None:
    data = image.to_elf()
    for size in range(0, len(data), 97):
        try:
            Image.from_elf(data[:size])
        except BadElf:
            continue


def test_corpus_round_trip() -> None:
    for path in (Path(__file__).parent / "corpus").glob("*.S"):
        image = assemble_file(path, base=BASE, externals={"external": BASE + 0x10_0000})
        again = Image.from_elf(image.to_elf())
        assert again.segments == tuple(s for s in image.segments)
        assert again.symbols == image.symbols
