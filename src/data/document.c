/* Finding files and cutting them into documents: see document.h for the rules. */
#define _GNU_SOURCE
#include "data/document.h"
#include "data/dataset.h"
#include "data/stream.h"
#include "data/token_file.h"
#include "text/utf8.h"
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAMPLE_BYTES = 1 << 16 };

bool looks_binary(const u8 *data, i64 bytes)
{
    i64 n = MIN(bytes, (i64)SAMPLE_BYTES), strange = 0;
    if (!n || !memchr(data, 0, (size_t)n)) return false;
    for (i64 i = 0; i < n;) {
        i64 length = (i64)utf8_character(data + i, (size_t)(n - i));
        u8 c = data[i];
        bool control = (c < 0x20 && !(c >= '\b' && c <= '\r') && c != 0x1b) || c == 0x7f;
        if (length && !control) {
            i += length;
            continue;
        }
        // A sequence that the sample's end cuts is no sign of anything.
        if (!length && n - i < 4 && n < bytes) break;
        strange++, i++;
    }
    return strange * 20 > n;
}

static source_kind kind_of(const char *path)
{
    static const char *const jsonl[] = {".jsonl", ".ndjson"};
    const i64 n = packing_name(path);
    for (i64 i = 0; i < COUNT(jsonl); i++) {
        const i64 k = (i64)strlen(jsonl[i]);
        if (n > k && !strncmp(path + n - k, jsonl[i], (size_t)k)) return SOURCE_JSONL;
    }
    return token_file_kind(path) == TOKENS_NONE ? SOURCE_TEXT : SOURCE_TOKENS;
}

static status add_file(sources *list, const char *path, const struct stat *st, bool validation)
{
    if (list->count == list->capacity) {
        i64 capacity = list->capacity ? list->capacity * 2 : 64;
        source_file *bigger = realloc(list->file, (size_t)capacity * sizeof *bigger);
        if (!bigger)
            return fail(ERR_MEMORY, "%s: out of memory after %lld files", path, (long long)list->count);
        list->file = bigger, list->capacity = capacity;
    }
    char *copy = strdup(path);
    if (!copy) return fail(ERR_MEMORY, "%s: out of memory", path);
    list->file[list->count++] =
        (source_file){copy,       st->st_size,   st->st_mtim.tv_sec * (i64)1000000000 + st->st_mtim.tv_nsec,
                      validation, kind_of(path), list->source};
    list->bytes += st->st_size;
    return OK;
}

static status cannot_read(const char *path, int number)
{
    return fail(ERR_IO, "%s: cannot read: %s; check its permissions", path, strerror(number));
}

static status file_is_binary(const char *path, i64 size, bool *binary)
{
    u8 sample[SAMPLE_BYTES];
    byte_stream *stream;
    size_t n = 0, got = 1;
    *binary = false;
    if (token_file_kind(path) != TOKENS_NONE) return OK;
    TRY(stream_open(path, &stream));
    status s = OK;
    while (!s && got && n < SAMPLE_BYTES) {
        s = stream_read(stream, sample + n, SAMPLE_BYTES - n, &got);
        n += got;
    }
    stream_close(stream);
    // Beyond the sample only whether there is more matters (a sequence cut by its end); the rest is not read.
    if (n == SAMPLE_BYTES && (packing_of(path) || size > SAMPLE_BYTES)) size = SAMPLE_BYTES + 1;
    if (!s) *binary = looks_binary(sample, n < SAMPLE_BYTES ? (i64)n : size);
    return s;
}

static status walk(sources *list, const char *folder, bool validation);

static status take_entry(sources *list, const char *path, const struct dirent *entry, bool validation)
{
    if (entry->d_name[0] == '.') {
        list->hidden += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
        return OK;
    }
    struct stat st, link;
    if (lstat(path, &link) || stat(path, &st)) return OK; // vanished, or a link to nothing
    if (S_ISDIR(st.st_mode))
        return S_ISLNK(link.st_mode) || dataset_is(path) ? OK : walk(list, path, validation);
    if (!S_ISREG(st.st_mode)) return OK;
    if (!st.st_size) return list->empty++, OK;
    if (token_file_kind(path) == TOKENS_INDEX) return OK; // goes with its .bin
    bool binary;
    TRY(file_is_binary(path, st.st_size, &binary));
    if (binary) return list->binary++, OK;
    return add_file(list, path, &st, validation);
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static status walk(sources *list, const char *folder, bool validation)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, by_bytes);
    if (n < 0) return cannot_read(folder, errno);
    status s = OK;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        const char *slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
        int length = snprintf(path, sizeof path, "%s%s%s", folder, slash, entries[i]->d_name);
        if (!s && length >= (int)sizeof path)
            s = fail(ERR_INPUT, "%s: its path is longer than %d bytes", folder, PATH_MAX - 1);
        if (!s) s = take_entry(list, path, entries[i], validation);
        free(entries[i]);
    }
    free(entries);
    return s;
}

static status take_named_file(sources *list, const char *path, const struct stat *st, bool validation)
{
    if (!S_ISREG(st->st_mode))
        return fail(ERR_INPUT, "%s: neither a file nor a folder; save its text to a file first", path);
    if (!st->st_size) return fail(ERR_INPUT, "%s: the file is empty; name a file with text", path);
    bool binary;
    TRY(file_is_binary(path, st->st_size, &binary));
    if (binary)
        return fail(ERR_INPUT,
                    "%s: a binary file (NUL bytes, over 5 %% of its bytes are no text); unpack it or convert "
                    "it to UTF-8 text first",
                    path);
    return add_file(list, path, st, validation);
}

/* All that a pattern matches; each must stand as if it had been named. */
static status find_all(sources *list, const char *pattern, bool validation)
{
    glob_t found;
    int r = glob(pattern, GLOB_NOSORT, NULL, &found);
    if (r == GLOB_NOMATCH)
        return fail(ERR_INPUT, "%s: nothing matches this pattern; check the path", pattern);
    if (r)
        return r == GLOB_NOSPACE ? fail(ERR_MEMORY, "%s: out of memory", pattern)
                                 : cannot_read(pattern, EACCES);
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, by_name);
    status s = OK;
    for (size_t i = 0; !s && i < found.gl_pathc; i++)
        if (token_file_kind(found.gl_pathv[i]) != TOKENS_INDEX)
            s = sources_find(list, found.gl_pathv[i], validation);
    globfree(&found);
    return s;
}

status sources_find(sources *list, const char *path, bool validation)
{
    struct stat st;
    if (!*path) return fail(ERR_INPUT, "the path of the corpus is empty; name a file or a folder of text");
    if (stat(path, &st)) {
        if (errno == ENOENT && strpbrk(path, "*?[")) return find_all(list, path, validation);
        if (errno == ENOENT || errno == ENOTDIR)
            return fail(ERR_INPUT, "%s: no such file or folder; check the path", path);
        return cannot_read(path, errno);
    }
    if (!S_ISDIR(st.st_mode)) return take_named_file(list, path, &st, validation);
    if (dataset_is(path))
        return fail(
            ERR_INPUT,
            "%s: a folder of shards, not of text; use it as it is, or name the text it was built from", path);
    const sources before = *list;
    TRY(walk(list, path, validation));
    if (list->count == before.count)
        return fail(ERR_INPUT,
                    "%s: no text in this folder (%lld files empty, %lld binary, %lld hidden); name a folder "
                    "with text files",
                    path, (long long)(list->empty - before.empty), (long long)(list->binary - before.binary),
                    (long long)(list->hidden - before.hidden));
    return OK;
}

void sources_free(sources *list)
{
    for (i64 i = 0; i < list->count; i++) free(list->file[i].path);
    free(list->file);
    *list = (sources){0};
}

/* ---- cutting */

status cut_rule_parse(const char *value, cut_rule *out)
{
    if (!*value)
        return fail(
            ERR_CONFIG,
            "data.document is empty; it must be auto, file, blank_line or the string between documents");
    *out = !strcmp(value, "auto")         ? (cut_rule){.kind = CUT_AUTO}
           : !strcmp(value, "file")       ? (cut_rule){.kind = CUT_FILE}
           : !strcmp(value, "blank_line") ? (cut_rule){.kind = CUT_BLANK_LINE}
                                          : (cut_rule){CUT_STRING, value};
    return OK;
}

static bool next_by_string(const char *string, const u8 *data, i64 bytes, i64 *at, i64 *start, i64 *end)
{
    const size_t length = strlen(string);
    while (*at < bytes) {
        const u8 *hit = memmem(data + *at, (size_t)(bytes - *at), string, length);
        *start = *at;
        *end = hit ? hit - data : bytes;
        *at = hit ? *end + (i64)length : bytes;
        if (*end > *start) return true;
    }
    return false;
}

/* The line at AT: returns where the next one starts; *blank if it holds only blanks. */
static i64 line_end(const u8 *data, i64 bytes, i64 at, bool *blank)
{
    const u8 *newline = memchr(data + at, '\n', (size_t)(bytes - at));
    i64 end = newline ? newline - data + 1 : bytes;
    *blank = true;
    for (i64 i = at; i < end && *blank; i++)
        *blank = data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n';
    return end;
}

static bool next_by_blank_line(bool unindented, const u8 *data, i64 bytes, i64 *at, i64 *start, i64 *end)
{
    bool found = false, after_blank = false, blank;
    for (i64 line = *at, next; line < bytes; line = next) {
        next = line_end(data, bytes, line, &blank);
        if (!blank && found && after_blank && !(unindented && (data[line] == ' ' || data[line] == '\t'))) {
            *at = line;
            return true;
        }
        if (!blank) {
            if (!found) *start = line;
            *end = next;
            found = true;
        }
        after_blank = blank;
    }
    *at = bytes;
    return found;
}

bool document_next(cut_rule rule, const u8 *data, i64 bytes, i64 *at, i64 *start, i64 *end)
{
    if (*at >= bytes) return false;
    if (rule.kind == CUT_STRING) return next_by_string(rule.string, data, bytes, at, start, end);
    if (rule.kind == CUT_AUTO && bytes > CUT_AUTO_BYTES) rule.kind = CUT_UNINDENTED;
    if (rule.kind == CUT_BLANK_LINE || rule.kind == CUT_UNINDENTED)
        return next_by_blank_line(rule.kind == CUT_UNINDENTED, data, bytes, at, start, end);
    *start = 0, *end = *at = bytes;
    return true;
}
