"""The assembler front end: `.S`-style GNU-as sources in, an Image at its final addresses out."""

from asm.build import assemble_file, assemble_text
from asm.errors import AssemblyError, BadElf, Diagnostic, OutsideImage, Position, UnknownSymbol
from asm.image import Image, Instruction, Segment, Statement
from asm.sandbox import assemble_untrusted

__all__ = [
    "AssemblyError",
    "BadElf",
    "Diagnostic",
    "Image",
    "Instruction",
    "OutsideImage",
    "Position",
    "Segment",
    "Statement",
    "UnknownSymbol",
    "assemble_file",
    "assemble_text",
    "assemble_untrusted",
]
