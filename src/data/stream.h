/* stream: the bytes of a file from its beginning to its end, unpacked where its name ends in .gz or .zst.
 *
 *     byte_stream *s;
 *     TRY(stream_open("corpus.jsonl.zst", &s));
 *     do TRY(stream_read(s, buffer, room, &got));      // 0 at the end
 *     while (got);
 *     stream_close(s);
 *
 * Packed files are streams of any length in bounded memory (zstd: the window that the file asks for, up to 2
 * GiB), of one part or several behind one another. ERR_FORMAT, naming the file, for what is no such file,
 * damaged, truncated, followed by something else, or a decompression bomb: over 64 MiB that are over 500
 * times the bytes read. */
#pragma once
#include "base/base.h"

typedef enum packing { PACKED_NOT, PACKED_GZIP, PACKED_ZSTD } packing;
packing packing_of(const char *path); // by the end of its name
i64 packing_name(const char *path);   // bytes of PATH before .gz or .zst

typedef struct byte_stream byte_stream;
status stream_open(const char *path, byte_stream **out) MUST; // ERR_IO
void stream_close(byte_stream *s);                            // NULL allowed
status stream_read(byte_stream *s, void *out, size_t room, size_t *got) MUST;
i64 stream_position(const byte_stream *s); // bytes of the file itself that are used up: progress
