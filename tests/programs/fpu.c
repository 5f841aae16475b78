/* The FPU's state belongs to each context: a handler starts clean, spoils it, and what it interrupted never notices. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

static int deep;

static void spoil(int sig, siginfo_t *i, void *context)
{
    struct _libc_fpstate *saved = ((ucontext_t *)context)->uc_mcontext.fpregs;
    unsigned short cw;
    unsigned mx;
    unsigned char image[512] __attribute__((aligned(16)));
    (void)i;
    __asm__ volatile("fnstcw %0\n stmxcsr %1\n fxsave64 %2" : "=m"(cw), "=m"(mx), "=m"(image));
    printf("handler %d: cw %x mxcsr %x tag %x xmm7 %x; saved cw %x mxcsr %x tag %x st0 %x xmm7 %x\n", sig, cw, mx, image[4], image[160 + 7 * 16],
           saved->cwd, saved->mxcsr & ~0x3f, saved->ftw, saved->_st[0].exponent, saved->_xmm[7].element[0]);
    if (!deep++) {
        __asm__ volatile("fldpi\n fldpi\n fldcw %0\n ldmxcsr %1\n movd %2, %%xmm7" :: "m"((short){0x27f}), "m"((int){0x7f80}), "r"(0x77) : "xmm7");
        raise(SIGUSR2);
    }
    __asm__ volatile("fninit\n fldz\n fldz\n fldz\n pxor %%xmm7, %%xmm7\n pxor %%xmm0, %%xmm0" ::: "xmm0", "xmm7");
    if (sig == SIGUSR2) saved->_xmm[7].element[0] = 0x99;
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction a = {.sa_sigaction = spoil, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &a, NULL);
    sigaction(SIGUSR2, &a, NULL);
    long pid = getpid(), result;
    double st;
    unsigned xmm, mx;
    unsigned short cw;
    __asm__ volatile("fldl2e\n fldcw %5\n ldmxcsr %6\n movd %7, %%xmm7\n mov $62, %%eax\n mov %8, %%rdi\n mov $10, %%esi\n syscall\n"
                     "mov %%rax, %0\n movd %%xmm7, %1\n fstpl %2\n fnstcw %3\n stmxcsr %4\n fninit\n"
                     : "=&r"(result), "=&r"(xmm), "=m"(st), "=m"(cw), "=m"(mx)
                     : "m"((short){0x77f}), "m"((int){0x3f80}), "r"(0x1234), "r"(pid)
                     : "rax", "rcx", "r11", "rdi", "rsi", "memory", "xmm7");
    __asm__ volatile("ldmxcsr %0" :: "m"((int){0x1f80}));
    printf("%ld: xmm7 %x st0 %.15f cw %x mxcsr %x\n", result, xmm, st, cw, mx);
    return 0;
}
