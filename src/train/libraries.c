/* libraries: each is asked for its version at run time. */
#include "train/libraries.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <libfyaml.h>
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
    char pcre2[64] = "";
    i64 n = result_libraries(out);
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    const struct {
        const char *name, *version;
    } rest[] = {{"SQLite", sqlite3_libversion()},
                {"jansson", jansson_version_str()},
                {"libfyaml", fy_library_version()},

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
