/* Exceptions: vector, error code, CR2; faults are resumed behind the instruction. */
#include "pc.h"

HANDLER on_ud(struct frame *frame)
{
    print("#UD\n");
    frame->ip += 2;
}

HANDLER on_gp(struct frame *frame, uint64_t code)
{
    print_hex("#GP ", code);
    frame->ip = resume;
}

HANDLER on_pf(struct frame *frame, uint64_t code)
{
    uint64_t cr2;
    asm volatile("mov %%cr2, %0" : "=r"(cr2));
    print_hex("#PF ", code);
    print_hex("cr2 ", cr2);
    frame->ip = resume;
}

HANDLER on_bp(struct frame *frame)
{
    print_hex("#BP cs ", frame->cs);
}

#define TRY(text) asm volatile("lea 1f(%%rip), %%rax; mov %%rax, %0; " text "; 1:" : "=m"(resume) : : "rax", "rcx", "memory")

int main(void)
{
    set_gate(3, on_bp, 0x8f);
    set_gate(6, on_ud, 0x8e);
    set_gate(13, on_gp, 0x8e);
    set_gate(14, on_pf, 0x8e);
    load_idt();
    asm volatile("ud2");
    asm volatile("int3");
    TRY("mov $0x38, %%ecx; mov %%ecx, %%fs");
    TRY("int $0x55");
    TRY("mov $0xdead, %%ecx; rdmsr");
    TRY("movabs $0x123456789000, %%rcx; mov (%%rcx), %%rcx");
    TRY("movabs $0x123456789000, %%rcx; mov %%rcx, (%%rcx)");
    TRY("movabs $0x8000000000000000, %%rcx; mov %%rcx, (%%rcx)");
    TRY("movabs $0x7ffffffff000, %%rcx; jmp *%%rcx");
    return 1;
}
