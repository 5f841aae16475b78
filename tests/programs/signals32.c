/* Signals of 32-bit programs: both kinds of frame, alternate stacks, nesting, restart, FPU state, repairs. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static char stack[65536] __attribute__((aligned(64)));
static int depth;
static char *page;
static sigjmp_buf out;

struct old_action { void *handler; unsigned long mask, flags; void *restorer; };
struct fpstate { uint32_t cw, sw, tag, ipoff, cssel, dataoff, datasel; uint8_t st[80]; uint16_t status, magic; uint8_t fx[512]; };

static const char *where(void *p)
{
    return (char *)p >= stack && (char *)p < stack + sizeof stack ? "alternate" : "normal";
}

static unsigned mask(void)
{
    sigset_t s;
    sigprocmask(SIG_BLOCK, NULL, &s);
    return *(unsigned *)&s;
}

static void set(int sig, void (*f)(int, siginfo_t *, void *), int flags)
{
    struct sigaction a = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&a.sa_mask);
    if (sigaction(sig, &a, NULL)) perror("sigaction");
}

static void ask(const char *what, long result) { printf("%s = %ld %s\n", what, result, result < 0 ? strerror(errno) : ""); }

static void show(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    greg_t *g = u->uc_mcontext.gregs;
    struct fpstate *f = (struct fpstate *)u->uc_mcontext.fpregs;
    int here;
    __asm__ volatile("fnop"); /* a kernel that switches the FPU lazily saves the state of who has used it */
    printf("%*ssignal %d code %d errno %d self %d value %d mask %x saved %x %s stack, link %d, uc_stack %x size %d, "
           "cs %x ds %x es %x fs %x gs %x ss %x, sp %d, fpu cw %x tag %x magic %x at %d, aligned %d\n",
           depth * 2, "", sig, i->si_code, i->si_errno, i->si_pid == getpid(), i->si_code == SI_QUEUE ? i->si_int : 0,
           mask(), *(unsigned *)&u->uc_sigmask, where(&here), u->uc_link != NULL, u->uc_stack.ss_flags,
           (int)u->uc_stack.ss_size, g[REG_CS], g[REG_DS], g[REG_ES], g[REG_FS], g[REG_GS], g[REG_SS],
           g[REG_ESP] == g[REG_UESP], f->cw, f->tag, f->magic, (int)((uintptr_t)f->fx % 64),
           (int)(((uintptr_t)__builtin_frame_address(0) + 8) % 16));
    if (depth < 2 && sig == SIGUSR1) {
        depth++;
        raise(SIGUSR2);
        depth--;
    }
}

/* Called by the kernel with the old frame: (sig, sigcontext). */
static void old(int sig, struct sigcontext c)
{
    printf("old frame: signal %d cs %x ds %x ss %x mask %lx trapno %lx err %lx, %s stack\n", sig, c.cs, c.ds, c.ss,
           c.oldmask, c.trapno, c.err, where(&c));
}

static void repair(int sig, siginfo_t *i, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    printf("  signal %d code %d page %d trapno %d err %x cr2 %d\n", sig, i->si_code, (char *)i->si_addr - page == 8,
           g[REG_TRAPNO], g[REG_ERR], ((ucontext_t *)context)->uc_mcontext.cr2 == (unsigned long)page + 8);
    if (i->si_code == SEGV_ACCERR) mprotect(page, 4096, PROT_READ | PROT_WRITE);
    else g[REG_ECX] = (greg_t)page + 16;
}

static void clobber(int sig)
{
    double x = 7.25;
    __asm__ volatile("fninit\n fldl %0\n fldl %0\n pxor %%xmm0, %%xmm0" :: "m"(x));
    printf("  clobbered by %d\n", sig);
}

static void fold(int sig, siginfo_t *i, void *context)
{
    struct fpstate *f = (struct fpstate *)((ucontext_t *)context)->uc_mcontext.fpregs;
    double seen;
    (void)sig, (void)i;
    __asm__ volatile("fldt %1\n fstpl %0" : "=m"(seen) : "m"(f->st[0]));
    printf("  st0 %g in the frame, cw %x sw %x tag %x\n", seen, f->cw & 0xffff, f->sw & 0xffff, f->tag & 0xffff);
    double other = 2.5;
    __asm__ volatile("fldl %1\n fstpt %0" : "=m"(f->st[0]) : "m"(other));
    f->cw = 0xffff027f;
}

static void bad(int sig, siginfo_t *i, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)i;
    printf("  caught %d, cs %x ss %x trapno %d err %x\n", sig, g[REG_CS], g[REG_SS], g[REG_TRAPNO], g[REG_ERR]);
    siglongjmp(out, 1);
}

static int which;
static void spoil(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    (void)sig, (void)i;
    switch (which) {
    case 0: u->uc_mcontext.gregs[REG_CS] = 0; break;
    case 1: u->uc_mcontext.gregs[REG_SS] = 0x10; break;
    case 2: u->uc_mcontext.fpregs = (void *)8; break;
    case 3: u->uc_mcontext.gregs[REG_EIP] = 0; break;
    case 4: u->uc_mcontext.gregs[REG_DS] = 0x53; break;
    case 5: u->uc_mcontext.gregs[REG_ES] = 0; break;
    case 6: u->uc_mcontext.gregs[REG_EFL] |= 0x3000; break;
    }
}

static void quiet(int sig) { (void)sig; }

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    long pause = argc > 1 ? atol(argv[1]) : 20000000; /* nanoseconds: long enough for the parent to be waiting */
    stack_t was, ss = {.ss_sp = stack, .ss_size = sizeof stack};
    ask("sigaltstack(NULL)", sigaltstack(NULL, &was));
    printf("%x %d\n", was.ss_flags, (int)was.ss_size);
    set(SIGUSR1, show, 0);
    set(SIGUSR2, show, SA_ONSTACK);
    raise(SIGUSR1);
    ask("sigaltstack", sigaltstack(&ss, &was));
    raise(SIGUSR1);
    raise(SIGUSR2);
    kill(getpid(), SIGUSR2);
    ask("sigqueue", sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 42}));
    ask("small", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 100}, NULL));
    ask("flags", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 10000, .ss_flags = 7}, NULL));

    puts("old frames");
    struct old_action a = {old, 0x1000, 0, NULL}, before = {0};
    ask("sigaction", syscall(SYS_sigaction, SIGHUP, &a, NULL));
    raise(SIGHUP);
    a.flags = SA_ONSTACK;
    ask("sigaction", syscall(SYS_sigaction, SIGHUP, &a, &before));
    printf("%d mask %lx flags %lx\n", before.handler == old, before.mask, before.flags);
    raise(SIGHUP);
    ask("signal", syscall(SYS_signal, SIGHUP, old) != 0);
    raise(SIGHUP);
    ask("sigaction", syscall(SYS_sigaction, SIGHUP, NULL, &before));
    printf("%d flags %lx\n", before.handler == SIG_DFL, before.flags);
    unsigned set32 = 1 << (SIGHUP - 1), old32 = 0;
    ask("sigprocmask", syscall(SYS_sigprocmask, SIG_BLOCK, &set32, &old32));
    set(SIGHUP, show, 0);
    raise(SIGHUP);
    ask("sigpending", syscall(SYS_sigpending, &set32));
    printf("%x %x\n", set32, old32);
    ask("sgetmask", syscall(SYS_sgetmask));
    ask("sigsuspend", syscall(SYS_sigsuspend, 0, 0, 0));
    ask("ssetmask", syscall(SYS_ssetmask, 0));

    puts("real time");
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGRTMIN);
    sigaddset(&s, SIGRTMAX);
    sigprocmask(SIG_BLOCK, &s, NULL);
    sigqueue(getpid(), SIGRTMAX, (union sigval){.sival_int = -5});
    siginfo_t i;
    memset(&i, 0, sizeof i);
    ask("sigtimedwait", sigtimedwait(&s, &i, &(struct timespec){0, 1000}));
    printf("%d %d %d %d\n", i.si_signo, i.si_code, i.si_int, i.si_pid == getpid());
    ask("sigtimedwait", sigtimedwait(&s, &i, &(struct timespec){0, 1000}));

    puts("repairs");
    page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    set(SIGSEGV, repair, SA_ONSTACK);
    *(volatile int *)(page + 8) = 5;
    printf("%d\n", page[8]);
    page[16] = 77;
    int value;
    __asm__ volatile("movl (%%ecx), %0" : "=r"(value) : "c"(4));
    printf("%d\n", value);

    puts("the FPU");
    struct sigaction q = {.sa_handler = clobber};
    sigaction(SIGUSR1, &q, NULL);
    double x = 1.5, y;
    float lanes[4] __attribute__((aligned(16))) = {1, 2, 3, 4}, after[4] __attribute__((aligned(16)));
    int pid = getpid();
    __asm__ volatile("fldl %2\n movaps %3, %%xmm0\n int $0x80\n fstpl %0\n movaps %%xmm0, %1"
                     : "=m"(y), "=m"(after) : "m"(x), "m"(lanes), "a"(SYS_kill), "b"(pid), "c"(SIGUSR1) : "memory");
    printf("st0 %g xmm0 %g %g\n", y, after[0], after[3]);
    set(SIGUSR1, fold, 0);
    unsigned short cw;
    __asm__ volatile("fldl %2\n int $0x80\n fstpl %0\n fnstcw %1\n fninit"
                     : "=m"(y), "=m"(cw) : "m"(x), "a"(SYS_kill), "b"(pid), "c"(SIGUSR1) : "memory");
    printf("st0 %g cw %x\n", y, cw);

    puts("what a handler may spoil");
    set(SIGSEGV, bad, SA_ONSTACK | SA_NODEFER);
    set(SIGUSR1, spoil, 0);
    for (which = argc > 2 ? atoi(argv[2]) : 0; which < 7; which++) { /* before 3: frames that IRET refuses */
        printf("%d\n", which);
        if (sigsetjmp(out, 1)) continue;
        unsigned short ds, es;
        unsigned flags;
        raise(SIGUSR1);
        __asm__ volatile("mov %%ds, %0\n mov %%es, %1\n pushf\n pop %2\n push %%ss\n pop %%ds\n push %%ss\n pop %%es" : "=r"(ds), "=r"(es), "=r"(flags));
        printf("  went on, ds %x es %x iopl %x\n", ds, es, flags & 0x3000);
    }

    puts("interrupted calls");
    int p[2], status;
    char c = 0;
    pipe(p);
    pid_t child = fork();
    if (!child) {
        struct timespec t = {0, pause};
        nanosleep(&t, NULL);
        kill(getppid(), SIGALRM);
        nanosleep(&t, NULL);
        write(p[1], "x", 1);
        _exit(7);
    }
    struct sigaction r = {.sa_handler = quiet, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &r, NULL);
    ask("read, SA_RESTART", read(p[0], &c, 1));
    ask("wait", waitpid(child, &status, 0) == child);
    printf("%c %d\n", c, WEXITSTATUS(status));
    child = fork();
    if (!child) {
        struct timespec t = {0, pause};
        nanosleep(&t, NULL);
        kill(getppid(), SIGALRM);
        _exit(0);
    }
    r.sa_flags = 0;
    sigaction(SIGALRM, &r, NULL);
    ask("read", read(p[0], &c, 1));
    waitpid(child, NULL, 0);
    signal(SIGSEGV, SIG_DFL);
    *(volatile int *)4 = 1;
    return 1;
}
