/* Processes and threads: who does what, calls that are interrupted by another's line, how each ends. */
#include "calls.h"

static char buffer[256];
static int status, ends[2];
static long shared[2048];
static volatile int child_tid;

static void thread(void)
{
    call(__NR_write, ends[1], "thread\n", 7);
    call(__NR_exit, 3);
}

static void make_thread(void)
{
    long *top = shared + 2040;
    long flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x100000 | 0x200000;
    *top = L(thread);
    child_tid = 1;
#ifdef __x86_64__
    register long r10 __asm__("r10") = L(&child_tid), r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n testl %%eax, %%eax\n jnz 1f\n popq %%rax\n andq $-16, %%rsp\n call *%%rax\n1:"
                     : : "a"(__NR_clone), "D"(flags), "S"(top), "d"(&status), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
#else
    long result;
    __asm__ volatile("int $0x80\n testl %%eax, %%eax\n jnz 1f\n popl %%eax\n andl $-16, %%esp\n call *%%eax\n1:"
                     : "=a"(result) : "a"(__NR_clone), "b"(flags), "c"(top), "d"(&status), "S"(0), "D"(&child_tid)
                     : "memory");
#endif
    call(__NR_futex, &child_tid, 0, 1, 0);
    call(__NR_read, ends[0], buffer, 20);
}

static void die(int how)
{
    switch (how) {
    case 0: __asm__ volatile("ud2");
    case 1: __asm__ volatile("xorl %%ecx, %%ecx\n divl %%ecx" : : "a"(1), "d"(0) : "ecx");
    case 2: __asm__ volatile("int3");
    case 3: __asm__ volatile("hlt");
    case 4:
        call(__NR_pipe, ends);
        call(__NR_close, ends[0]);
        call(__NR_write, ends[1], "x", 1);
    }
}

int main(void)
{
    int how;
    char *arguments[] = {"none", "with \"quotes\"", 0}, *environment[] = {"A=1", 0};
    long pid;
    call(__NR_pipe, ends);
    if (!(pid = call(__NR_fork))) {
        call(__NR_close, ends[0]);
        call(__NR_write, ends[1], "child\n", 6);
        call(__NR_exit_group, 5);
    }
    call(__NR_wait4, pid, &status, 0, 0);
    call(__NR_read, ends[0], buffer, 20);
    call(__NR_wait4, -1, &status, 1, 0);
    if (!(pid = call(__NR_fork))) {
        call(__NR_pause);
        call(__NR_exit, 1);
    }
    call(__NR_sched_yield);
    call(__NR_wait4, pid, 0, 1, 0);
    call(__NR_kill, pid, 9);
    call(__NR_wait4, pid, &status, 2 | 0x40000000, 0);
    if (!(pid = call(__NR_fork))) *(volatile int *)0 = 0;
    call(__NR_wait4, pid, &status, 0, 0);
    for (how = 0; how < 5; how++) {
        if (!(pid = call(__NR_fork))) die(how);
        call(__NR_wait4, pid, &status, 0, 0);
    }
    call(__NR_execve, "/none", arguments, environment);
    call(__NR_execve, "/none", 0, 0);
    make_thread();
    call(__NR_getppid, 0);
    return 0;
}
