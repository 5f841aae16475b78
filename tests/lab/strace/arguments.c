/* Arguments of all kinds, most of them refused: values, flags and structures that the other programs do not use. */
#include "calls.h"

static unsigned long set[2], mask[2];
static char info[128], buffer[256];
static struct { long interval[2], value[2]; } timer;
static long time[2], times[4];
static unsigned desc[4] = {1, 0x1234, 0xfffff, 0x51};

static void flags(void)
{
    long n;
    call(__NR_open, BAD, 0x7fffffff, 0777);
    call(__NR_open, BAD, 3);
    call(__NR_open, BAD, 0x10101000);
    call(__NR_open, BAD, 0x110000);
    call(__NR_pipe2, BAD, -1);
    call(__NR_dup3, 80, 81, -1);
    call(MMAP, 0, 1, 0x1000000, 0x20, -1, 0);
    for (n = 0; n < 27; n++) call(__NR_madvise, 1, 1, n);
    call(__NR_wait4, 999999, 0, -1, 0);
    for (n = -1; n < 5; n++) call(__NR_waitid, n, 999999, 0, 0x40000000, 0);
    call(__NR_faccessat, 99, "x", -1);
    call(__NR_unlinkat, 99, "x", -1);
    call(__NR_renameat2, 99, "x", 98, "y", -1);
    call(__NR_renameat, 99, "x", -100, "y");
    call(__NR_symlinkat, "x", 98, "y");
    call(__NR_linkat, 99, "x", 98, "y", 0x400);
    call(__NR_fchmodat, 99, "x", 0);
    call(__NR_mkdirat, 99, "x", 0);
    call(__NR_getrandom, BAD, 4, -1);
    call(__NR_getrandom, BAD, 4, 0);
#ifdef __x86_64__
    call(__NR_close_range, 90, 99, -1);
    call(__NR_close_range, 90, -1, 0);
#endif
    for (n = 0; n < 18; n++) if (n < 5 || n > 7) call(FCNTL, 99, n, 77);
    for (n = 1029; n < 1033; n++) call(FCNTL, 99, n, 1);
    for (n = 0; n < 5; n++) call(__NR_lseek, 99, -5, n);
    for (n = 0; n < 16; n++) call(__NR_prlimit64, 999999, n, 0, 0);
    call(__NR_prlimit64, 999999, 99, 0, 0);
    for (n = 0; n < 8; n++) call(__NR_clock_getres, n, BAD);
    call(__NR_clock_nanosleep, 0, 1, BAD, BAD);
    call(__NR_creat, "/none/x", 0644);
    call(__NR_openat, -100, "/none/x", 0x42, 0600);
}

static void codes(void)
{
    static const int number[] = {10, 10, 17, 17, 11, 10, 8, 29};
    static const signed char code[] = {-1, -2, -6, -1, -1, -1, -1, -1};
    int n;
    for (n = 0; n < 8; n++) {
        info[0] = number[n];
        info[8] = code[n];
        info[9] = info[10] = info[11] = -1;
        info[4] = n == 4 ? 3 : 0;
#ifdef __x86_64__
        info[16] = 5; info[20] = 6; info[24] = n == 6 ? 0 : 7;
#else
        info[12] = 5; info[16] = 6; info[20] = n == 6 ? 0 : 7;
#endif
        call(__NR_rt_sigqueueinfo, 999999, number[n], info);
    }
    call(__NR_rt_tgsigqueueinfo, 999999, 999998, 10, info);
    call(__NR_rt_sigqueueinfo, 999999, 10, BAD);
    for (n = 62; n < 65; n++) call(__NR_kill, 99999999, n);
    call(__NR_kill, 99999999, 33);
    call(__NR_tgkill, -1, -2, 40);
    call(__NR_getitimer, 3, BAD);
}

static void structures(void)
{
    set[0] = 0xd;
#ifdef __x86_64__
    call(__NR_select, 0, 0, 0, 0, BAD);
    call(__NR_select, 70, BAD, 0, 0, 0);
    call(__NR_select, 5, set, 0, 0, time);
    time[1] = 0;
    call(__NR_getrlimit, 7, BAD);
    call(__NR_arch_prctl, 0x1005, 0x999);
    call(__NR_arch_prctl, 0x1003, 0x999);
    call(__NR_arch_prctl, 0x1001, 0x999);
#else
    call(__NR__newselect, 5, set, 0, 0, time);
    call(__NR__llseek, 99, -1, -5, buffer, 1);
    call(__NR_waitpid, 999999, 0, 1);
    call(__NR_set_thread_area, BAD);
    call(__NR_sigprocmask, 9, set, 0);
    call(__NR_sigaction, 65, BAD, 0);
    call(__NR_ugetrlimit, 7, BAD);
    call(__NR_clock_gettime64, 99, BAD);
    call(__NR_clock_nanosleep_time64, 0, 1, BAD, BAD);
#endif
    mask[0] = L(set);
    mask[1] = 8;
    call(__NR_pselect6, 0, 0, 0, 0, time, mask);
    call(__NR_ppoll, 0, 0, time, set, 8);
    call(__NR_ppoll, BAD, 2, 0, 0, 8);
    times[0] = 1000000000;
    times[1] = (1 << 30) - 1;
    times[2] = 1;
    times[3] = 500;
#ifdef __x86_64__
    call(__NR_utimensat, 99, "x", times, 0);
    call(__NR_getresuid, BAD, BAD, BAD);
    call(__NR_getgroups, 0, 0);
    call(__NR_readv, 99, BAD, 2);
    call(__NR_ptrace, 3, 999999, 8, 0x22);
    call(__NR_ptrace, 6, 999999, 96, 0x22);
#endif
    call(__NR_setitimer, 5, &timer, 0);
    call(__NR_modify_ldt, 9, BAD, 16);
    call(__NR_uname, BAD);
    call(__NR_gettimeofday, BAD, 0);
    call(__NR_execve, BAD, BAD, BAD);
    call(__NR_ioctl, 99, 0x5413, BAD);
    call(__NR_ioctl, 99, 0x541b, BAD);
    call(__NR_ioctl, 99, 0x1234, BAD);
    call(__NR_getdents64, 99, BAD, 10);
    call(__NR_readlink, "/", buffer, 5);
    call(__NR_set_robust_list, 0x500000, 7);
    call(__NR_rseq, 0x500000, 32, 2, 0x53053053);
    call(__NR_setpgid, 999999, 5);
    call(__NR_getsid, 999999);
    call(1000, 1, 2, 3, 4, 5, 6);
    call(__NR_umask, 0);
    call(__NR_umask, 0);
}

static void futexes_and_tracing(void)
{
    static const short operations[] = {0, 128, 3, 4, 9 | 128, 9 | 256, 10, 15, 1 | 256};
    unsigned n;
    for (n = 0; n < sizeof operations / sizeof *operations; n++) {
        if (operations[n] == 128 || operations[n] == 10) call(__NR_futex, BAD, operations[n], 1, BAD, 3, 4);
        else call(__NR_futex, BAD, operations[n], 1, BAD, 3, n & 1 ? 4 : -1);
    }
    for (n = 1; n < 25; n++) if (n != 3 && n != 6 && n != 11 && n != 10) call(__NR_ptrace, n, 999999, 0x11, 0x22);
    call(__NR_ptrace, 0x4200, 999999, 0x11, -1);
    for (n = 0x4201; n < 0x420c; n++) call(__NR_ptrace, n, 999999, n == 0x4204 || n == 0x4205 ? 1 : 8, 0x22);
}

int main(void)
{
    flags();
    codes();
    structures();
    futexes_and_tracing();
    return 0;
}
