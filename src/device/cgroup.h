/* cgroup: how many processors and how much memory the control groups of this process grant.
 *
 *     double cpus = cgroup_cpus(NULL);         // 2.5; 0: no limit
 *     double bytes = cgroup_memory(NULL);      // 8589934592; 0: no limit
 *     if (bytes > 0 && bytes < need) ...
 *
 * Version 2 (cpu.max, memory.max) and version 1 (cpu.cfs_quota_us, memory.limit_in_bytes), as a machine may
 * have both mounted. Of our group and its ancestors the tightest limit counts. In a container our group's
 * path may not be visible below the mount: the mount's root is then ours, and is looked at last anyway. */
#pragma once
#include "base/base.h"

/* Where to look; tests point it elsewhere. A NULL member means the real place. */
typedef struct cgroup_source {
    const char *mount;  // /sys/fs/cgroup, without a trailing slash
    const char *groups; // /proc/self/cgroup
} cgroup_source;

/* FROM may be NULL. What cannot be read limits nothing. */
double cgroup_cpus(const cgroup_source *from);
double cgroup_memory(const cgroup_source *from); // bytes
