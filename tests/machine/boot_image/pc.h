/* What the test images share: ports, printing, the IDT, the APICs. */
#include <stdint.h>

struct frame {
    uint64_t ip, cs, flags, sp, ss;
};
#define HANDLER __attribute__((interrupt)) void

static inline void outb(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint64_t rdmsr(uint32_t number)
{
    uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
    return low | (uint64_t)high << 32;
}

static inline void wrmsr(uint32_t number, uint64_t value)
{
    asm volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static void put(char c)
{
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f8, c);
}

static void print(const char *text)
{
    while (*text)
        put(*text++);
}

static void print_hex(const char *name, uint64_t value)
{
    print(name);
    for (int shift = 60; shift >= 0; shift -= 4)
        if (value >> shift || !shift)
            put("0123456789abcdef"[value >> shift & 15]);
    put('\n');
}

struct gate {
    uint16_t low, selector;
    uint8_t ist, type;
    uint16_t middle;
    uint32_t high, zero;
};
static struct gate idt[256];

static void set_gate(int vector, void *handler, int type)
{
    uint64_t at = (uint64_t)handler;
    idt[vector] = (struct gate){at, 8, 0, type, at >> 16, at >> 32, 0};
}

static void load_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};
    asm volatile("lidt %0" : : "m"(pointer));
}

#define APIC(offset) (*(volatile uint32_t *)(0xfee00000ul + (offset)))
#define IOAPIC(offset) (*(volatile uint32_t *)(0xfec00000ul + (offset)))

static void ioapic_write(int number, uint32_t value)
{
    IOAPIC(0) = number;
    IOAPIC(0x10) = value;
}

static uint32_t ioapic_read(int number)
{
    IOAPIC(0) = number;
    return IOAPIC(0x10);
}

static uint64_t firmware(int key, int bytes)
{
    uint64_t value = 0;
    outw(0x510, key);
    for (int n = 0; n < bytes; n++)
        value |= (uint64_t)inb(0x511) << 8 * n;
    return value;
}

void leave(int status)
{
    outl(0xf4, status);
    for (;;)
        asm volatile("cli; hlt");
}

extern uint32_t multiboot_info;

/* After a fault: on to the next instruction, whose address is here. */
static volatile uint64_t resume;
int main(void);
void main_of_another(void);
#ifndef SEVERAL_CPUS
void main_of_another(void)
{
}
#endif
