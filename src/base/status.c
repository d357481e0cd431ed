/* Errors as values: see base.h. */
#include "base/base.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    err_code code;
    char message[48];
} no_memory = {ERR_MEMORY, "out of memory while reporting an error"};

static status vfail(err_code code, const char *prefix_of, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    size_t tail = prefix_of ? strlen(prefix_of) + 2 : 0;
    error *e = n < 0 ? NULL : malloc(sizeof *e + (size_t)n + tail + 1);
    if (!e) return (status)&no_memory;
    e->code = code;
    vsnprintf(e->message, (size_t)n + 1, format, args);
    if (prefix_of) {
        memcpy(e->message + n, ": ", 2);
        memcpy(e->message + n + 2, prefix_of, tail - 1);
    }
    return e;
}

status fail(err_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status s = vfail(code, NULL, format, args);
    va_end(args);
    return s;
}

status wrap(status s, const char *format, ...)
{
    if (!s) return OK;
    va_list args;
    va_start(args, format);
    status outer = vfail(s->code, s->message, format, args);
    va_end(args);
    status_drop(s);
    return outer;
}

void status_drop(status s)
{
    if (s && s != (status)&no_memory) free(s);
}

status add_i64(i64 a, i64 b, i64 *out)
{
    if (a < 0 || b < 0 || __builtin_add_overflow(a, b, out))
        return fail(ERR_FORMAT, "size overflow: %lld + %lld", (long long)a, (long long)b);
    return OK;
}

status mul_i64(i64 a, i64 b, i64 *out)
{
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, out))
        return fail(ERR_FORMAT, "size overflow: %lld x %lld", (long long)a, (long long)b);
    return OK;
}

status pad_i64(i64 a, i64 to, i64 *out)
{
    i64 sum = 0;
    if (to <= 0) return fail(ERR_FORMAT, "alignment %lld must be positive", (long long)to);
    TRY(add_i64(a, to - 1, &sum));
    *out = sum / to * to;
    return OK;
}
