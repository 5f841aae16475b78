/* Programs that ruin themselves, a child each: how it ends, and what its handlers still saw. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define SP "rsp"
#define SET_SP(value) __asm__ volatile("mov %0, %%rsp" :: "r"((unsigned long)(value)) : "memory")
#define CALL(value, number, a, b) __asm__ volatile("mov %0, %%rsp\n syscall\n 1: jmp 1b" \
    :: "r"((unsigned long)(value)), "a"(number), "D"(a), "S"(b) : "memory")
#define WORD "0x4141414141414141"
#define PUSH "push %rax"
#else
#define SP "esp"
#define SET_SP(value) __asm__ volatile("mov %0, %%esp" :: "r"((unsigned long)(value)) : "memory")
#define CALL(value, number, a, b) __asm__ volatile("mov %0, %%esp\n int $0x80\n 1: jmp 1b" \
    :: "r"((unsigned long)(value)), "a"(number), "b"(a), "c"(b) : "memory")
#define PUSH "push %eax"
#endif

#define STACK 32768
static char *alternate;  /* with an inaccessible page below and above */
static char *area;

static void say(const char *format, long a, long b)
{
    char line[100];
    write(1, line, snprintf(line, sizeof line, format, a, b));
}

static long place(void *address)
{
    char *p = address;
    if (p >= alternate - 4096 && p < alternate + STACK + 4096) return (p < alternate ? 1 : p < alternate + STACK ? 2 : 3);
    if (p >= area && p < area + 16384) return 16 + (p - area) / 4096;
    return (unsigned long)p < 4096 ? 0 : 9;
}

static void on_signal(int sig, siginfo_t *i, void *context)
{
    say("  signal %ld code %ld", sig, i->si_code);
    say(" address %ld%c", sig == SIGSEGV && i->si_code > 0 && i->si_code < 0x80 ? place(i->si_addr) : 0, '\n');
    _exit(7);
}

static void on_alternate(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = STACK}, NULL);
    sigaction(sig, &(struct sigaction){.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags}, NULL);
}

static void block(int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static int depth;
static int recurse(int n)
{
    volatile char room[500];
    room[0] = n;
    depth++;
    return recurse(n + 1) + room[0];
}

static void again(int sig, siginfo_t *i, void *context) { recurse(0); }
static pid_t self;
#ifdef __x86_64__
#define KILL(sig) __asm__ volatile("syscall" :: "a"(SYS_kill), "D"(self), "S"(sig) : "rcx", "r11", "memory")
#else
#define KILL(sig) __asm__ volatile("int $0x80" :: "a"(SYS_kill), "b"(self), "c"(sig) : "memory")
#endif
/* The page below the stack must be felt: within the red zone of its end the kernel begins at its top again, for ever. */
static void raising(int sig, siginfo_t *i, void *context)
{
    __asm__ volatile("movb $0, -200(%%" SP ")" ::: "memory");
    KILL(sig);
}
static void fault_again(int sig, siginfo_t *i, void *context) { *(volatile int *)16 = 1; }
static void drop_stack(int sig, siginfo_t *i, void *context) { munmap(alternate, STACK); }
static void kernel_sp(int sig, siginfo_t *i, void *context)
{
#ifdef __x86_64__
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RSP] = 0xffff888000000000;
#else
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_ESP] = 0xfffff000;
#endif
}
static void bad_fpu(int sig, siginfo_t *i, void *context) { ((ucontext_t *)context)->uc_mcontext.fpregs = (void *)16; }
static void odd_fpu(int sig, siginfo_t *i, void *context)
{
    ((ucontext_t *)context)->uc_mcontext.fpregs = (void *)(area + 3 * 4096 - 64);
}

/* --- the cases ------------------------------------------------------------------------------------------------ */
static void recursion(void) { recurse(0); }
static void recursion_handled(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); depth = 0; recurse(0); }
static void recursion_without_stack(void) { on_alternate(SIGSEGV, on_signal, 0); recurse(0); }
static void recursion_in_handler(void) { on_alternate(SIGSEGV, again, SA_ONSTACK); recurse(0); }
static void handlers_without_end(void) { on_alternate(SIGUSR1, raising, SA_ONSTACK | SA_NODEFER); raise(SIGUSR1); }
static void handlers_on_the_stack(void) { on_alternate(SIGUSR1, raising, SA_NODEFER); raise(SIGUSR1); }
static void fault_in_handler(void) { on_alternate(SIGSEGV, fault_again, 0); *(volatile int *)8 = 1; }
static void fault_in_nested_handler(void) { on_alternate(SIGSEGV, fault_again, SA_NODEFER); *(volatile int *)8 = 1; }
static void fault_in_reset_handler(void) { on_alternate(SIGSEGV, fault_again, SA_NODEFER | SA_RESETHAND); *(volatile int *)8 = 1; }
static void blocked(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); block(SIGSEGV); *(volatile int *)8 = 1; }
static void ignored(void) { signal(SIGSEGV, SIG_IGN); *(volatile int *)8 = 1; }
static void ignored_kill(void) { signal(SIGSEGV, SIG_IGN); raise(SIGSEGV); _exit(3); }
static void blocked_kill(void) { block(SIGSEGV); raise(SIGSEGV); *(volatile int *)8 = 1; }
static void blocked_trap(void) { block(SIGTRAP); __asm__ volatile("int3"); }
static void ignored_ill(void) { signal(SIGILL, SIG_IGN); __asm__ volatile("ud2"); }
static void blocked_divide(void) { block(SIGFPE); __asm__ volatile("xor %%ecx, %%ecx\n xor %%edx, %%edx\n div %%ecx" ::: "eax", "ecx", "edx"); }
static void zero_sp(void) { SET_SP(0); __asm__ volatile(PUSH); }
static void zero_sp_handled(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); SET_SP(0); __asm__ volatile(PUSH); }
static void guard_push(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); SET_SP(area + 4096); __asm__ volatile(PUSH); }
static void read_only_stack(void) { on_alternate(SIGSEGV, on_signal, 0); SET_SP(area + 8192); __asm__ volatile(PUSH); }
static void signal_on_no_stack(void) { on_alternate(SIGUSR1, on_signal, 0); CALL(16, SYS_kill, getpid(), SIGUSR1); }
static void signal_on_alternate(void) { on_alternate(SIGUSR1, on_signal, SA_ONSTACK); CALL(16, SYS_kill, getpid(), SIGUSR1); }
static void signal_on_no_stack_handled(void)
{
    on_alternate(SIGUSR1, on_signal, 0);
    on_alternate(SIGSEGV, on_signal, SA_ONSTACK);
    CALL(16, SYS_kill, getpid(), SIGUSR1);
}
static void segv_on_no_stack(void) { on_alternate(SIGSEGV, on_signal, 0); CALL(16, SYS_kill, getpid(), SIGSEGV); }
static void signal_at_page_start(void) { on_alternate(SIGUSR1, on_signal, 0); CALL(area + 3 * 4096, SYS_kill, getpid(), SIGUSR1); }
#ifdef __x86_64__
static void non_canonical_sp(void) { SET_SP(1UL << 63); __asm__ volatile(PUSH); }
static void non_canonical_handled(void) { on_alternate(SIGBUS, on_signal, SA_ONSTACK); SET_SP(1UL << 63); __asm__ volatile(PUSH); }
static void non_canonical_call(void) { on_alternate(SIGUSR1, on_signal, 0); CALL(1UL << 63, SYS_kill, getpid(), SIGUSR1); }
static void kernel_sp_call(void) { on_alternate(SIGUSR1, on_signal, 0); CALL(-0x7f000000L, SYS_kill, getpid(), SIGUSR1); }
static void kernel_sp_push(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); SET_SP(-0x7f000000L); __asm__ volatile(PUSH); }
static void return_to_text(void) { __asm__ volatile("movabs $" WORD ", %%rax\n push %%rax\n ret" ::: "rax"); }
#endif
static void return_to_nothing(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); ((void (*)(void))8)(); }
static void frame_of_zeros(void) { CALL(area + 3 * 4096 + 2048, SYS_rt_sigreturn, 0, 0); }
static void frame_of_ones(void) { memset(area + 3 * 4096, 0xff, 4096); CALL(area + 3 * 4096 + 1024, SYS_rt_sigreturn, 0, 0); }
static void frame_of_text(void) { memset(area + 3 * 4096, 'A', 4096); CALL(area + 3 * 4096 + 1024, SYS_rt_sigreturn, 0, 0); }
static void frame_at_end(void) { CALL(area + 4 * 4096 - 32, SYS_rt_sigreturn, 0, 0); }
static void frame_nowhere(void) { on_alternate(SIGSEGV, on_signal, SA_ONSTACK); CALL(64, SYS_rt_sigreturn, 0, 0); }
static void frame_nowhere_blocked(void) { block(SIGSEGV); CALL(64, SYS_rt_sigreturn, 0, 0); }
static void frame_dropped(void) { on_alternate(SIGUSR1, drop_stack, SA_ONSTACK); raise(SIGUSR1); }
static void frame_with_kernel_sp(void) { on_alternate(SIGUSR1, kernel_sp, 0); raise(SIGUSR1); }
static void frame_with_bad_fpu(void) { on_alternate(SIGUSR1, bad_fpu, 0); raise(SIGUSR1); }
static void frame_with_odd_fpu(void) { on_alternate(SIGUSR1, odd_fpu, 0); raise(SIGUSR1); }
static void no_restorer(void)
{
    long action[4] = {(long)on_signal, SA_SIGINFO, 0, 0};
    syscall(SYS_rt_sigaction, SIGUSR1, action, NULL, 8);
    raise(SIGUSR1);
}
static void small_alternate(void)
{
    long size = 2048;
    char *p = area + 8192 + 4096;
    memset(p, 0, size);
    if (sigaltstack(&(stack_t){.ss_sp = p, .ss_size = 1000}, NULL)) say("  sigaltstack %ld%c", errno, '\n');
    _exit(5);
}
static void nothing_mapped(void)
{
    long page = 4096;
#ifdef __x86_64__
    syscall(SYS_munmap, 0L, 0x7ffffffff000L & -page);
#else
    syscall(SYS_munmap, 0L, 0xffffd000L);
#endif
}
static void stack_read_only(void)
{
    on_alternate(SIGSEGV, on_signal, 0);
    char *here = (char *)((long)__builtin_frame_address(0) & -4096L);
    mprotect(here - 65536, 65536 + 8192, PROT_READ);
    recurse(0);
}
static void killed_while_blocked(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGTERM, SIG_IGN);
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}
static void aborted_while_ignored(void) { signal(SIGABRT, SIG_IGN); block(SIGABRT); abort(); }

#define CASE(name) {#name, name}
static const struct { const char *name; void (*run)(void); } cases[] = {
    CASE(recursion), CASE(recursion_handled), CASE(recursion_without_stack), CASE(recursion_in_handler),
    CASE(handlers_without_end), CASE(handlers_on_the_stack), CASE(fault_in_handler),
    CASE(fault_in_nested_handler), CASE(fault_in_reset_handler), CASE(blocked), CASE(ignored), CASE(ignored_kill),
    CASE(blocked_kill), CASE(blocked_trap), CASE(ignored_ill), CASE(blocked_divide), CASE(zero_sp),
    CASE(zero_sp_handled), CASE(guard_push), CASE(read_only_stack), CASE(signal_on_no_stack),
    CASE(signal_on_alternate), CASE(signal_on_no_stack_handled), CASE(segv_on_no_stack), CASE(signal_at_page_start),
#ifdef __x86_64__
    CASE(non_canonical_sp), CASE(non_canonical_handled), CASE(non_canonical_call), CASE(kernel_sp_call),
    CASE(kernel_sp_push), CASE(return_to_text),
#endif
    CASE(return_to_nothing), CASE(frame_of_zeros), CASE(frame_of_ones), CASE(frame_of_text), CASE(frame_at_end),
    CASE(frame_nowhere), CASE(frame_nowhere_blocked), CASE(frame_dropped), CASE(frame_with_kernel_sp),
    CASE(frame_with_bad_fpu), CASE(frame_with_odd_fpu), CASE(no_restorer), CASE(small_alternate), CASE(nothing_mapped),
    CASE(stack_read_only), CASE(killed_while_blocked), CASE(aborted_while_ignored),
};

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    char *room = mmap(NULL, STACK + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    alternate = room + 4096;
    setrlimit(RLIMIT_STACK, &(struct rlimit){128 << 10, 128 << 10});
    mprotect(alternate, STACK, PROT_READ | PROT_WRITE);
    area = mmap(NULL, 5 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(area + 4096, 4096, PROT_READ);
    mprotect(area + 3 * 4096, 4096, PROT_READ | PROT_WRITE);
    for (unsigned n = 0; n < sizeof cases / sizeof *cases; n++) {
        if (argc > 1 && strcmp(argv[1], cases[n].name)) continue;
        printf("%s\n", cases[n].name);
        pid_t child = fork();
        if (!child) {
            self = getpid();
            cases[n].run();
            _exit(100);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("  killed by %d\n", WTERMSIG(status));
        else printf("  exit %d\n", WEXITSTATUS(status));
    }
    return 0;
}
