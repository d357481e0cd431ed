/* What verbs that compute share: see machine.h. */
#include "cli/machine.h"
#include "base/text.h"
#include "device/host.h"
#include <stdio.h>
#include <string.h>

static error_t parse(int key, char *arg, struct argp_state *state)
{
    machine_args *a = state->input;
    switch (key) {
    case 'I':
        a->isa = arg;
        return 0;
    case 'T':
        if (!parse_i64(arg, &a->threads) || a->threads < 1 || a->threads > 4096)
            argp_error(state, "--threads=%s: expected a number from 1 to 4096", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (!a->takes_config) return ARGP_ERR_UNKNOWN;
        if (strchr(arg, '=')) {
            if (a->n_overrides == MOST_OVERRIDES) argp_error(state, "more than %d overrides", MOST_OVERRIDES);
            a->overrides[a->n_overrides++] = arg;
        } else if (a->config)
            argp_error(state, "two configurations: '%s' and '%s' (an override is key=value)", a->config, arg);
        else
            a->config = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"isa", 'I', "plain|v3|v4", 0, "Kernels of this level (default: the best this machine has)", 10},
    {"threads", 'T', "N", 0, "Threads (default: the CPUs we may use, at most OMP_NUM_THREADS)", 10},
    {0}};
const struct argp machine_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

/* "; 3 of this machine's 4 CPUs stay idle": those that nobody's order, mask or quota lets us use, too. */
static const char *idle_cores(i64 threads, char out[80])
{
    host_facts host;
    *out = 0;
    host_detect(NULL, &host);
    if (threads < host.processors)
        snprintf(out, 80, "; %lld of this machine's %lld CPUs stay idle",
                 (long long)(host.processors - threads), (long long)host.processors);
    return out;
}

status machine_open(const machine_args *a, device **out, isa *level)
{
    char text[80];
    TRY(device_open(&(device_options){a->isa, a->threads}, out));
    const device_facts *f = device_about(*out);
    const char *idle = idle_cores(f->threads, text);
    *level = f->level;
    fprintf(stderr, "machine: %s, %s kernels, %lld thread%s (%s)%s\n", f->cpu, isa_name(f->level),
            (long long)f->threads, f->threads == 1 ? "" : "s", f->why, idle);
    return OK;
}

status machine_config(const machine_args *a, config **out)
{
    return config_load(a->config, a->overrides, a->n_overrides, out);
}

/* A signal handler can reach nothing but a global: the one there is. */
static volatile sig_atomic_t stop;
static void on_signal(int number)
{
    // The same asked a second time, or Ctrl-C: no longer handled, so it kills once this returns. A
    // scheduler's SIGUSR1 followed by its SIGTERM must not: the state is being saved.
    if (stop && (stop == number || number == SIGINT)) {
        signal(number, SIG_DFL);
        raise(number);
    } else if (!stop)
        stop = number;
}

const volatile sig_atomic_t *stop_on_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1};
    for (int i = 0; i < COUNT(numbers); i++) {
        struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        sigaction(numbers[i], &act, NULL);
    }
    return &stop;
}

int stop_signal(void) { return stop; }
