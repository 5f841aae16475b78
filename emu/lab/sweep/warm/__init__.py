"""What every worker of a sweep would do first, done once in the process that workers are copies of.

That process can be told the names of modules, and imports them: each module in here stands for one kernel image.
"""

from __future__ import annotations

from collections.abc import Collection

from emu.errors import ImageError
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image

_MODULES = {"linux-6": "linux_6", "linux-2.6": "linux_2_6"}


def modules(kernels: Collection[str]) -> list[str]:
    """Names of the modules that make ready for scenarios of these kernel images."""
    return [f"{__name__}.{module}" for kernel, module in _MODULES.items() if kernel in kernels]


def warm(kernel: str) -> None:
    """Assemble an image for the usual CPU, and decode it: `build_image` keeps it."""
    try:
        build_image(kernel, Profile()).instructions()
    except ImageError:
        return  # whoever asks for this image is told so
