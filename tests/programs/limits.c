/* Programs that want too much, a child each: memory, processes, descriptors, file size, stack, within limits of their own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void limit(int what, unsigned long value)
{
    struct rlimit l = {value, value};
    if (setrlimit(what, &l)) printf("  setrlimit: %s\n", strerror(errno));
}

static void map_until_refused(void)
{
    int count = 0;
    limit(RLIMIT_AS, 40 << 20);
    while (mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) count++;
    printf("  %d maps, then %s\n", count, strerror(errno));
}

static void map_over_itself(void)
{
    limit(RLIMIT_AS, 40 << 20);
    char *p = mmap(NULL, 32 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *q = mmap(p, 32 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("  %d\n", p == q && p != MAP_FAILED);
    printf("  %s\n", mmap(NULL, 16 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? strerror(errno) : "mapped");
    munmap(p, 32 << 20);
    printf("  %s\n", mmap(NULL, 16 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? strerror(errno) : "mapped");
}

static void data_until_refused(void)
{
    int count = 0;
    limit(RLIMIT_DATA, 20 << 20);
    printf("  read only: %s\n", mmap(NULL, 64 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? strerror(errno) : "mapped");
    printf("  shared: %s\n", mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? strerror(errno) : "mapped");
    while (mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) count++;
    printf("  %d maps, then %s\n", count, strerror(errno));
}

static void heap_until_refused(void)
{
    int count = 0;
    limit(RLIMIT_AS, 24 << 20);
    while (sbrk(4 << 20) != (void *)-1) count++;
    printf("  %d steps, then %s\n", count, strerror(errno));
    char *end = sbrk(0);
    printf("  the last byte can be written: %d\n", end[-1] = 1);
}

static void malloc_until_refused(void)
{
    int count = 0;
    limit(RLIMIT_AS, 40 << 20);
    for (char *p; (p = malloc(8 << 20)); count++) memset(p, 1, 4096);
    printf("  %d blocks, then %s\n", count, strerror(errno));
}

static int deeper(int n)
{
    volatile char room[4096];
    room[0] = n;
    return deeper(n + 1) + room[0];
}

static volatile int depth;
static char alternate[65536];
static int measured(int n)
{
    volatile char room[4096];
    room[0] = n;
    depth = n;
    return measured(n + 1) + room[0];
}

static void show_depth(int sig)
{
    printf("  signal %d at more than %d\n", sig, depth / 16 * 16);
    _exit(3);
}

static void deep_stack(void)
{
    limit(RLIMIT_STACK, 256 << 10);
    sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = sizeof alternate}, NULL);
    sigaction(SIGSEGV, &(struct sigaction){.sa_handler = show_depth, .sa_flags = SA_ONSTACK}, NULL);
    measured(1);
}

static void deep_stack_in_little_space(void)
{
    limit(RLIMIT_AS, 4 << 20);
    deeper(0);
}

static void fork_until_refused(void)
{
    int count = 0, status, ended = 0;
    limit(RLIMIT_NPROC, 10);
    pid_t child;
    while ((child = fork()) > 0) count++;
    if (!child) for (;;) pause();
    int error = errno;
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(&status) > 0) ended += WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
    printf("  %d, then %s; %d ended\n", count, strerror(error), ended);
    if (!(child = fork())) _exit(0);
    printf("  and again %d\n", child > 0 && waitpid(child, NULL, 0) == child);
}

static void bomb(void)
{
    limit(RLIMIT_NPROC, 12);
    pid_t child;
    int refused = 0;
    while (refused < 3) {
        child = fork();
        if (child < 0) refused += errno == EAGAIN;
    }
    while (wait(NULL) > 0) { }
    _exit(4);
}

static void *rest(void *argument) { for (;;) pause(); return argument; }
static void threads_until_refused(void)
{
    int count = 0, error;
    limit(RLIMIT_NPROC, 8);
    pthread_t thread;
    while (!(error = pthread_create(&thread, NULL, rest, NULL))) count++;
    printf("  %d, then %s\n", count, strerror(error));
}

static void open_until_refused(void)
{
    int count = 0, ends[2];
    limit(RLIMIT_NOFILE, 20);
    while (open("/dev/null", O_RDONLY) >= 0) count++;
    printf("  %d, then %s\n", count, strerror(errno));
    printf("  pipe %d, ", pipe(ends));
    printf("%s\n", strerror(errno));
    close(7);
    printf("  pipe %d, ", pipe(ends));
    printf("%s\n", strerror(errno));
    printf("  dup %d ", dup(0));
    printf("%d ", dup(0));
    printf("%s\n", strerror(errno));
    printf("  dup2 %d, ", dup2(0, 20));
    printf("%s\n", strerror(errno));
    printf("  fcntl %d, ", fcntl(0, F_DUPFD, 20));
    printf("%s\n", strerror(errno));
}

static void write_until_refused(void)
{
    char name[] = "/tmp/limits-XXXXXX", block[3000];
    int file = mkstemp(name);
    unlink(name);
    memset(block, 'x', sizeof block);
    limit(RLIMIT_FSIZE, 10000);
    signal(SIGXFSZ, SIG_IGN);
    for (int n = 0; n < 5; n++) {
        long done = write(file, block, sizeof block);
        printf("  %ld %s\n", done, done < 0 ? strerror(errno) : "");
    }
    printf("  ftruncate %d, ", ftruncate(file, 10001));
    printf("%s\n", strerror(errno));
    printf("  ftruncate %d\n", ftruncate(file, 10000));
    signal(SIGXFSZ, SIG_DFL);
    write(file, block, 0);
    write(file, block, 1);
}

static void limits_themselves(void)
{
    struct rlimit l = {5000, 4000};
    printf("  %d ", setrlimit(RLIMIT_AS, &l));
    printf("%s\n", strerror(errno));
    l = (struct rlimit){1 << 30, 1 << 30};
    printf("  %d\n", setrlimit(RLIMIT_AS, &l));
    l.rlim_max++;
    printf("  %d ", setrlimit(RLIMIT_AS, &l));
    printf("%s\n", strerror(errno));
    l = (struct rlimit){1 << 29, 1 << 30};
    printf("  %d\n", setrlimit(RLIMIT_AS, &l));
    pid_t child = fork();
    if (!child) {
        getrlimit(RLIMIT_AS, &l);
        printf("  inherited %lu %lu\n", (long)l.rlim_cur, (long)l.rlim_max);
        l.rlim_cur = 1 << 28;
        setrlimit(RLIMIT_AS, &l);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    getrlimit(RLIMIT_AS, &l);
    printf("  still %lu\n", (long)l.rlim_cur);
    printf("  %d ", getrlimit(99, &l));
    printf("%s\n", strerror(errno));
    if (!(child = fork())) { for (;;) pause(); }
    printf("  of a child %d ", prlimit(child, RLIMIT_AS, &(struct rlimit){1 << 27, 1 << 27}, &l));
    printf("%lu\n", (long)l.rlim_cur);
    prlimit(child, RLIMIT_AS, NULL, &l);
    printf("  %lu\n", (long)l.rlim_cur);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("  %d ", prlimit(child, RLIMIT_AS, NULL, &l));
    printf("%s\n", strerror(errno));
}

#define CASE(name) {#name, name}
static const struct { const char *name; void (*run)(void); } cases[] = {
    CASE(map_until_refused), CASE(map_over_itself), CASE(data_until_refused), CASE(heap_until_refused),
    CASE(malloc_until_refused), CASE(deep_stack), CASE(deep_stack_in_little_space), CASE(fork_until_refused), CASE(bomb),
    CASE(threads_until_refused), CASE(open_until_refused), CASE(write_until_refused), CASE(limits_themselves),
};

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    close_range(3, ~0U, 0);
    if (!getuid() && setuid(100000 + getpid())) return 1; /* limits of processes bind all but root */
    for (unsigned n = 0; n < sizeof cases / sizeof *cases; n++) {
        if (argc > 1 && strcmp(argv[1], cases[n].name)) continue;
        printf("%s\n", cases[n].name);
        pid_t child = fork();
        if (!child) {
            setpgid(0, 0);
            cases[n].run();
            exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("  killed by %d\n", WTERMSIG(status));
        else printf("  exit %d\n", WEXITSTATUS(status));
    }
    return 0;
}
