"""A broken image: some bytes changed, which leaves all addresses where they are, or a source."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asm import Image, Segment
from emu.machine.profile import Profile
from kernel_stubs.abi26 import LINUX_26
from kernel_stubs.kernel_image import Overrides, build_image

NOP = "nop"
"""The generic operator: any instruction."""

_NOPS = (
    b"", b"\x90", b"\x66\x90", b"\x0f\x1f\x00", b"\x0f\x1f\x40\x00", b"\x0f\x1f\x44\x00\x00",
    b"\x66\x0f\x1f\x44\x00\x00", b"\x0f\x1f\x80\x00\x00\x00\x00", b"\x0f\x1f\x84\x00\x00\x00\x00\x00",
    b"\x66\x0f\x1f\x84\x00\x00\x00\x00\x00",
)  # fmt: skip
"""By length (SDM volume 2, NOP)."""


def builds(kernel: str) -> tuple[Profile, ...]:
    """The CPUs for which an image is assembled differently; linux-2.6 never uses FSGSBASE."""
    return (Profile(),) if kernel == LINUX_26 else (Profile(), Profile(fsgsbase=False))


def build_name(profile: Profile) -> str:
    """Of a build, for reports."""
    return "fsgsbase" if profile.fsgsbase else "no-fsgsbase"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken image."""

    operator: str
    place: str
    """symbol+offset and the instruction; or the source line."""
    profile: Profile
    patch: tuple[tuple[int, bytes], ...] = ()
    """(address, bytes) to write."""
    overrides: Overrides = ()
    line: tuple[str, int] = ("", 0)
    """Source file and line whose instructions it changes; no line for a change that may show anywhere."""
    longer: bool = False
    """Whether it executes more instructions, so that all that goes by their count is elsewhere."""
    same: str = ""
    """Why it is the same as the unbroken image by the meaning of its instruction; empty if it need not be."""

    @property
    def name(self) -> str:
        """For lists."""
        return f"{self.operator} {self.place}"

    def image(self, kernel: str, profile: Profile, own_sources: Overrides | None = None) -> Image:
        """The broken image for a CPU; ImageError if it does not assemble."""
        image = build_image(kernel, profile, self.overrides, own_sources)
        return patched(image, self.patch) if self.patch else image

    def touched(self, base: Image) -> frozenset[int]:
        """Instructions of the unbroken image that it changes; empty for a change that may show anywhere."""
        if self.patch:
            return frozenset(address for address, _ in self.patch)
        if not self.line[1]:
            return frozenset()
        return frozenset(a for a in base.addresses_of(*self.line) if base.instruction_at(a) is not None)


def patched(image: Image, patch: tuple[tuple[int, bytes], ...]) -> Image:
    """An image with some bytes changed, and everything else as it is."""
    segments = [_patched(segment, patch) for segment in image.segments]
    return Image(
        segments=segments, symbols=image.symbols, globals=image.globals, externals=image.externals,
        statements=image.statements, entry=image.entry,
    )  # fmt: skip


def _patched(segment: Segment, patch: tuple[tuple[int, bytes], ...]) -> Segment:
    data = bytearray(segment.data)
    for address, new in patch:
        if segment.address <= address < segment.end:
            data[address - segment.address : address - segment.address + len(new)] = new
    return replace(segment, data=bytes(data))


def nops(size: int) -> bytes:
    """One NOP of that size, so that instruction boundaries stay."""
    return _NOPS[size] if size < len(_NOPS) else b"\x66" * (size - 9) + _NOPS[9]
