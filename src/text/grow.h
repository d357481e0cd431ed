/* grow: arrays that double, through mem_alloc, so that running out of memory is a status.
 *
 *     u32 *a = NULL;
 *     size_t capacity = 0;
 *     TRY(grow(&a, &capacity, n + 1, sizeof *a, "positions"));
 *     a[n++] = x;                                      // mem_free(a) in the end
 */
#pragma once
#include "base/base.h"
#include <string.h>

/* Makes room for NEED elements; what is there stays. On failure nothing changed. */
static inline MUST status grow(void *array_pointer, size_t *capacity, size_t need, size_t element,
                               const char *what)
{
    if (need <= *capacity) return OK;
    size_t room = MAX(MAX(need, *capacity * 2), (size_t)16);
    void *old, *bigger;
    memcpy(&old, array_pointer, sizeof old);
    if (room > SIZE_MAX / element)
        return fail(ERR_MEMORY, "%s: %zu elements do not fit any memory", what, room);
    TRY(mem_alloc(room * element, what, &bigger));
    if (old) memcpy(bigger, old, *capacity * element);
    mem_free(old);
    memcpy(array_pointer, &bigger, sizeof bigger);
    *capacity = room;
    return OK;
}
