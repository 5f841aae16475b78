/* FS and GS bases: arch_prctl, WRFSBASE and WRGSBASE, selectors, and what signals and system calls do to them. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <asm/prctl.h>
#include <ucontext.h>
#include <unistd.h>

static long one[4] = {1, 11, 111, 1111}, two[4] = {2, 22, 222, 2222};
static int have;

static long gs8(void) { long v; __asm__ volatile("mov %%gs:8, %0" : "=r"(v)); return v; }
static long rdgs(void) { long v; if (have) __asm__ volatile("rdgsbase %0" : "=r"(v)); else syscall(SYS_arch_prctl, ARCH_GET_GS, &v); return v; }
static void wrgs(long v) { if (have) __asm__ volatile("wrgsbase %0" :: "r"(v)); else syscall(SYS_arch_prctl, ARCH_SET_GS, v); }
static const char *name(long v) { return v == (long)one ? "one" : v == (long)two ? "two" : v == 0 ? "zero" : "other"; }

static void on_usr1(int sig)
{
    (void)sig;
    printf("  in the handler: %s %ld\n", name(rdgs()), gs8());
    wrgs((long)two);
}

static void on_segv(int sig, siginfo_t *i, void *c)
{
    printf("  signal %d code %d\n", sig, i->si_code);
    long *g = (long *)((ucontext_t *)c)->uc_mcontext.gregs;
    g[REG_RIP] = g[REG_RBX];
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    have = getauxval(AT_HWCAP2) >> 1 & 1;
    long value;
    signal(SIGUSR1, on_usr1);
    struct sigaction a = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &a, NULL);
    printf("fsgsbase %d\n", have);
    printf("set %ld\n", syscall(SYS_arch_prctl, ARCH_SET_GS, one));
    printf("%s %ld\n", name(rdgs()), gs8());
    raise(SIGUSR1);
    printf("after: %s %ld\n", name(rdgs()), gs8());
    syscall(SYS_arch_prctl, ARCH_GET_GS, &value);
    printf("get %s\n", name(value));
    if (have) {
        /* What looks like the kernel's own base confuses nobody. */
        wrgs(-1L << 40);
        getppid();
        printf("negative %lx\n", rdgs());
        syscall(SYS_arch_prctl, ARCH_GET_GS, &value);
        printf("get %lx\n", value);
        __asm__ volatile("lea 1f(%%rip), %%rbx\n mov %%gs:8, %%rax\n 1:" ::: "rax", "rbx");
    }
    wrgs((long)two);
    printf("%s %ld\n", name(rdgs()), gs8());
    printf("set kernel %ld\n", syscall(SYS_arch_prctl, ARCH_SET_GS, 0xffff888000000000));
    __asm__ volatile("mov %0, %%gs" :: "r"(0x2b));
    printf("selector 2b: %s\n", name(rdgs()));
    wrgs((long)one);
    getppid();
    unsigned short selector;
    __asm__ volatile("mov %%gs, %0" : "=r"(selector));
    printf("selector %x, %s\n", selector, name(rdgs()));
    raise(SIGUSR1);
    __asm__ volatile("mov %%gs, %0" : "=r"(selector));
    printf("selector %x, %s\n", selector, name(rdgs()));
    return 0;
}
