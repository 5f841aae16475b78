/* Signals between processes and threads; system calls that signals interrupt, and that go on or not. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int hits, last_code, last_status;
static volatile pid_t last_pid;

static void count(int sig, siginfo_t *i, void *c)
{
    (void)sig, (void)c;
    hits++;
    last_code = i->si_code, last_pid = i->si_pid, last_status = i->si_status;
}

static void set(int sig, int flags)
{
    struct sigaction a = {.sa_sigaction = count, .sa_flags = SA_SIGINFO | flags};
    sigaction(sig, &a, NULL);
}

/* On a host that is busy others need longer. */
static void while_others_act(void)
{
    usleep(getenv("PATIENT") ? 300000 : 100000);
}

static void status(const char *what, int s)
{
    printf("%s: exited %d (%d) signaled %d (%d) stopped %d (%d)\n", what, WIFEXITED(s), WIFEXITED(s) ? WEXITSTATUS(s) : 0, WIFSIGNALED(s),
           WIFSIGNALED(s) ? WTERMSIG(s) : 0, WIFSTOPPED(s), WIFSTOPPED(s) ? WSTOPSIG(s) : 0);
}

static int to[2], from[2];

static void interrupted_read(int flags)
{
    char c = '-';
    set(SIGUSR1, flags);
    hits = 0;
    pid_t parent = getpid(), child = fork();
    if (!child) {
        while_others_act();
        kill(parent, SIGUSR1);
        while_others_act();
        write(to[1], "x", 1);
        _exit(0);
    }
    long n = read(to[0], &c, 1);
    printf("read with flags %x: %ld %s %c, hits %d, from child %d\n", flags, n, n < 0 ? strerror(errno) : "", c, hits, last_pid == child);
    if (n < 0) read(to[0], &c, 1);
    int s;
    waitpid(child, &s, 0);
    status("child", s);
}

static volatile pid_t taker;
static pthread_barrier_t barrier;
static void who(int sig) { (void)sig; taker = syscall(SYS_gettid); }

static void *waiting(void *argument)
{
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGUSR2);
    int sig = 0;
    *(pid_t *)argument = syscall(SYS_gettid);
    pthread_sigmask(SIG_UNBLOCK, &s, NULL);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    pipe(to);
    pipe(from);
    interrupted_read(SA_RESTART);
    interrupted_read(0);

    puts("alarm");
    set(SIGALRM, 0);
    hits = 0;
    ualarm(100000, 0);
    printf("pause %d %s hits %d\n", pause(), strerror(errno), hits);
    struct timespec left = {0, 0};
    ualarm(100000, 0);
    int n = nanosleep(&(struct timespec){100, 0}, &left);
    printf("nanosleep %d %s left %ld\n", n, strerror(errno), (long)left.tv_sec);

    puts("children");
    int s;
    for (int how = 0; how < 4; how++) {
        set(SIGCHLD, how == 3 ? SA_NOCLDWAIT : 0);
        hits = 0;
        pid_t child = fork();
        if (!child) {
            if (how == 0) _exit(7);
            if (how == 1) abort();
            if (how == 2) raise(SIGKILL);
            _exit(1);
        }
        while (!hits) usleep(100);
        printf("SIGCHLD code %d pid %d status %d\n", how == 1 ? 0 : last_code, last_pid == child, last_status);
        n = waitpid(child, &s, 0);
        if (n == child) status("wait", s);
        else printf("wait %d %s\n", n, strerror(errno));
    }
    set(SIGCHLD, 0);
    pid_t late = fork();
    if (!late) {
        while_others_act();
        _exit(5);
    }
    n = waitpid(late, &s, 0);  /* SIGCHLD does not come between it and what it waits for */
    printf("wait %d for a child with a handler\n", n == late);
    signal(SIGCHLD, SIG_DFL);

    puts("stop and continue");
    pid_t child = fork();
    if (!child) {
        set(SIGCONT, 0);
        for (;;) {
            pause();
            if (hits) _exit(50 + hits);
        }
    }
    while_others_act();
    kill(child, SIGSTOP);
    waitpid(child, &s, WUNTRACED);
    status("stopped", s);
    kill(child, SIGUSR2);
    kill(child, SIGTERM);
    printf("nothing yet %d\n", waitpid(child, &s, WNOHANG));
    kill(child, SIGKILL);
    waitpid(child, &s, 0);
    status("killed in the stop", s);
    child = fork();
    if (!child) {
        set(SIGCONT, 0);
        raise(SIGTSTP);
        _exit(50 + hits);
    }
    waitpid(child, &s, WUNTRACED);
    status("stopped", s);
    kill(child, SIGCONT);
    waitpid(child, &s, 0);
    status("continued", s);
    printf("gone: %d %s\n", kill(child, 0), strerror(errno));

    puts("ignored and masks over fork");
    signal(SIGUSR1, SIG_IGN);
    sigset_t set_, old;
    sigemptyset(&set_);
    sigaddset(&set_, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set_, NULL);
    raise(SIGUSR2);
    child = fork();
    if (!child) {
        sigpending(&old);
        struct sigaction a;
        sigaction(SIGUSR1, NULL, &a);
        sigset_t mask;
        sigprocmask(SIG_BLOCK, NULL, &mask);
        printf("child: pending %lx mask %lx ignored %d\n", *(long *)&old, *(long *)&mask, a.sa_handler == SIG_IGN);
        _exit(0);
    }
    waitpid(child, &s, 0);
    int sig = 0;
    sigwait(&set_, &sig);
    printf("sigwait %d\n", sig);

    puts("threads");
    signal(SIGUSR2, who);
    pthread_t t;
    pid_t tid = 0;
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&t, NULL, waiting, &tid);
    pthread_barrier_wait(&barrier);
    kill(getpid(), SIGUSR2);
    while (!taker) usleep(100);
    printf("the thread that does not block it: %d\n", taker == tid);
    taker = 0;
    sigprocmask(SIG_UNBLOCK, &set_, NULL);
    pthread_kill(t, SIGUSR2);
    while (!taker) usleep(100);
    printf("the thread that was meant: %d\n", taker == tid);
    taker = 0;
    raise(SIGUSR2);
    printf("oneself: %d\n", taker == getpid());
    pthread_barrier_wait(&barrier);
    pthread_join(t, NULL);
    child = fork();
    if (!child) {
        setpgid(0, 0);
        signal(SIGTERM, SIG_IGN);
        if (!fork()) { signal(SIGTERM, SIG_DFL); pause(); }
        while_others_act();
        kill(0, SIGTERM);
        wait(&s);
        status("grandchild", s);
        _exit(0);
    }
    waitpid(child, &s, 0);
    status("child", s);
    return 0;
}
