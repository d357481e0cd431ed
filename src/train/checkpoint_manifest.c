/* The manifest of a checkpoint, written last and believed first: see checkpoint.h.
 *
 *     {"version": 1, "step": 200, "files": {
 *     "model.safetensors": {"bytes": 1234, "xxh3_128": "..."},
 *     "state.json": {"bytes": 56, "xxh3_128": "..."}},
 *     "check": "..."}
 *
 * "check" is the checksum of all bytes before its line, so that a change of any byte of any file is seen. */
#define _GNU_SOURCE // asprintf
#include "base/file.h"
#include "train/checkpoint_parts.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char check_begin[] = "\"check\": \"", check_end[] = "\"}\n";
enum { CHECK_BYTES = sizeof check_begin - 1 + 32 + sizeof check_end - 1 };

void checkpoint_manifest_write(text *t, i64 step, const manifest_file *files, i64 n)
{
    char hex[33];
    size_t start = t->bytes;
    text_add(t, "{\"version\": 1, \"step\": %lld, \"files\": {\n", (long long)step);
    for (i64 i = 0; i < n; i++)
        text_add(t, "\"%s\": {\"bytes\": %lld, \"xxh3_128\": \"%s\"}%s\n", files[i].name,
                 (long long)files[i].sum.bytes, digest_hex(&files[i].sum, hex), i + 1 < n ? "," : "},");
    if (!n) text_add(t, "},\n");
    digest check = digest_memory(t->data + start, t->bytes - start);
    text_add(t, "%s%s%s", check_begin, digest_hex(&check, hex), check_end);
}

/* Does the last line hold the checksum of what stands before it? */
static bool checks(const char *data, size_t bytes)
{
    char hex[33], line[CHECK_BYTES + 1];
    if (bytes < CHECK_BYTES) return false;
    digest check = digest_memory(data, bytes - CHECK_BYTES);
    snprintf(line, sizeof line, "%s%s%s", check_begin, digest_hex(&check, hex), check_end);
    return !memcmp(data + bytes - CHECK_BYTES, line, CHECK_BYTES);
}

static status check_file(const char *folder, const char *name, json_t *about)
{
    const char *wanted = json_string_value(json_object_get(about, "xxh3_128"));
    long long bytes = json_integer_value(json_object_get(about, "bytes"));
    char *path, hex[33];
    if (!wanted || !*name || strchr(name, '/') || !strcmp(name, ".."))
        return fail(ERR_FORMAT, "%s/manifest.json: '%.80s' is no description of a file", folder, name);
    if (asprintf(&path, "%s/%s", folder, name) < 0) return fail(ERR_MEMORY, "%s: out of memory", folder);
    status s = OK;
    digest d;
    if (!path_exists(path))
        s = fail(ERR_FORMAT, "%s: missing, though the manifest lists it", path);
    else
        s = digest_file(path, &d);
    if (!s && d.bytes != bytes)
        s = fail(ERR_FORMAT, "%s: %lld bytes, but the manifest says %lld; the file is damaged", path,
                 (long long)d.bytes, bytes);
    if (!s && strcmp(digest_hex(&d, hex), wanted))
        s = fail(ERR_FORMAT, "%s: its checksum is %s, but the manifest says %.40s; the file is damaged", path,
                 hex, wanted);
    free(path);
    return s;
}

static status check_all(const char *folder, const char *data, size_t bytes, i64 *step)
{
    if (!checks(data, bytes))
        return fail(ERR_FORMAT, "%s/manifest.json: its own checksum does not fit; the file is damaged",
                    folder);
    json_t *manifest = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL), *about;
    json_t *files = json_object_get(manifest, "files"), *n = json_object_get(manifest, "step");
    const char *name;
    status s = OK;
    if (json_integer_value(json_object_get(manifest, "version")) != 1 || !json_is_object(files) ||
        !json_is_integer(n))
        s = fail(
            ERR_FORMAT,
            "%s/manifest.json: not of version 1, the one this program knows; use the program that wrote it",
            folder);
    json_object_foreach(files, name, about)
    {
        if (s) break;
        s = check_file(folder, name, about);
    }
    if (!s) *step = json_integer_value(n);
    json_decref(manifest);
    return s;
}

status checkpoint_verify(const char *path, i64 *step)
{
    char *manifest, *data;
    size_t bytes;
    if (!path_is_dir(path))
        return fail(ERR_FORMAT, "%s: no such folder; a checkpoint is a folder RUN/step_N", path);
    if (asprintf(&manifest, "%s/manifest.json", path) < 0) return fail(ERR_MEMORY, "%s: out of memory", path);
    bool there = path_exists(manifest);
    status s = there ? file_read(manifest, &data, &bytes)
                     : fail(ERR_FORMAT, "%s: missing, so the checkpoint was never completed", manifest);
    free(manifest);
    if (s) return s;
    s = check_all(path, data, bytes, step);
    free(data);
    return s;
}
