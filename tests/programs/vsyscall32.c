/* A 32-bit program that makes its system calls by __kernel_vsyscall: SYSENTER on Intel, SYSCALL on AMD. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

unsigned long vsyscall, ecx_after, edx_after, ebp_after;
long vcall(long number, ...);

__asm__(".globl vcall\n"
        "vcall: push %ebx\n push %esi\n push %edi\n push %ebp\n"
        " mov 20(%esp), %eax\n mov 24(%esp), %ebx\n mov 28(%esp), %ecx\n mov 32(%esp), %edx\n"
        " mov 36(%esp), %esi\n mov 40(%esp), %edi\n mov 44(%esp), %ebp\n"
        " call *vsyscall\n"
        " mov %ecx, ecx_after\n mov %edx, edx_after\n mov %ebp, ebp_after\n"
        " pop %ebp\n pop %edi\n pop %esi\n pop %ebx\n ret\n");

static volatile int hits;
static pid_t self;

static void handler(int sig)
{
    hits++;
    if (sig == SIGUSR1) vcall(SYS_kill, self, SIGUSR2, 0, 0, 0, 0); /* nested */
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    vsyscall = getauxval(AT_SYSINFO);
    printf("there is one: %d\n", vsyscall != 0);
    self = getpid();
    printf("getpid %d\n", vcall(SYS_getpid, 1, 2, 3, 4, 5, 6) == self);
    printf("kept: %lu %lu %lu\n", ecx_after, edx_after, ebp_after);
    printf("write %ld\n", vcall(SYS_write, 1, "to stdout\n", 10, 0, 0, 0));
    printf("bad number %ld\n", vcall(9999, 0, 0, 0, 0, 0, 0));
    printf("bad descriptor %ld\n", vcall(SYS_read, 77, 0, 0, 0, 0, 0));
    FILE *file = fopen("/tmp/entry64-vsyscall", "w+");
    for (int i = 0; i < 3 * 4096; i++) fputc('a' + i / 4096, file);
    fflush(file);
    /* The sixth argument, which lies on the stack, counts pages. */
    char *map = (char *)vcall(SYS_mmap2, 0, 4096, PROT_READ, MAP_PRIVATE, fileno(file), 2);
    printf("mmap2 %c\n", *map);
    unlink("/tmp/entry64-vsyscall");

    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    long sent = vcall(SYS_kill, self, SIGUSR1, 0, 0, 0, 0);
    printf("kill %ld hits %d\n", sent, hits);

    int pipes[2], status;
    char text[8] = "";
    pipe(pipes);
    for (int restart = 1; restart >= 0; restart--) {
        action.sa_flags = restart ? SA_RESTART : 0;
        sigaction(SIGALRM, &action, NULL);
        pid_t child = vcall(SYS_fork, 0, 0, 0, 0, 0, 0);
        if (!child) {
            usleep(100000);
            kill(self, SIGALRM);
            usleep(100000);
            write(pipes[1], "hello", 5);
            vcall(SYS_exit, 7, 0, 0, 0, 0, 0);
        }
        long got = vcall(SYS_read, pipes[0], text, 5, 0, 0, 0);
        printf("read %ld %.5s hits %d, kept %d\n", got, restart ? text : "", hits, ecx_after == (unsigned long)text && edx_after == 5);
        while (vcall(SYS_waitpid, child, &status, 0, 0, 0, 0) == -EINTR)
            ;
        printf("child %x\n", status);
    }
    vcall(SYS_exit_group, 3, 0, 0, 0, 0, 0);
}
