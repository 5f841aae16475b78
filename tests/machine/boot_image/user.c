/* Down to CPL 3 by IRETQ and SYSRETQ, back by INT, SYSCALL and #GP. */
#include "pc.h"

extern uint64_t gdt[];
static uint32_t tss[26];
static uint64_t stack[512], user_stack[512];
static volatile int stage;
static void user(void);
static struct {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) table;
static uint64_t table_words[8];
void after(void);

HANDLER on_int(struct frame *frame)
{
    print_hex("int from cs ", frame->cs);
}

HANDLER on_gp(struct frame *frame, uint64_t code)
{
    print_hex("#GP from cs ", frame->cs);
    print_hex("code ", code);
    leave(stage);
}

__attribute__((used)) static uint64_t on_syscall(uint64_t number)
{
    print_hex("syscall ", number);
    return number + 1;
}

asm("syscall_entry:\n"
    "    mov %rsp, saved_rsp(%rip)\n"
    "    lea stack+4096(%rip), %rsp\n"
    "    push %rcx\n    push %r11\n"
    "    mov %rax, %rdi\n"
    "    call on_syscall\n"
    "    pop %r11\n    pop %rcx\n"
    "    mov saved_rsp(%rip), %rsp\n"
    "    sysretq\n"
    ".bss\nsaved_rsp: .quad 0\n.text\n");
extern char syscall_entry[];

static void user(void)
{
    uint64_t value = 41;
    asm volatile("int $0x80");
    asm volatile("syscall" : "+a"(value) : : "rcx", "r11", "rdi", "rsi", "rdx", "r8", "r9", "r10", "memory");
    stage = value;
    asm volatile("cli");
}

int main(void)
{
    uint64_t base = (uint64_t)tss, top = (uint64_t)(stack + 512);
    for (int n = 0; n < 6; n++)
        table_words[n] = gdt[n];
    tss[1] = top;
    table_words[6] = 103 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    table_words[7] = base >> 32;
    table.limit = sizeof(table_words) - 1;
    table.base = (uint64_t)table_words;
    asm volatile("lgdt %0" : : "m"(table));
    asm volatile("ltr %w0" : : "r"(0x30));
    set_gate(13, on_gp, 0x8e);
    set_gate(0x80, on_int, 0xee);
    load_idt();
    wrmsr(0xc0000081, 0x08ull << 32 | 0x1bull << 48);
    wrmsr(0xc0000082, (uint64_t)syscall_entry);
    wrmsr(0xc0000084, 0x700);
    asm volatile("push $0x23; push %0; push $2; push $0x2b; push %1; iretq"
                 : : "r"(user_stack + 511), "r"(user));
    return 99;
}
