/* base: what every floor of the house stands on: integer names, status, arenas, checked arithmetic.
 *
 *     status load(const char *path, thing *out) MUST;
 *     status load(const char *path, thing *out)
 *     {
 *         i64 bytes;
 *         TRY(mul_i64(rows, cols, &bytes));                    // passes an error on
 *         if (bytes > LIMIT)
 *             return fail(ERR_FORMAT, "%s: %lld bytes; at most %lld: is it truncated?", path, ...);
 *         return OK;
 *     }
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int64_t i64;
typedef int32_t i32;
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

#define MUST __attribute__((warn_unused_result))
#define PRINTF(at, first) __attribute__((format(printf, at, first)))
#define COUNT(array) ((i64)(sizeof(array) / sizeof((array)[0])))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* "0.1.0+1a2b3c4d5e": the release, and a digest of the sources; what runs record. */
const char *code_version(void);

/* ---- status: NULL is success; otherwise an owned error that says what, where, the value, the remedy.
 * The user or the world is wrong: a status. The programmer is wrong: assert. */
typedef enum err_code {
    ERR_USAGE = 1, // the command line
    ERR_CONFIG,    // a configuration value
    ERR_INPUT,     // the user's data
    ERR_FORMAT,    // a damaged or foreign file
    ERR_IO,        // the operating system refused (disk full, no such file)
    ERR_MEMORY,    // an allocation failed, or a plan does not fit
    ERR_NUMERIC,   // NaN, infinity, divergence
    ERR_STOPPED,   // a signal asked to stop, and the state is saved
    ERR_CHECK,     // a self-check (keel op check) failed
} err_code;

typedef struct error {
    err_code code;
    char message[];
} error;
typedef error *status;
#define OK ((status)0)

#define TRY(call)                                                                                            \
    do {                                                                                                     \
        status try_status_ = (call);                                                                         \
        if (try_status_) return try_status_;                                                                 \
    } while (0)

/* A new error. Never fails: without memory it returns a shared out-of-memory error. */
status fail(err_code code, const char *format, ...) PRINTF(2, 3) MUST;
/* Puts "context: " before the message of S and returns it; OK stays OK. */
status wrap(status s, const char *format, ...) PRINTF(2, 3) MUST;
/* Releases S (OK allowed): for a failure that is handled, not passed on. */
void status_drop(status s);

/* ---- arena: everything with one lifetime (run, graph, step, call) in one place, released at once.
 * It reserves address space when opened, so that only opening it can fail; allocation then cannot. */
typedef struct arena arena;
status arena_open(arena **out) MUST;       // ERR_MEMORY if the address space cannot be reserved
void arena_close(arena *a);                // NULL allowed
void *arena_alloc(arena *a, size_t bytes); // zeroed, 16-byte aligned, never NULL
char *arena_strdup(arena *a, const char *s);
char *arena_printf(arena *a, const char *format, ...) PRINTF(2, 3);
void *arena_copy(arena *a, const void *from, size_t bytes);
#define arena_new(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_alloc((a), sizeof(type) * (size_t)(n)))

/* ---- plain allocations that fault injection can fail. Zeroed. Release with mem_free. */
status mem_alloc(size_t bytes, const char *what, void *out_pointer) MUST; // *out: 64-byte aligned
void mem_free(void *p);
/* A big region (weights, activations): 2 MiB aligned, huge pages advised, pages touched lazily. */
status region_open(size_t bytes, const char *what, void **out) MUST;
void region_close(void *p, size_t bytes);
/* BYTES from P, a part of a region: its pages come one by one as they are touched, not 2 MiB at a time. For
 * tables of which a step touches a few rows. */
void region_sparse(void *p, size_t bytes);
/* The same part becomes zero, and its whole pages go back to the system until they are touched again. */
void region_clear(void *p, size_t bytes);

/* ---- checked arithmetic: every size computed from input goes through these. ERR_FORMAT on overflow. */
status add_i64(i64 a, i64 b, i64 *out) MUST;  // both >= 0
status mul_i64(i64 a, i64 b, i64 *out) MUST;  // both >= 0
status pad_i64(i64 a, i64 to, i64 *out) MUST; // up to the next multiple of TO (> 0)
static inline i64 round_up(i64 a, i64 to) { return (a + to - 1) / to * to; }

/* ---- faults: make the k-th operation of a kind fail (tests walk through every k).
 * KEEL_FAULT="write:3" in the environment, or fault_set, arms one; "write:3:kill" dies there instead. */
typedef enum fault_kind {
    FAULT_ALLOC,
    FAULT_WRITE,
    FAULT_FSYNC,
    FAULT_RENAME,
    FAULT_COLLECTIVE,
    FAULT_KINDS
} fault_kind;
void fault_set(fault_kind kind, i64 k); // the k-th from now (1 = the next) fails; 0 disarms
i64 fault_count(fault_kind kind);       // operations of that kind since fault_set
bool fault_hit(fault_kind kind);        // called by the operation; true: fail now
status fault_from_environment(void) MUST;
