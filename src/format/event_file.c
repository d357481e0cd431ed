/* TensorBoard's event files: see event_file.h.
 *
 * A file is records, framed as TensorFlow's TFRecord (tensorflow/core/lib/io/record_writer.h):
 *
 *   u64 length | u32 masked crc of these 8 bytes | length bytes | u32 masked crc of those     little endian
 *   masked(c) = (c rotated right by 15) + a282ead8           so that a checksum of checksums is no fixed
 * point
 *
 * Each holds a protocol buffer (tensorflow/core/util/event.proto, framework/summary.proto), of which this
 * writes
 *
 *   Event   { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
 *   Summary { repeated Value value = 1; }      Value { string tag = 1; float simple_value = 2; }
 *
 * on the wire a field is the varint (number << 3 | type), then: type 0 a varint, 1 eight bytes, 5 four bytes,
 * 2 a length as a varint and so many bytes.
 *
 * CRC-32C: RFC 3720 appendix B.4: polynomial 1edc6f41 reflected, start and end inverted. Eight bits a step by
 * shifts, with no table: an export is a few megabytes. */
#include "format/event_file.h"
#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

u32 crc32c(const void *data, size_t bytes)
{
    const u8 *p = data;
    u32 c = ~0U;
    while (bytes--) {
        c ^= *p++;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0x82f63b78U : 0);
    }
    return ~c;
}

static void put_little(text *t, u64 x, int bytes)
{
    char b[8];
    for (int i = 0; i < bytes; i++) b[i] = (char)(x >> 8 * i & 0xff);
    text_add_bytes(t, b, (size_t)bytes);
}

static void put_varint(text *t, u64 x)
{
    char b[10];
    size_t n = 0;
    for (; x > 0x7f; x >>= 7) b[n++] = (char)(x & 0x7f) | (char)0x80;
    b[n++] = (char)x;
    text_add_bytes(t, b, n);
}

static void put_double(text *t, int field, double x)
{
    u64 bits;
    memcpy(&bits, &x, sizeof bits);
    put_varint(t, (u64)field << 3 | FIXED64);
    put_little(t, bits, 8);
}

static void put_float(text *t, int field, float x)
{
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    put_varint(t, (u64)field << 3 | FIXED32);
    put_little(t, bits, 4);
}

static void put_bytes(text *t, int field, const char *p, size_t n)
{
    put_varint(t, (u64)field << 3 | BYTES);
    put_varint(t, n);
    text_add_bytes(t, p, n);
}

static u32 masked(const void *data, size_t bytes)
{
    u32 c = crc32c(data, bytes);
    return (c >> 15 | c << 17) + 0xa282ead8U;
}

static void put_record(text *out, const text *event)
{
    size_t at = out->bytes;
    put_little(out, event->bytes, 8);
    put_little(out, masked(out->data + at, 8), 4);
    text_add_bytes(out, event->data, event->bytes);
    put_little(out, masked(event->data, event->bytes), 4);
}

void event_file_begin(text *out, double wall_time)
{
    static const char version[] = "brain.Event:2";
    text event = {0};
    put_double(&event, 1, wall_time);
    put_bytes(&event, 3, version, sizeof version - 1);
    put_record(out, &event);
    text_free(&event);
}

void event_file_add(text *out, double wall_time, i64 step, const event_scalar *values, i64 n)
{
    text event = {0}, summary = {0};
    for (i64 i = 0; i < n; i++) {
        text value = {0};
        put_bytes(&value, 1, values[i].tag, strlen(values[i].tag));
        put_float(&value, 2, values[i].value);
        put_bytes(&summary, 1, value.data, value.bytes);
        text_free(&value);
    }
    put_double(&event, 1, wall_time);
    put_varint(&event, 2 << 3 | VARINT);
    put_varint(&event, (u64)step);
    put_bytes(&event, 5, summary.data ? summary.data : "", summary.bytes);
    put_record(out, &event);
    text_free(&summary);
    text_free(&event);
}
