/* Alignment checks: EFLAGS.AC set by POPF, and what each access makes of it: SIGBUS before it is done, or nothing. The
   handler clears AC, for its C code would not live with it, and goes on behind the instruction. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifdef __x86_64__
#define IP REG_RIP
#define SP "%%rsp"
#define PUSHF "pushfq\n"
#define POPF "popfq\n"
#define CLOBBERED "memory", "cc", "edx", "xmm0"
#else
#define IP REG_EIP
#define SP "%%esp"
#define PUSHF "pushf\n"
#define POPF "popf\n"
#define CLOBBERED "memory", "cc", "edx"
#endif

static volatile int caught, code, error;
static volatile long at;
static char area[256] __attribute__((aligned(64)));
static unsigned long resume;

static void on_bus(int sig, siginfo_t *i, void *context)
{
    ucontext_t *u = context;
    caught = sig, code = i->si_code, error = u->uc_mcontext.gregs[REG_ERR];
    at = (long)i->si_addr;
    u->uc_mcontext.gregs[REG_EFL] &= ~0x40000L;
    u->uc_mcontext.gregs[IP] = resume;
}

/* `code` runs with AC set and the register A, which is area + offset. */
#define TRY(name, offset, code_) do { \
    memset(area, 0x11, sizeof area); \
    caught = code = error = 0, at = 0; \
    void *a = area + (offset), *resume_at; \
    __asm__ volatile("mov $9f, %0\n mov %0, %3\n " PUSHF "orl $0x40000, (" SP ")\n " POPF code_ "\n 9: " PUSHF \
                     "andl $~0x40000, (" SP ")\n " POPF \
                     : "=&r"(resume_at), "+c"(caught_none), "+D"(a), "=m"(resume) : "a"(0x55555555L) \
                     : CLOBBERED); \
    int sum = 0; \
    for (int n = 0; n < 256; n++) sum += area[n] == 0x55; \
    printf("%s at %d: signal %d code %d addr %lx error %x, %d bytes written\n", name, offset, caught, code, at, error, sum); \
} while (0)

int main(void)
{
    long caught_none = 0;
    struct sigaction a = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    setvbuf(stdout, NULL, _IONBF, 0);
    sigaction(SIGBUS, &a, NULL);
    for (int offset = 0; offset < 9; offset += offset < 4 ? 1 : 4) {
        TRY("byte", offset, "movb %%al, (%2)");
        TRY("word", offset, "movw %%ax, (%2)");
        TRY("doubleword", offset, "movl %%eax, (%2)");
        TRY("load", offset, "movl (%2), %%edx");
        TRY("float", offset, "fld1\n fstps (%2)");
        TRY("double", offset, "fld1\n fstpl (%2)");
        TRY("extended", offset, "fld1\n fstpt (%2)");
        TRY("movq", offset, "movq %%xmm0, (%2)");
        TRY("add", offset, "addl %%eax, (%2)");
        TRY("lock", offset, "lock addl %%eax, (%2)");
#ifdef __x86_64__
        TRY("quadword", offset, "movq %%rax, (%2)");
#endif
    }
    TRY("rep stosb", 1, "mov $8, %%ecx\n rep stosb");
    TRY("rep stosl", 4, "mov $8, %%ecx\n rep stosl");
    TRY("rep stosl", 1, "mov $8, %%ecx\n rep stosl");
    char *page = mmap((void *)0x20000000, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    page[0] = 1; /* the second page is not there yet: that fault comes first, and is repaired */
    TRY("over two pages", (int)(page + 4094 - area), "movl %%eax, (%2)");
    printf("%x %x\n", page[4095], page[4096]);
    signal(SIGBUS, SIG_DFL);
    __asm__ volatile(PUSHF "orl $0x40000, (" SP ")\n " POPF "movl 1(%0), %%eax" :: "D"(area) : "eax");
    return 0;
}
