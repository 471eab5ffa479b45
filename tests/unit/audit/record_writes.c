/* Preloaded into a process: every write, sync, truncation, rename and removal below a folder is appended to a record.

   gcc -shared -fPIC -O2 -o record.so record_writes.c -ldl;  RECORD_FOLDER=... RECORD_FILE=... LD_PRELOAD=record.so program

   One row: u8 kind, u16 length of the path, the path, u64 offset, u32 length, the bytes. Kinds: w write, s sync, t truncate to
   offset, u unlink, r rename (the bytes are the new path), n note (what the program itself says).

   FAIL_KIND=s (or w), FAIL_AFTER=10 and FAIL_ERRNO=5 let every sync (or write) there after the first ten fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

static int ours(int fd, char *path) {
    char link[64];
    const char *folder = getenv("RECORD_FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size <= 0 || !folder) return 0;
    path[size] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(char kind) {
    static int count;
    const char *wanted = getenv("FAIL_KIND");
    if (!wanted || *wanted != kind || __sync_add_and_fetch(&count, 1) <= atoi(getenv("FAIL_AFTER"))) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

static void put(char kind, const char *path, uint64_t offset, const void *data, uint32_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    static int (*opened)(const char *, int, ...);
    if (!real) real = next("write");
    if (!opened) opened = next("open64") ? next("open64") : next("open");
    pthread_mutex_lock(&lock);
    if (record < 0) record = opened(getenv("RECORD_FILE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    uint16_t size = strlen(path);
    size_t total = 1 + 2 + size + 8 + 4 + length;
    char *row = malloc(total), *at = row;
    *at++ = kind;
    memcpy(at, &size, 2), at += 2;
    memcpy(at, path, size), at += size;
    memcpy(at, &offset, 8), at += 8;
    memcpy(at, &length, 4), at += 4;
    if (length) memcpy(at, data, length);
    if (real(record, row, total) != (ssize_t)total) abort();
    free(row);
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    char path[PATH_MAX];
    if (!real) real = next("pwrite64");
    if (ours(fd, path) && fails('w')) return -1;
    ssize_t done = real(fd, data, length, offset);
    if (done > 0 && ours(fd, path)) put('w', path, offset, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    char path[PATH_MAX];
    if (!real) real = next("write");
    int note = getenv("RECORD_NOTES") && fd == atoi(getenv("RECORD_NOTES"));
    ssize_t done = real(fd, data, length);
    if (done > 0 && note) put('n', "", 0, data, done);
    else if (done > 0 && fd != record && ours(fd, path)) put('w', path, lseek(fd, 0, SEEK_CUR) - done, data, done);
    return done;
}

int fdatasync(int fd) {
    static int (*real)(int);
    char path[PATH_MAX];
    if (!real) real = next("fdatasync");
    if (ours(fd, path) && fails('s')) return -1;
    int done = real(fd);
    if (!done && ours(fd, path)) put('s', path, 0, "", 0);
    return done;
}
int fsync(int fd) {
    static int (*real)(int);
    char path[PATH_MAX];
    if (!real) real = next("fsync");
    if (ours(fd, path) && fails('s')) return -1;
    int done = real(fd);
    if (!done && ours(fd, path)) put('s', path, 0, "", 0);
    return done;
}

int ftruncate64(int fd, off64_t length) {
    static int (*real)(int, off64_t);
    char path[PATH_MAX];
    if (!real) real = next("ftruncate64");
    int done = real(fd, length);
    if (!done && ours(fd, path)) put('t', path, length, "", 0);
    return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int unlink(const char *path) {
    static int (*real)(const char *);
    const char *folder = getenv("RECORD_FOLDER");
    if (!real) real = next("unlink");
    int done = real(path);
    if (!done && folder && strncmp(path, folder, strlen(folder)) == 0) put('u', path, 0, "", 0);
    return done;
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    const char *folder = getenv("RECORD_FOLDER");
    if (!real) real = next("rename");
    int done = real(from, to);
    if (!done && folder && strncmp(to, folder, strlen(folder)) == 0) put('r', from, 0, to, strlen(to));
    return done;
}
