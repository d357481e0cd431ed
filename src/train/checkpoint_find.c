/* The checkpoints of a run's folder: listing, finding the newest whole one, removing. See checkpoint.h. */
#define _GNU_SOURCE // asprintf
#include "base/file.h"
#include "train/checkpoint_parts.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "step_200" -> 200; "step_0200", "step_", "step_2x": false. */
static bool step_of(const char *name, i64 *step)
{
    const char *digits = name + 5;
    if (strncmp(name, "step_", 5) || !isdigit((u8)*digits) || (digits[0] == '0' && digits[1])) return false;
    return parse_i64(digits, step);
}

static int newest_first(const void *a, const void *b)
{
    i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return (x < y) - (x > y);
}

status checkpoint_steps(const char *run_dir, i64 **steps, i64 *n)
{
    i64 capacity = 0, step;
    *steps = NULL, *n = 0;
    DIR *dir = opendir(run_dir);
    if (!dir && errno == ENOENT) return OK;
    if (!dir) return fail(ERR_IO, "%s: cannot list the folder: %s", run_dir, strerror(errno));
    status s = OK;
    for (struct dirent *e; !s && (e = readdir(dir));) {
        if (!step_of(e->d_name, &step)) continue;
        if (*n == capacity) {
            capacity = 2 * capacity + 16;
            i64 *more = realloc(*steps, (size_t)capacity * sizeof **steps);
            if (more)
                *steps = more;
            else
                s = fail(ERR_MEMORY, "%s: out of memory", run_dir);
        }
        if (!s) (*steps)[(*n)++] = step;
    }
    closedir(dir);
    if (s) {
        free(*steps);
        *steps = NULL, *n = 0;
    } else if (*n)
        qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return s;
}

bool checkpoint_any(const char *run_dir)
{
    i64 *steps, n;
    status s = checkpoint_steps(run_dir, &steps, &n);
    if (s) return status_drop(s), false;
    free(steps);
    return n > 0;
}

status checkpoint_latest(const char *run_dir, checkpoint_talk talk, void *talk_context, char **path,
                         i64 *step)
{
    i64 *steps, n, found;
    *path = NULL, *step = -1;
    TRY(checkpoint_steps(run_dir, &steps, &n));
    status s = OK;
    for (i64 i = 0; !s && *step < 0 && i < n; i++) {
        char *candidate;
        if (asprintf(&candidate, "%s/step_%lld", run_dir, (long long)steps[i]) < 0) {
            s = fail(ERR_MEMORY, "%s: out of memory", run_dir);
            break;
        }
        status damage = checkpoint_verify(candidate, &found);
        if (!damage && found != steps[i])
            damage = fail(ERR_FORMAT, "%s: its manifest is of step %lld; the folder was renamed", candidate,
                          (long long)found);
        if (!damage) {
            *path = candidate, *step = found;
            break;
        }
        if (damage->code == ERR_MEMORY)
            s = damage;
        else {
            if (talk) talk(talk_context, damage->message);
            status_drop(damage);
        }
        free(candidate);
    }
    free(steps);
    if (!s && n && *step < 0)
        s = fail(ERR_FORMAT, "%s: none of its %lld checkpoints is whole; move them away to start from step 0",
                 run_dir, (long long)n);
    return s;
}

status checkpoint_remove(const char *run_dir, i64 step)
{
    char *from = NULL, *to = NULL;
    bool complete = asprintf(&from, "%s/step_%lld", run_dir, (long long)step) >= 0;
    complete = complete && asprintf(&to, "%s.old.tmp-%ld", from, (long)getpid()) >= 0;
    status s = complete ? OK : fail(ERR_MEMORY, "%s: out of memory", run_dir);
    if (!s) s = tree_remove(to);
    if (!s) s = path_rename(from, to);
    if (!s) s = tree_remove(to);
    free(from);
    free(to);
    return s;
}

/* Is NAME a leftover? Any step_*.tmp-PID is, since its maker must have held the lock that the caller now
 * holds (its number may meanwhile, or in another container, be that of a living process). Other files' makers
 * need no lock (a report, say): there the process must be gone. */
static bool leftover(const char *name)
{
    const char *pid = strstr(name, ".tmp-");
    i64 number;
    if (!pid || !isdigit((u8)pid[5]) || !parse_i64(pid + 5, &number) || number <= 0 || number > INT32_MAX)
        return false;
    return !strncmp(name, "step_", 5) || (kill((pid_t)number, 0) && errno == ESRCH);
}

status checkpoint_sweep(const char *run_dir)
{
    DIR *dir = opendir(run_dir);
    if (!dir) return fail(ERR_IO, "%s: cannot list the folder: %s", run_dir, strerror(errno));
    status s = OK;
    for (struct dirent *e; !s && (e = readdir(dir));) {
        char *path;
        if (!leftover(e->d_name)) continue;
        if (asprintf(&path, "%s/%s", run_dir, e->d_name) < 0) {
            s = fail(ERR_MEMORY, "%s: out of memory", run_dir);
            break;
        }
        s = tree_remove(path);
        free(path);
    }
    closedir(dir);
    return s;
}
