/* Opening and reading a data set: see dataset.h. Verification is one parallel pass at open; reading trusts
 * it. */
#define _GNU_SOURCE
#include "data/dataset.h"
#include "data/manifest.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dataset {
    char *folder, *tokenizer_path;
    manifest m;
    struct {
        shard *shard;       // [count]
        i64 *token, *first; // [count + 1] tokens, documents before shard i
        i64 count;
    } split[DATA_SPLITS];
    i32 *token_bytes;
};

static status open_shards(dataset *d, data_split k)
{
    const manifest_split *m = &d->m.split[k];
    i64 n = m->count;
    TRY(mem_alloc((size_t)n * sizeof(shard), "shards", &d->split[k].shard));
    TRY(mem_alloc((size_t)(n + 1) * sizeof(i64), "shards", &d->split[k].token));
    TRY(mem_alloc((size_t)(n + 1) * sizeof(i64), "shards", &d->split[k].first));
    d->split[k].count = n;
    status *failed;
    TRY(mem_alloc((size_t)n * sizeof *failed, "shards", &failed));
#pragma omp parallel for schedule(dynamic)
    for (i64 i = 0; i < n; i++) {
        char *path = shard_path(d->folder, k, i);
        shard *s = &d->split[k].shard[i];
        failed[i] =
            path ? shard_open(path, d->m.info, m->shard[i].hash, s) : fail(ERR_MEMORY, "out of memory");
        if (!failed[i] && (s->tokens != m->shard[i].tokens || s->documents != m->shard[i].documents ||
                           s->bytes != m->shard[i].bytes))
            failed[i] = fail(ERR_FORMAT, "%s: other counts than in the manifest; build the data again", path);
        free(path);
    }
    status first = OK;
    for (i64 i = 0; i < n; i++) {
        if (!first)
            first = failed[i];
        else
            status_drop(failed[i]);
        d->split[k].token[i + 1] = d->split[k].token[i] + m->shard[i].tokens;
        d->split[k].first[i + 1] = d->split[k].first[i] + m->shard[i].documents;
    }
    mem_free(failed);
    return first;
}

static status check_file(const char *path, u64 hash)
{
    u64 found;
    TRY(file_hash(path, &found));
    if (found == hash) return OK;
    return fail(
        ERR_FORMAT,
        "%s: its checksum is %016llx, the manifest says %016llx: the file is damaged; build the data again",
        path, (unsigned long long)found, (unsigned long long)hash);
}

static status open_token_bytes(dataset *d)
{
    char *path = NULL, *data = NULL;
    size_t bytes = 0;
    if (asprintf(&path, "%s/token-bytes.bin", d->folder) < 0)
        return fail(ERR_MEMORY, "%s: out of memory", d->folder);
    status s = check_file(path, d->m.token_bytes_file);
    if (!s) s = file_read(path, &data, &bytes);
    if (!s && bytes != (size_t)d->m.info.vocab * sizeof(i32))
        s = fail(ERR_FORMAT, "%s: %zu bytes long, %lld ids need %lld; build the data again", path, bytes,
                 (long long)d->m.info.vocab, (long long)d->m.info.vocab * 4);
    d->token_bytes = (i32 *)(void *)data;
    for (i64 i = 0; !s && i < d->m.info.vocab; i++)
        if (d->token_bytes[i] < 0)
            s = fail(ERR_FORMAT, "%s: id %lld has a negative length; build the data again", path,
                     (long long)i);
    free(path);
    return s;
}

static status open_all(dataset *d)
{
    TRY(manifest_read(d->folder, &d->m));
    TRY(check_file(d->tokenizer_path, d->m.tokenizer_file));
    TRY(open_token_bytes(d));
    for (int k = 0; k < DATA_SPLITS; k++) TRY(open_shards(d, k));
    return OK;
}

status dataset_open(const char *folder, dataset **out)
{
    dataset *d;
    TRY(mem_alloc(sizeof *d, "data set", &d));
    d->folder = strdup(folder);
    if (asprintf(&d->tokenizer_path, "%s/tokenizer.json", folder) < 0) d->tokenizer_path = NULL;
    status s = d->folder && d->tokenizer_path ? open_all(d) : fail(ERR_MEMORY, "%s: out of memory", folder);
    if (s)
        dataset_close(d);
    else
        *out = d;
    return s;
}

void dataset_close(dataset *d)
{
    if (!d) return;
    for (int k = 0; k < DATA_SPLITS; k++) {
        for (i64 i = 0; i < d->split[k].count; i++) shard_close(&d->split[k].shard[i]);
        mem_free(d->split[k].shard);
        mem_free(d->split[k].token);
        mem_free(d->split[k].first);
    }
    manifest_free(&d->m);
    mem_free(d->token_bytes);
    free(d->folder);
    free(d->tokenizer_path);
    mem_free(d);
}

i64 dataset_tokens(const dataset *d, data_split split) { return d->m.split[split].tokens; }
i64 dataset_documents(const dataset *d, data_split split) { return d->m.split[split].documents; }
i64 dataset_bytes(const dataset *d, data_split split) { return d->m.split[split].bytes; }
i64 dataset_shards(const dataset *d, data_split split) { return d->m.split[split].count; }
i64 dataset_vocab(const dataset *d) { return d->m.info.vocab; }
i32 dataset_eos(const dataset *d) { return d->m.info.eos; }
u64 dataset_tokenizer_hash(const dataset *d) { return d->m.info.tokenizer; }
const char *dataset_folder(const dataset *d) { return d->folder; }
const char *dataset_tokenizer_path(const dataset *d) { return d->tokenizer_path; }
const i32 *dataset_token_bytes(const dataset *d) { return d->token_bytes; }

static u64 mix(u64 h, u64 x) // splitmix64's finaliser over a running sum
{
    h += x + 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

u64 dataset_hash(const dataset *d)
{
    u64 h = mix(mix(mix(1, d->m.info.tokenizer), (u64)d->m.info.vocab), (u64)d->m.info.eos);
    for (int k = 0; k < DATA_SPLITS; k++)
        for (i64 i = -1; i < d->m.split[k].count; i++) {
            h = mix(h, i < 0 ? (u64)d->m.split[k].count : d->m.split[k].shard[i].hash);
            if (i >= 0 && d->m.split[k].shard[i].source) h = mix(h, (u64)d->m.split[k].shard[i].source);
        }
    return h;
}

i64 dataset_sources(const dataset *d)
{
    const manifest_split *s = &d->m.split[DATA_TRAIN];
    return s->count ? s->shard[s->count - 1].source + 1 : 1;
}

void dataset_source(const dataset *d, i64 source, i64 *start, i64 *tokens)
{
    const manifest_split *s = &d->m.split[DATA_TRAIN];
    i64 i = 0;
    *tokens = 0;
    while (i < s->count && s->shard[i].source < source) i++;
    *start = d->split[DATA_TRAIN].token[i];
    for (; i < s->count && s->shard[i].source == source; i++) *tokens += s->shard[i].tokens;
}

status dataset_check_tokenizer(const dataset *d, u64 hash, const char *name)
{
    if (hash == d->m.info.tokenizer) return OK;
    return fail(
        ERR_INPUT,
        "%s: its tokens were made by tokenizer %016llx, but %s is %016llx; use %s, or build the data again",
        d->folder, (unsigned long long)d->m.info.tokenizer, name, (unsigned long long)hash,
        d->tokenizer_path);
}

/* The shard that holds entry AT of the running sums SUM[0 .. count]. */
static i64 shard_of(const i64 *sum, i64 count, i64 at)
{
    i64 low = 0, high = count - 1;
    while (low < high) {
        i64 middle = low + (high - low) / 2;
        if (sum[middle + 1] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void dataset_read(const dataset *d, data_split split, i64 at, i64 n, i32 *out)
{
    const i64 *base = d->split[split].token;
    for (i64 i = n ? shard_of(base, d->split[split].count, at) : 0; n; i++) {
        i64 part = MIN(n, base[i + 1] - at);
        shard_read(&d->split[split].shard[i], at - base[i], part, out);
        out += part, at += part, n -= part;
    }
}

i64 dataset_document_after(const dataset *d, data_split split, i64 at)
{
    const i64 *base = d->split[split].token;
    if (at < 0 && d->split[split].count) return 0;
    if (at >= dataset_tokens(d, split)) return dataset_tokens(d, split);
    i64 i = shard_of(base, d->split[split].count, at);
    return base[i] +
           shard_document_after(&d->split[split].shard[i], at - base[i]); // a shard's end starts a document
}

void dataset_document(const dataset *d, data_split split, i64 i, i64 *start, i64 *tokens, i64 *bytes)
{
    i64 k = shard_of(d->split[split].first, d->split[split].count, i), at = i - d->split[split].first[k];
    const shard *s = &d->split[split].shard[k];
    *start = d->split[split].token[k] + (i64)s->start[at];
    *tokens = (i64)(s->start[at + 1] - s->start[at]);
    *bytes = (i64)s->text_bytes[at];
}
