/* Single-steps itself with TF in 32-bit code: over INT 0x80, and over the vDSO's call by SYSENTER or SYSCALL. */
#define _GNU_SOURCE
#include <elf.h>
#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int count, others;
static unsigned long base, seen[64];
unsigned long vsyscall;

static void on_trap(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    (void)sig;
    if (i->si_code != TRAP_TRACE || (unsigned long)i->si_addr != (unsigned long)u->uc_mcontext.gregs[REG_EIP])
        others = others * 1000 + i->si_code;
    if (count < 64) seen[count] = u->uc_mcontext.gregs[REG_EIP];
    if (++count > 60) u->uc_mcontext.gregs[REG_EFL] &= ~0x100;
}

/* Where the program is, from its first instruction with TF on; or the opcode that comes next in the vDSO. */
static void show(const char *name, long result, int expected)
{
    printf("%s: %d, %d traps, others %d, at", name, result == expected, count, others);
    for (int n = 0; n < count && n < 64; n++)
        if (seen[n] - base < 64) printf(" %lx", seen[n] - base);
        else if (*(unsigned char *)seen[n] == 0x0f) printf(" vDSO:0f%02x", ((unsigned char *)seen[n])[1]);
        else printf(" vDSO:%02x", *(unsigned char *)seen[n]);
    puts("");
}

#define STEP(name, expected, code) do { \
    long result; \
    count = others = 0; \
    __asm__ volatile("lea 1f, %%ecx\n mov %%ecx, %1\n pushf\n orl $0x100, (%%esp)\n popf\n 1:\n" code \
                     "\n pushf\n andl $~0x100, (%%esp)\n popf\n nop" \
                     : "=a"(result), "=m"(base) :: "ecx", "edx", "memory", "cc"); \
    show(name, result, expected); \
} while (0)

int main(void)
{
    int pid = getpid();
    struct sigaction a = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    setvbuf(stdout, NULL, _IONBF, 0);
    sigaction(SIGTRAP, &a, NULL);
    vsyscall = getauxval(AT_SYSINFO);
    STEP("nops", 0, "mov $0, %%eax\n nop\n nop");
    STEP("int 0x80", pid, "mov $20, %%eax\n int $0x80\n nop\n nop");
    STEP("bad int 0x80", -38, "mov $9999, %%eax\n int $0x80\n nop");
    STEP("vDSO", pid, "mov $20, %%eax\n call *vsyscall\n nop\n nop");
    STEP("vDSO, bad", -38, "mov $9999, %%eax\n call *vsyscall\n nop");
    return 0;
}
