/* Packed text: the first byte says how it is named, the rest is the file. */
#include "data/stream.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    byte_stream *s;
    u8 buffer[4096];
    size_t got = 1;
    if (!n) return 0;
    const char *path = fuzz_file(data[0] % 2 ? "f.gz" : "f.zst", data + 1, n - 1);
    status failed = stream_open(path, &s);
    if (failed) abort(); // opening only looks at the name
    for (i64 all = 0; !failed && got && all < 1 << 20; all += (i64)got)
        failed = stream_read(s, buffer, sizeof buffer, &got);
    status_drop(failed);
    stream_close(s);
    return 0;
}
