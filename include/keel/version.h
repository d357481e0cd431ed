/* version: the one place that says which Keel this is; CMake, the library, `keel --version` and keel.pc read
 * it.
 *
 *     #if KEEL_VERSION_NUMBER >= 102       // 0.1.2 or later
 *     printf("built with %s, runs with %s\n", KEEL_VERSION, keel_version());
 *
 * While the major number is 0, programs must be built again for every minor one (the soname has both). */
#pragma once

#define KEEL_VERSION_MAJOR 0
#define KEEL_VERSION_MINOR 1
#define KEEL_VERSION_PATCH 0

#define KEEL_VERSION_TEXT_(x) #x
#define KEEL_VERSION_JOIN_(a, b, c) KEEL_VERSION_TEXT_(a) "." KEEL_VERSION_TEXT_(b) "." KEEL_VERSION_TEXT_(c)
#define KEEL_VERSION KEEL_VERSION_JOIN_(KEEL_VERSION_MAJOR, KEEL_VERSION_MINOR, KEEL_VERSION_PATCH)
#define KEEL_VERSION_NUMBER (KEEL_VERSION_MAJOR * 10000 + KEEL_VERSION_MINOR * 100 + KEEL_VERSION_PATCH)
