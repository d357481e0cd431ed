/* cpu_case: the device that a test program's models run on, opened once.
 *
 *     assert_ok(session_open(c, cpu, &(session_options){.isa = best()}, &s));
 *     return cmocka_run_group_tests(tests, open_device, close_device);
 */
#pragma once
#include "check.h"
#include "device/device.h"

static device *cpu;

static inline int open_device(void **state)
{
    (void)state;
    assert_ok(device_open(&(device_options){0}, &cpu));
    return 0;
}
static inline int close_device(void **state)
{
    (void)state;
    device_close(cpu);
    return 0;
}
static inline isa best(void) { return device_about(cpu)->level; }
