/* System calls without a C library, so that a program makes only those that its source names. -m64 and -m32. */
#include <asm/unistd.h>

static long call6(long n, long a, long b, long c, long d, long e, long f)
{
    long result;
#ifdef __x86_64__
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#else
    struct { long number, sixth; } both = {n, f};
    __asm__ volatile("pushl %%ebp; movl 4(%%eax), %%ebp; movl (%%eax), %%eax; int $0x80; popl %%ebp"
                     : "=a"(result) : "a"(&both), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
#endif
    return result;
}

#define PICK(_0, _1, _2, _3, _4, _5, _6, name, ...) name
#define call(...) PICK(__VA_ARGS__, c6, c5, c4, c3, c2, c1, c0)(__VA_ARGS__)
#define L(x) ((long)(x))
#define c0(n) call6(n, 0, 0, 0, 0, 0, 0)
#define c1(n, a) call6(n, L(a), 0, 0, 0, 0, 0)
#define c2(n, a, b) call6(n, L(a), L(b), 0, 0, 0, 0)
#define c3(n, a, b, c) call6(n, L(a), L(b), L(c), 0, 0, 0)
#define c4(n, a, b, c, d) call6(n, L(a), L(b), L(c), L(d), 0, 0)
#define c5(n, a, b, c, d, e) call6(n, L(a), L(b), L(c), L(d), L(e), 0)
#define c6(n, a, b, c, d, e, f) call6(n, L(a), L(b), L(c), L(d), L(e), L(f))

#define BAD ((char *)0x10)
typedef struct { long sec, nsec; } timespec;
typedef struct { void *base; unsigned long length; } iovec;
typedef struct { int fd; short events, revents; } pollfd;
#ifdef __x86_64__
#define FSTAT __NR_fstat
#define STAT __NR_stat
#define FSTATAT __NR_newfstatat
#define MMAP __NR_mmap
#define FCNTL __NR_fcntl
#define PREAD(fd, buffer, size, at) call(__NR_pread64, fd, buffer, size, at)
#define PWRITE(fd, buffer, size, at) call(__NR_pwrite64, fd, buffer, size, at)
#define TRUNCATE(fd, size) call(__NR_ftruncate, fd, size)
#define PAGES(n) ((n) * 4096)
#else
#define FSTAT __NR_fstat64
#define STAT __NR_stat64
#define FSTATAT __NR_fstatat64
#define MMAP __NR_mmap2
#define FCNTL __NR_fcntl64
#define PREAD(fd, buffer, size, at) call(__NR_pread64, fd, buffer, size, at, 0)
#define PWRITE(fd, buffer, size, at) call(__NR_pwrite64, fd, buffer, size, at, 0)
#define TRUNCATE(fd, size) call(__NR_ftruncate64, fd, size, 0)
#define PAGES(n) (n)
#endif

int main(void);
__attribute__((noreturn, used)) static void begin(void)
{
    long status = main();
    for (;;) call(__NR_exit_group, status);
}
__asm__(".globl _start\n_start:\n"
#ifdef __x86_64__
        "andq $-16, %rsp\ncall begin\n");
#else
        "andl $-16, %esp\ncall begin\n");
#endif
