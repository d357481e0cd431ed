/* What a run leaves for others to read: its row in the registry and summary.json. Neither is ever a reason to
 * stop: what fails is said in a line. */
#include "base/file.h"
#include "train/libraries.h"
#include "train/run.h"
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const char *name_of(const trainer *t, const char *folder)
{
    const char *slash = strrchr(folder, '/');
    return t->o->name ? t->o->name : slash ? slash + 1 : folder;
}

static registry_run as_registered(const trainer *t, const char *folder, const char *yaml, const char *how,
                                  const char *libraries)
{
    const device_facts *machine = device_about(t->o->device);
    return (registry_run){.id = *t->state.run ? t->state.run : NULL,
                          .name = name_of(t, folder),
                          .folder = folder,
                          .identity = t->state.identity,
                          .config = yaml,
                          .code = t->state.code,
                          .isa = t->state.isa,
                          .libraries = libraries,
                          .host = machine->cpu,
                          .status = how,
                          .threads = machine->threads,
                          .started = (i64)time(NULL),
                          .ended = (i64)time(NULL),
                          .steps = t->state.step,
                          .tokens = t->state.tokens_seen,
                          .loss = t->result->loss,
                          .bits_per_byte = t->result->bits_per_byte};
}

static void set_number(json_t *j, const char *key, double value)
{
    json_object_set_new(j, key, isfinite(value) ? json_real(value) : json_null());
}

/* Of the processors' time that its threads could have had, the part this process got: well below 1, others
 * were in its way, and its speed says little. */
static double processor_share(const trainer *t)
{
    struct rusage used;
    double wall = clock_seconds() - t->began;
    if (getrusage(RUSAGE_SELF, &used) || wall <= 0) return NAN;
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    return (cpu - t->cpu_before) / wall / (double)device_about(t->o->device)->threads;
}

static status write_summary(const trainer *t, const registry_run *r)
{
    char path[PATH_MAX];
    file_writer *w;
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "name", r->name, "run",
                  t->result->id, "status", r->status, "code", r->code, "host", r->host, "isa", r->isa,
                  "libraries", r->libraries, "threads", (json_int_t)r->threads, "steps", (json_int_t)r->steps,
                  "tokens", (json_int_t)r->tokens, "parameters", (json_int_t)t->s->figures.parameters);
    if (!j) return fail(ERR_INPUT, "summary.json: the run's name is not valid UTF-8");
    json_object_set_new(j, "active_parameters", json_integer(t->s->figures.active_parameters));
    json_object_set_new(j, "memory", json_integer(t->s->memory.total));
    set_number(j, "processor_share", processor_share(t));
    set_number(j, "flops_per_token", t->s->figures.flops_per_token);
    set_number(j, "seconds", t->state.seconds);
    set_number(j, "loss", r->loss);
    set_number(j, "val_bits_per_byte", r->bits_per_byte);
    char *json = json_dumps(j, JSON_INDENT(1));
    json_decref(j);
    if (!json) return fail(ERR_MEMORY, "summary.json: out of memory");
    snprintf(path, sizeof path, "%s/summary.json", t->o->out);
    status s = file_create(path, &w);
    if (!s) s = file_printf(w, "%s\n", json);
    if (!s) s = file_commit(w);
    free(json);
    return s;
}

void record(trainer *t, const char *how)
{
    text yaml = {0};
    char folder[PATH_MAX];
    if (!realpath(t->o->out, folder)) snprintf(folder, sizeof folder, "%s", t->o->out);
    config_write(t->c, &yaml);
    char libraries[128];
    libraries_of_results(libraries, sizeof libraries);
    registry_run r = as_registered(t, folder, yaml.data, how, libraries);
    if (!strcmp(how, "running")) {
        if (!t->o->unregistered) warn(t, registry_open(NULL, REGISTRY_WRITE, &t->registry));
        warn(t, registry_begin(t->registry, &r, t->result->id));
        if (t->registry) snprintf(t->state.run, sizeof t->state.run, "%s", t->result->id);
    } else
        warn(t, registry_end(t->registry, t->result->id, &r));
    warn(t, write_summary(t, &r));
    text_free(&yaml);
}
