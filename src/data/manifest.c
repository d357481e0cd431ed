/* manifest.json of a data set: see manifest.h. Numbers are ranged, 64-bit hashes are hexadecimal strings. */
#define _GNU_SOURCE
#include "data/manifest.h"
#include "base/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const char FORMAT[] = "keel-shards";
enum { VERSION = 1, TAIL_BYTES = 32, SHARDS_MAX = 100000 };
#define REBUILD "build the data again"

const char *const data_split_name[DATA_SPLITS] = {"train", "validation"};

char *shard_path(const char *folder, data_split split, i64 i)
{
    char *path;
    return asprintf(&path, "%s/%s-%05lld.bin", folder, data_split_name[split], (long long)i) < 0 ? NULL
                                                                                                 : path;
}

status file_hash(const char *path, u64 *out)
{
    file_map map;
    TRY(file_map_open(path, &map));
    *out = XXH3_64bits(map.data, map.bytes);
    file_map_close(&map);
    return OK;
}

bool dataset_is(const char *folder)
{
    text path = {0};
    // Shards whose manifest is lost or empty are damaged shards, not text: opening them says so.
    text_add(&path, "%s/train-00000.bin", folder);
    bool shards = path_exists(path.data);
    text_free(&path);
    if (shards) return true;
    text_add(&path, "%s/manifest.json", folder);
    char head[64] = "";
    FILE *f = fopen(path.data, "re");
    text_free(&path);
    if (!f) return false;
    size_t n = fread(head, 1, sizeof head - 1, f);
    fclose(f);
    head[n] = 0;
    return strstr(head, FORMAT);
}

status manifest_add_shard(manifest *m, data_split split, manifest_shard shard)
{
    manifest_split *s = &m->split[split];
    manifest_shard *bigger = realloc(s->shard, (size_t)(s->count + 1) * sizeof *bigger);
    if (!bigger) return fail(ERR_MEMORY, "manifest: out of memory");
    s->shard = bigger;
    s->shard[s->count++] = shard;
    TRY(add_i64(s->tokens, shard.tokens, &s->tokens));
    TRY(add_i64(s->documents, shard.documents, &s->documents));
    return add_i64(s->bytes, shard.bytes, &s->bytes);
}

void manifest_free(manifest *m)
{
    for (int k = 0; k < DATA_SPLITS; k++) free(m->split[k].shard);
    if (m->recipe) json_decref(m->recipe);
    *m = (manifest){0};
}

/* ---- writing */

static json_t *hash_json(u64 hash)
{
    char hex[17];
    snprintf(hex, sizeof hex, "%016" PRIx64, hash);
    return json_string(hex);
}

static json_t *split_json(const manifest_split *s)
{
    json_t *shards = json_array();
    for (i64 i = 0; i < s->count; i++)
        json_array_append_new(
            shards, json_pack("{s:I, s:I, s:I, s:o, s:o*}", "tokens", (json_int_t)s->shard[i].tokens,
                              "documents", (json_int_t)s->shard[i].documents, "bytes",
                              (json_int_t)s->shard[i].bytes, "xxh3", hash_json(s->shard[i].hash), "source",
                              s->shard[i].source ? json_integer((json_int_t)s->shard[i].source) : NULL));
    return json_pack("{s:I, s:I, s:I, s:o}", "tokens", (json_int_t)s->tokens, "documents",
                     (json_int_t)s->documents, "bytes", (json_int_t)s->bytes, "shards", shards);
}

/* The last bytes of the file: the checksum of all BYTES before them, and the closing brace. */
static void tail_of(const char *body, size_t bytes, char out[TAIL_BYTES + 1])
{
    snprintf(out, TAIL_BYTES + 1, ",\n \"xxh3\": \"%016" PRIx64 "\"\n}\n", XXH3_64bits(body, bytes));
}

status manifest_write(const char *folder, const manifest *m)
{
    json_t *root = json_pack("{s:s, s:i, s:{s:o, s:I, s:i, s:o, s:o}, s:o, s:o, s:O}", "format", FORMAT,
                             "version", VERSION, "tokenizer", "hash", hash_json(m->info.tokenizer), "vocab",
                             (json_int_t)m->info.vocab, "eos", m->info.eos, "file_xxh3",
                             hash_json(m->tokenizer_file), "token_bytes_xxh3", hash_json(m->token_bytes_file),
                             "train", split_json(&m->split[DATA_TRAIN]), "validation",
                             split_json(&m->split[DATA_VALIDATION]), "recipe", m->recipe);
    char *body = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    if (root) json_decref(root);
    if (!body) return fail(ERR_MEMORY, "%s/manifest.json: out of memory", folder);
    size_t bytes = strlen(body) - 2; // without "\n}"
    char tail[TAIL_BYTES + 1];
    tail_of(body, bytes, tail);
    text path = {0};
    text_add(&path, "%s/manifest.json", folder);
    file_writer *w;
    status s = file_create(path.data, &w);
    if (!s) s = file_write(w, body, bytes);
    if (!s) s = file_write(w, tail, strlen(tail));
    if (!s) s = file_commit(w);
    text_free(&path);
    free(body);
    return s;
}

/* ---- reading */

static status damaged(const char *what) { return fail(ERR_FORMAT, "%s; " REBUILD, what); }

static status get_i64(const json_t *object, const char *key, i64 low, i64 high, i64 *out)
{
    const json_t *v = json_object_get(object, key);
    *out = 0;
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high)
        return fail(ERR_FORMAT, "'%s' must be an integer from %lld to %lld; " REBUILD, key, (long long)low,
                    (long long)high);
    *out = json_integer_value(v);
    return OK;
}

static status get_hash(const json_t *object, const char *key, u64 *out)
{
    const char *hex = json_string_value(json_object_get(object, key));
    if (!hex || strlen(hex) != 16 || strspn(hex, "0123456789abcdef") != 16)
        return fail(ERR_FORMAT, "'%s' must be 16 hexadecimal digits; " REBUILD, key);
    *out = strtoull(hex, NULL, 16);
    return OK;
}

static status read_split(const json_t *object, manifest *m, data_split k)
{
    const json_t *shards = json_object_get(object, "shards");
    if (!json_is_array(shards) || json_array_size(shards) > SHARDS_MAX)
        return damaged("'shards' must be a list");
    for (size_t i = 0; i < json_array_size(shards); i++) {
        const json_t *o = json_array_get(shards, i);
        manifest_shard s;
        TRY(get_i64(o, "tokens", 1, INT64_MAX, &s.tokens));
        TRY(get_i64(o, "documents", 1, INT64_MAX, &s.documents));
        TRY(get_i64(o, "bytes", 0, INT64_MAX, &s.bytes));
        TRY(get_hash(o, "xxh3", &s.hash));
        s.source = 0;
        if (json_object_get(o, "source")) TRY(get_i64(o, "source", 0, SHARDS_MAX, &s.source));
        if (i && s.source < m->split[k].shard[i - 1].source)
            return damaged("the parts of its mixture are not in order");
        TRY(manifest_add_shard(m, k, s));
    }
    i64 tokens, documents, bytes;
    TRY(get_i64(object, "tokens", 0, INT64_MAX, &tokens));
    TRY(get_i64(object, "documents", 0, INT64_MAX, &documents));
    TRY(get_i64(object, "bytes", 0, INT64_MAX, &bytes));
    const manifest_split *s = &m->split[k];
    if (tokens != s->tokens || documents != s->documents || bytes != s->bytes)
        return damaged("its counts are not the sums of its shards' counts");
    return OK;
}

static status read_fields(const json_t *root, manifest *m)
{
    i64 version, eos;
    const char *format = json_string_value(json_object_get(root, "format"));
    if (!format || strcmp(format, FORMAT))
        return damaged("not a manifest of shards ('format' must be \"keel-shards\")");
    TRY(get_i64(root, "version", VERSION, VERSION, &version));
    const json_t *tokenizer = json_object_get(root, "tokenizer");
    TRY(get_hash(tokenizer, "hash", &m->info.tokenizer));
    TRY(get_i64(tokenizer, "vocab", 2, INT32_MAX, &m->info.vocab));
    TRY(get_i64(tokenizer, "eos", 0, m->info.vocab - 1, &eos));
    m->info.eos = (i32)eos;
    TRY(get_hash(tokenizer, "file_xxh3", &m->tokenizer_file));
    TRY(get_hash(tokenizer, "token_bytes_xxh3", &m->token_bytes_file));
    for (int k = 0; k < DATA_SPLITS; k++)
        TRY(wrap(read_split(json_object_get(root, data_split_name[k]), m, k), "%s", data_split_name[k]));
    m->recipe = json_incref(json_object_get(root, "recipe"));
    return json_is_object(m->recipe) ? OK : damaged("'recipe' must be an object");
}

static status parse(const char *data, size_t bytes, manifest *out)
{
    char tail[TAIL_BYTES + 1];
    tail_of(data, 0, tail);
    const size_t length = strlen(tail);
    if (bytes < length) return damaged("truncated");
    tail_of(data, bytes - length, tail);
    if (memcmp(data + bytes - length, tail, length))
        return damaged("its checksum does not fit its content: damaged or edited");
    json_error_t e;
    json_t *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!root) return fail(ERR_FORMAT, "line %d: %s; " REBUILD, e.line, e.text);
    status s = read_fields(root, out);
    json_decref(root);
    return s;
}

status manifest_read(const char *folder, manifest *out)
{
    *out = (manifest){0};
    if (!path_exists(folder))
        return fail(ERR_INPUT, "%s: no such folder; check the path, or make it with 'keel data build'",
                    folder);
    text path = {0};
    text_add(&path, "%s/manifest.json", folder);
    status s = OK;
    if (!path_exists(path.data))
        s = fail(ERR_INPUT,
                 "%s: no folder of shards (it has no manifest.json); make one with 'keel data build'",
                 folder);
    char *data = NULL;
    size_t bytes;
    if (!s) s = file_read(path.data, &data, &bytes);
    if (!s) s = wrap(parse(data, bytes, out), "%s", path.data);
    mem_free(data);
    text_free(&path);
    if (s) manifest_free(out);
    return s;
}
