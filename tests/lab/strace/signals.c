/* Signals: actions, masks, handlers and what they are told, restarted calls, times. The last one kills. */
#include "calls.h"

#define SA_SIGINFO 4
#define SA_ONSTACK 0x08000000
#define SA_RESTORER 0x04000000
#define SA_RESTART 0x10000000
#define SA_NODEFER 0x40000000
#define SA_RESETHAND 0x80000000

typedef struct { void *handler; unsigned long flags; void *restorer; unsigned long long mask; } action;
#ifdef __x86_64__
__asm__("restorer:\nmovl $15, %eax\nsyscall\n");
#else
__asm__("restorer:\nmovl $173, %eax\nint $0x80\n"
        "old_restorer:\npopl %eax\nmovl $119, %eax\nint $0x80\n");
#endif
extern char restorer[], old_restorer[];

static unsigned long long mask, old;
static action before;
static char stack[8192], buffer[256];
static int pair[2];
static volatile int count;

static void handler(int signal, void *info, void *context)
{
    count++;
    if (signal == 14) call(__NR_write, pair[1], "x", 1);
}

static void handle(int signal, unsigned long flags, unsigned long long blocked)
{
#ifdef __x86_64__
    action new = {handler, flags | SA_RESTORER, restorer, blocked};
#else
    action new = {handler, flags | SA_RESTORER, flags & SA_SIGINFO ? restorer : old_restorer, blocked};
#endif
    call(__NR_rt_sigaction, signal, &new, &before, 8);
}

static void actions(void)
{
    action ignore = {(void *)1, 0, 0, 0}, dfl = {0, 0, 0, 0};
    struct { void *sp; int flags; unsigned long size; } alternate = {stack, 0, sizeof stack};
    handle(10, SA_SIGINFO | SA_RESTART, 0);
    handle(10, SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_RESETHAND, 1 << 11 | 1 << 16);
    call(__NR_rt_sigaction, 10, 0, &before, 8);
    call(__NR_rt_sigaction, 12, &ignore, 0, 8);
    call(__NR_rt_sigaction, 9, &dfl, 0, 8);
    call(__NR_rt_sigaction, 13, &dfl, &before, 8);
    call(__NR_rt_sigaction, 13, BAD, &before, 8);
    call(__NR_sigaltstack, &alternate, 0);
    call(__NR_sigaltstack, 0, &alternate);
}

static void masks(int pid)
{
    mask = 1 << 9;
    call(__NR_rt_sigprocmask, 0, &mask, &old, 8);
    call(__NR_kill, pid, 10);
    call(__NR_rt_sigpending, &old, 8);
    mask = 0;
    call(__NR_rt_sigprocmask, 2, &mask, &old, 8);
    mask = ~0ULL;
    call(__NR_rt_sigprocmask, 2, &mask, 0, 8);
    mask = ~(1ULL << 9 | 1ULL << 11);
    call(__NR_rt_sigprocmask, 2, &mask, &old, 8);
    call(__NR_rt_sigprocmask, 1, 0, &old, 8);
    mask = 1ULL << 33 | 1 << 14;
    call(__NR_rt_sigprocmask, 2, &mask, 0, 8);
    mask = 0;
    call(__NR_rt_sigprocmask, 2, &mask, &old, 8);
    call(__NR_rt_sigprocmask, 7, &mask, 0, 8);
}

static void waits(int pid)
{
    timespec time = {0, 1000000}, zero = {0, 0};
    long timer[4] = {0, 0, 0, 20000};
    handle(14, SA_RESTART, 0);
    call(__NR_pipe, pair);
    call(__NR_setitimer, 0, timer, 0);
    call(__NR_read, pair[0], buffer, 1);
    handle(14, 0, 0);
    call(__NR_setitimer, 0, timer, timer);
    call(__NR_pause);
    timer[2] = 0;
    timer[3] = 20000;
    call(__NR_setitimer, 0, timer, 0);
    time.sec = 3;
    call(__NR_nanosleep, &time, &time);
    timer[3] = 20000;
    call(__NR_setitimer, 0, timer, 0);
    mask = 1 << 9;
    call(__NR_rt_sigsuspend, &mask, 8);
    mask = 1 << 9;
    call(__NR_rt_sigprocmask, 0, &mask, 0, 8);
    call(__NR_tgkill, pid, pid, 10);
    call(__NR_rt_sigtimedwait, &mask, buffer, &zero, 8);
    call(__NR_rt_sigtimedwait, &mask, buffer, &zero, 8);
    time.sec = 0;
    time.nsec = 1000;
    call(__NR_nanosleep, &time, 0);
    call(__NR_getitimer, 0, timer);
    call(__NR_alarm, 100);
    call(__NR_alarm, 0);
    call(__NR_kill, pid, 12);
    call(__NR_kill, pid, 0);
    call(__NR_kill, 999999, 15);
    call(__NR_tkill, pid, 23);
    call(__NR_poll, 0, 0, 1);
}

int main(void)
{
    int pid = call(__NR_getpid);
    actions();
    masks(pid);
    waits(pid);
    handle(11, SA_SIGINFO | SA_ONSTACK | SA_RESETHAND, 0);
    *(volatile int *)0x123000 = 1;
    return 0;
}
