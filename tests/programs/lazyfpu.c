/* Several tasks with FPU registers of their own: each loads them all, gives the CPU away again and again, looks at them. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TASKS = 4, TURNS = 12, FXSAVE = 512, REGISTERS = 0x20, XMM = 0xa0, END = 0x1a0, CWD = 0, MXCSR = 24 };

struct state { unsigned char bytes[FXSAVE]; } __attribute__((aligned(16)));

/* x87 and SSE registers that only task `n` has, masked exceptions, rounding as it likes. */
static struct state state_of(int n)
{
    struct state s;
    memset(&s, 0, sizeof s);
    s.bytes[CWD] = 0x7f, s.bytes[CWD + 1] = 3 | n << 2;
    s.bytes[4] = 0xff; /* all eight in use */
    s.bytes[MXCSR] = 0x80, s.bytes[MXCSR + 1] = 0x1f | n << 5;
    for (int r = 0; r < 8; r++) {
        unsigned char *st = s.bytes + REGISTERS + 16 * r;
        for (int i = 0; i < 7; i++) st[i] = n * 40 + r * 5 + i;
        st[7] = 0x80 | r, st[8] = n, st[9] = 0x3f;
    }
    for (int i = XMM; i < END; i++) s.bytes[i] = i * 7 + n * 31;
    return s;
}

/* Nothing between the load and the store but system calls, made by hand. */
static int turns(const struct state *mine, int number, int count)
{
    struct state now;
    memset(&now, 0, sizeof now);
    __asm__ volatile("fxrstor64 (%1)\n 1: mov %3, %%eax\n syscall\n dec %%ebx\n jnz 1b\n fxsave64 (%0)\n fninit\n"
                     :: "r"(&now), "r"(mine), "b"(count), "r"(number)
                     : "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    __asm__ volatile("ldmxcsr %0" :: "m"((int){0x1f80}));
    int wrong = 0;
    for (int i = 0; i < END; i++)
        if ((i < 6 || (i >= MXCSR && i < 28) || i >= REGISTERS) && now.bytes[i] != mine->bytes[i]) wrong++;
    return wrong;
}

static volatile int handled;

static void handler(int sig)
{
    struct state fresh;
    memset(&fresh, 0, sizeof fresh);
    __asm__ volatile("fxsave64 %0\n fldpi\n pxor %%xmm9, %%xmm9" : "=m"(fresh) :: "xmm9");
    handled += sig == SIGUSR1 && fresh.bytes[4] == 0 && fresh.bytes[CWD + 1] == 3 && fresh.bytes[MXCSR + 1] == 0x1f;
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    pid_t children[TASKS];
    for (int n = 0; n < TASKS; n++) {
        children[n] = fork();
        if (!children[n]) {
            struct state mine = state_of(n);
            int wrong = turns(&mine, 24 /* sched_yield */, TURNS);
            _exit(wrong > 100 ? 100 : wrong);
        }
    }
    struct state own = state_of(3);
    printf("parent: %d bytes wrong\n", turns(&own, 24, TURNS));
    for (int n = 0; n < TASKS; n++) {
        int status;
        waitpid(children[n], &status, 0);
        printf("task %d: status %x\n", n, status);
    }

    /* What fork copies, the child has; what it changes, the parent does not see. */
    int pipes[2], status;
    pipe(pipes);
    own = state_of(2);
    struct state now;
    long pid;
    __asm__ volatile("fxrstor64 %2\n mov $57, %%eax\n syscall\n fxsave64 %1\n fninit\n"
                     : "=a"(pid), "=m"(now) : "m"(own) : "rcx", "r11", "memory");
    __asm__ volatile("ldmxcsr %0" :: "m"((int){0x1f80}));
    int same = !memcmp(now.bytes + REGISTERS, own.bytes + REGISTERS, END - REGISTERS) && now.bytes[4] == 0xff;
    if (!pid) _exit(same);
    waitpid(pid, &status, 0);
    printf("fork: parent %d child %d\n", same, WEXITSTATUS(status));

    /* A handler begins with none of it, and leaves all of it alone; also where it switches. */
    signal(SIGUSR1, handler);
    own = state_of(1);
    if (!(pid = fork())) {
        struct state mine = state_of(0);
        for (int i = 0; i < 5; i++) kill(getppid(), SIGUSR1), turns(&mine, 24, 3);
        _exit(0);
    }
    int wrong = 0;
    for (int i = 0; i < 40; i++) wrong += turns(&own, 24, 5);
    while (waitpid(pid, &status, 0) < 0)
        ;
    raise(SIGUSR1);
    printf("signals: %d bytes wrong, a handler ran: %d\n", wrong, handled > 0);

    /* The program that execve starts finds nothing. */
    char *again[] = {"again", NULL};
    if (!getenv("AGAIN")) {
        setenv("AGAIN", "1", 1);
        if (!(pid = fork())) {
            __asm__ volatile("fxrstor64 %0" :: "m"(own));
            execv("/proc/self/exe", again);
            _exit(1);
        }
        waitpid(pid, &status, 0);
        printf("again: %x\n", status);
    }
    return 0;
}
