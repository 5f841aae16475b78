/* Asks the kernel many questions and prints its answers: the host's kernel and ours must give the same. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static long raw(long n, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* Results that are errors or small numbers are printed, addresses only as "address" or relative to `base`. */
static void show(const char *what, long result, long base)
{
    if (result >= -4095 && result < 65536) printf("%s = %ld\n", what, result);
    else if (base) printf("%s = base%+ld\n", what, result - base);
    else printf("%s = address\n", what);
}

#define ASK(n, a, b, c, d, e, f) show(#n "(" #a ", " #b ", " #c ", " #d ", " #e ", " #f ")", \
    raw(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)), base)
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define TOP 0x7ffffffff000
#define P 4096L

int main(void)
{
    long base = 0;
    ASK(mmap, 0, 0, RW, ANON, -1, 0);
    ASK(mmap, 0, -1, RW, ANON, -1, 0);
    ASK(mmap, 0, 1L << 62, RW, ANON, -1, 0);
    ASK(mmap, 0, P, RW, MAP_ANONYMOUS, -1, 0);
    ASK(mmap, 0, P, RW, MAP_PRIVATE, -1, 0);
    ASK(mmap, 0, P, RW, MAP_PRIVATE, 77, 0);
    ASK(mmap, 0, P, RW, ANON, -1, 5);
    ASK(mmap, 0x10000000001, P, RW, ANON | MAP_FIXED, -1, 0);
    ASK(mmap, TOP, P, RW, ANON | MAP_FIXED, -1, 0);
    ASK(mmap, TOP - P, 2 * P, RW, ANON | MAP_FIXED, -1, 0);
    ASK(mmap, -P, P, RW, ANON | MAP_FIXED, -1, 0);
    ASK(mmap, 0, P, RW, ANON, -1, 0);
    base = 0x10000000000;
    ASK(mmap, 0x10000000000, 16 * P, RW, ANON | MAP_FIXED, -1, 0);
    ASK(mmap, 0x10000000000, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0);
    ASK(mmap, 0x10000010005, 4 * P, RW, ANON, -1, 0);
    ASK(mmap, 0x10000010005 + 8 * P, 4 * P, RW, ANON, -1, 0);
    char *m = (char *)base;
    for (int i = 0; i < 16; i++) m[i * P] = i;
    ASK(munmap, m + 1, P, 0, 0, 0, 0);
    ASK(munmap, m, 0, 0, 0, 0, 0);
    ASK(munmap, m, -1, 0, 0, 0, 0);
    ASK(munmap, TOP, P, 0, 0, 0, 0);
    ASK(munmap, m + 4 * P, P, 0, 0, 0, 0);
    ASK(munmap, m + 4 * P, P, 0, 0, 0, 0);
    ASK(mprotect, m, 3 * P, PROT_READ, 0, 0, 0);
    ASK(mprotect, m + 3 * P, 3 * P, PROT_READ, 0, 0, 0);
    ASK(mprotect, m + 1, P, PROT_READ, 0, 0, 0);
    ASK(mprotect, m, 0, PROT_READ, 0, 0, 0);
    ASK(mprotect, m, -1, PROT_READ, 0, 0, 0);
    ASK(mprotect, m, P, 0x40, 0, 0, 0);
    ASK(mprotect, m, P, PROT_GROWSDOWN, 0, 0, 0);
    ASK(mprotect, m + 5 * P, P, PROT_NONE, 0, 0, 0);
    ASK(mprotect, TOP, P, PROT_READ, 0, 0, 0);
    ASK(madvise, m, 3 * P, MADV_DONTNEED, 0, 0, 0);
    ASK(madvise, m + 3 * P, 3 * P, MADV_DONTNEED, 0, 0, 0);
    ASK(madvise, m + 1, P, MADV_DONTNEED, 0, 0, 0);
    ASK(madvise, m, P, 9999, 0, 0, 0);
    ASK(madvise, m, 0, MADV_DONTNEED, 0, 0, 0);
    printf("%d %d %d\n", m[2 * P], m[6 * P], m[7 * P]);
    /* reading and writing through system calls; standard input is empty */
    ASK(write, 1, m + 5 * P, 1, 0, 0, 0);
    ASK(write, 1, m + 4 * P - 1, 0, 0, 0, 0);
    ASK(write, 1, 0, 1, 0, 0, 0);
    ASK(write, 1, -1, 1, 0, 0, 0);
    ASK(write, 1, m, -1, 0, 0, 0);
    ASK(write, 77, m, 1, 0, 0, 0);
    ASK(write, -1, m, 1, 0, 0, 0);
    ASK(read, 0, m + 8 * P, 10, 0, 0, 0);
    ASK(read, 77, m, 10, 0, 0, 0);
    ASK(read, 0, m, -1, 0, 0, 0);
    ASK(getrandom, m, 8, 0, 0, 0, 0);
    ASK(getrandom, m + 8 * P, 8, 0x80, 0, 0, 0);
    ASK(getrandom, m + 8 * P, 8, 6, 0, 0, 0);
    ASK(getrandom, m + 8 * P, 8, 0, 0, 0, 0);
    ASK(getrandom, m + 16 * P - 4, 0, 0, 0, 0, 0);
    ASK(uname, m, 0, 0, 0, 0, 0);
    ASK(uname, m + 8 * P, 0, 0, 0, 0, 0);
    ASK(writev, 1, m, -1, 0, 0, 0);
    ASK(writev, 1, m + 9 * P, 0, 0, 0, 0);
    ASK(writev, 1, m + 5 * P, 1, 0, 0, 0);
    ASK(lseek, 1, 0, 0, 0, 0, 0);
    ASK(lseek, 77, 0, 0, 0, 0, 0);
    ASK(ioctl, 1, 0x5401, m + 8 * P, 0, 0, 0);
    ASK(ioctl, 77, 0x5401, m + 8 * P, 0, 0, 0);
    ASK(fstat, 1, m, 0, 0, 0, 0);
    ASK(fstat, 77, m + 8 * P, 0, 0, 0, 0);
    ASK(dup2, 1, -1, 0, 0, 0, 0);
    ASK(dup2, 77, 3, 0, 0, 0, 0);
    ASK(dup2, 1, 1, 0, 0, 0, 0);
    ASK(dup, 77, 0, 0, 0, 0, 0);
    ASK(close, 77, 0, 0, 0, 0, 0);
    ASK(fcntl, 1, 1, 0, 0, 0, 0);
    ASK(fcntl, 1, 3, 0, 0, 0, 0);
    ASK(fcntl, 0, 3, 0, 0, 0, 0);
    ASK(fcntl, 1, 9999, 0, 0, 0, 0);
    ASK(fcntl, 77, 1, 0, 0, 0, 0);
    ASK(readlink, "/proc/self/exe", m + 8 * P, 0, 0, 0, 0);
    ASK(readlink, "/proc/self/exe", m + 8 * P, -1, 0, 0, 0);
    ASK(readlink, "/does/not/exist", m + 8 * P, 10, 0, 0, 0);
    ASK(readlink, "/proc/self/exe", m, 10, 0, 0, 0);
    ASK(readlink, m + 5 * P, m, 10, 0, 0, 0);
    ASK(openat, -100, "/does/not/exist", 0, 0, 0, 0);
    ASK(openat, -100, 0, 0, 0, 0, 0);
    ASK(openat, -100, "", 0, 0, 0, 0);
    ASK(newfstatat, 1, "", m + 8 * P, 0x1000, 0, 0);
    ASK(newfstatat, 77, "", m + 8 * P, 0x1000, 0, 0);
    ASK(newfstatat, 1, "", m + 8 * P, 0, 0, 0);
    ASK(newfstatat, 1, "", m, 0x1000, 0, 0);
    ASK(arch_prctl, 0x1002, TOP, 0, 0, 0, 0);
    ASK(arch_prctl, 0x1002, 1L << 63, 0, 0, 0, 0);
    ASK(arch_prctl, 0x1001, -1, 0, 0, 0, 0);
    ASK(arch_prctl, 0x1001, 0x1234, 0, 0, 0, 0);
    ASK(arch_prctl, 0x1004, m + 8 * P, 0, 0, 0, 0);
    printf("gs %lx\n", *(long *)(m + 8 * P));
    ASK(arch_prctl, 0x1003, m, 0, 0, 0, 0);
    ASK(arch_prctl, 7, m, 0, 0, 0, 0);
    ASK(set_robust_list, m, 23, 0, 0, 0, 0);
    ASK(rseq, m + 8 * P, 32, 2, 0, 0, 0);
    ASK(rseq, m + 8 * P + 1, 32, 0, 0, 0, 0);
    ASK(rseq, m + 8 * P, 32, 1, 0, 0, 0);
    ASK(rseq, m + 8 * P, 32, 0, 5, 0, 0);
    ASK(rseq, m + 8 * P, 32, 0, 5, 0, 0);
    ASK(rseq, m + 9 * P, 32, 0, 5, 0, 0);
    ASK(rseq, m + 8 * P, 32, 1, 6, 0, 0);
    ASK(rseq, m + 8 * P, 32, 1, 5, 0, 0);
    ASK(rseq, 1L << 63, 32, 0, 5, 0, 0);
    ASK(prlimit64, 0, 16, 0, m + 8 * P, 0, 0);
    ASK(prlimit64, 0, 3, 0, m, 0, 0);
    ASK(clock_gettime, 1, m, 0, 0, 0, 0);
    ASK(clock_gettime, 99, m + 8 * P, 0, 0, 0, 0);
    ASK(clock_getres, 1, 0, 0, 0, 0, 0);
    ASK(clock_getres, 99, 0, 0, 0, 0, 0);
    ASK(gettimeofday, m, 0, 0, 0, 0, 0);
    ASK(time, m, 0, 0, 0, 0, 0);
    ASK(kill, 0, 65, 0, 0, 0, 0);
    ASK(kill, 0, -1, 0, 0, 0, 0);
    ASK(kill, 0, 0, 0, 0, 0, 0);
    ASK(tkill, 0, 0, 0, 0, 0, 0);
    ASK(tgkill, 0, 1, 0, 0, 0, 0);
    ASK(rt_sigprocmask, 0, 0, m, 8, 0, 0);
    ASK(rt_sigprocmask, 9, m + 8 * P, 0, 8, 0, 0);
    ASK(rt_sigprocmask, 0, 0, 0, 7, 0, 0);
    ASK(prctl, 16, m, 0, 0, 0, 0);
    ASK(poll, m, 1, 0, 0, 0, 0);
    ASK(poll, m + 5 * P, 1, 0, 0, 0, 0);
    ASK(sched_yield, 0, 0, 0, 0, 0, 0);
    ASK(getcwd, m + 8 * P, 1, 0, 0, 0, 0);
    base = raw(SYS_brk, 0, 0, 0, 0, 0, 0);
    ASK(brk, base + 12345, 0, 0, 0, 0, 0);
    ASK(brk, 1, 0, 0, 0, 0, 0);
    ASK(brk, -1, 0, 0, 0, 0, 0);
    ASK(brk, base + 100, 0, 0, 0, 0, 0);
    long nothing = raw(9999, 0, 0, 0, 0, 0, 0);
    show("nothing", nothing, 0);
    return 0;
}
