/* Token ids from a text file: see token_rows.h. Two passes: the first counts, so that one allocation holds
 * all. */
#include "eval/token_rows.h"
#include "base/file.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    const char *path, *at, *end; // what is left of the file
    i64 line;                    // of the line under way, from 1
    const token_limits *limits;
} reader;

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* The word's first characters, fit for a message. */
static const char *shown(const char *word, size_t n, char out[32])
{
    size_t shown_bytes = MIN(n, 24);
    for (size_t i = 0; i < shown_bytes; i++) out[i] = isprint((unsigned char)word[i]) ? word[i] : '?';
    strcpy(out + shown_bytes, n > shown_bytes ? "..." : "");
    return out;
}

static status parse_id(const reader *r, const char *word, size_t n, i32 *id)
{
    char text[32];
    i64 value = 0;
    bool number = true;
    for (size_t i = 0; i < n; i++) {
        number &= word[i] >= '0' && word[i] <= '9';
        if (number) value = MIN(value * 10 + (word[i] - '0'), INT32_MAX);
    }
    if (!number)
        return fail(ERR_INPUT, "%s:%lld: '%s' is no token id; ids are whole numbers from 0 to %lld", r->path,
                    (long long)r->line, shown(word, n, text), (long long)r->limits->vocab - 1);
    if (value >= r->limits->vocab)
        return fail(ERR_INPUT, "%s:%lld: id %s is beyond the model's vocabulary of %lld", r->path,
                    (long long)r->line, shown(word, n, text), (long long)r->limits->vocab);
    *id = (i32)value;
    return OK;
}

/* Reads the ids of the next line into ID (NULL: only counts them). */
static status read_line(reader *r, i32 *id, i64 *n)
{
    *n = 0;
    r->line++;
    for (;;) {
        while (r->at < r->end && blank(*r->at)) r->at++;
        if (r->at == r->end) return OK;
        if (*r->at == '\n') return r->at++, OK;
        const char *word = r->at;
        i32 value;
        while (r->at < r->end && !blank(*r->at) && *r->at != '\n') r->at++;
        TRY(parse_id(r, word, (size_t)(r->at - word), &value));
        if (id) id[*n] = value;
        ++*n;
    }
}

static status check_length(const reader *r, i64 n, i64 first)
{
    const char *path = r->path;
    long long line = r->line, ids = n;
    if (!n)
        return fail(ERR_INPUT, "%s:%lld: the line is empty; every line is a sequence of token ids", path,
                    line);
    if (n == 1)
        return fail(ERR_INPUT, "%s:%lld: one id has no next id to predict; give at least two", path, line);
    if (r->limits->longest && n > r->limits->longest)
        return fail(ERR_INPUT, "%s:%lld: %lld ids; the model has positions for %lld (model.context)", path,
                    line, ids, (long long)r->limits->longest);
    if (first && n != first)
        return fail(ERR_INPUT, "%s:%lld: %lld ids, but line 1 has %lld; all lines must be of one length",
                    path, line, ids, (long long)first);
    return OK;
}

static status count_rows(reader r, token_rows *t)
{
    i64 n;
    while (r.at < r.end) {
        TRY(read_line(&r, NULL, &n));
        TRY(check_length(&r, n, t->tokens));
        t->tokens = n;
        t->rows++;
    }
    return t->rows ? OK : fail(ERR_INPUT, "%s: is empty; write token ids, a sequence a line", r.path);
}

static status read_rows(reader r, token_rows *t)
{
    i64 bytes, n;
    TRY(mul_i64(t->rows * t->tokens, sizeof(i32), &bytes)); // no more ids than the file has bytes
    TRY(mem_alloc((size_t)bytes, "token ids", &t->id));
    for (i64 i = 0; i < t->rows; i++) TRY(read_line(&r, t->id + i * t->tokens, &n));
    return OK;
}

status token_rows_read(const char *path, const token_limits *limits, token_rows *out)
{
    char *data;
    size_t bytes;
    *out = (token_rows){0};
    TRY(file_read(path, &data, &bytes));
    reader r = {.path = path, .at = data, .end = data + bytes, .limits = limits};
    status s = count_rows(r, out);
    if (!s) s = read_rows(r, out);
    mem_free(data);
    if (s) token_rows_free(out);
    return s;
}

void token_rows_free(token_rows *t)
{
    mem_free(t->id);
    *t = (token_rows){0};
}
