"""Inodes in guest memory: contents, directories, links (fs/ramfs, fs/inode.c).

A file's pages hang on one index page of index pages, so a file can have 512 x 512 of them. What the run was given as
input stays outside until somebody writes to it. A directory's content is a sequence of entries: inode, length, name.
"""

from __future__ import annotations

import struct

from emu.arch import PAGE_SIZE
from kernel_stubs import mm
from kernel_stubs.abi import Inode, InodeKind
from kernel_stubs.context import Kernel
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.slab import alloc_object, free_object

NAME_MAX = 255
PER_PAGE = PAGE_SIZE // 8
MAX_FILE = PER_PAGE * PER_PAGE * PAGE_SIZE
_ENTRY = struct.Struct("<QB")


def new_inode(kernel: Kernel, kind: InodeKind, mode: int) -> int:
    """An inode without a name: its address."""
    data = mm.kernel_data(kernel.memory)
    address = alloc_object(kernel.memory)
    node = kernel.view(Inode, address)
    data.next_inode += 1
    node.kind, node.mode, node.number = int(kind), mode, data.next_inode
    node.changed = max(core.clock for core in kernel.machine.cores)
    return address


def get_inode(kernel: Kernel, address: int) -> int:
    """One more user."""
    kernel.view(Inode, address).count += 1
    return address


def put_inode(kernel: Kernel, address: int) -> None:
    """A user less; without users and names it goes."""
    node = kernel.view(Inode, address)
    node.count -= 1
    forget_inode(kernel, address)


def forget_inode(kernel: Kernel, address: int) -> None:
    """Free an inode that has neither users nor names."""
    node = kernel.view(Inode, address)
    if node.count or node.links:
        return
    _free_pages(kernel, node, 0)
    if node.index:
        mm.free_page(kernel.memory, node.index)
    free_object(kernel.memory, address)


# --- contents ---------------------------------------------------------------------------------------------------------
def _page(kernel: Kernel, node: Inode, number: int, *, create: bool) -> int:
    """Physical address of a page of a file; 0 for a hole."""
    memory = kernel.memory
    if not node.index:
        if not create:
            return 0
        node.index = mm.alloc_page(memory)
    slot = node.index + 8 * (number // PER_PAGE)
    table = memory.read_u64(slot)
    if not table:
        if not create:
            return 0
        table = mm.alloc_page(memory)
        memory.write_u64(slot, table)
    slot = table + 8 * (number % PER_PAGE)
    page = memory.read_u64(slot)
    if not page and create:
        page = mm.alloc_page(memory)
        memory.write_u64(slot, page)
    return page


def _free_pages(kernel: Kernel, node: Inode, first: int) -> None:
    """Free a file's pages from number `first` on."""
    memory = kernel.memory
    if not node.index:
        return
    for outer in range(first // PER_PAGE, PER_PAGE):
        table = memory.read_u64(node.index + 8 * outer)
        if not table:
            continue
        low = max(0, first - outer * PER_PAGE)
        for slot in range(table + 8 * low, table + PAGE_SIZE, 8):
            page = memory.read_u64(slot)
            if page:
                mm.free_page(memory, page)
                memory.write_u64(slot, 0)
        if not low:
            mm.free_page(memory, table)
            memory.write_u64(node.index + 8 * outer, 0)
    kernel.machine.flush_tlb()


def read_pages(kernel: Kernel, node: Inode, at: int, length: int) -> bytes:
    """Bytes of the pages, whatever the size says; holes are zero."""
    parts = []
    while length:
        skip = at % PAGE_SIZE
        part = min(length, PAGE_SIZE - skip)
        page = _page(kernel, node, at // PAGE_SIZE, create=False)
        parts.append(kernel.memory.read(page + skip, part) if page else bytes(part))
        at, length = at + part, length - part
    return b"".join(parts)


def write_pages(kernel: Kernel, node: Inode, at: int, data: bytes) -> int:
    """Store bytes: how many there was room for; ENOSPC if none."""
    done = 0
    while done < len(data):
        skip = (at + done) % PAGE_SIZE
        part = data[done : done + PAGE_SIZE - skip]
        try:
            page = _page(kernel, node, (at + done) // PAGE_SIZE, create=True)
        except SyscallError:
            if not done:
                raise SyscallError(Errno.ENOSPC) from None
            return done
        kernel.memory.write(page + skip, part)
        done += len(part)
    return done


def read_inode(kernel: Kernel, node: Inode, at: int, length: int) -> bytes:
    """Content of a regular file, a directory or a link, up to its end."""
    length = max(0, min(length, node.size - at))
    if node.input:
        return kernel.files[node.input - 1].data[at : at + length]
    return read_pages(kernel, node, at, length)


def write_inode(kernel: Kernel, node: Inode, at: int, data: bytes) -> int:
    """Store content, and grow: how many bytes there was room for."""
    if at + len(data) > MAX_FILE:
        raise SyscallError(Errno.EFBIG)
    own_content(kernel, node)
    done = write_pages(kernel, node, at, data)
    node.size = max(node.size, at + done)
    _touch(kernel, node)
    return done


def truncate(kernel: Kernel, node: Inode, size: int) -> None:
    """Cut a file, or grow it by a hole."""
    if size > MAX_FILE:
        raise SyscallError(Errno.EFBIG)
    if node.input and not size:
        node.input = 0
    own_content(kernel, node)
    if size < node.size:
        _free_pages(kernel, node, -(-size // PAGE_SIZE))
        if size % PAGE_SIZE and _page(kernel, node, size // PAGE_SIZE, create=False):
            write_pages(kernel, node, size, bytes(PAGE_SIZE - size % PAGE_SIZE))
    node.size = size
    _touch(kernel, node)


def own_content(kernel: Kernel, node: Inode) -> None:
    """Before the first change: what the run was given is copied to guest memory."""
    if node.input:
        content, node.input = kernel.files[node.input - 1].data, 0
        if write_pages(kernel, node, 0, content) < len(content):
            raise SyscallError(Errno.ENOSPC)


def _touch(kernel: Kernel, node: Inode) -> None:
    node.changed = max(core.clock for core in kernel.machine.cores)


# --- directories ------------------------------------------------------------------------------------------------------
def entries(kernel: Kernel, directory: Inode) -> list[tuple[bytes, int]]:
    """(name, inode) of a directory, without . and .., in order of creation."""
    raw = read_inode(kernel, directory, 0, directory.size)
    found, at = [], 0
    while at < len(raw):
        inode, length = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size + length
        found.append((raw[at - length : at], inode))
    return found


def _store(kernel: Kernel, directory: Inode, new: list[tuple[bytes, int]]) -> None:
    raw = b"".join(_ENTRY.pack(inode, len(name)) + name for name, inode in new)
    if write_pages(kernel, directory, 0, raw) < len(raw):
        raise SyscallError(Errno.ENOSPC)
    directory.size = len(raw)
    _touch(kernel, directory)


def lookup(kernel: Kernel, directory: Inode, name: bytes) -> int:
    """The inode of that name, 0 for none."""
    return next((inode for known, inode in entries(kernel, directory) if known == name), 0)


def link(kernel: Kernel, directory: int, name: bytes, inode: int) -> None:
    """Give an inode a name in a directory that does not have it yet."""
    if len(name) > NAME_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    folder, node = kernel.view(Inode, directory), kernel.view(Inode, inode)
    _store(kernel, folder, [*entries(kernel, folder), (name, inode)])
    node.links += 1
    if node.kind == InodeKind.DIRECTORY:
        node.parent = directory
        node.links += 1
        folder.links += 1


def unlink(kernel: Kernel, directory: int, name: bytes) -> None:
    """Take a name away; who has the file open keeps it."""
    folder = kernel.view(Inode, directory)
    inode = lookup(kernel, folder, name)
    _store(kernel, folder, [entry for entry in entries(kernel, folder) if entry[0] != name])
    node = kernel.view(Inode, inode)
    node.links -= 1
    if node.kind == InodeKind.DIRECTORY:
        node.links -= 1
        folder.links -= 1
    forget_inode(kernel, inode)


def make(
    kernel: Kernel, directory: int, name: bytes, kind: InodeKind, mode: int, content: bytes = b"", source: int = 0
) -> int:
    """A new file with a name. `source`: 1 + index among the run's files of its content."""
    inode = new_inode(kernel, kind, mode)
    node = kernel.view(Inode, inode)
    try:
        if source:
            node.input, node.size = source, len(kernel.files[source - 1].data)
        elif content:
            node.size = write_pages(kernel, node, 0, content)
        link(kernel, directory, name, inode)
    except SyscallError:
        forget_inode(kernel, inode)
        raise
    return inode
