/* Starts every other CPU by INIT and a startup IPI, sends each an interrupt and waits for its answer. */
#define SEVERAL_CPUS
#include "pc.h"

extern char trampoline[], trampoline_end[];
static volatile uint32_t online = 1, answers, last;

HANDLER on_ipi(struct frame *frame)
{
    (void)frame;
    last = APIC(0x20) >> 24;
    __atomic_fetch_add(&answers, 1, __ATOMIC_SEQ_CST);
    APIC(0xb0) = 0;
}

void main_of_another(void)
{
    load_idt();
    APIC(0xf0) = 0x1ff;
    __atomic_fetch_add(&online, 1, __ATOMIC_SEQ_CST);
    for (;;)
        asm volatile("sti; hlt");
}

int main(void)
{
    uint32_t cpus = firmware(5, 2);
    set_gate(0x50, on_ipi, 0x8e);
    load_idt();
    APIC(0xf0) = 0x1ff;
    for (int n = 0; n < trampoline_end - trampoline; n++)
        ((volatile char *)0x9a000)[n] = trampoline[n];
    APIC(0x300) = 0xc4500;
    APIC(0x300) = 0xc469a;
    while (online < cpus)
        asm volatile("pause");
    print_hex("online ", online);
    for (uint32_t cpu = 1; cpu < cpus; cpu++) {
        APIC(0x310) = cpu << 24;
        APIC(0x300) = 0x4050;
        while (answers < cpu)
            asm volatile("pause");
        print_hex("answer of ", last);
    }
    APIC(0x300) = 0xc4050;
    while (answers < 2 * (cpus - 1))
        asm volatile("pause");
    print("all\n");
    return 0;
}
