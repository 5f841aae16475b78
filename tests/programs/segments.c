/* Segments of a program's own: modify_ldt, far jumps to 16-bit and 32-bit code, signals that interrupt it and return
   to it, stacks of 16 bits whose upper half of ESP nobody may see. With an argument only what Linux 2.6 returns to as
   well: its IRETQ to a 16-bit stack shows the kernel's ESP, and one that refuses the frame is the end of the task. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define LDT(n) ((n) << 3 | 7)
enum { CODE16 = 1, STACK16, CODE32, STACK32, DATA, BIG = 700 };

static unsigned char *low;
static char alternate[65536] __attribute__((aligned(64)));
static unsigned long selectors;
static long want_sp;
static volatile long seen[8];
static int all;

static int modify(int function, void *p, unsigned long size) { return syscall(SYS_modify_ldt, function, p, size); }

static int set(int number, unsigned base, unsigned limit, int is32, int contents, int pages)
{
    struct user_desc d = {.entry_number = number, .base_addr = base, .limit = limit, .seg_32bit = is32,
                          .contents = contents, .limit_in_pages = pages, .useable = 1};
    return modify(0x11, &d, sizeof d);
}

/* SIGUSR1's handler sends the program to other segments; their code executes INT3. */
static void go(int sig, siginfo_t *i, void *context)
{
    long *g = (long *)((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig, (void)i;
    seen[0] = g[REG_RSP];
    seen[1] = g[REG_RIP];
    seen[2] = g[REG_CSGSFS];
    g[REG_CSGSFS] = selectors;
    g[REG_RIP] = 0;
    g[REG_RSP] = want_sp;
    g[REG_RCX] = 0;
}

static void back(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    long *g = (long *)u->uc_mcontext.gregs;
    unsigned long s = g[REG_CSGSFS];
    printf("  signal %d code %d trap %lld err %llx, cs %lx ss %lx ip %llx sp %llx cx %llx, uc_flags %lx\n", sig, i->si_code,
           g[REG_TRAPNO], g[REG_ERR], s & 0xffff, s >> 48, g[REG_RIP], g[REG_RSP] & ~(0x7fL << 32 & -(g[REG_RSP] < 0)), g[REG_RCX], u->uc_flags & 6);
    g[REG_RSP] = seen[0];
    g[REG_RIP] = seen[1];
    g[REG_CSGSFS] = seen[2];
}

static void try(const char *name, int cs, int ss, unsigned long sp)
{
    int refused = cs == LDT(DATA) || ss == LDT(CODE32) || cs == LDT(600) || cs == LDT(900) || sp == 0x300;
    if (!all && (refused || ss == LDT(STACK16))) return;
    printf("%s\n", name);
    selectors = (unsigned long)cs | (unsigned long)ss << 48;
    want_sp = sp;
    raise(SIGUSR1);
}

static void quiet(int sig) { (void)sig; seen[4]++; }

int main(int argc, char **argv)
{
    all = argc < 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    unsigned char buffer[256];
    printf("read nothing %d, default %d, bad %d\n", modify(0, buffer, 256), modify(2, buffer, 256), modify(7, buffer, 256));
    low = mmap((void *)0x10000, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    /* 16-bit code: mov %esp,%ecx (66 89 e1); int3.  32-bit code: mov %esp,%ecx; int3. */
    memcpy(low, "\x66\x89\xe1\xcc", 4);
    memcpy(low + 4096, "\x89\xe1\xcc", 3);
    printf("code16 %d stack16 %d code32 %d stack32 %d data %d big %d\n", set(CODE16, 0x10000, 0xffff, 0, 2, 0),
           set(STACK16, 0x10000, 0xffff, 0, 0, 0), set(CODE32, 0x11000, 0xfff, 1, 2, 0), set(STACK32, 0, 0xfffff, 1, 0, 1),
           set(DATA, 0x10000, 0xfff, 1, 0, 0), set(BIG, 0x10000, 0xfff, 1, 0, 0));
    struct user_desc d = {.entry_number = 9, .contents = 3, .seg_32bit = 1};
    printf("conforming %d size %d number %d pointer %d\n", modify(0x11, &d, sizeof d), modify(0x11, &d, 8),
           set(8192, 0, 1, 1, 0, 0), modify(0x11, (void *)8, 16));
    int n = modify(0, buffer, sizeof buffer);
    printf("read %d:", n);
    for (int k = 0; k < 48; k++) printf(" %02x", buffer[k]);
    puts("");

    stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&ss, NULL);
    struct sigaction a = {.sa_sigaction = go, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction b = {.sa_sigaction = back, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGUSR1, &a, NULL);
    sigaction(SIGTRAP, &b, NULL);
    sigaction(SIGSEGV, &b, NULL);
    sigaction(SIGBUS, &b, NULL);
    sigaction(SIGILL, &b, NULL);
    try("16-bit code, 16-bit stack", LDT(CODE16), LDT(STACK16), 0x12340200);
    try("16-bit code, 16-bit stack, high bits", LDT(CODE16), LDT(STACK16), 0xdeadbeef0ff0);
    try("16-bit code, 32-bit stack", LDT(CODE16), LDT(STACK32), 0x10800);
    try("16-bit code, flat stack", LDT(CODE16), 0x2b, 0x10800);
    try("32-bit code, 16-bit stack", LDT(CODE32), LDT(STACK16), 0x55550300);
    try("32-bit code, 32-bit stack", LDT(CODE32), LDT(STACK32), 0x10800);
    try("32-bit code, flat stack", LDT(CODE32), 0x2b, 0x10800);
    try("64-bit code, 16-bit stack", 0x33, LDT(STACK16), 0x7fff12340200);
    try("data as code", LDT(DATA), 0x2b, 0x10800);
    try("code as stack", LDT(CODE32), LDT(CODE32), 0x10800);
    try("an empty entry", LDT(600), 0x2b, 0x10800);
    try("beyond the limit", LDT(900), 0x2b, 0x10800);
    struct user_desc gone = {.entry_number = STACK16, .contents = 0, .seg_32bit = 1, .seg_not_present = 1, .limit = 100};
    printf("stack not present %d\n", modify(0x11, &gone, sizeof gone));
    try("a stack that is not present", LDT(CODE32), LDT(STACK16), 0x300);
    gone.entry_number = CODE16, gone.contents = 2;
    printf("code not present %d\n", modify(0x11, &gone, sizeof gone));
    try("code that is not present", LDT(CODE16), 0x2b, 0x300);
    set(STACK16, 0x10000, 0xffff, 0, 0, 0);

    puts("data");
    unsigned value, es = 0, kept;
    *(unsigned *)(low + 100) = 4711;
    *(unsigned *)(low + 0x2000 + 100) = 815;
    signal(SIGUSR2, quiet);
    __asm__ volatile("mov %2, %%gs\n mov %%gs:100, %0\n mov %2, %%es\n mov %%es, %1" : "=r"(value), "=r"(es) : "r"(LDT(DATA)));
    printf("by GS %u, es %x\n", value, es);
    set(DATA, 0x12000, 0xfff, 1, 0, 0);
    raise(SIGUSR2);
    fflush(stdout);
    pid_t child = fork();
    __asm__ volatile("mov %%es, %0\n mov %%gs, %1" : "=r"(es), "=r"(kept));
    __asm__ volatile("mov %1, %%gs\n mov %%gs:100, %0" : "=r"(value) : "r"(LDT(DATA)));
    if (!child) {
        set(DATA, 0x10000, 0xfff, 1, 0, 0);
        __asm__ volatile("mov %0, %%gs" :: "r"(LDT(DATA)));
        unsigned own;
        __asm__ volatile("mov %%gs:100, %0" : "=r"(own));
        printf("the child: es %x gs %x %u, its own %u\n", es, kept, value, own);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    __asm__ volatile("mov %1, %%gs\n mov %%gs:100, %0" : "=r"(value) : "r"(LDT(DATA)));
    printf("the parent: es %x gs %x %u, handled %ld\n", es, kept, value, seen[4]);
    struct user_desc e = {.entry_number = DATA, .read_exec_only = 1, .seg_not_present = 1};
    printf("cleared %d\n", modify(0x11, &e, sizeof e));
    raise(SIGUSR2);
    __asm__ volatile("mov %%es, %0" : "=r"(es));
    printf("es %x\n", es);
    signal(SIGSEGV, SIG_DFL);
    __asm__ volatile("mov %0, %%gs" :: "r"(LDT(DATA)));
    return 0;
}
