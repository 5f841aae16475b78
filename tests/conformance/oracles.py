"""Running a test image under Bochs and QEMU: the same bytes, from a disk whose boot sector enters 64-bit mode."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conformance.decode import HUNG, SHUTDOWN, Answer, decode
from conformance.image import HERE, TestImage
from conformance.model import Vendor

SECTOR = 512
CHUNK = 64
"""Sectors that the loader reads at a time."""
CYLINDER = 16 * 63 * SECTOR
SECONDS = 10
"""A boot takes well under a second; one that takes longer hangs."""

BOCHS_SETTINGS = """\
plugin_ctrl: unmapped=1, biosdev=1, speaker=0, gameport=0, iodebug=0, parallel=0, serial=0
config_interface: textconfig
display_library: rfb, options="timeout=0"
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
megs: 32
cpu: model={model}, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none, time0=946681200
ata0-master: type=disk, path={folder}/disk, mode=flat, cylinders={cylinders}, heads=16, spt=63
boot: disk
port_e9_hack: enabled=1
log: {folder}/log
panic: action=fatal
"""


@dataclass(frozen=True)
class Oracle:
    """A simulator with the CPU models that stand for the two vendors."""

    name: str
    command: str
    models: dict[Vendor, str]

    @property
    def installed(self) -> bool:
        return shutil.which(self.command) is not None

    def version(self) -> str:
        if self.name == "bochs":
            text = _run([self.command, "--help"]).stdout
            found = re.search(r"Bochs x86 Emulator (\S+)", text)
        else:
            found = re.search(r"version (\S+)", _run([self.command, "--version"]).stdout)
        return found.group(1) if found else "unknown"

    def boot(self, disk: bytes, vendor: Vendor) -> tuple[str, bool]:
        """What came out of the debug port, and whether the boot came to an end by itself."""
        with tempfile.TemporaryDirectory() as folder:
            cylinders = -(-len(disk) // CYLINDER)
            Path(folder, "disk").write_bytes(disk.ljust(cylinders * CYLINDER, b"\0"))
            command = self._bochs(folder, vendor, cylinders) if self.name == "bochs" else self._qemu(folder, vendor)
            try:
                return _run(command).stdout, True
            except subprocess.TimeoutExpired as late:
                return (late.stdout or b"").decode("latin-1"), False

    def _bochs(self, folder: str, vendor: Vendor, cylinders: int) -> list[str]:
        settings = BOCHS_SETTINGS.format(model=self.models[vendor], folder=folder, cylinders=cylinders)
        Path(folder, "bochsrc").write_text(settings)
        Path(folder, "commands").write_text("c\n")
        return [self.command, "-q", "-f", f"{folder}/bochsrc", "-rc", f"{folder}/commands"]

    def _qemu(self, folder: str, vendor: Vendor) -> list[str]:
        return [
            self.command, "-accel", "tcg", "-cpu", self.models[vendor], "-m", "32", "-display", "none", "-no-reboot",
            "-drive", f"file={folder}/disk,format=raw,if=ide", "-debugcon", "stdio", "-monitor", "none",
            "-serial", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
        ]  # fmt: skip


BOCHS = Oracle("bochs", "bochs", {"intel": "corei7_icelake_u", "amd": "ryzen"})
QEMU = Oracle("qemu", "qemu-system-x86_64", {"intel": "Skylake-Client,+umip", "amd": "EPYC,+umip"})
ORACLES = (BOCHS, QEMU)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, encoding="latin-1", stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
    )


def _boot_sector(sectors: int, entry: int) -> bytes:
    """The loader, assembled by GNU as."""
    with tempfile.TemporaryDirectory() as folder:
        symbols = ["--defsym", f"SECTORS={sectors}", "--defsym", f"ENTRY={entry:#x}"]
        for command in (
            ["as", *symbols, str(HERE / "loader.S"), "-o", f"{folder}/o"],
            ["ld", "-Ttext", "0x7c00", "-e", "0x7c00", "--oformat", "binary", f"{folder}/o", "-o", f"{folder}/bin"],
        ):
            subprocess.run(command, check=True)
        return Path(folder, "bin").read_bytes()


def _output(text: str) -> str:
    """The harness's lines: Bochs's own chatter comes before and after them on the same stream."""
    found = re.search(r"#[0-9a-f]+\n(?:[#v=m][0-9a-f][0-9a-f ]*\n)*(?:\.\n)?", text)
    return found.group() if found else ""


def answers(oracle: Oracle, image: TestImage, vendor: Vendor) -> list[Answer]:
    """The oracle's answer to every case of an image."""
    sectors = -(-len(image.data) // (SECTOR * CHUNK)) * CHUNK
    sector = _boot_sector(sectors, image.entry)
    found: dict[int, Answer] = {}
    first = 0
    while first < len(image.cases):
        disk = (sector + image.selecting(first, len(image.cases) - 1)).ljust((sectors + 1) * SECTOR, b"\0")
        text, ended = oracle.boot(disk, vendor)
        part, broken = decode(_output(text), image, first)
        found |= part
        if broken is None:
            break
        found[broken] = dict(SHUTDOWN if ended else HUNG)
        first = broken + 1
    return [found[n] for n in range(len(image.cases))]
