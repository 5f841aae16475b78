"""CPU profiles: the vendor's behaviour where Intel and AMD differ, and the features that the CPU has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_VENDOR_STRINGS = {"intel": b"GenuineIntel", "amd": b"AuthenticAMD"}
_BRAND = b"entry64 deterministic x86-64 CPU".ljust(48, b"\0")


@dataclass(frozen=True, slots=True)
class Profile:
    """What the scenario's `cpu` table says."""

    vendor: Literal["intel", "amd"] = "intel"
    smep: bool = True
    smap: bool = True
    umip: bool = True
    fsgsbase: bool = True

    def cpuid(self, leaf: int, subleaf: int, apic_id: int) -> tuple[int, int, int, int]:
        """(EAX, EBX, ECX, EDX) of a leaf: only what this machine really executes (SDM volume 2, CPUID)."""
        match leaf, subleaf:
            case 0, _:
                name = _VENDOR_STRINGS[self.vendor]
                words = [int.from_bytes(name[n : n + 4], "little") for n in (0, 4, 8)]
                return 7, words[0], words[2], words[1]
            case 1, _:
                # SSE3 PCLMUL SSSE3 CX16 SSE4.1 SSE4.2 x2APIC MOVBE POPCNT AES; FPU..SSE2
                ecx = 1 << 0 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 25
                return 0x00050654, apic_id << 24 | 1 << 16 | 8 << 8, ecx, 0x078BFBFD
            case 7, 0:
                return 0, self.fsgsbase | self.smep << 7 | 1 << 9 | self.smap << 20, self.umip << 2, 0
            case 0x80000000, _:
                return 0x80000008, 0, 0, 0
            case 0x80000001, _:
                return 0, 0, 1, 1 << 11 | 1 << 20 | 1 << 29  # LAHF; SYSCALL NX LM
            case ((0x80000002 | 0x80000003 | 0x80000004), _):
                part = _BRAND[(leaf - 0x80000002) * 16 :][:16]
                a, b, c, d = (int.from_bytes(part[n : n + 4], "little") for n in (0, 4, 8, 12))
                return a, b, c, d
            case 0x80000008, _:
                return 0x3028, 0, 0, 0
        return 0, 0, 0, 0
