"""The ELF loader: what can be started, and one clear message for all else."""

import shutil
import struct
import subprocess
from contextlib import suppress

import pytest
from booted import user_image
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.errors import ProgramError
from kernel_stubs.abi import TASK_SIZE_MAX, VmFlags
from kernel_stubs.elf import PIE_BASE, load_elf, program_from_image

TEXT = ".text\n_start: movl $60, %eax\n xorl %edi, %edi\n syscall\n.data\nvalue: .quad 5\n"
GOOD = user_image(TEXT).to_elf()


def test_an_executable_is_loaded():
    program = load_elf(GOOD, "good")
    assert program.entry == program.symbols["_start"]
    assert {s.flags for s in program.segments} == {VmFlags.READ | VmFlags.EXEC, VmFlags.READ | VmFlags.WRITE}


def test_an_assembled_image_gives_the_same_program():
    assembled = program_from_image(user_image(TEXT), "image")
    loaded = load_elf(GOOD, "good")
    assert assembled.entry == loaded.entry
    assert assembled.symbols["value"] == loaded.symbols["value"]
    for one, other in zip(assembled.segments, loaded.segments, strict=True):
        assert (one.address, one.flags) == (other.address, other.flags)
        assert (
            assembled.data[one.file_offset : one.file_offset + one.file_size]
            == loaded.data[other.file_offset : other.file_offset + other.file_size]
        )


def patched(**fields: int) -> bytes:
    """GOOD with fields of its header or of its first program header changed."""
    places = {
        "ei_class": (4, "B"), "ei_data": (5, "B"), "e_type": (16, "H"), "e_machine": (18, "H"), "e_entry": (24, "Q"),
        "e_phoff": (32, "Q"), "e_phentsize": (54, "H"), "e_phnum": (56, "H"),
    }  # fmt: skip
    data = bytearray(GOOD)
    first = struct.unpack_from("<Q", data, 32)[0]
    places |= {name: (first + at, "Q") for name, at in
               {"p_offset": 8, "p_vaddr": 16, "p_filesz": 32, "p_memsz": 40}.items()}  # fmt: skip
    for name, value in fields.items():
        at, code = places[name]
        struct.pack_into("<" + code, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "interpreter"),
        (b"MZ\x90", "not an ELF file"),
        (GOOD[:40], "truncated"),
        (GOOD[:80], "truncated: the program headers"),
        (patched(ei_class=1), "32-bit"),
        (patched(ei_data=2), "not for x86-64"),
        (patched(e_machine=183), "not for x86-64"),
        (patched(e_type=1), "relocatable"),
        (patched(e_type=4), "core dump"),
        (patched(e_phnum=0), "program headers"),
        (patched(e_phentsize=32), "program headers"),
        (patched(e_entry=TASK_SIZE_MAX), "entry point"),
        (patched(p_filesz=0x10_0000, p_memsz=0x10_0000), "truncated"),
        (patched(p_filesz=2, p_memsz=1), "more bytes in the file"),
        (patched(p_vaddr=0x40_0001), "aligned"),
        (patched(p_vaddr=0xFFFF_8000_0000_0000), "outside user memory"),
        (patched(p_vaddr=0), "outside user memory"),
        (patched(p_memsz=1 << 63), "outside user memory"),
    ],
)
def test_what_cannot_be_started_says_why(data, message):
    with pytest.raises(ProgramError, match=message) as caught:
        load_elf(data, "prog")
    assert str(caught.value).startswith("prog: ")
    assert "\n" not in str(caught.value)


def test_a_dynamic_program_is_told_how_to_become_static():
    data = bytearray(GOOD + b"/lib64/ld-linux-x86-64.so.2\0")
    first = struct.unpack_from("<Q", data, 32)[0]
    struct.pack_into("<I", data, first, 3)
    struct.pack_into("<Q", data, first + 8, len(GOOD))
    struct.pack_into("<Q", data, first + 32, 28)
    with pytest.raises(ProgramError, match=r"ld-linux-x86-64.so.2.*gcc -static"):
        load_elf(bytes(data), "prog")


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_random_bytes_are_refused(data):
    with pytest.raises(ProgramError):
        load_elf(data, "prog")


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=12))
@settings(max_examples=400, deadline=None)
def test_damaged_files_are_loaded_or_refused(changes):
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try:
        program = load_elf(bytes(data), "prog")
    except ProgramError:
        return
    assert all(s.address + s.memory_size <= TASK_SIZE_MAX for s in program.segments)


@given(st.integers(0, len(GOOD)))
@settings(max_examples=100, deadline=None)
def test_cut_files_are_loaded_or_refused(size):
    with suppress(ProgramError):
        load_elf(GOOD[:size], "prog")


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
@pytest.mark.parametrize("flags", [["-static"], ["-static-pie"], []], ids=["static", "static-pie", "dynamic"])
def test_what_gcc_makes(tmp_path, flags):
    source, target = tmp_path / "a.c", tmp_path / "a.out"
    source.write_text("int main(void) { return 3; }\n")
    subprocess.run(["gcc", *flags, "-o", target, source], check=True)
    if not flags:
        with pytest.raises(ProgramError, match="dynamically linked"):
            load_elf(target.read_bytes(), "a.out")
        return
    program = load_elf(target.read_bytes(), "a.out")
    assert (program.entry >= PIE_BASE) == (flags == ["-static-pie"])
    assert program.program_headers
    assert program.symbols["main"] < program.end
