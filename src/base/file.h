/* file: reading and writing whole files so that nothing half-written ever stands under a final name.
 *
 *     file_writer *w;
 *     TRY(file_create(path, &w));                    // writes path.tmp-PID
 *     TRY(file_write(w, data, bytes));
 *     TRY(file_commit(w));                           // fsync, rename to PATH, fsync the directory
 *
 * All writes, fsyncs and renames pass the fault hooks of base.h. */
#pragma once
#include "base/base.h"

typedef struct file_writer file_writer;
/* May PATH be replaced by a rename? Nothing, or a regular file: yes. ERR_IO: a folder, a device, a pipe, a
 * socket or a link: a rename would put a file in its place (as root, in /dev/null's). */
status path_replaceable(const char *path) MUST;
/* Opens PATH for atomic replacement. ERR_IO names PATH and the reason. */
status file_create(const char *path, file_writer **out) MUST;
/* Appends. On failure the temporary file is removed and W is gone (do not touch it again). */
status file_write(file_writer *w, const void *data, size_t bytes) MUST;
status file_printf(file_writer *w, const char *format, ...) PRINTF(2, 3) MUST;
/* fsync + rename + directory fsync; W is gone in either case; on failure PATH is what it was before. */
status file_commit(file_writer *w) MUST;
/* The three at once: PATH holds these bytes, or what it held before. */
status file_replace(const char *path, const void *data, size_t bytes) MUST;
void file_abandon(file_writer *w); // removes the temporary file; NULL allowed

/* Reads PATH whole ("-" is standard input); *data is zero-terminated (beyond *bytes); release with mem_free.
 */
status file_read(const char *path, char **data, size_t *bytes) MUST;

/* A read-only mapping of a file. bytes = 0 maps nothing and data is NULL. */
typedef struct file_map {
    const u8 *data;
    size_t bytes;
} file_map;
status file_map_open(const char *path, file_map *out) MUST;
void file_map_close(file_map *m);

status dir_make(const char *path) MUST; // with parents; existing is fine
status dir_sync(const char *path) MUST; // fsync the directory itself
status fd_write_all(int fd, const void *data, size_t bytes, const char *path)
    MUST;                                                  // through the write fault hook
status fd_sync(int fd, const char *path) MUST;             // through the fsync fault hook
status path_rename(const char *from, const char *to) MUST; // through the rename fault hook
status tree_remove(const char *path) MUST; // a file or a folder with what is in it; missing is fine
bool path_exists(const char *path);
bool path_is_dir(const char *path);
