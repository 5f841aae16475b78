"""CPU profiles: the vendor's behaviour where Intel and AMD differ, and the features that the CPU has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Profile:
    """What the scenario's `cpu` table says."""

    vendor: Literal["intel", "amd"] = "intel"
    smep: bool = True
    smap: bool = True
    umip: bool = True
    fsgsbase: bool = True
