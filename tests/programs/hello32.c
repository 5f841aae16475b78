/* A 32-bit program: the C library's start, files, memory, processes, times. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static __thread int local = 5;

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    unsigned short cs, ds, es, ss;
    __asm__("mov %%cs, %0\n mov %%ds, %1\n mov %%es, %2\n mov %%ss, %3" : "=r"(cs), "=r"(ds), "=r"(es), "=r"(ss));
    printf("%d arguments, %d bits, cs %x ds %x es %x ss %x, thread-local %d\n", argc, (int)sizeof(long) * 8, cs, ds, es, ss, local);
    char *block = malloc(300000);
    memset(block, 'x', 300000);
    char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m[5000] = 1;
    printf("%d %c %.6f\n", m != MAP_FAILED, block[299999], 1.0 / 3 * argc);
    int fd = open("/tmp/entry64-test-file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct iovec v[2] = {{"hello ", 6}, {"file\n", 5}};
    printf("writev %d\n", (int)writev(fd, v, 2));
    char text[20] = "";
    int position = lseek(fd, -11, SEEK_END), got = read(fd, text, 11);
    printf("lseek %d read %d %s", position, got, text);
    struct stat s;
    memset(&s, 0, sizeof s);
    int error = fstat(fd, &s);
    printf("fstat %d size %d mode %o\n", error, (int)s.st_size, s.st_mode);
    printf("ftruncate %d\n", ftruncate(fd, 3));
    error = stat("/tmp/entry64-test-file", &s);
    printf("stat %d size %d links %d\n", error, (int)s.st_size, (int)s.st_nlink);
    unlink("/tmp/entry64-test-file");
    error = access("/tmp/entry64-test-file", F_OK);
    printf("gone %d %d\n", error, errno);
    struct rlimit limit;
    error = getrlimit(RLIMIT_STACK, &limit);
    printf("getrlimit %d %d\n", error, (int)limit.rlim_cur);
    struct timespec t = {0, 1000000}, before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    printf("nanosleep %d\n", nanosleep(&t, NULL));
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("slept %d\n", (after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec >= 1000000);
    printf("time %d\n", time(NULL) > 1600000000);
    int status, p[2];
    pipe(p);
    pid_t child = fork();
    if (!child) {
        local = 6;
        write(p[1], "from the child\n", 15);
        _exit(local);
    }
    text[0] = 0;
    int n = read(p[0], text, 20);
    waitpid(child, &status, 0);
    printf("%.*s status %d, own thread-local %d\n", n, text, WEXITSTATUS(status), local);
    if (argc < 2) {
        char *args[] = {argv[0], "again", NULL}, *env[] = {"KEY=value", NULL};
        execve("/proc/self/exe", args, env);
        printf("execve failed: %d\n", errno);
    }
    printf("KEY %s\n", getenv("KEY"));
    return 42;
}
