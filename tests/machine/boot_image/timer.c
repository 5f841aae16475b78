/* The local APIC's timer by its page: one shot out of HLT, then periodic until ten have come. */
#include "pc.h"

static volatile int ticks;

HANDLER on_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
    APIC(0xb0) = 0;
}

int main(void)
{
    set_gate(0x40, on_tick, 0x8e);
    load_idt();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    APIC(0xf0) = 0x1ff;
    APIC(0x3e0) = 0xb;
    APIC(0x320) = 0x40;
    APIC(0x380) = 100000;
    print_hex("initial ", APIC(0x380));
    while (!ticks)
        asm volatile("sti; hlt; cli");
    print_hex("one shot ", ticks);
    print_hex("count ", APIC(0x390));
    APIC(0x320) = 0x20040;
    APIC(0x380) = 50000;
    asm volatile("sti");
    while (ticks < 11)
        asm volatile("pause");
    asm volatile("cli");
    APIC(0x380) = 0;
    print_hex("periodic ", ticks >= 11);
    return 0;
}
