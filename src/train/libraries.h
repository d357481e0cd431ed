/* libraries: what this program runs with, by name and version as it is loaded, not as it was built against.
 *
 *     library all[MOST_LIBRARIES];
 *     i64 n = libraries(all);                    // {"oneDNN", "2.6.3", true}, ...
 *     libraries_of_results(line, sizeof line);   // "oneDNN 2.6.3, glibc 2.36, OpenMP 201511": what a run
 * records
 */
#pragma once
#include "base/base.h"

enum { MOST_LIBRARIES = 16 };
typedef struct library {
    const char *name;
    char version[32];
    bool results; // the bits of a run may depend on it
} library;
i64 libraries(library out[MOST_LIBRARIES]);
i64 result_libraries(library out[MOST_LIBRARIES]); // only those with results set: the first of the list
void libraries_of_results(char *out, size_t bytes);
