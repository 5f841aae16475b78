# Kernel image "linux-6": the entry code of present-day x86-64 Linux kernels, with page-table isolation.
#
# A reading order: entry_64.S (system calls and the two ways out), idtentry.S (exceptions), irq.S (devices),
# paranoid.S (what may hit between a SWAPGS and the next instruction), nmi.S, entry_64_compat.S (32-bit system calls),
# switch_to.S (tasks), then boot.S and data.S.
# calling.inc has the macros that all of them share.
#
# Names of structures' fields, selectors, MSRs and flags are predefined by the build, as are the switches
#   CONFIG_SMAP      1: CLAC on every entry through the IDT
#   CONFIG_FSGSBASE  1: user mode may write GS_BASE, so paranoid entries save it; 0: they look at its sign
# Code is chosen by them at assembly time.

.include "calling.inc"

# Everything that runs with the user's page tables lives here; these pages alone are mapped in them.
.section .entry.text,"ax",@progbits
    .balign 4096
.globl __entry_text_start
__entry_text_start:
.include "entry_64.S"
.include "idtentry.S"
.include "irq.S"
.include "entry_64_compat.S"
.include "paranoid.S"
.include "nmi.S"
.section .entry.text,"ax",@progbits
.globl __entry_text_end
__entry_text_end:

.include "boot.S"
.include "switch_to.S"
.include "fpu.S"
.include "debugreg.S"
.include "segments.S"
.include "c_stubs.S"
.include "data.S"
