"""Physical memory: one shared host buffer that every CPU's engine maps.

All host-side writes to guest RAM go through here or through structures laid over `ram`. `used` is an upper bound of
what the guest can reach: the page-table builder raises it for every frame that it maps, so a snapshot copies that
prefix and not the whole buffer.
"""

from __future__ import annotations

import ctypes
import mmap
import struct

from emu.arch import PAGE_SIZE
from emu.record import record

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_libc = ctypes.PyDLL(None)  # which keeps Python's lock: to give it up costs as much as the call
memcmp = _libc.memcmp
memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
"""C's, of host addresses: 0 if so many bytes are equal."""
_memmove = _libc.memmove
_memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_U64 = struct.Struct("<Q")
Interval = tuple[int, int]
"""From the first byte to the one behind the last."""


_EXAMPLE = b"bytes"
_DATA_OFFSET = (ctypes.cast(ctypes.c_char_p(_EXAMPLE), ctypes.c_void_p).value or 0) - id(_EXAMPLE)
"""Where CPython has the content of a bytes object; to ask each time costs more than to compare a page."""


def address_of(data: bytes) -> int:
    """Host address of the content of `data`, for as long as that lives."""
    return id(data) + _DATA_OFFSET


class PhysicalAddressError(Exception):
    """A physical address outside RAM; hardware would see the bus, not memory."""

    def __init__(self, address: int) -> None:
        super().__init__(f"physical address {address:#x} is outside RAM")
        self.address = address


@record
class RamSnapshot:
    """The reachable prefix of RAM."""

    data: bytes


class Memory:
    """RAM of `size` bytes, physical addresses 0 to size-1."""

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE_SIZE:
            raise ValueError(f"RAM size {size:#x} is not a positive multiple of {PAGE_SIZE}")
        self.size = size
        self.ram = mmap.mmap(-1, size)
        self.quadwords = memoryview(self.ram).cast("Q")
        """The same, as little-endian quadwords."""
        self.host_address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.used = 0
        self.code_frames: set[int] = set()
        """Frames that a CPU may hold translated code of, now or from before a restore."""
        self._code_ranges: tuple[Interval, ...] = ()
        """Physical addresses of these frames, neighbours together."""
        self.code_generation = 0
        """Counts host writes that changed such a frame: a CPU that has seen a lower one must drop translations."""
        self._code_changed: dict[int, int] = {}
        """Frame -> `code_generation` when the host changed it last."""
        self._without_code: tuple[Interval, ...] | None = None
        """Places that were found to hold no translated code last."""
        self._latest: RamSnapshot | None = None
        """The snapshot that was made or restored last."""

    def _check(self, address: int, size: int) -> None:
        if address < 0 or address + size > self.size:
            raise PhysicalAddressError(address)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; PhysicalAddressError outside RAM."""
        self._check(address, size)
        return self.ram[address : address + size]

    def write(self, address: int, data: bytes) -> None:
        """Store bytes; translated code of these frames is dropped before the guest runs again."""
        self._check(address, len(data))
        if address // PAGE_SIZE in self.code_frames or address % PAGE_SIZE + len(data) > PAGE_SIZE:
            self._note_changes(address, data)
        self.ram[address : address + len(data)] = data
        self.reach(address + len(data))

    def read_u64(self, address: int) -> int:
        """Little-endian quadword at a physical address."""
        if address < 0 or address + 8 > self.size:
            raise PhysicalAddressError(address)
        value: int = _U64.unpack_from(self.ram, address)[0]
        return value

    def write_u64(self, address: int, value: int) -> None:
        """Store a quadword (modulo 2**64). Not for code."""
        if address < 0 or address + 8 > self.size:
            raise PhysicalAddressError(address)
        _U64.pack_into(self.ram, address, value & 0xFFFF_FFFF_FFFF_FFFF)
        if address + 8 > self.used:
            self.reach(address + 8)

    def read_u32(self, address: int) -> int:
        """Little-endian doubleword at a physical address."""
        self._check(address, 4)
        value: int = _U32.unpack_from(self.ram, address)[0]
        return value

    def read_u16(self, address: int) -> int:
        """Little-endian word at a physical address."""
        self._check(address, 2)
        value: int = _U16.unpack_from(self.ram, address)[0]
        return value

    def reach(self, end: int) -> None:
        """The guest may touch physical memory below `end` from now on."""
        if end > self.used:
            self.used = min(self.size, -(-end // PAGE_SIZE) * PAGE_SIZE)

    def note_code(self, frame: int) -> None:
        """Frame number `frame` is mapped executable: an engine may translate it."""
        if frame not in self.code_frames:
            self.code_frames.add(frame)
            self._code_ranges = _ranges(self.code_frames)
            self._without_code = None

    def snapshot(self) -> RamSnapshot:
        """A copy of everything that the guest could have written; the same one again if it has written nothing since
        the last."""
        latest, used = self._latest, self.used
        if latest is None or len(latest.data) != used or memcmp(self.host_address, address_of(latest.data), used):
            latest = self._latest = RamSnapshot(self.ram[:used])
        return latest

    def restore(self, snapshot: RamSnapshot, where: tuple[Interval, ...] | None = None) -> None:
        """RAM as it was; frames reached since then become zero again.

        `where`: no other part of RAM differs from the snapshot.
        """
        self._latest = snapshot
        here, size = self.host_address, len(snapshot.data)
        if where is not None and self.used == size and not self._holds_code(where):
            there = address_of(snapshot.data)
            for low, high in where:
                _memmove(here + low, there + low, high - low)
            return
        for low, high in self._code_ranges:
            if high > size or memcmp(here + low, address_of(snapshot.data) + low, high - low):
                self._note_changes(low, snapshot.data[low:high].ljust(high - low, b"\0"))
        _memmove(here, snapshot.data, size)
        if self.used > size:
            ctypes.memset(here + size, 0, self.used - size)
        self.used = size

    def _holds_code(self, where: tuple[Interval, ...]) -> bool:
        """Whether translated code may lie there."""
        if where is not self._without_code:  # the same tuple comes again and again
            if any(low < end and start < high for low, high in where for start, end in self._code_ranges):
                return True
            self._without_code = where
        return False

    def _note_changes(self, address: int, data: bytes) -> None:
        """These bytes are about to be written: note which translated code they change."""
        end = address + len(data)
        for frame in range(address // PAGE_SIZE, -(-end // PAGE_SIZE)):
            low, high = max(address, frame * PAGE_SIZE), min(end, (frame + 1) * PAGE_SIZE)
            if frame in self.code_frames and self.ram[low:high] != data[low - address : high - address]:
                self.code_generation += 1
                self._code_changed[frame] = self.code_generation

    def code_changed_since(self, generation: int) -> list[int]:
        """Numbers of the frames whose code the host has changed since `code_generation` was this."""
        return [frame for frame, changed in self._code_changed.items() if changed > generation]


def _ranges(frames: set[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for frame in sorted(frames):
        low = frame * PAGE_SIZE
        if found and found[-1][1] == low:
            found[-1] = (found[-1][0], low + PAGE_SIZE)
        else:
            found.append((low, low + PAGE_SIZE))
    return tuple(found)
