/* What the firmware configuration and the boot loader say about memory and CPUs. */
#include "pc.h"

int main(void)
{
    uint32_t *info = (uint32_t *)(uint64_t)multiboot_info;
    print_hex("signature ", firmware(0, 4));
    print_hex("ram ", firmware(3, 8));
    print_hex("cpus ", firmware(5, 2));
    print_hex("again ", firmware(5, 2));
    print_hex("flags ", info[0] & 5);
    print_hex("modules ", info[0] & 8 ? info[5] : 0);
    print_hex("upper+1MiB >= ram-1MiB ", (info[2] + 2048ul) << 10 >= firmware(3, 8));
    volatile char *last = (char *)(((uint64_t)info[2] + 1024) << 10) - 1;
    *last = 7;
    print_hex("last byte ", *last);
    return 0;
}
