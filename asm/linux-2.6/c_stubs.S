# The C functions.  Their bodies are Python: each has a slot of 16 bytes where the machine stops and runs it.

.section .text.c_stubs,"ax",@progbits
.globl __c_stubs_start
__c_stubs_start:

# A call enters at +0, where the body runs; an ordinary one returns by +1.  One that lets interrupts in resumes at
# +2: they land on +3 and +4, and +6 is where the body goes on.  The body puts IF back as it was at the call.
# Entry: kernel GS, return address at RSP.  Exit: the same, RSP above it; as System V has it.
.macro C_FUNCTION name
.balign 16, 0xcc
.globl \name
\name:
    nop
    ret
    sti
    nop
    nop
    cli
    nop
    .balign 16, 0xcc
.endm

.include "c_functions.inc"

.globl __c_stubs_end
__c_stubs_end:
