/* A program's profile as lines: see profile.h. */
#include "train/profile.h"
#include <stdio.h>

void profile_tell(const program *p, double peak_gflops, void (*talk)(void *context, const char *line),
                  void *context)
{
    profile_row rows[OP_COUNT];
    char line[128];
    i64 n = program_profile_rows(p, rows);
    double total = 0;
    for (i64 i = 0; i < n; i++) total += rows[i].seconds;
    snprintf(line, sizeof line, "%-20s %9s %10s %6s %10s %8s %8s", "op", "calls", "ms", "%", "GFLOP/s",
             "of peak", "GB/s");
    talk(context, line);
    for (i64 i = 0; i < n; i++) {
        const profile_row *r = &rows[i];
        double gflops = r->flops / r->seconds * 1e-9;
        snprintf(line, sizeof line, "%-20s %9lld %10.2f %6.1f %10.1f %7.1f%% %8.1f", r->op,
                 (long long)r->calls, 1e3 * r->seconds, 100 * r->seconds / total, gflops,
                 100 * gflops / peak_gflops, r->bytes / r->seconds * 1e-9);
        talk(context, line);
    }
}
