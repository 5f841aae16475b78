/* Exceptions that go to handlers: what siginfo and the saved context say, and going on after a repair. */
#define _GNU_SOURCE
#include <fenv.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static char *page;
static char stack[65536] __attribute__((aligned(64)));
static int skip;


static long relative(long address)
{
    if (address >= (long)page && address < (long)page + 8192) return address - (long)page;
    return address;
}

static void show(int sig, siginfo_t *i, void *context)
{
    long *g = (long *)((ucontext_t *)context)->uc_mcontext.gregs;
    printf("signal %d code %d addr %lx trapno %ld err %lx cr2 %lx oldmask %lx, addr is rip %d, flags %lx\n", sig,
           i->si_code, i->si_code == SI_KERNEL || (long)i->si_addr != g[REG_RIP] ? relative((long)i->si_addr) : 0,
           g[REG_TRAPNO], g[REG_ERR], sig == SIGSEGV && i->si_code != SI_KERNEL ? relative(g[REG_CR2]) : 0, g[REG_OLDMASK],
           (long)i->si_addr == g[REG_RIP], g[REG_EFL] & 0x10100);
    if (sig == SIGSEGV && i->si_code == SEGV_ACCERR && (char *)i->si_addr >= page && (char *)i->si_addr < page + 8192)
        mprotect((void *)((long)i->si_addr & -4096), 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    else if (skip < 0)
        g[REG_RIP] = g[REG_RBX];
    else
        g[REG_RIP] += skip;
}

/* Runs instructions; RBX says where to go on. */
#define TRY(name, code) do { puts(name); skip = -1; __asm__ volatile( \
    "lea 99f(%%rip), %%rbx\n" code "\n99:" ::: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc"); } while (0)

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    page = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    struct sigaction a = {.sa_sigaction = show, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int n = 0; n < 5; n++) sigaction(signals[n], &a, NULL);

    puts("repair");
    page[5] = 7;
    printf("%d\n", page[5]);
    printf("%d\n", page[4100]);
    mprotect(page, 4096, PROT_READ);
    page[6] = 8;
    printf("%d\n", page[6]);
    page[4096] = (char)0xc3;
    mprotect(page + 4096, 4096, PROT_READ);
    ((void (*)(void))(page + 4096))();
    puts("returned");

    TRY("null", "mov 8, %%rax");
    TRY("null write", "movl $1, 0");
    TRY("null jump", "xor %%eax, %%eax\n jmp *%%rax");
    TRY("kernel read", "mov $-0x7f000000, %%rax\n mov (%%rax), %%rax");
    TRY("kernel write", "mov $-0x7f000000, %%rax\n mov %%rax, (%%rax)");
    TRY("non-canonical", "movabs $0x8000000000000000, %%rax\n mov (%%rax), %%rax");
    TRY("non-canonical jump", "movabs $0x8000000000000000, %%rax\n jmp *%%rax");
    TRY("non-canonical stack", "mov %%rsp, %%rsi\n movabs $0x8000000000000000, %%rsp\n push %%rax\n 99: mov %%rsi, %%rsp\n jmp 98f\n 98:");
    TRY("divide", "xor %%ecx, %%ecx\n xor %%edx, %%edx\n div %%ecx");
    TRY("overflow", "mov $-0x80000000, %%eax\n cltd\n mov $-1, %%ecx\n idiv %%ecx");
    TRY("ud2", "ud2");
    TRY("hlt", "hlt");
    TRY("cli", "cli");
    TRY("in", "in $0x60, %%al");
    TRY("rdmsr", "rdmsr");
    TRY("cr3", "mov %%cr3, %%rax");
    TRY("swapgs", "swapgs");
    TRY("selector", "mov $0x1234, %%eax\n mov %%eax, %%es");
    TRY("int 3 long", ".byte 0xcd, 3");
    TRY("int3", "int3\n jmp 99f\n 1:");
    TRY("int 0x42", "int $0x42");
    TRY("int 13", "int $13");
    TRY("icebp", ".byte 0xf1");
    TRY("sysenter to nowhere", "mov $0x7fffffff, %%eax\n int $0x80");
    TRY("x87", "sub $16, %%rsp\n movl $0x37b, (%%rsp)\n fldcw (%%rsp)\n fld1\n fldz\n fdivrp\n fwait\n 99: fninit\n add $16, %%rsp\n jmp 98f\n98:");

    puts("handler blocked: killed");
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGSEGV);
    sigprocmask(SIG_BLOCK, &s, NULL);
    *(volatile int *)16 = 1;
    return 3;
}
