/* Arenas, plain allocations and big regions: see base.h.
 *
 * An arena reserves address space (not memory) once; pages come when touched. So building a graph needs no
 * error path for each small object, and the only failure is at arena_open, where it can be reported. */
#include "base/base.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };
static const size_t ARENA_BYTES = (size_t)16 << 30; // address space, PROT_READ|PROT_WRITE, MAP_NORESERVE

struct arena {
    size_t used;
};

status arena_open(arena **out)
{
    void *p = fault_hit(FAULT_ALLOC) ? MAP_FAILED
                                     : mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return fail(ERR_MEMORY, "cannot reserve %zu GiB of address space: raise 'ulimit -v'",
                    ARENA_BYTES >> 30);
    arena *a = p;
    a->used = 64;
    *out = a;
    return OK;
}

void arena_close(arena *a)
{
    if (a) munmap(a, ARENA_BYTES);
}

void *arena_alloc(arena *a, size_t bytes)
{
    size_t start = a->used;
    assert(bytes < ARENA_BYTES - start && "an arena holds descriptions, not tensors");
    a->used = (start + bytes + 15) & ~(size_t)15;
    return (char *)a + start;
}

void *arena_copy(arena *a, const void *from, size_t bytes)
{
    void *p = arena_alloc(a, bytes);
    if (bytes) memcpy(p, from, bytes);
    return p;
}

char *arena_strdup(arena *a, const char *s) { return arena_copy(a, s, strlen(s) + 1); }

char *arena_printf(arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    assert(n >= 0);
    char *s = arena_alloc(a, (size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, format, args);
    va_end(args);
    return s;
}

status mem_alloc(size_t bytes, const char *what, void *out_pointer)
{
    void *p = NULL;
    size_t padded = bytes > SIZE_MAX - 63 ? 0 : (bytes + 63) & ~(size_t)63;
    if (!fault_hit(FAULT_ALLOC) && (padded || !bytes)) p = aligned_alloc(64, padded ? padded : 64);
    if (!p) return fail(ERR_MEMORY, "%s: cannot allocate %.1f MiB", what, (double)bytes / (1 << 20));
    memset(p, 0, bytes);
    memcpy(out_pointer, &p, sizeof p);
    return OK;
}

void mem_free(void *p) { free(p); }

status region_open(size_t bytes, const char *what, void **out)
{
    size_t size = bytes + HUGE_PAGE;
    void *p =
        fault_hit(FAULT_ALLOC) || size < bytes
            ? MAP_FAILED
            : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return fail(ERR_MEMORY, "%s: cannot allocate %.2f GiB", what, (double)bytes / (1 << 30));
    // Give back what lies before and behind the aligned part, so that the region is exactly what was planned.
    uintptr_t start = ((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    size_t keep = (bytes + 4095) & ~(size_t)4095;
    if (start > (uintptr_t)p) munmap(p, start - (uintptr_t)p);
    size_t tail = (uintptr_t)p + size - (start + keep);
    if (tail) munmap((void *)(start + keep), tail);
    if (keep >= HUGE_PAGE) madvise((void *)start, keep / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    *out = (void *)start;
    return OK;
}

enum { PAGE = 4096 };

void region_sparse(void *p, size_t bytes)
{
    char *first = (char *)((uintptr_t)p & ~(uintptr_t)(PAGE - 1)); // pages at the ends are shared: small too
    if (bytes)
        madvise(first, (size_t)((char *)p + bytes - first + PAGE - 1) & ~(size_t)(PAGE - 1), MADV_NOHUGEPAGE);
}

void region_clear(void *p, size_t bytes)
{
    char *end = (char *)p + bytes, *first = (char *)(((uintptr_t)p + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    char *last = (char *)((uintptr_t)end & ~(uintptr_t)(PAGE - 1));
    if (first >= last || madvise(first, (size_t)(last - first), MADV_DONTNEED)) {
        memset(p, 0, bytes);
        return;
    }
    memset(p, 0, (size_t)(first - (char *)p));
    memset(last, 0, (size_t)(end - last));
}

void region_close(void *p, size_t bytes)
{
    if (p) munmap(p, (bytes + 4095) & ~(size_t)4095);
}
