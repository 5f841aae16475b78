/* Does random things to children that it traces, and lets them run on: argv[1] is the seed, argv[2] how many children,
   argv[3], if there is one, what flags they are not given. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long state;
static unsigned long any(void)
{
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    return state >> 29 ^ state << 17;
}
static unsigned long below(unsigned long n) { return any() % n; }

static struct user_regs_struct page[64];
static unsigned long value(void)
{
    unsigned long values[] = {0, 1, 8, 11, 0x23, 0x2b, 0x33, 0x1b, 0x10, 0x18, 0x7ffffffff000, 0x800000000000, 0xffff800000000000,
                              0xffffffff81000000, -1UL, (unsigned long)page, 4096, 0x100, 0x4000, 0x40000, 0x10000, 0x202, 39, 15};
    return below(4) ? values[below(sizeof values / sizeof *values)] : any() >> below(64);
}

static void child(void)
{
    struct itimerval soon = {{0, 20}, {0, 20}}; /* what it is made to do may never end */
    setitimer(ITIMER_REAL, &soon, NULL);
    for (int n = 0; n < 20; n++) syscall(SYS_getpid);
    _exit(0);
}

int main(int count, char **arguments)
{
    int requests[] = {1, 2, 3, 4, 5, 6, 6, 6, 6, 12, 13, 13, 14, 15, 0x4200, 0x4201, 0x4202, 0x4203, 0x4204, 0x4205, 0x4205};
    int going[] = {PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP, PTRACE_SYSCALL};
    state = atoi(arguments[1]);
    for (int n = atoi(arguments[2]); n; n--) {
        int status, stops = 0;
        pid_t pid = fork();
        if (pid == 0) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            child();
        }
        while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
            if (++stops > 25) {
                kill(pid, SIGKILL);
                continue;
            }
            for (int times = below(4); times; times--) {
                int request = below(20) ? requests[below(sizeof requests / sizeof *requests)] : (int)value();
                unsigned long address = value(), data = value();
                struct iovec iov = {below(4) ? page : (void *)value(), value()};
                if (request == PTRACE_DETACH || request == PTRACE_ATTACH || request == PTRACE_TRACEME) continue;
                if (request == 3 || request == 6) address = below(4) ? below(30) * 8 : 848 + below(9) * 8;
                if (request == 12 || request == 13 || request == 14 || request == 15) data = below(4) ? (unsigned long)page : data;
                if (request == 0x4204 || request == 0x4205) address = below(3), data = below(4) ? (unsigned long)&iov : data;
                if (request == 13) {
                    syscall(SYS_ptrace, PTRACE_GETREGS, pid, 0, page);
                    for (int m = below(4); m; m--) ((unsigned long *)page)[below(27)] = value();
                }
                if (count > 3) {
                    page[0].eflags &= ~strtoul(arguments[3], NULL, 0);
                    if (request == 6 && address == offsetof(struct user, regs.eflags)) data &= ~strtoul(arguments[3], NULL, 0);
                }
                syscall(SYS_ptrace, request, pid, address, data);
            }
            if (syscall(SYS_ptrace, going[below(4)], pid, 0, below(4) ? 0 : below(66))) syscall(SYS_ptrace, PTRACE_CONT, pid, 0, 0);
        }
    }
    return 0;
}
