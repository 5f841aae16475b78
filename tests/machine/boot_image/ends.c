/* Ends in the way that its command line names. */
#include "pc.h"

__attribute__((noinline)) void spin(void)
{
    for (;;)
        asm volatile("pause");
}

int main(void)
{
    const char *line = (const char *)(uint64_t)((uint32_t *)(uint64_t)multiboot_info)[4];
    while (*line && *line != ' ')
        line++;
    print("on the way\n");
    switch (line[1]) {
    case 't':
        asm volatile("ud2");
    case 'l':
        spin();
    case 'h':
        asm volatile("cli; hlt");
    case 'm':
        *(volatile char *)0xe0000000 = 1;
    }
    return 0;
}
