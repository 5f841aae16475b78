"""Assembling a kernel image with what Python defines."""

import pytest

from emu.errors import ImageError
from emu.machine.profile import Profile
from kernel_stubs.abi import KERNEL_BASE
from kernel_stubs.binding import registered
from kernel_stubs.kernel_image import build_image, kernel_names, load_c_functions, source_files
from kernel_stubs.running import SLOT_SIZE


def test_every_c_function_has_a_slot():
    load_c_functions()
    image = build_image("linux-6", Profile())
    slots = [image.symbol(name) for name in registered()]
    assert all(slot % SLOT_SIZE == 0 for slot in slots)
    assert len(set(slots)) == len(slots)
    assert min(slots) == image.symbol("__c_stubs_start")
    assert image.entry == image.symbol("startup_64") > KERNEL_BASE


def test_images_are_made_once():
    assert build_image("linux-6", Profile()) is build_image("linux-6", Profile())


def test_features_change_the_code():
    assert "clac" in {i.mnemonic for i in build_image("linux-6", Profile()).instructions()}
    assert "clac" not in {i.mnemonic for i in build_image("linux-6", Profile(smap=False)).instructions()}


def test_unknown_images_are_refused_by_name():
    with pytest.raises(ImageError, match=r"there are .*linux-6.*did you mean linux-6"):
        build_image("linux-5", Profile())


def test_a_source_can_be_replaced():
    text = source_files("linux-6")["entry_64.S"]
    broken = text.replace("    swapgs\n", "    nop\n", 1)
    image = build_image("linux-6", Profile(), (("entry_64.S", broken),))
    assert image.instruction_at(image.symbol("entry_SYSCALL_64")).mnemonic == "nop"


def test_replacing_an_unknown_source_is_refused():
    with pytest.raises(ImageError, match=r"no source 'entry\.S'"):
        build_image("linux-6", Profile(), (("entry.S", ""),))


def test_errors_in_a_source_name_its_line():
    text = source_files("linux-6")["entry_64.S"] + "\n    frobnicate %rax\n"
    with pytest.raises(ImageError, match=rf"entry_64.S:{text.count(chr(10))}:.*frobnicate"):
        build_image("linux-6", Profile(), (("entry_64.S", text),))


def test_positions_do_not_depend_on_the_machine():
    files = {s.position.file for s in build_image("linux-6", Profile()).statements}
    assert files <= {*source_files("linux-6"), "c_functions.inc"}
    assert "linux-6" in kernel_names()
