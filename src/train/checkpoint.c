/* Saving checkpoints: see checkpoint.h.
 *
 * The caller's thread writes the bytes (into the page cache, at memory speed, straight from the states, so no
 * second copy of them exists); a thread of its own then does what waits for the disk, in the order that makes
 * a power cut harmless: fsync of each file, manifest (written, fsynced), fsync of the folder, rename, fsync
 * of the run's folder. Only then are older checkpoints removed, each by a rename first, so that no final name
 * ever shows a part. */
#define _GNU_SOURCE // asprintf, renameat2
#include "base/file.h"
#include "train/checkpoint_parts.h"
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 16 };

struct checkpoint_store {
    char *run_dir;
    int lock;
    i64 keep, *milestones, n_milestones;
    checkpoint_talk talk;
    void *talk_context;
    checkpoint *saving; // handed to its thread, not yet waited for
};

struct checkpoint {
    checkpoint_store *store;
    i64 step;
    char *folder, *final; // RUN/step_N.tmp-PID and RUN/step_N
    manifest_file files[MAX_FILES];
    int fds[MAX_FILES]; // open until synced
    int n_files;
    pthread_t thread;
    status result, warning; // of the thread
};

static status no_memory(const char *path) { return fail(ERR_MEMORY, "%s: out of memory", path); }

/* ---- the store */

/* The folder that PATH lies in, to sync it once PATH was made there. */
static status sync_parent(const char *path)
{
    char *parent;
    if (asprintf(&parent, "%s/..", path) < 0) return no_memory(path);
    status s = dir_sync(parent);
    free(parent);
    return s;
}

static status take_lock(checkpoint_store *store)
{
    char *path, holder[32] = "";
    if (asprintf(&path, "%s/lock", store->run_dir) < 0) return no_memory(store->run_dir);
    store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    status s = store->lock < 0 ? fail(ERR_IO, "%s: cannot create: %s", path, strerror(errno)) : OK;
    if (!s && flock(store->lock, LOCK_EX | LOCK_NB)) {
        int number = errno;
        ssize_t n = pread(store->lock, holder, sizeof holder - 1, 0);
        holder[MAX(n, 0)] = 0;
        holder[strspn(holder, "0123456789")] = 0;
        s = number == EWOULDBLOCK
                ? fail(ERR_IO, "%s: process %s is training into this folder; wait for it or choose another",
                       store->run_dir, *holder ? holder : "(unknown)")
                : fail(ERR_IO, "%s: cannot lock: %s", path, strerror(number));
    }
    if (!s) {
        int n = snprintf(holder, sizeof holder, "%ld\n", (long)getpid());
        bool written = !ftruncate(store->lock, 0) && pwrite(store->lock, holder, (size_t)n, 0) == n;
        (void)written; // the number is for a message only: on a full disk the lock holds all the same
    }
    free(path);
    return s;
}

static void store_free(checkpoint_store *store)
{
    if (store->lock >= 0) close(store->lock);
    free(store->milestones);
    free(store->run_dir);
    free(store);
}

status checkpoint_open(const char *run_dir, const checkpoint_options *options, checkpoint_store **out)
{
    TRY(dir_make(run_dir));
    checkpoint_store *store = calloc(1, sizeof *store);
    if (!store) return no_memory(run_dir);
    *store = (checkpoint_store){.run_dir = strdup(run_dir),
                                .lock = -1,
                                .keep = options->keep,
                                .milestones = calloc((size_t)options->n_milestones + 1, sizeof(i64)),
                                .n_milestones = options->n_milestones,
                                .talk = options->talk,
                                .talk_context = options->talk_context};
    status s = store->run_dir && store->milestones ? OK : no_memory(run_dir);
    if (!s && options->n_milestones)
        memcpy(store->milestones, options->milestones, (size_t)options->n_milestones * sizeof(i64));
    if (!s) s = take_lock(store);
    if (!s) s = checkpoint_sweep(run_dir);
    if (!s) s = sync_parent(run_dir);
    if (s)
        store_free(store);
    else
        *out = store;
    return s;
}

status checkpoint_milestones(checkpoint_store *store, const i64 *steps, i64 n)
{
    TRY(checkpoint_wait(store)); // its thread reads them
    i64 *copy = calloc((size_t)n + 1, sizeof *copy);
    if (!copy) return no_memory(store->run_dir);
    if (n) memcpy(copy, steps, (size_t)n * sizeof *copy);
    free(store->milestones);
    store->milestones = copy, store->n_milestones = n;
    return OK;
}

status checkpoint_close(checkpoint_store *store)
{
    status s = checkpoint_wait(store);
    store_free(store);
    return s;
}

/* ---- writing, on the caller's thread */

static void checkpoint_free(checkpoint *c)
{
    for (int i = 0; i < c->n_files; i++) {
        if (c->fds[i] >= 0) close(c->fds[i]);
        free((char *)c->files[i].name);
    }
    free(c->folder);
    free(c->final);
    free(c);
}

void checkpoint_abandon(checkpoint *c)
{
    if (!c) return;
    status_drop(tree_remove(c->folder)); // what cannot be removed now is swept when the run is next opened
    checkpoint_free(c);
}

status checkpoint_begin(checkpoint_store *store, i64 step, checkpoint **out)
{
    assert(step >= 0);
    TRY(checkpoint_wait(store));
    checkpoint *c = calloc(1, sizeof *c);
    if (!c) return no_memory(store->run_dir);
    c->store = store, c->step = step;
    if (asprintf(&c->final, "%s/step_%lld", store->run_dir, (long long)step) < 0) c->final = NULL;
    if (!c->final || asprintf(&c->folder, "%s.tmp-%ld", c->final, (long)getpid()) < 0) c->folder = NULL;
    status s = c->folder ? tree_remove(c->folder) : no_memory(store->run_dir);
    if (!s && mkdir(c->folder, 0777))
        s = fail(ERR_IO, "%s: cannot create the folder: %s", c->folder, strerror(errno));
    if (s)
        checkpoint_free(c);
    else
        *out = c;
    return s;
}

/* Opens file NAME in C's folder; *path is for messages, released with free. */
static status add_file(checkpoint *c, const char *name, int *fd, char **path)
{
    assert(c->n_files < MAX_FILES);
    for (const char *p = name; *p; p++) assert(isalnum((u8)*p) || strchr("._-", *p));
    char *copy = strdup(name);
    if (!copy || asprintf(path, "%s/%s", c->folder, name) < 0) {
        free(copy);
        return no_memory(c->folder);
    }
    *fd = open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    c->fds[c->n_files] = *fd;
    c->files[c->n_files++].name = copy;
    if (*fd >= 0) return OK;
    status s = fail(ERR_IO, "%s: cannot create: %s", *path, strerror(errno));
    free(*path);
    return s;
}

status checkpoint_arrays(checkpoint *c, const char *name, const st_entry *entries, i64 n,
                         const st_pair *metadata, i64 n_metadata)
{
    int fd;
    char *path = NULL;
    st_writer *w;
    status s = add_file(c, name, &fd, &path);
    if (!s) {
        s = st_attach(fd, path, entries, n, metadata, n_metadata, &w);
        for (i64 i = 0; !s && i < n; i++)
            s = st_write(w, entries[i].data, (size_t)st_entry_bytes(&entries[i]));
        if (!s) s = st_end(w, &c->files[c->n_files - 1].sum);
        free(path);
    }
    if (s) checkpoint_abandon(c);
    return s;
}

status checkpoint_file(checkpoint *c, const char *name, const void *data, size_t bytes)
{
    int fd;
    char *path = NULL;
    status s = add_file(c, name, &fd, &path);
    if (!s) {
        s = fd_write_all(fd, data, bytes, path);
        c->files[c->n_files - 1].sum = digest_memory(data, bytes);
        free(path);
    }
    if (s) checkpoint_abandon(c);
    return s;
}

/* ---- what waits for the disk, on a thread of its own */

static status sync_file(int fd, const char *path)
{
    status s = fd_sync(fd, path);
    if (close(fd) && !s)
        s = fail(ERR_IO, "%s: cannot close: %s", path, strerror(errno)); // a late error, on NFS
    return s;
}

static status sync_files(checkpoint *c)
{
    for (int i = 0; i < c->n_files; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", c->folder, c->files[i].name) < 0) return no_memory(c->folder);
        status s = sync_file(c->fds[i], path);
        c->fds[i] = -1;
        free(path);
        if (s) return s;
    }
    return OK;
}

static status write_manifest(checkpoint *c)
{
    text t = {0};
    char *path;
    int n = c->n_files, fd;
    checkpoint_manifest_write(&t, c->step, c->files, n);
    status s = add_file(c, "manifest.json", &fd, &path);
    if (!s) {
        s = fd_write_all(fd, t.data, t.bytes, path);
        if (!s) s = fd_sync(fd, path);
        free(path);
    }
    text_free(&t);
    return s;
}

/* Gives the folder its final name. A checkpoint of the same step that stands there (a run resumed from an
 * earlier one) changes places with it in one step, so that at no moment there is neither. */
static status take_name(checkpoint *c)
{
    if (!path_exists(c->final)) return path_rename(c->folder, c->final);
    if (fault_hit(FAULT_RENAME))
        return fail(ERR_IO, "%s: cannot rename to its final name: %s", c->folder, strerror(EIO));
    if (!renameat2(AT_FDCWD, c->folder, AT_FDCWD, c->final, RENAME_EXCHANGE)) return tree_remove(c->folder);
    if (errno != EINVAL && errno != ENOSYS)
        return fail(ERR_IO, "%s: cannot rename to its final name: %s", c->folder, strerror(errno));
    TRY(checkpoint_remove(c->store->run_dir,
                          c->step)); // a file system that cannot exchange: the one before remains
    return path_rename(c->folder, c->final);
}

/* Removes checkpoints before this one that are neither among the newest nor milestones. Later ones are left
 * alone: they are damaged, or the run would have resumed from them. */
static status retain(const checkpoint *c)
{
    i64 *steps, n, kept = 0;
    const checkpoint_store *store = c->store;
    if (store->keep <= 0) return OK;
    TRY(checkpoint_steps(store->run_dir, &steps, &n));
    status s = OK;
    for (i64 i = 0; !s && i < n; i++) {
        bool milestone = false;
        for (i64 m = 0; m < store->n_milestones; m++) milestone |= store->milestones[m] == steps[i];
        if (steps[i] > c->step || ++kept <= store->keep || milestone) continue;
        s = checkpoint_remove(store->run_dir, steps[i]);
    }
    free(steps);
    return s;
}

static void *save(void *arg)
{
    checkpoint *c = arg;
    status s = sync_files(c);
    if (!s) s = write_manifest(c);
    if (!s) s = dir_sync(c->folder);
    if (!s) s = take_name(c);
    if (s)
        status_drop(tree_remove(c->folder));
    else {
        s = dir_sync(c->store->run_dir);
        if (!s) c->warning = retain(c);
    }
    c->result = s;
    return NULL;
}

status checkpoint_finish(checkpoint *c)
{
    sigset_t all, before;
    sigfillset(&all); // signals are the main thread's business
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&c->thread, NULL, save, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!e) {
        c->store->saving = c;
        return OK;
    }
    status s = fail(ERR_MEMORY, "%s: cannot start a thread to save it: %s", c->final, strerror(e));
    checkpoint_abandon(c);
    return s;
}

status checkpoint_wait(checkpoint_store *store)
{
    checkpoint *c = store->saving;
    if (!c) return OK;
    pthread_join(c->thread, NULL);
    store->saving = NULL;
    if (c->warning && store->talk) store->talk(store->talk_context, c->warning->message);
    status_drop(c->warning);
    status s = wrap(c->result, "checkpoint of step %lld", (long long)c->step);
    checkpoint_free(c);
    return s;
}

status checkpoint_discard_after(checkpoint_store *store, i64 step)
{
    i64 *steps, n;
    TRY(checkpoint_wait(store));
    TRY(checkpoint_steps(store->run_dir, &steps, &n));
    status s = OK;
    for (i64 i = 0; !s && i < n && steps[i] > step; i++) s = checkpoint_remove(store->run_dir, steps[i]);
    free(steps);
    return s;
}
