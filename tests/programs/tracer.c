/* Traces children: their system calls, a string and a result changed, single steps, a watchpoint, signals, exec. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#define NUMBER orig_rax
#define RESULT rax
#define SECOND rsi
#define PC rip
#define FLAGS eflags
#define CLOSE 3
#define CALL(n, a, b, c) ({ long r; __asm__ volatile("syscall" : "=a"(r) : "0"((long)(n)), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); r; })
#else
#define NUMBER orig_eax
#define RESULT eax
#define SECOND ecx
#define PC eip
#define FLAGS eflags
#define CALL(n, a, b, c) ({ long r; __asm__ volatile("int $0x80" : "=a"(r) : "0"(n), "b"(a), "c"(b), "d"(c) : "memory"); r; })
#endif
#define DEBUGREG(n) (offsetof(struct user, u_debugreg) + (n) * sizeof(long))

static char text[] = "hello, tracer\n";
static volatile long watched[4];

static pid_t start(void (*child)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        child();
        _exit(0);
    }
    waitpid(pid, &status, 0);
    printf("starts with %x\n", status);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    return pid;
}

static int go(int how, pid_t pid, int sig)
{
    int status;
    if (ptrace(how, pid, 0, (long)sig)) printf("ptrace %d: errno %d\n", how, errno);
    waitpid(pid, &status, 0);
    return status;
}

static void calls(void)
{
    CALL(SYS_write, 1, text, sizeof text - 1);
    long pid = CALL(SYS_getpid, 0, 0, 0);
    CALL(SYS_write, 1, pid == 4711 ? "result changed\n" : "as it was\n\n\n\n\n\n", 15);
    CALL(9999, 0, 0, 0);
    CALL(SYS_getppid, 0, 0, 0);  // refused by the tracer, which says what it results in
    CALL(SYS_getuid, 0, 0, 0);  // made another, which there is not
    CALL(SYS_exit, 7, 0, 0);
}

static void system_calls(void)
{
    struct user_regs_struct regs;
    pid_t pid = start(calls);
    int entry = 1, status;
    while (WIFSTOPPED(status = go(PTRACE_SYSCALL, pid, 0))) {
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        long number = (long)regs.NUMBER, result = (long)regs.RESULT;
        if (entry) {
            printf("call %ld, result now %ld", number, result);
            if (number == SYS_write && (long)regs.SECOND == (long)text) {
                errno = 0;
                printf(" (text begins with %lx, errno %d)", ptrace(PTRACE_PEEKDATA, pid, text, 0) & 0xffffffff, errno);
                ptrace(PTRACE_POKEDATA, pid, text, *(long *)"HELLO, \0");
            }
            puts("");
            if (number == SYS_getppid) {
                regs.NUMBER = -1;
                regs.RESULT = 1234;
                ptrace(PTRACE_SETREGS, pid, 0, &regs);
            } else if (number == SYS_getuid) {
                regs.NUMBER = 9998;
                ptrace(PTRACE_SETREGS, pid, 0, &regs);
            }
        } else {
            printf(number == SYS_getpid ? " = the pid: %d\n" : " = %ld\n", number == SYS_getpid ? result == pid : result);
            if (number == SYS_getpid) {
                regs.RESULT = 4711;
                ptrace(PTRACE_SETREGS, pid, 0, &regs);
            }
        }
        fflush(stdout);
        entry = !entry;
    }
    printf("ended with %x, text here still %s", status, text);
}

static void loop(void)
{
    __asm__ volatile("mov $5, %%ecx\n 1: dec %%ecx\n jnz 1b\n nop\n int3" ::: "ecx", "cc", "memory");
    CALL(SYS_getpid, 0, 0, 0);
    __asm__ volatile("pushf\n pop %%" 
#ifdef __x86_64__
        "rax\n and $0x100, %%eax\n popf_here: push %%rcx\n pop %%rcx\n int3" ::: "rax", "rcx", "cc", "memory");
#else
        "eax\n and $0x100, %%eax\n push %%ecx\n pop %%ecx\n int3" ::: "eax", "ecx", "cc", "memory");
#endif
}

static void single_steps(void)
{
    struct user_regs_struct regs;
    siginfo_t info;
    pid_t pid = start(loop);
    int status, steps = 0, in_loop = 0, calls_seen = 0, traps = 0, codes = 0, shown = 0;
    while (WIFSTOPPED(status = go(PTRACE_SINGLESTEP, pid, 0))) {
        steps++;
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
        unsigned long at = regs.PC;
        long word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
        shown += regs.FLAGS >> 8 & 1;
        if ((word & 0xff) == 0x75 || (word & 0xffff) == 0xc9ff || (word & 0xffff) == 0xe983) in_loop++;
        if ((word & 0xff) == 0x90) traps |= 1;
        if (info.si_code != TRAP_TRACE) codes = codes * 100 + info.si_code % 100;
        if (regs.NUMBER == SYS_getpid && (long)regs.RESULT == pid) calls_seen++;
        if (steps > 5000) break;
    }
    printf("in the loop at least %d, nop seen %d, other codes %d, over a call %d, TF shown %d, ended with %x\n",
           in_loop >= 10, traps, codes, calls_seen > 0, shown, status);
}

#ifdef __i386__
static unsigned long vsyscall;
static void call_vdso(void)
{
    __asm__ volatile("int3\n mov $20, %%eax\n call *%0\n mov $9999, %%eax\n call *%0\n mov $20, %%eax\n int $0x80\n"
                     "nop\n int3" :: "m"(vsyscall) : "eax", "ecx", "edx", "memory");
}

/* Steps over SYSENTER or SYSCALL of the vDSO: at each stop the next opcode, si_code, TF, and which result EAX has. */
static void vdso(void)
{
    struct user_regs_struct regs;
    siginfo_t info;
    vsyscall = getauxval(AT_SYSINFO);
    pid_t pid = start(call_vdso);
    int status = go(PTRACE_CONT, pid, 0);
    printf("%x:", status);
    for (int n = 0; n < 24; n++) {
        status = go(PTRACE_SINGLESTEP, pid, 0);
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
        printf(" %02lx/%d/%d%s", ptrace(PTRACE_PEEKTEXT, pid, regs.eip, 0) & 0xff, info.si_code, (int)(regs.eflags >> 8 & 1),
               regs.eax == pid ? "=pid" : regs.eax == -38 ? "=ENOSYS" : "");
    }
    ptrace(PTRACE_KILL, pid, 0, 0);
    waitpid(pid, &status, 0);
    printf(" ended with %x\n", status);
}
#endif

static void store(void)
{
    for (int n = 0; n < 4; n++) watched[n] = n + 1;
    watched[2] += watched[1];
}

static void watchpoint(void)
{
    struct user_regs_struct regs;
    siginfo_t info;
    pid_t pid = start(store);
    int status;
    long bits = sizeof(long) == 8 ? 2 : 3;
    errno = 0;
    int odd = ptrace(PTRACE_POKEUSER, pid, DEBUGREG(0), (char *)&watched[2] + 1);
    printf("an odd address: %d, enabling it: ", odd);
    odd = ptrace(PTRACE_POKEUSER, pid, DEBUGREG(7), 1L | (1 | bits << 2) << 16);
    printf("%d, errno %d\n", odd, errno);
    printf("address %ld, ", ptrace(PTRACE_POKEUSER, pid, DEBUGREG(0), &watched[2]));
    printf("control %ld\n", ptrace(PTRACE_POKEUSER, pid, DEBUGREG(7), 1L | (1 | bits << 2) << 16));
    while (WIFSTOPPED(status = go(PTRACE_CONT, pid, 0))) {
        ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        printf("stopped by %d, code %d, at its address %d, DR6 %lx, value %ld\n", WSTOPSIG(status), info.si_code,
               (unsigned long)info.si_addr == (unsigned long)regs.PC,
               (unsigned long)ptrace(PTRACE_PEEKUSER, pid, DEBUGREG(6), 0), ptrace(PTRACE_PEEKDATA, pid, &watched[2], 0));
        ptrace(PTRACE_POKEUSER, pid, DEBUGREG(6), 0);
    }
    printf("ended with %x\n", status);
}

static void function_here(void) { CALL(SYS_write, 1, "in the function\n", 16); }
static void call_it(void)
{
    void (*volatile f)(void) = function_here;
    f();
    f();
}

static void breakpoint(void)
{
    struct user_regs_struct regs;
    pid_t pid = start(call_it);
    int status;
    ptrace(PTRACE_POKEUSER, pid, DEBUGREG(3), function_here);
    ptrace(PTRACE_POKEUSER, pid, DEBUGREG(7), 0x40L);
    while (WIFSTOPPED(status = go(PTRACE_CONT, pid, 0))) {
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        printf("stopped by %d before the function: %d, DR6 %lx\n", WSTOPSIG(status),
               (unsigned long)regs.PC == (unsigned long)function_here,
               (unsigned long)ptrace(PTRACE_PEEKUSER, pid, DEBUGREG(6), 0));
        fflush(stdout);
    }
    printf("ended with %x\n", status);
}

static volatile int handled;
static void handler(int sig) { handled = handled * 100 + sig; }
static void with_signals(void)
{
    signal(SIGUSR1, handler);
    signal(SIGUSR2, handler);
    signal(SIGCHLD, SIG_IGN);
    raise(SIGUSR1);
    raise(SIGUSR2);
    raise(SIGCHLD);
    _exit(handled & 0xff);
}

static void signals(void)
{
    pid_t pid = start(with_signals);
    int status, sig = 0;
    while (WIFSTOPPED(status = go(PTRACE_CONT, pid, sig))) {
        sig = WSTOPSIG(status);
        printf("stopped by %d\n", sig);
        if (sig == SIGUSR1) sig = SIGUSR2;
        else if (sig == SIGUSR2) sig = 0;
    }
    printf("ended with %x\n", status);

    pid = start(with_signals);
    printf("into the handler: %x\n", go(PTRACE_CONT, pid, 0));
    printf("by a step: %x, ", go(PTRACE_SINGLESTEP, pid, SIGUSR1));
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    printf("at its beginning %d\n", (unsigned long)regs.PC == (unsigned long)handler);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    printf("killed: %x\n", status);
}

static void forking(void)
{
    pid_t pid = fork();
    if (pid == 0) _exit(3);
    waitpid(pid, NULL, 0);
}

static void family(void)
{
    int status, seen = 0, stops = 0;
    unsigned long child = 0;
    pid_t pid = start(forking), who;
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE);
    ptrace(PTRACE_CONT, pid, 0, 0);
    while ((who = waitpid(-1, &status, __WALL)) > 0) {
        if (WIFSTOPPED(status) && who == pid && status >> 16) {
            ptrace(PTRACE_GETEVENTMSG, pid, 0, &child);
            seen = status >> 16;
        }
        if (WIFSTOPPED(status) && who != pid) stops = stops * 100 + WSTOPSIG(status);
        if (WIFEXITED(status)) stops = stops * 100 + WEXITSTATUS(status) + 50;
        if (WIFSTOPPED(status)) ptrace(PTRACE_CONT, who, 0, WSTOPSIG(status) == SIGCHLD ? SIGCHLD : 0);
    }
    printf("event %d, a child %d, stops and ends %d\n", seen, child > 0, stops);
}

static void errors(void)
{
    pid_t pid = start(store);
    int status;
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    errno = 0; long r = ptrace(PTRACE_PEEKDATA, pid, 8, 0); printf("peek: %ld %d, ", r, errno);
    errno = 0; r = ptrace(PTRACE_POKEDATA, pid, 8, 0); printf("poke: %ld %d, ", r, errno);
    errno = 0; r = ptrace(PTRACE_PEEKUSER, pid, 3, 0); printf("odd: %ld %d, ", r, errno);
    errno = 0; r = ptrace(PTRACE_PEEKUSER, pid, 4096, 0); printf("far: %ld %d, ", r, errno);
    errno = 0; r = ptrace(PTRACE_CONT, pid, 0, 99); printf("signal: %ld %d, ", r, errno);
    errno = 0; r = ptrace(PTRACE_CONT, 1 << 22, 0, 0); printf("nobody: %ld %d\n", r, errno);
    errno = 0; r = ptrace(PTRACE_POKETEXT, pid, regs.PC, 0xcccccccc); printf("poke text: %ld %d, ", r, errno);
    status = go(PTRACE_CONT, pid, 0);
    printf("stopped by %x\n", status);
    ptrace(PTRACE_KILL, pid, 0, 0);
    waitpid(pid, &status, 0);
    printf("killed: %x\n", status);
}

static void regset(pid_t pid, int request, int kind, void *data, size_t size)
{
    struct iovec iov = {data, size};
    errno = 0;
    long result = ptrace(request, pid, (long)kind, &iov);
    printf("%d of %d, %d bytes: %ld, errno %d, %d bytes\n", request, kind, (int)size, result, errno, (int)iov.iov_len);
}

static void regsets(void)
{
    struct user_regs_struct regs, other;
    char large[4096];
    pid_t pid = start(store);
    int status;
    long first = 0x1234567;
    regset(pid, PTRACE_GETREGSET, 1, large, sizeof large);
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    printf("as by GETREGS: %d\n", !memcmp(&regs, large, sizeof regs));
    memset(large, 0, sizeof large);
    regset(pid, PTRACE_GETREGSET, 1, large, 2 * sizeof first);
    printf("no more than that: %d\n", !memcmp(&regs, large, 2 * sizeof first) && !large[2 * sizeof first]);
    regset(pid, PTRACE_GETREGSET, 1, large, 3);
    regset(pid, PTRACE_GETREGSET, 0x777, large, 64);
    regset(pid, PTRACE_GETREGSET, 1, (void *)8, 64);
    regset(pid, PTRACE_SETREGSET, 1, &first, sizeof first);
    ptrace(PTRACE_GETREGS, pid, 0, &other);
    printf("the first: %d, the others: %d\n", !memcmp(&other, &first, sizeof first),
           !memcmp((long *)&other + 1, (long *)&regs + 1, sizeof regs - sizeof first));
#ifdef __x86_64__
    struct user_fpregs_struct fp;
    regset(pid, PTRACE_GETREGSET, 2, large, sizeof large);
    ptrace(PTRACE_GETFPREGS, pid, 0, &fp);
    printf("as by GETFPREGS: %d\n", !memcmp(&fp.xmm_space, large + 160, 128));
    regset(pid, PTRACE_SETREGSET, 2, large, 512);
    *(unsigned *)(large + 24) = 0xffffffff; /* MXCSR */
    regset(pid, PTRACE_SETREGSET, 2, large, 512);
    regset(pid, PTRACE_SETREGSET, 2, large, 256);
#endif
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
    printf("ended with %x\n", go(PTRACE_CONT, pid, 0));
}

/* What wait has to say of a process that nobody traces, within 100 ms. */
static int news(pid_t pid)
{
    int status = -1, found = 0;
    for (int i = 0; i < 20 && !found; i++) {
        usleep(5000);
        found = waitpid(pid, &status, WUNTRACED | WNOHANG);
    }
    return found ? status : -1;
}

/* A process that has stopped stops again when its tracer goes, also if that had it run in between. */
static void group_stop(void)
{
    for (int run = 0; run < 2; run++) {
        int status;
        pid_t pid = fork();
        if (!pid) {
            ptrace(PTRACE_TRACEME, 0, NULL, NULL);
            raise(SIGSTOP);
            usleep(30000);
            _exit(5);
        }
        waitpid(pid, &status, 0);
        ptrace(PTRACE_CONT, pid, NULL, (void *)SIGSTOP);
        waitpid(pid, &status, 0);
        printf("all of it stopped: %x\n", status);
        if (run) {
            ptrace(PTRACE_CONT, pid, NULL, NULL);
            usleep(5000);
            kill(pid, SIGWINCH);
            waitpid(pid, &status, 0);
            printf("it ran until %x\n", status);
        }
        printf("detach %ld\n", ptrace(PTRACE_DETACH, pid, NULL, NULL));
        printf("then %x\n", news(pid));
        kill(pid, SIGCONT);
        printf("then %x\n", news(pid));
    }
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
/* All parts, or the one that is asked for. */
#define RUN(f) do { if (count > 1 && strcmp(arguments[1], #f)) break; puts(#f); fflush(stdout); f(); fflush(stdout); } while (0)
    RUN(system_calls);
    RUN(single_steps);
    RUN(watchpoint);
    RUN(breakpoint);
#ifndef NO_SIGNALS
    RUN(signals);
#endif
    RUN(family);
    RUN(errors);
    RUN(regsets);
    if (count > 1) RUN(group_stop); /* takes its time */
#ifdef __i386__
    RUN(vdso);
#endif
    return 0;
}
