/* Reading files that may be packed: see stream.h. */
#define _GNU_SOURCE
#include "data/stream.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

enum { INPUT_BYTES = 256 << 10, BOMB_RATIO = 500, WINDOW_LOG_MAX = 31 };
static const i64 BOMB_BYTES = 64 << 20;

struct byte_stream {
    char *path;
    int fd;
    packing kind;
    u8 *input; // [INPUT_BYTES]
    size_t at, have;
    bool end;     // of the file
    bool between; // behind a whole part (gzip member, zstd frame), or at the start
    i64 in, out;  // bytes read and given out
    z_stream z;
    bool z_open;
    ZSTD_DCtx *zstd;
};

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);
    return n > k && !strcmp(path + n - k, end);
}

packing packing_of(const char *path)
{
    return ends_in(path, ".gz") ? PACKED_GZIP : ends_in(path, ".zst") ? PACKED_ZSTD : PACKED_NOT;
}

i64 packing_name(const char *path)
{
    packing k = packing_of(path);
    return (i64)strlen(path) - (k == PACKED_GZIP ? 3 : k == PACKED_ZSTD ? 4 : 0);
}

static status open_parts(byte_stream *s, const char *path)
{
    s->path = strdup(path);
    if (!s->path) return fail(ERR_MEMORY, "%s: out of memory", path);
    s->kind = packing_of(path);
    s->between = true;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) return fail(ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    if (s->kind == PACKED_NOT) return OK;
    TRY(mem_alloc(INPUT_BYTES, "packed input", &s->input));
    if (s->kind == PACKED_ZSTD) {
        s->zstd = fault_hit(FAULT_ALLOC) ? NULL : ZSTD_createDCtx();
        if (!s->zstd) return fail(ERR_MEMORY, "%s: out of memory", path);
        ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
        return OK;
    }
    s->z_open =
        !fault_hit(FAULT_ALLOC) && inflateInit2(&s->z, 16 + MAX_WBITS) == Z_OK; // 16: gzip's frame alone
    return s->z_open ? OK : fail(ERR_MEMORY, "%s: out of memory", path);
}

status stream_open(const char *path, byte_stream **out)
{
    byte_stream *s;
    TRY(mem_alloc(sizeof *s, "a file", &s));
    s->fd = -1;
    status failed = open_parts(s, path);
    if (failed)
        stream_close(s);
    else
        *out = s;
    return failed;
}

void stream_close(byte_stream *s)
{
    if (!s) return;
    if (s->fd >= 0) close(s->fd);
    if (s->z_open) inflateEnd(&s->z);
    ZSTD_freeDCtx(s->zstd);
    mem_free(s->input);
    free(s->path);
    mem_free(s);
}

i64 stream_position(const byte_stream *s) { return s->in - (i64)(s->have - s->at); }

static status read_some(byte_stream *s, void *out, size_t room, size_t *got)
{
    ssize_t n;
    do n = read(s->fd, out, MIN(room, (size_t)1 << 30));
    while (n < 0 && errno == EINTR);
    if (n < 0) return fail(ERR_IO, "%s: cannot read: %s", s->path, strerror(errno));
    s->in += n;
    *got = (size_t)n;
    s->end = !n;
    return OK;
}

static status refill(byte_stream *s)
{
    s->at = s->have = 0;
    return read_some(s, s->input, INPUT_BYTES, &s->have);
}

static status damaged(const byte_stream *s, const char *what, const char *why)
{
    return fail(ERR_FORMAT, "%s: no %s data at byte %lld of the file, or damaged: %s", s->path, what,
                (long long)stream_position(s), why);
}

/* One call of zlib: uses up input, gives out bytes. */
static status inflate_some(byte_stream *s, u8 *out, size_t room, size_t *got)
{
    s->z.next_in = s->input + s->at, s->z.avail_in = (uInt)(s->have - s->at);
    s->z.next_out = out, s->z.avail_out = (uInt)MIN(room, (size_t)1 << 30);
    const uInt before = s->z.avail_out;
    int r = inflate(&s->z, Z_NO_FLUSH);
    s->at = s->have - s->z.avail_in;
    *got = before - s->z.avail_out;
    if (r == Z_STREAM_END) {
        s->between = true;
        inflateReset(&s->z);
    } else if (r == Z_MEM_ERROR)
        return fail(ERR_MEMORY, "%s: out of memory", s->path);
    else if (r != Z_OK && r != Z_BUF_ERROR)
        return damaged(s, "gzip", s->z.msg ? s->z.msg : "unreadable");
    return OK;
}

static status unzstd_some(byte_stream *s, u8 *out, size_t room, size_t *got)
{
    ZSTD_inBuffer in = {s->input, s->have, s->at};
    ZSTD_outBuffer to = {out, room, 0};
    size_t r = ZSTD_decompressStream(s->zstd, &to, &in);
    s->at = in.pos;
    *got = to.pos;
    if (ZSTD_isError(r)) return damaged(s, "zstd", ZSTD_getErrorName(r));
    s->between = r == 0;
    return OK;
}

static status check_bomb(const byte_stream *s)
{
    if (s->out <= BOMB_BYTES || s->out / BOMB_RATIO <= s->in) return OK;
    return fail(ERR_FORMAT,
                "%s: over %lld MiB out of %lld bytes, over %d times as much: a decompression bomb? unpack it "
                "yourself if it is text",
                s->path, (long long)(BOMB_BYTES >> 20), (long long)s->in, BOMB_RATIO);
}

status stream_read(byte_stream *s, void *out, size_t room, size_t *got)
{
    *got = 0;
    if (s->kind == PACKED_NOT) {
        TRY(read_some(s, out, room, got));
        s->out += (i64)*got;
        return OK;
    }
    while (!*got && room) {
        if (s->at == s->have && !s->end) TRY(refill(s));
        if (s->at == s->have && s->between) return OK; // whole parts, and nothing behind them
        const bool starved = s->at == s->have;
        if (!starved) s->between = false;
        TRY(s->kind == PACKED_GZIP ? inflate_some(s, out, room, got) : unzstd_some(s, out, room, got));
        if (starved && !*got && !s->between)
            return fail(ERR_FORMAT, "%s: truncated: it ends within its data, after %lld bytes of text",
                        s->path, (long long)s->out);
    }
    s->out += (i64)*got;
    return check_bomb(s);
}
