/* Strings and numbers as people write them: see text.h. */
#include "base/text.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void grow(text *t, size_t more)
{
    if (t->bytes + more + 1 <= t->capacity) return;
    t->capacity = MAX(t->capacity * 2, t->bytes + more + 256);
    t->data = realloc(t->data, t->capacity);
    if (!t->data) abort();
}

void text_add_bytes(text *t, const char *p, size_t n)
{
    grow(t, n);
    memcpy(t->data + t->bytes, p, n);
    t->data[t->bytes += n] = 0;
}

void text_add(text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    grow(t, (size_t)MAX(n, 0));
    vsnprintf(t->data + t->bytes, (size_t)MAX(n, 0) + 1, format, args);
    va_end(args);
    t->bytes += (size_t)MAX(n, 0);
}

void text_free(text *t)
{
    free(t->data);
    *t = (text){0};
}

bool parse_double(const char *s, double *out)
{
    char *end;
    if (!*s || *s == ' ') return false;
    double x = strtod(s, &end);
    if (*end || !isfinite(x)) return false;
    *out = x;
    return true;
}

bool parse_i64(const char *s, i64 *out)
{
    char *end;
    if (!((*s >= '0' && *s <= '9') || *s == '-')) return false;
    errno = 0;
    long long x = strtoll(s, &end, 10);
    if (*end || end == s || errno) return false;
    *out = x;
    return true;
}

bool parse_count(const char *s, double *out)
{
    static const char unit[] = "kMGT";
    char *end;
    if (!((*s >= '0' && *s <= '9') || *s == '.' || *s == '-')) return false;
    double x = strtod(s, &end), base = 1000;
    if (end == s || !isfinite(x)) return false;
    if (*end) {
        const char *u = strchr(unit, *end == 'K' ? 'k' : *end);
        if (!u) return false;
        if (end[1] == 'i') base = 1024;
        if (end[base == 1024 ? 2 : 1]) return false;
        if (*end == 'K' && base == 1000) return false; // K alone is neither 10^3 nor 2^10 by the rules
        x *= pow(base, (double)(u - unit + 1));
    }
    *out = x;
    return true;
}

bool parse_duration(const char *s, double *seconds)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
    char *end;
    double x = strtod(s, &end);
    if (end == s || !isfinite(x)) return false;
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcmp(end, units[i].name)) {
            *seconds = x * units[i].seconds;
            return true;
        }
    return false;
}

static int distance(const char *a, const char *b)
{
    enum { LONGEST = 128 };
    int row[LONGEST + 1], n = (int)strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST) return LONGEST;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MIN(replace, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

const char *nearest_name(const char *s, const char *const *names, i64 n)
{
    const char *best = NULL;
    int best_distance = (int)strlen(s) / 3 + 1;
    for (i64 i = 0; i < n; i++) {
        int d = distance(s, names[i]);
        if (d <= best_distance && (!best || d < best_distance)) best = names[i], best_distance = d;
    }
    return best;
}

const char *show_count(double x, char out[32])
{
    static const char *const unit[] = {"", " k", " M", " G", " T"};
    int u = 0;
    for (; fabs(x) >= 999.5 && u < 4; u++) x /= 1000;
    snprintf(out, 32, x == floor(x) && u == 0 ? "%.0f%s" : "%.3g%s", x, unit[u]);
    return out;
}

const char *show_bytes(double bytes, char out[32])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; bytes >= 1023.5 && u < 4; u++) bytes /= 1024;
    snprintf(out, 32, u == 0 || bytes >= 99.95 ? "%.0f %s" : "%.3g %s", bytes, unit[u]);
    return out;
}

const char *show_seconds(double s, char out[32])
{
    if (s < 9.95)
        snprintf(out, 32, "%.1f s", s);
    else if (s < 59.5)
        snprintf(out, 32, "%.0f s", s);
    else if (s < 3599.5)
        snprintf(out, 32, "%d min %02d s", (int)(s + .5) / 60, (int)(s + .5) % 60);
    else
        snprintf(out, 32, "%d h %02d min", (int)(s + 30) / 3600, (int)(s + 30) / 60 % 60);
    return out;
}
