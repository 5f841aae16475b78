/* Children that stop and go on, and what their parent is told; tracers that die, attach, detach; execve under a tracer. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int pipes[2], back[2];
static volatile int continued;
static void on_cont(int sig) { continued = sig; }

static void told(const char *what)
{
    siginfo_t info;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigwaitinfo(&set, &info);
    printf("%s: SIGCHLD, code %d, status %d; ", what, info.si_code, info.si_status);
}

static int quiet(void)
{
    sigset_t set;
    sigpending(&set);
    return !sigismember(&set, SIGCHLD);
}

static void waited(pid_t pid, int options)
{
    int status = 0;
    pid_t found = waitpid(pid, &status, options);
    printf("wait %s %x\n", found == pid ? "found" : found ? "failed" : "nothing", status);
    fflush(stdout);
}

static int by_id(pid_t pid, int options)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    int result = waitid(P_PID, pid, &info, options);
    printf("waitid %d: %d %d %d; ", result, info.si_pid == pid, info.si_code, info.si_status);
    return info.si_code;
}

/* A child that stops itself, and then ends when it has read a byte, with that. */
static pid_t stopping(int handle)
{
    pid_t pid = fork();
    if (pid == 0) {
        char c = 0;
        if (handle) signal(SIGCONT, on_cont);
        raise(SIGSTOP);
        read(pipes[0], &c, 1);
        _exit(c + continued);
    }
    return pid;
}

static void job_control(void)
{
    pid_t pid = stopping(0);
    told("stop");
    waited(pid, WNOHANG);
    waited(pid, WNOHANG | WCONTINUED);
    by_id(pid, WSTOPPED | WNOWAIT);
    waited(pid, WUNTRACED);
    waited(pid, WUNTRACED | WNOHANG);
    kill(pid, SIGCONT);
    told("go on");
    waited(pid, WUNTRACED | WNOHANG);
    by_id(pid, WCONTINUED | WNOWAIT);
    waited(pid, WCONTINUED);
    waited(pid, WCONTINUED | WNOHANG);
    kill(pid, SIGCONT);
    waited(pid, WCONTINUED | WNOHANG);
    kill(pid, SIGSTOP);
    told("stop in a read");
    kill(pid, SIGCONT);
    told("go on");
    by_id(pid, WSTOPPED | WCONTINUED);
    write(pipes[1], "\3", 1);
    told("end");
    waited(pid, WUNTRACED | WCONTINUED);
}

static void handled(void)
{
    pid_t pid = stopping(1);
    told("stop");
    waited(pid, WUNTRACED);
    kill(pid, SIGCONT);
    told("go on");
    write(pipes[1], "\1", 1);
    told("end");
    waited(pid, 0);
}

static void while_stopped(void)
{
    pid_t pid = stopping(0);
    told("stop");
    waited(pid, WUNTRACED);
    kill(pid, SIGTERM);
    waited(pid, WNOHANG);
    printf("quiet %d\n", quiet());
    kill(pid, SIGSTOP);
    kill(pid, SIGCONT);
    waited(pid, 0);
    printf("quiet %d\n", quiet());
    told("ended");

    pid = stopping(0);
    told("stop");
    kill(pid, SIGKILL);
    told("killed");
    waited(pid, WUNTRACED);
}

static void not_told(void)
{
    struct sigaction a = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};
    sigaction(SIGCHLD, &a, NULL);
    pid_t pid = stopping(0);
    waited(pid, WUNTRACED);
    kill(pid, SIGCONT);
    waited(pid, WCONTINUED);
    kill(pid, SIGSTOP);
    waited(pid, WUNTRACED);
    printf("quiet %d\n", quiet());
    kill(pid, SIGKILL);
    told("end");
    waited(pid, 0);
    a.sa_flags = 0;
    sigaction(SIGCHLD, &a, NULL);
}

/* --- tracers ------------------------------------------------------------------------------------------------------ */
/* Whether what a dead tracer has traced goes on: what the traced one writes then. */
static void tracer_dies(int options)
{
    char text[16] = "";
    int ends[2], status;
    pipe(ends);
    pid_t tracer = fork();
    if (tracer == 0) {
        pid_t pid = fork();
        if (pid == 0) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            write(ends[1], "alive", 5);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        ptrace(PTRACE_SETOPTIONS, pid, 0, (long)options);
        _exit(4);
    }
    close(ends[1]);
    int count = read(ends[0], text, sizeof text);
    printf("options %x: %d bytes, %s; ", options, count, text);
    waited(tracer, 0);
    close(ends[0]);
}

/* The traced one is not the tracer's child. */
static void foreign_tracer_dies(int options)
{
    int status;
    char c;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        write(back[1], "r", 1);
        c = 0;
        read(pipes[0], &c, 1);
        _exit(c);
    }
    read(back[0], &c, 1);
    pid_t tracer = fork();
    if (tracer == 0) {
        long attached = ptrace(PTRACE_ATTACH, pid, 0, 0);
        waitpid(pid, &status, __WALL);
        ptrace(PTRACE_SETOPTIONS, pid, 0, (long)options);
        _exit(attached == 0 && status == 0x137f ? 7 : 8);
    }
    waited(tracer, 0);
    write(pipes[1], "\2", 1);
    waited(pid, 0);
    if (options) read(pipes[0], &c, 1); /* nobody else has */
}

static void attach(void)
{
    struct user_regs_struct regs;
    int status;
    char c;
    pid_t pid = fork();
    if (pid == 0) {
        c = 0;
        write(back[1], "r", 1);
        read(pipes[0], &c, 1);
        _exit(c);
    }
    read(back[0], &c, 1);
    printf("attach %ld, ", ptrace(PTRACE_ATTACH, pid, 0, 0));
    waitpid(pid, &status, 0);
    printf("status %x, ", status);
    printf("again %ld ", ptrace(PTRACE_ATTACH, pid, 0, 0));
    printf("%d, ", errno == EPERM);
    kill(pid, SIGCONT); /* does not end a tracer's stop */
    waited(pid, WNOHANG);
    printf("detach %ld, ", ptrace(PTRACE_DETACH, pid, 0, 0));
    printf("again %ld ", ptrace(PTRACE_DETACH, pid, 0, 0));
    printf("%d\n", errno == ESRCH);
    write(pipes[1], "\5", 1);
    waited(pid, 0);

    pid = stopping(0); /* stopped already: the tracer finds it stopped */
    waited(pid, WUNTRACED);
    printf("attach to a stopped one %ld, ", ptrace(PTRACE_ATTACH, pid, 0, 0));
    waited(pid, 0);
    printf("detach %ld\n", ptrace(PTRACE_DETACH, pid, 0, 0));
    kill(pid, SIGKILL);
    waited(pid, 0);
}

/* A stop that nobody has waited for yet outlives a SIGCONT. */
static void continued_unseen(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGUSR1);
        _exit(9);
    }
    told("stop");
    kill(pid, SIGCONT);
    waited(pid, 0);
    ptrace(PTRACE_CONT, pid, 0, 0);
    waited(pid, 0);
    ptrace(PTRACE_CONT, pid, 0, 0);
    waited(pid, 0);
}

static void executes(const char *name, int options, int how)
{
    char *argv[] = {"jobs", "executed", NULL}, *envp[] = {NULL};
    unsigned long message = 0;
    int status, stops = 0;
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execve("/proc/self/exe", argv, envp);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, 0, (long)options);
    printf("%s:", name);
    while (ptrace(how, pid, 0, 0), waitpid(pid, &status, 0), WIFSTOPPED(status) && stops++ < 6) {
        memset(&info, 0, sizeof info);
        ptrace(PTRACE_GETSIGINFO, pid, 0, &info);
        printf(" %x code %x", status, info.si_code);
        if (status >> 16) printf(" pid %d", (ptrace(PTRACE_GETEVENTMSG, pid, 0, &message), (pid_t)message == pid));
    }
    printf(" ends %x\n", status);
    while (!WIFEXITED(status) && !WIFSIGNALED(status)) {
        ptrace(PTRACE_KILL, pid, 0, 0);
        waitpid(pid, &status, 0);
    }
}

static void running(void)
{
    char c;
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        write(back[1], "r", 1);
        read(pipes[0], &c, 1);
        _exit(1);
    }
    read(back[0], &c, 1);
    errno = 0;
    printf("of one that runs: %ld ", ptrace(PTRACE_CONT, pid, 0, 0));
    printf("%d, ", errno == ESRCH);
    waited(pid, WNOHANG);
    kill(pid, SIGKILL);
    waited(pid, 0);
}

static void *reads(void *unused)
{
    char c = 0;
    write(back[1], "t", 1);
    read(pipes[0], &c, 1);
    _exit(c);
}

/* A stop is one of all threads, also of those that sleep; the last one tells the parent. */
static void threads_stop(void)
{
    struct timespec now = {0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigtimedwait(&set, NULL, &now);  // of the child before
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        char c;
        pthread_create(&thread, NULL, reads, NULL);
        read(back[0], &c, 1);
        usleep(1000);
        kill(getpid(), SIGSTOP);
        pause();
    }
    told("stop");
    waited(pid, WUNTRACED);
    kill(pid, SIGCONT);
    told("go on");
    write(pipes[1], "\5", 1);
    waited(pid, 0);
    told("end");
    puts("");
}

int main(int count, char **arguments)
{
    sigset_t set;
    if (count > 1 && !strcmp(arguments[1], "executed")) _exit(6);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pipe(pipes);
    pipe(back);
#define RUN(f) do { puts(#f); fflush(stdout); f; fflush(stdout); } while (0)
    RUN(job_control());
    RUN(handled());
    RUN(while_stopped());
    RUN(not_told());
    RUN(continued_unseen());
    RUN(threads_stop());
    signal(SIGCHLD, SIG_DFL);
    RUN(tracer_dies(0));
    RUN(tracer_dies(PTRACE_O_EXITKILL));
    RUN(foreign_tracer_dies(0));
    RUN(foreign_tracer_dies(PTRACE_O_EXITKILL));
    RUN(attach());
    RUN(executes("plain", 0, PTRACE_CONT));
    RUN(executes("event", PTRACE_O_TRACEEXEC, PTRACE_CONT));
    RUN(executes("calls", PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD, PTRACE_SYSCALL));
    RUN(executes("steps over it", PTRACE_O_TRACEEXEC, PTRACE_SYSCALL));
    RUN(running());
    return 0;
}
