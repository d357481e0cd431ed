/* A handle's life, its status, and what a call finds and leaves. See handle.h and keel/keel.h.
 *
 * OpenMP's number of threads belongs to the thread that calls, and oneDNN makes its primitives for the number
 * at that moment. So every call sets the handle's number and gives the caller's back: whichever thread uses a
 * handle, its kernels run with the threads it was made for, and the caller's own regions with theirs.
 *
 * The same with the locale: a program that speaks German writes 0,5, and would read and write configurations
 * so. */
#define _GNU_SOURCE // uselocale
#include "library/handle.h"
#include <assert.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static_assert((int)KEEL_ERROR_USAGE == ERR_USAGE && (int)KEEL_ERROR_CONFIG == ERR_CONFIG &&
                  (int)KEEL_ERROR_INPUT == ERR_INPUT && (int)KEEL_ERROR_FORMAT == ERR_FORMAT &&
                  (int)KEEL_ERROR_IO == ERR_IO && (int)KEEL_ERROR_MEMORY == ERR_MEMORY &&
                  (int)KEEL_ERROR_NUMERIC == ERR_NUMERIC && (int)KEEL_STOPPED == ERR_STOPPED &&
                  (int)KEEL_ERROR_CHECK == ERR_CHECK,
              "a status outside is the one inside");

const char *keel_version(void) { return KEEL_VERSION; }
int keel_version_number(void) { return KEEL_VERSION_NUMBER; }

const char *keel_status_name(keel_status s)
{
    static const char *const names[] = {"ok", "usage",  "config",  "input",   "format",
                                        "io", "memory", "numeric", "stopped", "check"};
    return (int)s >= 0 && (int)s < COUNT(names) ? names[s] : "unknown";
}

keel_model *keel_new(const keel_machine *machine)
{
    keel_model *m;
    status s = mem_alloc(sizeof *m, "a handle", &m);
    if (s) return status_drop(s), NULL;
    m->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!m->locale) return mem_free(m), NULL;
    if (!machine) return m;
    m->machine = *machine;
    m->isa_unknown = machine->isa && strlen(machine->isa) >= sizeof m->isa_name;
    if (machine->isa && !m->isa_unknown) m->machine.isa = strcpy(m->isa_name, machine->isa);
    return m;
}

void engine_close(model_engine *e)
{
    decoder_close(e->decoder);
    scorer_close(e->scorer);
    session_close(e->session);
    *e = (model_engine){0};
}

void keel_free(keel_model *m)
{
    if (!m) return;
    engine_close(&m->engine);
    if (m->source == MODEL_OPENED)
        model_files_close(&m->files);
    else {
        config_close(m->config);
        tokenizer_close(m->tokenizer);
    }
    for (i64 i = 0; i < m->n_settings; i++) free(m->settings[i]);
    free(m->settings);
    free(m->name);
    free(m->yaml);
    device_close(m->device);
    status_drop(m->failed);
    freelocale(m->locale);
    mem_free(m);
}

keel_status keel_last_status(const keel_model *m)
{
    return !m ? KEEL_ERROR_USAGE : m->failed ? (keel_status)m->failed->code : KEEL_OK;
}

const char *keel_message(const keel_model *m)
{
    return !m          ? "there is no handle: keel_new gives one, or memory is out"
           : m->failed ? m->failed->message
                       : "";
}

void keel_release(void *memory) { free(memory); }

/* ---- entering and leaving a call */

bool handle_enter(keel_model *m)
{
    if (!m || __atomic_exchange_n(&m->busy, 1, __ATOMIC_ACQUIRE)) return false;
    status_drop(m->failed);
    m->failed = OK;
    m->stop = 0;
    handle_inside(m);
    return true;
}

void handle_inside(keel_model *m)
{
    m->locale_outside = uselocale(m->locale);
    m->threads_outside = omp_get_max_threads();
    if (m->device) omp_set_num_threads((int)device_about(m->device)->threads);
}

void handle_outside(keel_model *m)
{
    omp_set_num_threads(m->threads_outside);
    uselocale(m->locale_outside);
}

keel_status handle_leave(keel_model *m, status s)
{
    keel_status code = s ? (keel_status)s->code : KEEL_OK;
    m->failed = s;
    handle_outside(m);
    __atomic_store_n(&m->busy, 0, __ATOMIC_RELEASE);
    return code;
}

status need_device(keel_model *m)
{
    if (omp_in_parallel())
        return fail(ERR_USAGE, "a call inside an OpenMP parallel region; make it outside, or from a thread");
    if (m->device) return OK;
    if (m->isa_unknown) return fail(ERR_USAGE, "no such instruction-set level; it must be plain, v3 or v4");
    TRY(device_open(&(device_options){m->machine.isa, m->machine.threads}, &m->device));
    m->isa = device_about(m->device)->level;
    return OK;
}
