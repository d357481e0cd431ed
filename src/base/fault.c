/* Fault injection: the k-th allocation, write, fsync, rename or collective fails. See base.h. */
#include "base/base.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Test machinery, armed by tests or by the environment only: the one global state below the command line. */
static struct {
    _Atomic i64 count, fail_at;
    bool kill;
} faults[FAULT_KINDS];
static const char *const kind_name[FAULT_KINDS] = {"alloc", "write", "fsync", "rename", "collective"};

void fault_set(fault_kind kind, i64 k)
{
    faults[kind].count = 0;
    faults[kind].fail_at = k;
    faults[kind].kill = false;
}

i64 fault_count(fault_kind kind) { return faults[kind].count; }

bool fault_hit(fault_kind kind)
{
    i64 n = ++faults[kind].count;
    if (n != faults[kind].fail_at) return false;
    if (faults[kind].kill) raise(SIGKILL);
    return true;
}

status fault_from_environment(void)
{
    const char *s = getenv("KEEL_FAULT");
    if (!s) return OK;
    for (int kind = 0; kind < FAULT_KINDS; kind++) {
        size_t n = strlen(kind_name[kind]);
        long long k;
        char how[8] = "";
        if (strncmp(s, kind_name[kind], n) || s[n] != ':') continue;
        int got = sscanf(s + n + 1, "%lld:%7s", &k, how);
        if (got < 1 || k < 1 || (got == 2 && strcmp(how, "kill"))) break;
        fault_set(kind, k);
        faults[kind].kill = got == 2;
        return OK;
    }
    return fail(
        ERR_USAGE,
        "KEEL_FAULT=%s: expected KIND:K or KIND:K:kill, KIND one of alloc write fsync rename collective", s);
}
