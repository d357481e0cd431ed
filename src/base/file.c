/* Files: see file.h. */
#define _GNU_SOURCE
#include "base/file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_writer {
    int fd;
    char *path, *temporary;
    size_t held;
    char buffer[1 << 16];
};

static status io_error(const char *verb, const char *path, int number)
{
    const char *remedy = number == ENOSPC || number == EDQUOT  ? "; free some space and run again"
                         : number == EACCES || number == EPERM ? "; check its permissions"
                                                               : "";
    return fail(ERR_IO, "%s: cannot %s: %s%s", path, verb, strerror(number), remedy);
}

status fd_write_all(int fd, const void *data, size_t bytes, const char *path)
{
    const char *p = data;
    if (fault_hit(FAULT_WRITE)) return io_error("write", path, ENOSPC);
    while (bytes) {
        ssize_t n = write(fd, p, MIN(bytes, (size_t)1 << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return io_error("write", path, n ? errno : EIO);
        p += n, bytes -= (size_t)n;
    }
    return OK;
}

status fd_sync(int fd, const char *path)
{
    if (fault_hit(FAULT_FSYNC)) return io_error("fsync", path, EIO);
    if (fsync(fd) && errno != EINVAL && errno != EROFS) return io_error("fsync", path, errno);
    return OK;
}

status path_rename(const char *from, const char *to)
{
    if (fault_hit(FAULT_RENAME)) return io_error("rename to its final name", from, EIO);
    if (rename(from, to)) return io_error("rename to its final name", from, errno);
    return OK;
}

static void writer_free(file_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->path);
    free(w->temporary);
    free(w);
}

status path_replaceable(const char *path)
{
    struct stat st;
    if (lstat(path, &st)) return OK; // not there, or out of reach: creating it says which
    if (S_ISREG(st.st_mode)) return OK;
    return fail(ERR_IO, "%s: is %s, which must not be replaced by a file; name a file", path,
                S_ISDIR(st.st_mode)   ? "a folder"
                : S_ISLNK(st.st_mode) ? "a symbolic link"
                                      : "not a regular file");
}

status file_create(const char *path, file_writer **out)
{
    TRY(path_replaceable(path));
    file_writer *w = calloc(1, sizeof *w);
    if (!w) return fail(ERR_MEMORY, "%s: out of memory", path);
    w->fd = -1;
    w->path = strdup(path);
    if (!w->path || asprintf(&w->temporary, "%s.tmp-%ld", path, (long)getpid()) < 0) {
        w->temporary = NULL;
        writer_free(w);
        return fail(ERR_MEMORY, "%s: out of memory", path);
    }
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        status s = io_error("create", path, errno);
        writer_free(w);
        return s;
    }
    *out = w;
    return OK;
}

void file_abandon(file_writer *w)
{
    if (!w) return;
    unlink(w->temporary);
    writer_free(w);
}

static status flush(file_writer *w)
{
    size_t n = w->held;
    w->held = 0;
    return n ? fd_write_all(w->fd, w->buffer, n, w->path) : OK;
}

status file_write(file_writer *w, const void *data, size_t bytes)
{
    status s = OK;
    if (w->held + bytes > sizeof w->buffer) s = flush(w);
    if (!s && bytes >= sizeof w->buffer)
        s = fd_write_all(w->fd, data, bytes, w->path);
    else if (!s && bytes) {
        memcpy(w->buffer + w->held, data, bytes);
        w->held += bytes;
    }
    if (s) file_abandon(w);
    return s;
}

status file_printf(file_writer *w, const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        file_abandon(w);
        return fail(ERR_MEMORY, "out of memory");
    }
    status s = file_write(w, text, (size_t)n);
    free(text);
    return s;
}

static void folder_of(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (!slash)
        strcpy(out, ".");
    else
        snprintf(out, PATH_MAX, "%.*s", n ? (int)MIN(n, (size_t)PATH_MAX - 1) : 1, n ? path : "/");
}

status file_commit(file_writer *w)
{
    char folder[PATH_MAX];
    status s = flush(w);
    if (!s) s = fd_sync(w->fd, w->path);
    if (!s) s = path_rename(w->temporary, w->path);
    if (s) {
        file_abandon(w);
        return s;
    }
    folder_of(w->path, folder);
    writer_free(w);
    return dir_sync(folder);
}

status file_replace(const char *path, const void *data, size_t bytes)
{
    file_writer *w = NULL;
    TRY(file_create(path, &w));
    TRY(file_write(w, data, bytes));
    return file_commit(w);
}

status file_read(const char *path, char **data, size_t *bytes)
{
    int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : 0;
    if (fd < 0) return io_error("open", path, errno);
    struct stat st;
    size_t capacity = !fstat(fd, &st) && S_ISREG(st.st_mode) ? (size_t)st.st_size + 1 : 1 << 16, n = 0;
    char *p = fault_hit(FAULT_ALLOC) ? NULL : malloc(capacity);
    status s = p ? OK : fail(ERR_MEMORY, "%s: out of memory", path);
    while (!s) {
        if (n + 1 >= capacity) {
            char *bigger = realloc(p, capacity * 2);
            if (!bigger) {
                s = fail(ERR_MEMORY, "%s: out of memory after %zu MiB", path, n >> 20);
                break;
            }
            p = bigger, capacity *= 2;
        }
        ssize_t got = read(fd, p + n, capacity - n - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) s = io_error("read", path, errno);
        if (got <= 0) break;
        n += (size_t)got;
    }
    if (fd) close(fd);
    if (s) {
        free(p);
        return s;
    }
    p[n] = 0;
    *data = p, *bytes = n;
    return OK;
}

status file_map_open(const char *path, file_map *out)
{
    *out = (file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return io_error("open", path, errno);
    struct stat st;
    status s = OK;
    if (fstat(fd, &st))
        s = io_error("read", path, errno);
    else if (!S_ISREG(st.st_mode))
        s = fail(ERR_IO, "%s: not a regular file", path);
    else if (st.st_size) {
        void *p = fault_hit(FAULT_ALLOC) ? MAP_FAILED
                                         : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            s = fail(ERR_MEMORY, "%s: cannot map %lld bytes", path, (long long)st.st_size);
        else
            *out = (file_map){p, (size_t)st.st_size};
    }
    close(fd);
    return s;
}

void file_map_close(file_map *m)
{
    if (m->data) munmap((void *)m->data, m->bytes);
    *m = (file_map){0};
}

status dir_make(const char *path)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return io_error("create the folder", path, ENAMETOOLONG);
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/') continue;
        char was = *p;
        *p = 0;
        if (mkdir(part, 0777) && errno != EEXIST) return io_error("create the folder", part, errno);
        if (!(*p = was)) break;
    }
    if (!path_is_dir(path)) return io_error("create the folder", path, ENOTDIR);
    return OK;
}

status dir_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return io_error("open the folder", path, errno);
    status s = fd_sync(fd, path);
    close(fd);
    return s;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

status tree_remove(const char *path)
{
    if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        return io_error("remove", path, errno);
    return OK;
}

bool path_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

bool path_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}
