/* What a handler may write into its ucontext, and what becomes of it: sigreturn to odd selectors, addresses, flags. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf out;
static char stack[65536] __attribute__((aligned(64)));
static void (*change)(ucontext_t *);
static long before_rip;

static void on_usr1(int sig, siginfo_t *i, void *context)
{
    (void)sig, (void)i;
    ucontext_t *u = context;
    before_rip = u->uc_mcontext.gregs[REG_RIP];
    change(u);
}

static void on_fault(int sig, siginfo_t *i, void *context)
{
    long *g = (long *)((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned long s = g[REG_CSGSFS];
    printf("  signal %d code %d addr %lx trapno %ld err %lx rip %s %lx cs %lx ss %lx flags %lx\n", sig, i->si_code,
           (long)i->si_addr == g[REG_RIP] ? 1 : (long)i->si_addr, g[REG_TRAPNO], g[REG_ERR], g[REG_RIP] == before_rip ? "same" : "other",
           g[REG_RIP] == before_rip ? 0 : g[REG_RIP], s & 0xffff, s >> 48, g[REG_EFL] & 0x7ff00);
    siglongjmp(out, 1);
}

static void try(const char *name, void (*f)(ucontext_t *))
{
    puts(name);
    change = f;
    if (sigsetjmp(out, 1)) return;
    raise(SIGUSR1);
    unsigned long flags;
    unsigned short cs, ss;
    __asm__ volatile("pushfq\n pop %0\n mov %%cs, %1\n mov %%ss, %2" : "=r"(flags), "=r"(cs), "=r"(ss));
    printf("  went on, flags %lx cs %x ss %x\n", flags & 0x3ff700 & ~0x200, cs, ss);
    __asm__ volatile("pushfq\n andl $~0x40500, (%rsp)\n popfq");
}

#define SET(name, statement) static void name(ucontext_t *u) { long *g = (long *)u->uc_mcontext.gregs; (void)g; statement; }
#define SELECTORS(cs, ss) g[REG_CSGSFS] = (long)(cs) | (long)(ss) << 48
SET(nothing, )
SET(rip_high, g[REG_RIP] = 1L << 47)
SET(rip_bad, g[REG_RIP] = 1L << 63 | 1)
SET(rip_kernel, g[REG_RIP] = 0xffffffff81000000)
SET(rip_top, g[REG_RIP] = 0x7ffffffff000)

SET(cs_kernel, SELECTORS(0x10, 0x2b))
SET(cs_null, SELECTORS(0, 0x2b))
SET(cs_data, SELECTORS(0x2b, 0x2b))
SET(cs_tss, SELECTORS(0x40, 0x2b))
SET(cs_far, SELECTORS(0xfff8, 0x2b))
SET(cs_ldt, SELECTORS(0xf, 0x2b))
SET(cs_rpl, SELECTORS(0x30, 0x28))
SET(ss_null, SELECTORS(0x33, 0))
SET(ss_kernel, SELECTORS(0x33, 0x18))
SET(ss_code, SELECTORS(0x33, 0x33))
SET(ss_far, SELECTORS(0x33, 0xfff8))
SET(ss_ldt, SELECTORS(0x33, 0xf))
SET(ss_lax, SELECTORS(0x33, 0x18); u->uc_flags &= ~4L)
SET(ss_lax_far, SELECTORS(0x33, 0xfff8); u->uc_flags &= ~4L)
SET(ss_lax_null, SELECTORS(0x33, 0); u->uc_flags &= ~6L)
SET(flags_all, g[REG_EFL] = ~0x40100L)
SET(flags_none, g[REG_EFL] = 0)
SET(flags_iopl, g[REG_EFL] |= 0x3000 | 0x4000 | 0x1a0000)
SET(fp_null, u->uc_mcontext.fpregs = NULL)
SET(fp_bad, u->uc_mcontext.fpregs = (void *)8)
SET(fp_kernel, u->uc_mcontext.fpregs = (void *)0xffffffff81000000)
SET(mxcsr, u->uc_mcontext.fpregs->mxcsr = 0x9fc0)
SET(stack_bad, u->uc_stack.ss_flags = 7; u->uc_stack.ss_sp = (void *)8)
SET(mask_all, memset(&u->uc_sigmask, 0xff, 8))

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    struct sigaction a = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO}, b = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGUSR1, &a, NULL);
    sigaction(SIGSEGV, &b, NULL);
    sigaction(SIGBUS, &b, NULL);
    sigaction(SIGILL, &b, NULL);
    sigaction(SIGTRAP, &b, NULL);
#define T(x) try(#x, x)
    T(nothing); T(rip_high); T(rip_bad); T(rip_kernel); T(rip_top);
    T(cs_kernel); T(cs_null); T(cs_data); T(cs_tss); T(cs_far); T(cs_ldt); T(cs_rpl);
    T(ss_null); T(ss_kernel); T(ss_code); T(ss_far); T(ss_ldt); T(ss_lax); T(ss_lax_far); T(ss_lax_null);
    T(flags_none); T(flags_iopl); T(flags_all);
    T(fp_null); T(fp_bad); T(fp_kernel); T(mxcsr);
    unsigned int value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    printf("mxcsr %x\n", value);
    __asm__ volatile("ldmxcsr %0" :: "m"((unsigned){0x1f80}));
    T(stack_bad);
    stack_t now;
    sigaltstack(NULL, &now);
    printf("%d %x %ld\n", now.ss_sp == stack, now.ss_flags, (long)now.ss_size);
    T(mask_all);
    sigset_t s;
    sigprocmask(SIG_BLOCK, NULL, &s);
    printf("mask %lx\n", *(long *)&s);
    sigemptyset(&s);
    sigprocmask(SIG_SETMASK, &s, NULL);
    puts("no frame");
    if (!sigsetjmp(out, 1)) {
        before_rip = 1;
        __asm__ volatile("mov $8, %%esp\n mov $15, %%eax\n syscall" ::: "memory");
    }
    return 0;
}
