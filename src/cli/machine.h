/* machine: what verbs that compute share: a configuration with overrides, the processor, stopping on a
 * signal.
 *
 *     static const struct argp_child children[] = {{&machine_argp, 0, 0, 0}, {0}};
 *     ... state->child_inputs[0] = &a->machine (ARGP_KEY_INIT) ...
 *     TRY(machine_open(&a.machine, &d, &level));
 */
#pragma once
#include "config/config.h"
#include "device/device.h"
#include <argp.h>
#include <signal.h>

enum { MOST_OVERRIDES = 256 };
typedef struct machine_args {
    const char *isa;
    i64 threads;
    const char *config;                    // first argument without '='; NULL: none given
    const char *overrides[MOST_OVERRIDES]; // arguments with '='
    i64 n_overrides;
    bool takes_config; // arguments are CONFIG and key=value
} machine_args;
extern const struct argp machine_argp; // --isa, --threads, and CONFIG key=value where takes_config

/* Opens the processor and says to stderr how many threads of what it uses. */
status machine_open(const machine_args *a, device **out, isa *level) MUST;
status machine_config(const machine_args *a, config **out) MUST;

/* After this the first of SIGINT, SIGTERM and SIGUSR1 sets *the flag returned* to its number; a second kills.
 */
const volatile sig_atomic_t *stop_on_signals(void);
int stop_signal(void); // 0: none came
