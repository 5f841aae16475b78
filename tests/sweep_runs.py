"""Sweeps of getpid for the tests, in this process or with one worker."""

from __future__ import annotations

from emu.lab.scenario import parse_scenario
from emu.lab.sweep.command import Swept, sweep
from emu.lab.sweep.pool import Job, Workshop
from emu.lab.sweep.scene import Options, Scene
from emu.lab.sweep.store import Store
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files

GETPID = """
title = "getpid"
cpu = {{ fsgsbase = {fsgsbase} }}
[user]
asm = '''
_start:
    movl    $SYS_getpid, %eax
    syscall
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""


def text(*, fsgsbase: bool = True) -> str:
    return GETPID.format(fsgsbase=str(fsgsbase).lower())


def rows(
    source: str, *events: str, first: tuple[str, ...] = (), depth: int = 1, window: str = "", image=None, cpu: int = 0
):
    """All rows of a sweep in this process."""
    options = Options(events, depth, window, image=image, first=first, cpu=cpu)
    scene = Scene("t.toml", source, options)
    workshop = Workshop(Job((("t.toml", source),), options))
    return [row for unit in scene.units(0) for row in workshop.rows(unit, lambda key: None)]


def swept(source: str, *events: str, depth: int = 1, window: str = "", image=None) -> Swept:
    """A sweep with one worker, findings included."""
    file = parse_scenario(source, "t.toml")
    (result,) = sweep([file], Options(events, depth, window, image=image), 1, Store(None), lambda *_: None)
    return result


def broken(name: str, old: str, new: str, *, fsgsbase: bool = True):
    source = source_files("linux-6")[name]
    assert source.count(old) == 1, f"{name}: {old!r} stands there {source.count(old)} times"
    return build_image("linux-6", Profile(fsgsbase=fsgsbase), ((name, source.replace(old, new)),))
