/* The file system below the folder that the first argument names, which is to be empty and writable. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(call) (errno = 0, printf("%s = %ld %s\n", #call, (long)(call), errno ? strerrorname_np(errno) : ""))

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(const char *path)
{
    char *names[64];
    int count = 0;
    DIR *directory = opendir(path);
    for (struct dirent *entry; (entry = readdir(directory)) && count < 64;) {
        static const char kinds[] = "?pc?d?b?-?l?s???";
        asprintf(&names[count++], "%c %s", kinds[entry->d_type], entry->d_name);
    }
    closedir(directory);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) printf("  %s\n", names[i]);
}

int main(int argc, char **argv)
{
    struct stat status;
    char text[100] = "";
    umask(022);
    chdir(argv[1]);
    CHECK(mkdir("folder", 0777));
    CHECK(mkdir("folder", 0777));
    CHECK(mkdir("none/folder", 0777));
    CHECK(open("folder/file", O_RDONLY));
    int fd = open("folder/file", O_RDWR | O_CREAT | O_EXCL, 0666);
    CHECK(open("folder/file", O_RDWR | O_CREAT | O_EXCL, 0666));
    CHECK(write(fd, "hello, world\n", 13));
    CHECK(lseek(fd, 7, SEEK_SET));
    CHECK(read(fd, text, 99));
    printf("%s", text);
    CHECK(pwrite(fd, "W", 1, 7));
    CHECK(pread(fd, text, 5, 7));
    CHECK(lseek(fd, 10000, SEEK_END));
    CHECK(write(fd, "end", 3));
    CHECK(fstat(fd, &status));
    printf("size %ld mode %o links %ld\n", (long)status.st_size, status.st_mode, (long)status.st_nlink);
    CHECK(ftruncate(fd, 5));
    CHECK(lseek(fd, 0, SEEK_END));
    CHECK(lseek(fd, -1, SEEK_SET));
    CHECK(close(fd));
    CHECK(close(fd));
    fd = open("folder/file", O_WRONLY | O_APPEND);
    CHECK(write(fd, " there", 6));
    CHECK(read(fd, text, 1));
    CHECK(ftruncate(fd, 11));
    close(fd);
    CHECK(symlink("folder/file", "link"));
    CHECK(readlink("link", text, 99));
    CHECK(lstat("link", &status));
    printf("link %d size %ld\n", S_ISLNK(status.st_mode), (long)status.st_size);
    CHECK(stat("link", &status));
    printf("file %d size %ld\n", S_ISREG(status.st_mode), (long)status.st_size);
    CHECK(symlink("loop", "loop"));
    CHECK(open("loop", O_RDONLY));
    CHECK(open("link/", O_RDONLY));
    CHECK(open("link", O_RDONLY | O_NOFOLLOW));
    CHECK(link("folder/file", "second"));
    CHECK(stat("second", &status));
    printf("links %ld\n", (long)status.st_nlink);
    CHECK(rename("second", "folder/third"));
    CHECK(rename("folder", "folder/inside"));
    CHECK(rename("link", "folder"));
    CHECK(rmdir("folder"));
    CHECK(unlink("folder"));
    CHECK(access("folder/third", R_OK));
    CHECK(access("folder/third", X_OK));
    CHECK(chmod("folder/third", 0755));
    CHECK(access("folder/third", X_OK));
    CHECK(chdir("folder"));
    CHECK(open("../folder/./third", O_RDONLY | O_DIRECTORY));
    CHECK(chdir("third"));
    list(".");
    CHECK(chdir(".."));
    list(".");
    fd = open("folder/third", O_RDONLY);
    CHECK(unlink("folder/third"));
    CHECK(unlink("folder/file"));
    CHECK(read(fd, text, 5));
    char *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    printf("%.11s\n", map);
    CHECK(rmdir("folder"));
    CHECK(unlink("link"));
    CHECK(unlink("loop"));
    list(".");
    fd = open("/dev/null", O_RDWR);
    CHECK(write(fd, text, 10));
    CHECK(read(fd, text, 10));
    fd = open("/dev/zero", O_RDONLY);
    CHECK(read(fd, text, 10));
    printf("%d\n", text[9]);
    fd = open("/dev/full", O_WRONLY);
    CHECK(write(fd, text, 10));
    CHECK(open("", O_RDONLY));
    CHECK(dup2(fd, 200));
    CHECK(fcntl(200, F_GETFD));
    CHECK(dup3(fd, fd, 0));
    CHECK(dup3(fd, 201, O_CLOEXEC));
    CHECK(fcntl(201, F_GETFD));
    CHECK(fcntl(fd, F_GETFL) & O_ACCMODE);
    return 0;
}
