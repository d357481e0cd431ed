/* driver: runs a fuzz target without libFuzzer.
 *
 *     fuzz_NAME FILE...                 each file as an input
 *     fuzz_NAME --changes N FOLDER      N changes of the files in FOLDER; the same every time
 *
 * A change flips, sets, inserts, removes or repeats a few bytes of a seed, or cuts it short. Before an input
 * is tried, nothing is said; a crash names the change by its number, which repeats it: --changes N runs 0 ...
 * N - 1. */
#include "base/random.h"
#include "fuzz.h"
#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

typedef struct seed {
    uint8_t *data;
    size_t bytes;
} seed;

static volatile long now = -1;

static void on_crash(int number)
{
    char line[80];
    int n = snprintf(line, sizeof line, "signal %d at change %ld\n", number, now);
    if (write(2, line, (size_t)n) < 0) _exit(3);
    signal(number, SIG_DFL);
    raise(number);
}

static seed read_seed(const char *path)
{
    seed s = {0};
    FILE *f = fopen(path, "r");
    if (!f) return s;
    s.data = malloc(1 << 20);
    if (s.data) s.bytes = fread(s.data, 1, 1 << 20, f);
    fclose(f);
    return s;
}

static size_t change(uint8_t *data, size_t n, size_t room, u64 number)
{
    u64 index = 0;
    for (u64 edits = 1 + random_bits(1, number, 0, index++) % 4; edits && n; edits--) {
        u64 kind = random_bits(1, number, 0, index++) % 6, value = random_bits(1, number, 0, index++);
        size_t at = (size_t)(random_bits(1, number, 0, index++) % n), length = 1 + value % 16;
        length = MIN(length, n - at);
        static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '"', '\\', '{', '\n', ' ', '9', 0xC3};
        if (kind == 0) data[at] ^= (uint8_t)(1 << value % 8);
        if (kind == 1) data[at] = telling[value % sizeof telling];
        if (kind == 2) memset(data + at, value & 1 ? 0xff : 0, length);
        if (kind == 3) memmove(data + at, data + at + length, n - at - length), n -= length;
        if (kind == 4 && n + length <= room) memmove(data + at + length, data + at, n - at), n += length;
        if (kind == 5) n = value % 8 ? n : at;
    }
    return n;
}

static int run_changes(long count, const char *folder)
{
    enum { MOST = 64 };
    struct dirent **entries;
    seed seeds[MOST];
    int n = scandir(folder, &entries, NULL, alphasort), have = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && have < MOST) seeds[have++] = read_seed(path);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    if (!have) return fprintf(stderr, "%s: no seeds\n", folder), 2;
    for (int k = 0; k < have; k++) LLVMFuzzerTestOneInput(seeds[k].data, seeds[k].bytes);
    for (now = 0; now < count; now++) {
        const seed *s = &seeds[now % have];
        const size_t room = s->bytes + 128;
        uint8_t *data = malloc(room), *exact;
        memcpy(data, s->data, s->bytes);
        size_t bytes = change(data, s->bytes, room, (u64)now);
        exact = malloc(bytes ? bytes : 1); // of its size, so that reading beyond it is seen
        memcpy(exact, data, bytes);
        LLVMFuzzerTestOneInput(exact, bytes);
        free(exact);
        free(data);
    }
    for (int k = 0; k < have; k++) free(seeds[k].data);
    return 0;
}

int main(int argc, char **argv)
{
    const int caught[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) signal(caught[i], on_crash);
    if (argc == 4 && !strcmp(argv[1], "--changes")) return run_changes(atol(argv[2]), argv[3]);
    for (int i = 1; i < argc; i++) {
        seed s = read_seed(argv[i]);
        LLVMFuzzerTestOneInput(s.data, s.bytes);
        free(s.data);
    }
    return 0;
}
