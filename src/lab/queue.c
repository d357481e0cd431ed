#define _GNU_SOURCE // sched_setaffinity
/* Executing runs: see queue.h. */
#include "lab/queue.h"
#include "base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_JOBS = 64, DIVERGED = 3 };

typedef struct slot {
    lab_job *job; // NULL: free
    pid_t pid;
    double from;
} slot;

typedef struct queue {
    lab_plan *p;
    const lab_queue_options *o;
    slot slots[MOST_JOBS];
    i64 n_slots, running;
    bool stopping;
    double flops_done, seconds_done; // of the runs that ended here
} queue;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void say(const queue *q, const char *format, ...) PRINTF(2, 3);
static void say(const queue *q, const char *format, ...)
{
    char line[768];
    va_list args;
    if (!q->p->o.talk) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    q->p->o.talk(q->p->o.context, line);
}

/* ---- starting a run */

/* The AT-th share of the processors we may use; nothing where there are not enough. */
static void pin(i64 at, i64 threads, i64 slots)
{
    cpu_set_t may, mine;
    i64 seen = 0;
    if (slots < 2 || sched_getaffinity(0, sizeof may, &may) || CPU_COUNT(&may) < slots * threads) return;
    CPU_ZERO(&mine);
    for (int c = 0; c < CPU_SETSIZE; c++) {
        if (!CPU_ISSET(c, &may)) continue;
        if (seen >= at * threads && seen < (at + 1) * threads) CPU_SET(c, &mine);
        seen++;
    }
    sched_setaffinity(0, sizeof mine, &mine);
}

/* What a run needs to be saved once, and not twice or never: a terminal's Ctrl-C, like a scheduler's signal,
 * reaches it and us, and a second signal kills it in the middle of saving. So it does not hear of SIGINT but
 * by us (stop_all), and when we die without a word it is told to stop. */
static void child_signals(pid_t parent)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127); // it died before
}

static void child(const queue *q, i64 at, const char *const *argv, int log, pid_t parent)
{
    int nothing = open("/dev/null", O_RDWR);
    child_signals(parent);
    dup2(nothing, 0);
    dup2(nothing, 1);
    dup2(log, 2);
    pin(at, q->o->threads, q->n_slots);
    execv(q->o->binary, (char *const *)(uintptr_t)argv);
    dprintf(2, "cannot run %s: %s\n", q->o->binary, strerror(errno));
    _exit(127);
}

static const char *const *command(const queue *q, const lab_job *j)
{
    arena *a = q->p->arena;
    const char **argv = arena_array(a, const char *, j->n_words + 20);
    i64 n = 0;
    argv[n++] = "keel";
    argv[n++] = "train";
    if (q->p->e->base) argv[n++] = q->p->e->base;
    for (i64 i = 0; i < j->n_words; i++) argv[n++] = j->words[i];
    argv[n++] = "--out";
    argv[n++] = j->folder;
    argv[n++] = "--resume";
    argv[n++] = "--threads";
    argv[n++] = arena_printf(a, "%lld", (long long)q->o->threads);
    argv[n++] = "--isa";
    argv[n++] = isa_name(q->p->o.isa);
    argv[n++] = "--name";
    argv[n++] = arena_printf(a, "%s: %s", q->p->e->name, j->label);
    return argv;
}

static status start(queue *q, i64 at, lab_job *j)
{
    char *log = arena_printf(q->p->arena, "%s/train.log", j->folder);
    if (q->p->o.again) TRY(tree_remove(j->folder));
    TRY(dir_make(j->folder));
    const char *const *argv = command(q, j);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail(ERR_IO, "%s: cannot open: %s", log, strerror(errno));
    pid_t self = getpid(), pid = fork();
    if (!pid) child(q, at, argv, fd, self);
    close(fd);
    if (pid < 0) return fail(ERR_IO, "cannot start a process: %s", strerror(errno));
    q->slots[at] = (slot){.job = j, .pid = pid, .from = now()};
    q->running++;
    return OK;
}

/* ---- a run ended */

/* The last line that it said, which is what it failed with. */
static const char *last_words(arena *a, const char *folder)
{
    char *data;
    size_t bytes;
    status s = file_read(arena_printf(a, "%s/train.log", folder), &data, &bytes);
    if (s) {
        status_drop(s);
        return "it left no log";
    }
    while (bytes && data[bytes - 1] == '\n') data[--bytes] = 0;
    const char *line = strrchr(data, '\n');
    const char *kept = arena_strdup(a, line ? line + 1 : data);
    mem_free(data);
    return *kept ? kept : "it said nothing";
}

static void tell(const queue *q, const lab_job *j)
{
    const lab_result *r = &j->result;
    char rate[32], time[32];
    i64 all, known;
    lab_plan_count(q->p, &all, &known);
    if (result_is(r, "done"))
        say(q, "%lld/%lld  %s: %.4f bits/byte, %s tokens/s, %s", (long long)known, (long long)all, j->label,
            r->bits_per_byte, show_count(r->tokens_per_s, rate), show_seconds(r->seconds, time));
    else
        say(q, "%lld/%lld  %s: %s%s%s", (long long)known, (long long)all, j->label, r->status,
            *r->message ? ": " : "", r->message);
}

/* ---- what each layer is worth */

/* The first line that `keel WORDS` prints, in A; NULL when it fails. */
static const char *first_line(const queue *q, arena *a, const char *const *argv)
{
    int ends[2];
    char *line = arena_alloc(a, 1 << 16);
    i64 n = 0;
    if (pipe2(ends, O_CLOEXEC)) return NULL;
    pid_t pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, 0);
        dup2(ends[1], 1);
        dup2(nothing, 2);
        execv(q->o->binary, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(ends[1]);
    for (ssize_t got = 1; pid > 0 && got > 0 && n < (1 << 16) - 1; n += MAX(got, (ssize_t)0))
        got = read(ends[0], line + n, (size_t)((1 << 16) - 1 - n));
    close(ends[0]);
    int how = -1;
    while (pid > 0 && waitpid(pid, &how, 0) < 0 && errno == EINTR) continue;
    return pid > 0 && !how ? line : NULL;
}

/* Drops every layer of the run in turn (keel eval layers); a failure is said, and there are no figures. */
static void drop_layers(const queue *q, const lab_job *j, lab_result *r)
{
    arena *a = q->p->arena;
    const char *argv[] = {"keel",
                          "eval",
                          "layers",
                          j->folder,
                          "--json",
                          "--threads",
                          arena_printf(a, "%lld", (long long)q->o->threads),
                          NULL};
    const char *line = first_line(q, a, argv);
    json_t *all = line ? json_loads(line, 0, NULL) : NULL;
    const json_t *layers = json_object_get(all, "layers");
    r->layers = arena_array(a, double, json_array_size(layers) + 1);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *cost = json_object_get(json_array_get(layers, i), "increase");
        r->layers[r->n_layers++] = json_is_number(cost) ? json_number_value(cost) : NAN;
    }
    if (!r->n_layers) say(q, "warning: %s: keel eval layers %s failed", j->label, j->folder);
    json_decref(all);
}

static status ended(queue *q, slot *s, int how)
{
    lab_job *j = s->job;
    lab_result r = j->result;
    bool diverged = WIFEXITED(how) && WEXITSTATUS(how) == DIVERGED,
         good = WIFEXITED(how) && !WEXITSTATUS(how);
    s->job = NULL;
    q->running--;
    if ((q->stopping || (q->o->stop && *q->o->stop)) && !good && !diverged)
        return OK; // the next call goes on
    status e = good || diverged ? result_of_run(q->p->arena, j->folder, &r) : OK;
    if (e) {
        r.message = arena_strdup(q->p->arena, e->message);
        good = diverged = false;
        status_drop(e);
    } else if (!good && !diverged)
        r.message = WIFSIGNALED(how) ? arena_printf(q->p->arena, "killed by signal %d: %s", WTERMSIG(how),
                                                    strsignal(WTERMSIG(how)))
                                     : last_words(q->p->arena, j->folder);
    r.status = good ? "done" : diverged ? "diverged" : "failed";
    if (good && q->p->e->layers) drop_layers(q, j, &r);
    if (diverged) r.message = last_words(q->p->arena, j->folder);
    if (good && j->flops > 0) q->flops_done += j->flops, q->seconds_done += now() - s->from;
    if (q->flops_done > 0) q->p->seconds_per_flop = q->seconds_done / q->flops_done;
    if (!good && !diverged)
        r = (lab_result){.experiment = r.experiment,
                         .scale = r.scale,
                         .arm = r.arm,
                         .value = r.value,
                         .status = "failed",
                         .message = r.message,
                         .identity = r.identity,
                         .code = code_version(),
                         .settings = r.settings,
                         .seed = r.seed,
                         .seconds = NAN,
                         .tokens_per_s = NAN,
                         .memory = NAN,
                         .flops_per_token = NAN,
                         .loss = NAN,
                         .bits_per_byte = NAN,
                         .processor_share = NAN};
    r.session = q->p->session;
    j->result = r;
    tell(q, j);
    return lab_plan_save(q->p);
}

static status reap(queue *q)
{
    for (i64 i = 0; i < q->n_slots; i++) {
        int how;
        if (!q->slots[i].job || waitpid(q->slots[i].pid, &how, WNOHANG) != q->slots[i].pid) continue;
        TRY(ended(q, &q->slots[i], how));
    }
    return OK;
}

/* ---- what is going on */

/* Step and loss of the last whole line of a run's metrics; false: none yet. */
static bool last_step(const char *folder, arena *a, double *step, double *loss)
{
    char tail[1024];
    bool found = false;
    int fd = open(arena_printf(a, "%s/metrics.jsonl", folder), O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = end > (off_t)sizeof tail - 1 ? end - (off_t)sizeof tail + 1 : 0;
    ssize_t n = fd < 0 ? 0 : pread(fd, tail, sizeof tail - 1, from);
    if (fd >= 0) close(fd);
    for (char *line = tail, *stop; n > 0 && line < tail + n; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(tail + n - line));
        if (!stop) break;
        json_t *j = json_loadb(line, (size_t)(stop - line), 0, NULL);
        const json_t *s = json_object_get(j, "step"), *l = json_object_get(j, "loss");
        if (json_is_number(s) && json_is_number(l))
            *step = json_number_value(s), *loss = json_number_value(l), found = true;
        json_decref(j);
    }
    return found;
}

static i64 steps_of(const lab_job *j)
{
    for (i64 i = 0; i < j->n_words; i++) {
        i64 n;
        if (!strncmp(j->words[i], "train.steps=", 12) && parse_i64(j->words[i] + 12, &n)) return n;
    }
    return 0;
}

static void show(queue *q)
{
    text t = {0};
    arena *a;
    char left[32];
    i64 all, known;
    double seconds;
    if (!q->o->live) return;
    status s = arena_open(&a);
    if (!s) s = lab_plan_seconds(q->p, &seconds);
    if (s) {
        status_drop(s);
        return;
    }
    lab_plan_count(q->p, &all, &known);
    text_add(&t, "%lld of %lld runs, %s left", (long long)known, (long long)all, show_seconds(seconds, left));
    for (i64 i = 0; i < q->n_slots; i++) {
        double step, loss;
        const lab_job *j = q->slots[i].job;
        if (!j) continue;
        text_add(&t, " | %s", j->label);
        if (!last_step(j->folder, a, &step, &loss)) continue;
        i64 steps = steps_of(j);
        text_add(&t, steps ? ": %.0f/%lld" : ": step %.0f", step, (long long)steps);
        text_add(&t, " loss %.3f", loss);
    }
    q->o->live(q->o->context, t.data);
    text_free(&t);
    arena_close(a);
}

/* ---- the loop */

static lab_job *next_job(const queue *q)
{
    for (i64 i = 0; i < q->p->n_jobs; i++) {
        lab_job *j = &q->p->jobs[i];
        bool taken = j->result.status != NULL;
        for (i64 k = 0; k < q->n_slots; k++) taken |= q->slots[k].job == j;
        if (!taken) return j;
    }
    return NULL;
}

/* Another signal than ours: who sends to a whole group has sent them that one, and the same twice kills. */
static void stop_all(queue *q)
{
    int with = q->o->stop && *q->o->stop == SIGTERM ? SIGUSR1 : SIGTERM;
    if (!q->stopping) say(q, "stopping: the runs save their state ...");
    for (i64 i = 0; i < q->n_slots; i++)
        if (q->slots[i].job && !q->stopping) kill(q->slots[i].pid, with);
    q->stopping = true;
}

static status work(queue *q)
{
    i64 ticks = 0, added;
    for (;;) {
        if (q->o->stop && *q->o->stop) stop_all(q);
        for (i64 i = 0; i < q->n_slots && !q->stopping; i++) {
            lab_job *j = q->slots[i].job ? NULL : next_job(q);
            if (j) TRY(start(q, i, j));
        }
        if (!q->running) {
            if (q->stopping)
                return fail(ERR_STOPPED, "stopped; the same command%s goes on",
                            q->p->o.again ? " without --again" : "");
            TRY(lab_plan_extend(q->p, &added));
            if (!added) return lab_plan_save(q->p);
            continue; // pointers into the jobs are taken anew: none are held while nothing runs
        }
        nanosleep(&(struct timespec){0, 50 * 1000 * 1000}, NULL);
        TRY(reap(q));
        if (ticks++ % 10 == 0) show(q);
    }
}

/* Two calls on one folder would each write over the other's results. Held until *lock is closed. */
static status take_lock(const lab_plan *p, int *lock)
{
    const char *path = arena_printf(p->arena, "%s/lock", p->folder);
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*lock < 0) return fail(ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    if (!flock(*lock, LOCK_EX | LOCK_NB)) return OK;
    status s =
        errno == EWOULDBLOCK
            ? fail(ERR_IO, "%s: another keel lab run is at work in this folder; wait for it", p->folder)
            : fail(ERR_IO, "%s: cannot lock: %s", path, strerror(errno));
    close(*lock);
    return s;
}

status lab_queue_run(lab_plan *p, const lab_queue_options *o)
{
    queue q = {.p = p, .o = o, .n_slots = MIN(MAX(p->o.jobs, (i64)1), (i64)MOST_JOBS)};
    int lock;
    TRY(take_lock(p, &lock));
    status s = work(&q);
    if (s && q.running) {
        stop_all(&q);
        for (i64 i = 0; i < q.n_slots; i++)
            while (q.slots[i].job && waitpid(q.slots[i].pid, NULL, 0) < 0 && errno == EINTR) continue;
    }
    close(lock);
    return s;
}
