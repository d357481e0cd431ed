/* libraries: each is asked for its version at run time. */
#include "train/libraries.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <dnnl.h>
#include <gnu/libc-version.h>
#include <jansson.h>
#include <libfyaml.h>
#include <microhttpd.h>
#include <pcre2.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

static void number(library *l, unsigned major, unsigned minor, unsigned patch)
{
    snprintf(l->version, sizeof l->version, "%u.%u.%u", major, minor, patch);
}

static void word(library *l, const char *version)
{
    // PCRE2's has its date behind it; the version is its first word
    snprintf(l->version, sizeof l->version, "%.*s", (int)MIN(31, strcspn(version, " ")), version);
}

i64 libraries(library out[MOST_LIBRARIES])
{
    const dnnl_version_t *dnnl = dnnl_version();
    char pcre2[64] = "";
    i64 n = 0;
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    out[n] = (library){.name = "oneDNN", .results = true};
    number(&out[n++], (unsigned)dnnl->major, (unsigned)dnnl->minor, (unsigned)dnnl->patch);
    out[n] = (library){.name = "glibc", .results = true}; // expf and its like
    word(&out[n++], gnu_get_libc_version());
    out[n] = (library){.name = "OpenMP", .results = true};
    snprintf(out[n++].version, sizeof out->version, "%d", _OPENMP); // libgomp tells no version
    const struct {
        const char *name, *version;
    } rest[] = {{"SQLite", sqlite3_libversion()},
                {"jansson", jansson_version_str()},
                {"libfyaml", fy_library_version()},
                {"libmicrohttpd", MHD_get_version()},
                {"PCRE2", pcre2},
                {"utf8proc", utf8proc_version()},
                {"zlib", zlibVersion()},
                {"zstd", ZSTD_versionString()}};
    for (i64 i = 0; i < COUNT(rest); i++) {
        out[n] = (library){.name = rest[i].name};
        word(&out[n++], rest[i].version);
    }
    unsigned xxhash = XXH_versionNumber();
    out[n] = (library){.name = "xxHash"};
    number(&out[n++], xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
    return n;
}

void libraries_of_results(char *out, size_t bytes)
{
    library all[MOST_LIBRARIES];
    i64 n = libraries(all);
    size_t used = 0;
    *out = 0;
    for (i64 i = 0; i < n; i++)
        if (all[i].results && used < bytes)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s %s", used ? ", " : "", all[i].name,
                                     all[i].version);
}
