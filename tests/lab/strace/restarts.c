/* Calls with a relative time, interrupted by a stop that no handler sees: they go on, and end when they would have. */
#include "calls.h"

static volatile int word = 1;
static timespec left;

static void wait_long(int how)
{
    timespec time = {0, 90000000};
    switch (how) {
    case 0: call(__NR_nanosleep, &time, &left); break;
    case 1: call(__NR_poll, 0, 0, 90); break;
    case 2: call(__NR_futex, &word, 0, 1, &time); break;
    case 3: call(__NR_clock_nanosleep, 1, 0, &time, 0); break;
    }
    call(__NR_exit, how);
}

int main(void)
{
    timespec time = {0, 30000000};
    int how, status;
    for (how = 0; how < 4; how++) {
        long pid = call(__NR_fork);
        if (!pid) wait_long(how);
        call(__NR_nanosleep, &time, 0);
        call(__NR_kill, pid, 19);
        call(__NR_nanosleep, &time, 0);
        call(__NR_kill, pid, 18);
        call(__NR_wait4, pid, &status, 0, 0);
    }
    return 0;
}
