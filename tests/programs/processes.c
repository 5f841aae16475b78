/* fork, vfork, wait, exec of itself, orphans, process groups, copy on write. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int value = 1;

static void report(const char *what, int status)
{
    if (WIFEXITED(status)) printf("%s: exited %d\n", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status)) printf("%s: signal %d\n", what, WTERMSIG(status));
    else printf("%s: status %x\n", what, status);
}

static volatile int children;
static void on_child(int signal) { children++; }

int main(int argc, char **argv, char **envp)
{
    int status;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 1) {
        printf("executed with %s and %s\n", argv[1], envp[0] ? envp[0] : "nothing");
        return 5;
    }
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (!child) {
        value = 2;
        *shared = 42;
        exit(value);
    }
    printf("wait %d\n", waitpid(child, &status, 0) == child);
    report("child", status);
    printf("value %d, shared %d\n", value, *shared);

    child = fork();
    if (!child) pause();
    printf("nothing yet: %d\n", waitpid(child, &status, WNOHANG));
    kill(child, SIGTERM);
    waitpid(child, &status, 0);
    report("killed child", status);

    child = fork();
    if (!child) *(volatile int *)8 = 1;
    waitpid(child, &status, 0);
    report("faulting child", status);

    child = vfork();
    if (!child) {
        char *arguments[] = {"processes", "argument", NULL}, *environment[] = {"KEY=value", NULL};
        execve("/proc/self/exe", arguments, environment);
        _exit(99);
    }
    waitpid(child, &status, 0);
    report("executed child", status);

    child = vfork();
    if (!child) {
        char *arguments[] = {"none", NULL};
        execve("/no/such/file", arguments, envp);
        _exit(errno == ENOENT ? 7 : 8);
    }
    waitpid(child, &status, 0);
    report("child without program", status);

    signal(SIGCHLD, on_child);
    for (int i = 0; i < 5; i++)
        if (!fork()) _exit(i);
    int sum = 0;
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR)
        if (WIFEXITED(status)) sum += WEXITSTATUS(status);
    printf("sum %d, SIGCHLD came: %d\n", sum, children > 0);
    signal(SIGCHLD, SIG_DFL);

    int ends[2];
    pipe(ends);
    if (!fork()) {
        if (!fork()) {
            close(ends[0]);
            usleep(1000);
            write(ends[1], "orphan\n", 7);
            _exit(0);
        }
        _exit(0);
    }
    close(ends[1]);
    wait(&status);
    char text[16];
    write(1, text, read(ends[0], text, sizeof text));

    child = fork();
    if (!child) {
        setpgid(0, 0);
        for (;;) pause();
    }
    setpgid(child, child);
    kill(-child, SIGKILL);
    siginfo_t info;
    memset(&info, 0, sizeof info);
    printf("waitid %d\n", waitid(P_PGID, child, &info, WEXITED | WNOWAIT));
    printf("code %d status %d\n", info.si_code, info.si_status);
    printf("still there %d\n", waitpid(child, &status, 0) == child);
    printf("no more: %d %d\n", wait(NULL), errno == ECHILD);
    return 3;
}
