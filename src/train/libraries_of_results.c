/* The libraries on which the bits of a run may depend: see libraries.h. A file of its own, so that libkeel,
 * which records them with a run, does not need those that only the list of all of them names. */
#include "train/libraries.h"
#include <dnnl.h>
#include <gnu/libc-version.h>
#include <stdio.h>

i64 result_libraries(library out[MOST_LIBRARIES])
{
    const dnnl_version_t *dnnl = dnnl_version();
    i64 n = 0;
    out[n] = (library){.name = "oneDNN", .results = true};
    snprintf(out[n++].version, sizeof out->version, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    out[n] = (library){.name = "glibc", .results = true}; // expf and its like
    snprintf(out[n++].version, sizeof out->version, "%s", gnu_get_libc_version());
    out[n] = (library){.name = "OpenMP", .results = true};
    snprintf(out[n++].version, sizeof out->version, "%d", _OPENMP); // libgomp tells no version
    return n;
}

void libraries_of_results(char *out, size_t bytes)
{
    library all[MOST_LIBRARIES];
    i64 n = result_libraries(all);
    size_t used = 0;
    *out = 0;
    for (i64 i = 0; i < n && used < bytes; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%s %s", used ? ", " : "", all[i].name,
                                 all[i].version);
}
