/* Files, descriptors and memory: strings, flags, structures, errors. */
#include "calls.h"

#define O_CREAT 0100
#define O_TRUNC 01000
#define O_APPEND 02000
#define O_NONBLOCK 04000
#define O_DIRECTORY 0200000
#define O_CLOEXEC 02000000
#define AT_FDCWD -100

static char buffer[256];
static char long_text[] = "0123456789012345678901234567890123456789\n";

static void names(void)
{
    call(__NR_open, "/tmp/strace-none", 0);
    call(__NR_openat, AT_FDCWD, "/tmp/strace-none", O_CLOEXEC | O_DIRECTORY);
    call(__NR_open, BAD, 2 | O_APPEND | O_NONBLOCK);
    call(__NR_open, 0, 1);
    call(__NR_access, "/tmp", 0);
    call(__NR_access, "/tmp/strace-none", 4 | 2);
    call(__NR_mkdir, "/tmp/strace-dir", 0755);
    call(__NR_mkdir, "/tmp/strace-dir", 0700);
    call(__NR_rename, "/tmp/strace-dir", "/tmp/strace-dir2");
    call(__NR_chdir, "/tmp/strace-dir2");
    call(__NR_getcwd, buffer, sizeof buffer);
    call(__NR_chdir, "/");
    call(__NR_symlink, "target", "/tmp/strace-dir2/link");
    call(__NR_readlink, "/tmp/strace-dir2/link", buffer, sizeof buffer);
    call(__NR_readlinkat, AT_FDCWD, "/tmp/strace-none", buffer, 10);
    call(__NR_unlinkat, AT_FDCWD, "/tmp/strace-dir2/link", 0);
    call(__NR_unlinkat, AT_FDCWD, "/tmp/strace-dir2", 0x200);
    call(__NR_rmdir, "/tmp/strace-dir2");
    call(__NR_umask, 022);
    call(__NR_unlink, "with \"quotes\" \\ and \001\0339\n\t\r\v\f\177\200\377");
    call(__NR_unlink, long_text);
}

static void input_output(void)
{
    iovec two[2] = {{"first ", 6}, {long_text, 20}};
    long fd = call(__NR_open, "/tmp/strace-file", 2 | O_CREAT | O_TRUNC, 0644);
    call(__NR_write, fd, long_text, sizeof long_text - 1);
    call(__NR_write, fd, "a\0b\0001\n", 6);
    call(__NR_write, fd, BAD, 6);
    call(__NR_write, fd, "", 0);
    call(__NR_writev, fd, two, 2);
    call(__NR_lseek, fd, 0, 0);
    call(__NR_lseek, fd, -1, 0);
    call(__NR_read, fd, buffer, 10);
    call(__NR_read, fd, buffer, sizeof buffer);
    call(__NR_read, fd, buffer, sizeof buffer);
    call(__NR_read, 99, buffer, sizeof buffer);
    PREAD(fd, buffer, 5, 3);
    PWRITE(fd, "xyz", 3, 100);
    two[0].base = buffer;
    two[1].base = buffer + 100;
    call(__NR_lseek, fd, 0, 0);
    call(__NR_readv, fd, two, 2);
    TRUNCATE(fd, 5);
    call(FSTAT, fd, buffer);
    call(STAT, "/tmp/strace-file", buffer);
    call(STAT, "/tmp/strace-none", buffer);
    call(FSTATAT, AT_FDCWD, "/tmp/strace-file", buffer, 0x100);
    call(FSTATAT, fd, "", buffer, 0x1000);
    call(STAT, "/dev/null", buffer);
    call(__NR_chmod, "/tmp/strace-file", 0600);
    call(__NR_fchmod, fd, 04755);
    call(__NR_close, fd);
    call(__NR_close, fd);
    call(__NR_unlink, "/tmp/strace-file");
}

static void descriptors(void)
{
    int ends[2];
    pollfd wait[2];
    call(__NR_pipe, ends);
    wait[0] = (pollfd){ends[0], 1 | 2, 0};
    wait[1] = (pollfd){ends[1], 4, 0};
    call(__NR_poll, wait, 2, 0);
    call(__NR_poll, wait, 1, 0);
    call(__NR_dup, ends[0]);
    call(__NR_dup2, ends[0], 9);
    call(__NR_dup3, ends[1], 10, O_CLOEXEC);
    call(FCNTL, 10, 1);
    call(FCNTL, 10, 3);
    call(FCNTL, 10, 2, 0);
    call(FCNTL, 10, 4, O_NONBLOCK);
    call(FCNTL, ends[0], 1030, 20);
    call(__NR_read, 9, buffer, 0);
    call(__NR_pipe2, ends, O_CLOEXEC | O_NONBLOCK);
    call(__NR_read, ends[0], buffer, 8);
    call(__NR_ioctl, ends[0], 0x5401, buffer);
    call(__NR_lseek, ends[0], 0, 2);
    call(__NR_pipe, BAD);
}

static void memory(void)
{
    char *area = (char *)call(MMAP, 0, 8192, 3, 0x22, -1, 0);
    call(__NR_mprotect, area, 4096, 1);
    call(__NR_mprotect, area, 4096, 0);
    call(__NR_madvise, area, 4096, 4);
    call(__NR_munmap, area, 8192);
    call(__NR_munmap, 1, 8192);
    call(MMAP, 0x700000, 4096, 7, 0x32, -1, 0);
    call(MMAP, 0, 0, 1, 2, 50, PAGES(1));
    call(__NR_brk, 0);
}

int main(void)
{
    names();
    input_output();
    descriptors();
    memory();
    return 7;
}
