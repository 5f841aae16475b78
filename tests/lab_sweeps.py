"""Sweeps for the tests of the laboratory, in this process."""

from __future__ import annotations

from asm import Image
from emu.lab.sweep.pool import Job, Workshop
from emu.lab.sweep.scene import Options, Scene
from emu.lab.sweep.store import Row
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image, source_files


def rows(source: str, *events: str, depth: int = 1, window: str = "", image: Image | None = None) -> list[Row]:
    """All rows of a sweep of a scenario's text."""
    options = Options(events, depth, window, image=image)
    scene = Scene("t.toml", source, options)
    workshop = Workshop(Job((("t.toml", source),), options))
    return [row for unit in scene.units(0) for row in workshop.rows(unit, lambda key: None)]


def changed(*edits: tuple[str, str, str], kernel: str = "linux-6", profile: Profile | None = None) -> Image:
    """The image with (file, old, new) applied; each old text stands there exactly once."""
    sources = source_files(kernel)
    for name, old, new in edits:
        assert sources[name].count(old) == 1, f"{name}: {old!r} stands there {sources[name].count(old)} times"
        sources[name] = sources[name].replace(old, new)
    overrides = tuple((name, sources[name]) for name in dict.fromkeys(edit[0] for edit in edits))
    return build_image(kernel, profile or Profile(), overrides)
