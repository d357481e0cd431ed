/* device_impl: what a device is made of, for the files of src/device alone. */
#pragma once
#include "device/device.h"
#include "device/gemm.h"
#include <dnnl.h>

struct device {
    device_facts about;
    arena *memory; // the device, its plans, their slots
    dnnl_engine_t engine;
    dnnl_stream_t *streams; // [threads]: one a caller, so that no caller shares a handle
    gemm_plan *plans;       // the cache: a list, newest first (some hundred at most)
};

const char *dnnl_reason(dnnl_status_t s);
void gemm_plans_release(device *d); // oneDNN's objects; the memory is the arena's
