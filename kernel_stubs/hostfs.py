"""A folder of the host inside the guest: read once before the run, written back, if that is allowed, after it.

The guest only ever sees the copy, whose links and `..` lead nowhere but to the guest's own tree; so nothing that a
program does can reach another file of the host, and runs can be repeated.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from emu.errors import Entry64Error
from kernel_stubs import mm, ramfs
from kernel_stubs.abi import Inode, InodeKind
from kernel_stubs.context import InputFile, Kernel
from kernel_stubs.rootfs import MOUNT_POINT

MAX_FILES = 4096
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class HostFolder:
    """What lies below a folder of the host, as files below /host; sockets, devices and the like are left out."""

    path: Path
    files: tuple[InputFile, ...]
    writable: bool = False


def open_folder(path: Path, *, writable: bool = False) -> HostFolder:
    """Read a folder, links as links; Entry64Error if it is none, or too much."""
    if not path.is_dir():
        raise Entry64Error(f"{path}: not a folder")
    found = [InputFile(MOUNT_POINT, b"", 0o755, "directory", not writable)]
    total = 0
    for folder, name in _below(path):
        entry = Path(folder, name)
        guest = f"{MOUNT_POINT}/{entry.relative_to(path)}"
        try:
            status = entry.lstat()
            if stat.S_ISLNK(status.st_mode):
                found.append(InputFile(guest, os.fsencode(os.readlink(entry)), 0o777, "link", not writable))
            elif stat.S_ISDIR(status.st_mode):
                found.append(InputFile(guest, b"", stat.S_IMODE(status.st_mode), "directory", not writable))
            elif stat.S_ISREG(status.st_mode):
                data = entry.read_bytes()
                total += len(data)
                found.append(InputFile(guest, data, stat.S_IMODE(status.st_mode), "file", not writable))
        except OSError as error:
            raise Entry64Error(f"{entry}: cannot be read: {error.strerror}") from None
        if len(found) > MAX_FILES or total > MAX_BYTES:
            raise Entry64Error(f"{path}: more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB")
    return HostFolder(path, tuple(found), writable)


def _below(path: Path) -> list[tuple[str, str]]:
    """(folder, name) of everything below a folder, folders first; links are not followed."""
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        found += [(folder, name) for name in sorted([*folders, *names])]
        if len(found) > MAX_FILES:
            break
    return found


def write_back(kernel: Kernel, folder: HostFolder) -> list[str]:
    """Bring the host's folder to what the guest made of it: names of the files that changed, removed ones with a `-`.

    Only regular files and folders are written, and nothing through a link that lies in the host's folder.
    """
    if not folder.writable:
        return []
    root = kernel.view(Inode, mm.kernel_data(kernel.memory).root_inode)
    mount = ramfs.lookup(kernel, root, MOUNT_POINT[1:].encode())
    known = {file.name.removeprefix(MOUNT_POINT + "/"): file for file in folder.files if file.name != MOUNT_POINT}
    changed: list[str] = []
    seen: set[str] = set()
    _write_folder(kernel, folder, mount, "", known, seen, changed)
    for name in sorted(set(known) - seen, reverse=True):
        target = folder.path / name
        if known[name].kind == "file" and _is_inside(folder.path, target) and target.is_file():
            target.unlink()
            changed.append("-" + name)
    return changed


def _write_folder(
    kernel: Kernel, folder: HostFolder, inode: int, prefix: str, known: dict[str, InputFile], seen: set[str],
    changed: list[str],
) -> None:  # fmt: skip
    for raw, child in ramfs.entries(kernel, kernel.view(Inode, inode)):
        name = prefix + os.fsdecode(raw)
        node, target = kernel.view(Inode, child), folder.path / name
        seen.add(name)
        if node.kind == InodeKind.DIRECTORY:
            if _is_inside(folder.path, target) and not target.is_symlink():
                target.mkdir(exist_ok=True)
                _write_folder(kernel, folder, child, name + "/", known, seen, changed)
        elif node.kind == InodeKind.REGULAR and not node.input:
            data = ramfs.read_inode(kernel, node, 0, node.size)
            before = known.get(name)
            if (before is None or before.data != data) and _is_inside(folder.path, target):
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, node.mode & 0o777)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                changed.append(name)


def _is_inside(folder: Path, target: Path) -> bool:
    """Whether a file's folder is the host's folder or really lies below it."""
    root = folder.resolve()
    parent = target.parent.resolve()
    return (parent == root or root in parent.parents) and not target.is_symlink()
