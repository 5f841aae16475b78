/* Single-steps itself with TF: over plain code, SYSCALL, INT3, INT 0x80, POPF, and PUSHF; counts the traps. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int count, others;
static long base, seen[64];

static void on_trap(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    (void)sig;
    if (i->si_code == TRAP_TRACE || i->si_code == 2) {
        if (count < 64) seen[count] = u->uc_mcontext.gregs[REG_RIP] | (long)(i->si_addr != (void *)u->uc_mcontext.gregs[REG_RIP]) << 62;
        count++;
    } else
        others = others * 1000 + i->si_code;
    if (count > 60) u->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
}

#define STEP(name, code) do { \
    count = others = 0; \
    __asm__ volatile("lea 1f(%%rip), %0\n pushfq\n orl $0x100, (%%rsp)\n popfq\n 1:\n" code "\n pushfq\n andl $~0x100, (%%rsp)\n popfq\n nop" \
                     : "=&r"(base) :: "rax", "rcx", "r11", "rdi", "memory", "cc"); \
    printf("%s: %d traps, others %d, at", name, count, others); \
    for (int n = 0; n < count && n < 64; n++) printf(" %lx", seen[n] - base); \
    puts(""); \
} while (0)

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction a = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &a, NULL);
    STEP("nops", "nop\n nop\n nop");
    STEP("syscall", "mov $39, %%eax\n syscall\n nop\n nop");
    STEP("bad syscall", "mov $9999, %%eax\n syscall\n nop");
    STEP("int3", "nop\n int3\n nop");
    STEP("int 3", "nop\n .byte 0xcd, 3\n nop");
    STEP("int 0x80", "mov $20, %%eax\n int $0x80\n nop\n nop");
    STEP("mov ss", "mov %%ss, %%eax\n mov %%eax, %%ss\n nop\n nop");
    STEP("rep", "lea 2f(%%rip), %%rdi\n mov $0, %%ecx\n rep stosb\n 2: nop");
    STEP("pushf", "pushfq\n pop %%rax\n and $0x100, %%eax\n nop");
    return 0;
}
