/* Tables of runs: CSV, JSON, JSON lines; the points that laws take from them; a fit of what is small. */
#include "fuzz.h"
#include "lab/fit.h"
#include "lab/run_table.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const run_choice none = {0};
    char *text = malloc(n + 1); // zero-terminated, as a file that was read is
    run_table t;
    run_points p;
    arena *a;
    if (!text || arena_open(&a)) abort();
    memcpy(text, data, n);
    text[n] = 0;
    status s = run_table_parse("t", text, n, a, &t);
    for (i64 i = 0; !s && law_at(i); i++) {
        fit f;
        status e = run_table_points(&t, law_at(i), &none, a, &p);
        if (!e && p.points.n <= 12)
            e = fit_law(law_at(i), &p.points, &(fit_options){.huber = 1e-3, .bootstrap = 2, .level = 0.9}, a,
                        &f);
        status_drop(e);
    }
    status_drop(s);
    arena_close(a);
    free(text);
    return 0;
}
