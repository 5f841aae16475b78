/* Handlers, masks, queues, alternate stacks: prints what it sees, which must be the same on any Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static char stack[65536] __attribute__((aligned(64)));
static volatile int depth;

static const char *where(void *p)
{
    return (char *)p >= stack && (char *)p < stack + sizeof stack ? "alternate" : "normal";
}

static void set(int sig, void (*f)(int, siginfo_t *, void *), int flags)
{
    struct sigaction a = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&a.sa_mask);
    if (sigaction(sig, &a, NULL)) perror("sigaction");
}

static unsigned long mask(void)
{
    sigset_t s;
    sigprocmask(SIG_BLOCK, NULL, &s);
    return *(unsigned long *)&s;
}

static void show(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    int here;
    printf("%*ssignal %d code %d errno %d self %d value %d mask %lx saved %lx %s stack, uc_flags %lx, link %d, "
           "uc_stack %x size %ld, aligned %d %d, cs %x ss %x\n",
           depth * 2, "", sig, i->si_code, i->si_errno, i->si_pid == getpid(), i->si_code == SI_QUEUE ? i->si_int : 0,
           mask(), *(unsigned long *)&u->uc_sigmask, where(&here), u->uc_flags & ~1L, u->uc_link != NULL,
           u->uc_stack.ss_flags, (long)u->uc_stack.ss_size, (int)((uintptr_t)context % 16 - 8) == 0 ? 1 : 0,
           (int)((uintptr_t)u->uc_mcontext.fpregs % 64),
           (int)(u->uc_mcontext.gregs[REG_CSGSFS] & 0xffff), (int)(u->uc_mcontext.gregs[REG_CSGSFS] >> 48 & 0xffff));
    if (depth < 2 && sig == SIGUSR1) {
        depth++;
        raise(SIGUSR2);
        depth--;
    }
}

static void again(int sig, siginfo_t *i, void *context)
{
    (void)i, (void)context;
    static int count;
    printf("%*sagain %d\n", depth * 2, "", sig);
    depth++;
    if (++count % 4) raise(sig);
    depth--;
}

static sigjmp_buf buf;
static void jump(int sig, siginfo_t *i, void *c) { (void)i, (void)c; siglongjmp(buf, sig); }

static void ask(const char *what, long result) { printf("%s = %ld %s\n", what, result, result < 0 ? strerror(errno) : ""); }

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    stack_t old, ss = {.ss_sp = stack, .ss_size = sizeof stack};
    ask("sigaltstack(NULL)", sigaltstack(NULL, &old));
    printf("%x %ld\n", old.ss_flags, (long)old.ss_size);
    set(SIGUSR1, show, 0);
    set(SIGUSR2, show, SA_ONSTACK);
    raise(SIGUSR1);
    ask("sigaltstack", sigaltstack(&ss, &old));
    raise(SIGUSR1);
    raise(SIGUSR2);
    kill(getpid(), SIGUSR2);
    ask("sigqueue", sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 42}));
    ask("small", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 100}, NULL));
    ask("flags", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 10000, .ss_flags = 7}, NULL));
    ask("pointer", sigaltstack((void *)8, NULL));

    puts("nodefer, resethand");
    set(SIGHUP, again, SA_NODEFER);
    raise(SIGHUP);
    set(SIGHUP, again, 0);
    raise(SIGHUP);
    set(SIGHUP, show, SA_RESETHAND);
    raise(SIGHUP);
    struct sigaction a;
    sigaction(SIGHUP, NULL, &a);
    printf("%d %x\n", a.sa_handler == SIG_DFL, (unsigned)a.sa_flags & ~0x4000000);

    puts("blocked, pending, queued");
    sigset_t s, was;
    sigemptyset(&s);
    for (int n = SIGRTMIN; n < SIGRTMIN + 3; n++) sigaddset(&s, n), set(n, show, 0);
    sigaddset(&s, SIGUSR2);
    sigprocmask(SIG_BLOCK, &s, &was);
    for (int n = 0; n < 3; n++) {
        raise(SIGUSR2);
        sigqueue(getpid(), SIGRTMIN + 2 - n, (union sigval){.sival_int = n});
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = n + 10});
    }
    sigset_t pending;
    ask("sigpending", sigpending(&pending));
    printf("%lx\n", *(unsigned long *)&pending);
    siginfo_t i;
    memset(&i, 0, sizeof i);
    ask("sigtimedwait", sigtimedwait(&s, &i, &(struct timespec){0, 0}));
    printf("%d %d\n", i.si_signo, i.si_code);
    ask("sigtimedwait", sigtimedwait(&s, &i, NULL));
    printf("%d %d %d\n", i.si_signo, i.si_code, i.si_int);
    ask("sigsuspend", sigsuspend(&was));
    printf("mask %lx\n", mask());
    sigprocmask(SIG_SETMASK, &was, NULL);
    printf("mask %lx\n", mask());
    ask("sigtimedwait", sigtimedwait(&s, &i, &(struct timespec){0, 1000}));

    puts("ignored, jumps");
    signal(SIGTERM, SIG_IGN);
    raise(SIGTERM);
    sigaddset(&s, SIGTERM);
    sigprocmask(SIG_BLOCK, &s, &was);
    raise(SIGTERM);
    sigpending(&pending);
    printf("%lx\n", *(unsigned long *)&pending);
    sigprocmask(SIG_SETMASK, &was, NULL);
    sigprocmask(SIG_BLOCK, &s, NULL);
    raise(SIGTERM);
    signal(SIGTERM, SIG_IGN);
    sigpending(&pending);
    printf("%lx\n", *(unsigned long *)&pending);
    signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &was, NULL);
    raise(SIGCHLD);
    raise(SIGCONT);
    set(SIGABRT, jump, SA_ONSTACK);
    int back = sigsetjmp(buf, 1);
    if (!back) abort();
    printf("back %d mask %lx\n", back, mask());

    puts("errors");
    ask("SIGKILL", syscall(SYS_rt_sigaction, SIGKILL, &a, NULL, 8));
    ask("SIGKILL, old", syscall(SYS_rt_sigaction, SIGKILL, NULL, &a, 8));
    ask("65", syscall(SYS_rt_sigaction, 65, NULL, NULL, 8));
    ask("0", syscall(SYS_rt_sigaction, 0, NULL, NULL, 8));
    ask("size", syscall(SYS_rt_sigaction, SIGINT, NULL, NULL, 4));
    ask("fault", syscall(SYS_rt_sigaction, SIGINT, 8, NULL, 8));
    ask("fault old", syscall(SYS_rt_sigaction, SIGINT, NULL, 8, 8));
    ask("how", syscall(SYS_rt_sigprocmask, 7, &s, NULL, 8));
    ask("pending size", syscall(SYS_rt_sigpending, &s, 9));
    ask("pending 4", syscall(SYS_rt_sigpending, &s, 4));
    ask("suspend", syscall(SYS_rt_sigsuspend, &s, 7));
    ask("suspend", syscall(SYS_rt_sigsuspend, 8, 8));
    ask("timedwait", syscall(SYS_rt_sigtimedwait, &s, 8, &(struct timespec){-1, 0}, 8));
    ask("timedwait", syscall(SYS_rt_sigtimedwait, 8, NULL, NULL, 8));
    ask("queue", syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, 8));
    ask("queue 65", syscall(SYS_rt_sigqueueinfo, getpid(), 65, &i));
    ask("tgkill", syscall(SYS_tgkill, getpid(), getpid(), 0));
    ask("tgkill", syscall(SYS_tgkill, getpid(), 0, 0));
    ask("tgkill", syscall(SYS_tgkill, 1000000, getpid(), 0));
    ask("tkill", syscall(SYS_tkill, 1000000, 0));
    ask("kill", kill(1000000, 0));
    ask("restart_syscall", syscall(SYS_restart_syscall));
    memset(&a, 0xff, sizeof a);
    long raw[4] = {(long)show, -1, 0, -1}, result[4];
    ask("all flags", syscall(SYS_rt_sigaction, SIGINT, raw, NULL, 8));
    ask("all flags", syscall(SYS_rt_sigaction, SIGINT, NULL, result, 8));
    printf("%lx %lx\n", result[1] & ~0x400L, result[3]);
    raise(SIGTERM);
    return 1;
}
