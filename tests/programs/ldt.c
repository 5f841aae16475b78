/* A local descriptor table belongs to an address space: a child gets a copy, threads share it, execve ends it, and each
   switch loads it. 64-bit and 32-bit. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LDT(n) ((n) << 3 | 7)
enum { CODE = 1, DATA, FAR = 1000, ROUNDS = 4 };

static char *low;
static sigjmp_buf out;
static pthread_barrier_t both;

static int modify(int function, void *p, unsigned long size) { return syscall(SYS_modify_ldt, function, p, size); }

static int set(int function, int number, unsigned long base, int contents)
{
    struct user_desc d = {.entry_number = number, .base_addr = base, .limit = 0xfff, .seg_32bit = 1, .contents = contents,
                          .useable = 1};
    return modify(function, &d, sizeof d);
}

/* The segment register that the C library does not use. It keeps its selector over switches; the descriptor behind that
   is the address space's own. */
#ifdef __x86_64__
#define FREE "%%gs"
#else
#define FREE "%%fs"
#endif
static void load(int selector) { __asm__ volatile("mov %0, " FREE :: "r"(selector)); }

static int look(void)
{
    int value;
    __asm__ volatile("movl " FREE ":16, %0" : "=r"(value));
    return value;
}

static void on_fault(int sig, siginfo_t *i, void *context)
{
    (void)i, (void)context;
    printf("signal %d code %d\n", sig, i->si_code);
    siglongjmp(out, 1);
}

/* A far call to the segment CODE, whose code is 32-bit; it adds its own base's word 16. */
static int far_call(int selector)
{
    struct { unsigned offset; unsigned short selector; } __attribute__((packed)) target = {0, selector};
    int result = 40;
#ifdef __x86_64__ /* that code has ESP only */
    __asm__ volatile("mov %%rsp, %%rbx\n mov %2, %%rsp\n lcall *(%1)\n mov %%rbx, %%rsp"
                     : "+a"(result) : "r"(&target), "r"(low + 16384) : "rbx", "memory", "cc");
#else
    __asm__ volatile("lcall *(%1)" : "+a"(result) : "r"(&target) : "memory", "cc");
#endif
    return result;
}

static void *other(void *argument)
{
    (void)argument;
    for (int round = 0; round < ROUNDS; round++) {
        set(0x11, DATA, (long)low + 4096 * (round % 3), 0);
        pthread_barrier_wait(&both);
        pthread_barrier_wait(&both);
    }
    return NULL;
}

static void family(void)
{
    int down[2], up[2], status;
    char token = 0;
    pipe(down), pipe(up);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        int sum = 0;
        set(0x11, DATA, (long)low + 8192, 0);
        for (int round = 0; round < ROUNDS; round++) {
            read(down[0], &token, 1);
            load(LDT(DATA));
            sum += look();
            write(up[1], &token, 1);
        }
        _exit(sum);
    }
    int sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        write(down[1], &token, 1);
        read(up[0], &token, 1);
        load(LDT(DATA));
        syscall(SYS_sched_yield);
        sum += look();
    }
    waitpid(child, &status, 0);
    printf("the child saw %d, the parent %d\n", WEXITSTATUS(status), sum);
}

int main(int argc, char **argv)
{
    unsigned char buffer[64 * 1024];
    setvbuf(stdout, NULL, _IONBF, 0);
    memset(buffer, 1, sizeof buffer);
    printf("%d bytes to begin with\n", modify(0, buffer, sizeof buffer));
    if (argc > 1) return 0;
    printf("no function %d, no entry %d, size %d, address %d\n", modify(3, buffer, 8), set(0x11, 8192, 0, 0),
           modify(0x11, buffer, 8), modify(0x11, (void *)8, 16));
    low = mmap((void *)0x10000, 16384, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    /* add %cs:16, %eax (32-bit code); lret: in 64-bit mode LCALL pushed two words of 32 bits. */
    memcpy(low, "\x2e\x03\x05\x10\x00\x00\x00\xcb", 8);
    for (int page = 0; page < 3; page++) *(int *)(low + 4096 * page + 16) = 2 + page;
    printf("set %d %d %d\n", set(0x11, CODE, (long)low, 2), set(1, DATA, (long)low + 4096, 0), set(0x11, FAR, (long)low, 0));
    int size = modify(0, buffer, sizeof buffer);
    printf("%d bytes:", size);
    for (int n = 8; n < 24; n++) printf(" %02x", buffer[n]);
    printf(", %02x, %d\n", buffer[FAR * 8 + 5], buffer[FAR * 8 + 8]);

    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &a, NULL);
    sigaction(SIGBUS, &a, NULL);
    load(LDT(FAR));
    int value = look();
    printf("by entry %d: %d; called %d\n", FAR, value, far_call(LDT(CODE)));
    if (!sigsetjmp(out, 1)) load(LDT(7));
    if (!sigsetjmp(out, 1)) load(LDT(FAR + 1));
    if (!sigsetjmp(out, 1)) printf("called %d\n", far_call(LDT(DATA)));
    family();

    pthread_t thread;
    int sum = 0;
    pthread_barrier_init(&both, NULL, 2);
    pthread_create(&thread, NULL, other, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&both);
        load(LDT(DATA));
        sum = sum * 10 + look();
        pthread_barrier_wait(&both);
    }
    pthread_join(thread, NULL);
    printf("what the other thread wrote: %d\n", sum);

    struct user_desc gone = {.entry_number = DATA, .read_exec_only = 1, .seg_not_present = 1};
    load(LDT(DATA));
    printf("cleared %d\n", modify(0x11, &gone, sizeof gone));
    if (!sigsetjmp(out, 1)) load(LDT(DATA));
    execl("/proc/self/exe", "ldt", "executed", NULL);
    return 1;
}
