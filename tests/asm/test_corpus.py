"""Our own sources, byte for byte as GNU as and ld make them."""

from __future__ import annotations

from pathlib import Path

import pytest
from gas_reference import differences, link, needs_gas

from asm import assemble_file

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.S"))
BASE = 0xFFFF_FFFF_8100_0000
EXTERNALS = {"external": 0xFFFF_FFFF_8200_0040}


@needs_gas
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_same_bytes_as_gas(path: Path, tmp_path: Path) -> None:
    image = assemble_file(path, base=BASE, externals=EXTERNALS)
    assert image.statements
    assert differences(image, link(path.read_text(), image, tmp_path, externals=EXTERNALS)) == []


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_assembles_the_same_twice(path: Path) -> None:
    first = assemble_file(path, base=BASE, externals=EXTERNALS)
    second = assemble_file(path, base=BASE, externals=EXTERNALS)
    assert first.to_elf() == second.to_elf()
    assert first.statements == second.statements
