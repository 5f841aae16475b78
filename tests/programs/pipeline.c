/* A pipeline of three programs, each this one: numbers | squares | sum; and what pipes do at their ends. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

static int stage(const char *name)
{
    long value, sum = 0;
    if (!strcmp(name, "numbers"))
        for (value = 1; value <= 1500; value++) printf("%ld\n", value);
    else if (!strcmp(name, "squares"))
        while (scanf("%ld", &value) == 1) printf("%ld\n", value * value);
    else {
        while (scanf("%ld", &value) == 1) sum += value;
        printf("sum %ld\n", sum);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const char *stages[] = {"numbers", "squares", "sum"};
    int in = -1, ends[2], status;
    if (argc > 1) return stage(argv[1]);
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int i = 0; i < 3; i++) {
        if (i < 2) pipe2(ends, O_CLOEXEC);
        if (!fork()) {
            if (in >= 0) dup2(in, 0);
            if (i < 2) dup2(ends[1], 1);
            execl("/proc/self/exe", "pipeline", stages[i], NULL);
            _exit(1);
        }
        if (in >= 0) close(in);
        if (i < 2) close(ends[1]), in = ends[0];
    }
    int well = 0;
    while (wait(&status) > 0) well += !status;
    printf("%d stages ended well\n", well);

    pipe(ends);
    struct pollfd ready[] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    printf("poll %d: %x %x\n", poll(ready, 2, 0), ready[0].revents, ready[1].revents);
    write(ends[1], "abc", 3);
    printf("poll %d: %x %x\n", poll(ready, 2, -1), ready[0].revents, ready[1].revents);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    printf("select %d\n", select(ends[0] + 1, &set, NULL, NULL, NULL));
    char text[70000];
    printf("read %zd\n", read(ends[0], text, 2));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    printf("read %zd\n", read(ends[0], text, 9));
    printf("read %zd %d\n", read(ends[0], text, 9), errno == EAGAIN);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    memset(text, 'x', sizeof text);
    printf("write %zd\n", write(ends[1], text, sizeof text));
    printf("write %zd %d\n", write(ends[1], text, 1), errno == EAGAIN);
    printf("poll %d: %x %x\n", poll(ready, 2, 0), ready[0].revents, ready[1].revents);
    signal(SIGPIPE, SIG_IGN);
    close(ends[0]);
    printf("write %zd %d\n", write(ends[1], text, 1), errno == EPIPE);
    signal(SIGPIPE, SIG_DFL);
    if (!fork()) write(ends[1], text, 1);
    wait(&status);
    printf("signal %d\n", WTERMSIG(status));
    pipe(ends);
    ready[0].fd = ends[0];
    close(ends[1]);
    printf("poll %d: %x, read %zd\n", poll(ready, 1, -1), ready[0].revents, read(ends[0], text, 1));
    return 0;
}
