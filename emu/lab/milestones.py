"""Where an entry's path can be seen: the instructions that the path summary asks the CPU to tell of.

They are the labels below, and what follows each instruction that loads CR3, RSP or (WRGSBASE) the GS base.
"""

from __future__ import annotations

from functools import lru_cache

from asm import Image, Instruction

_LABELS = """
    error_entry paranoid_entry paranoid_exit native_irq_return_ldt nested_nmi rewind_stack_and_make_dead
    tracesys int_ret_from_sys_call sysret_careful sysret_signal int_careful int_very_careful int_signal int_restore_rest
    badsys retint_careful retint_signal retint_kernel bad_iret error_kernelspace paranoid_userspace paranoid_schedule
    asm_load_gs_index load_gs_index
    ia32_tracesys sysenter_tracesys cstar_tracesys ia32_badsys ia32_badarg
"""
LABELS = tuple(_LABELS.split())
"""Of both images: what tells one way through the entry code from another."""


@lru_cache(maxsize=8)  # an image is booted many times
def milestones(image: Image) -> frozenset[int]:
    """The addresses, of those labels that the image has and of its own instructions; no C function is among them."""
    found = {image.symbols[name] for name in LABELS if name in image.symbols}
    first, last = image.symbols.get("__c_stubs_start", 0), image.symbols.get("__c_stubs_end", 0)
    for instruction in image.instructions():
        if _loads(instruction) and not first <= instruction.address < last:
            following = instruction.address + instruction.size
            if image.instruction_at(following) is not None:
                found.add(following)
    return frozenset(found)


def _loads(instruction: Instruction) -> bool:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic.startswith("mov"):
        return operands.endswith((", %rsp", ", %cr3"))
    return mnemonic.startswith("wrgsbase") or (mnemonic.startswith("pop") and operands == "%rsp")
