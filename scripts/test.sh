#!/bin/sh
# test.sh: installs what the tests need, builds into build-test/, runs the whole suite. Fails when any test fails.
#
#     sh scripts/test.sh                      everything
#     sh scripts/test.sh -DKEEL_WERROR=ON     arguments go to cmake
#     KEEL_TEST_BUILD=build-asan sh scripts/test.sh -DKEEL_SANITIZE=ON
#
# No test judges a duration, so a busy machine changes nothing but the waiting. The result is also written for
# machines, as JUnit, to build-test/tests.xml.
set -eu
cd "$(dirname "$0")/.."
build=${KEEL_TEST_BUILD:-build-test}
jobs=$(nproc)

sh scripts/deps.sh test
# a cached answer of an earlier call must not decide this one: defaults first, the caller's arguments after them
cmake -S . -B "$build" -DKEEL_TESTS=ON -DKEEL_WERROR=OFF -DKEEL_SANITIZE=OFF "$@"
cmake --build "$build" --parallel "$jobs"
rm -f "$build/tests.xml"
# Two tests side by side with two threads each: idle threads sleep instead of spinning on the other's core.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} \
    ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel "$jobs" --output-junit tests.xml
