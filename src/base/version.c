/* The version of this program: the release, and a digest of the sources it was built from
 * (cmake/code_version.cmake). */
#include "base/base.h"
#include "code_version.h"

const char *code_version(void) { return CODE_VERSION; }
