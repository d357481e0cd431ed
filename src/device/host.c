/* host: small files of /proc and /sys, and statvfs. What is not there is left unknown. */
#include "device/host.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The first line of ROOT/NAME without its end; false: no such file. */
static bool first_line(const char *root, const char *name, char *out, size_t bytes)
{
    char path[4096];
    *out = 0;
    snprintf(path, sizeof path, "%s%s", root, name);
    FILE *f = fopen(path, "r");
    if (!f) return false;
    bool got = fgets(out, (int)bytes, f);
    fclose(f);
    out[strcspn(out, "\n")] = 0;
    return got;
}

/* How many numbers a list such as "0-3,8" holds; 0 when it is none. */
static i64 listed(const char *s)
{
    i64 n = 0;
    while (*s) {
        char *end;
        long long a = strtoll(s, &end, 10), b = a;
        if (end == s || a < 0) return 0;
        if (*end == '-') {
            s = end + 1;
            b = strtoll(s, &end, 10);
        }
        if (end == s || b < a || (*end && *end != ',')) return 0;
        n += b - a + 1;
        s = end + (*end == ',');
    }
    return n;
}

static void read_memory(const char *root, host_facts *out)
{
    char path[4096], line[256];
    double kib;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %lf kB", &kib) == 1) out->memory = 1024 * kib;
        if (sscanf(line, "MemAvailable: %lf kB", &kib) == 1) out->available = 1024 * kib;
    }
    if (f) fclose(f);
}

/* "always [madvise] never" -> "madvise" */
static void read_choice(const char *line, char *out, size_t bytes)
{
    const char *open = strchr(line, '[');
    if (open) snprintf(out, bytes, "%.*s", (int)strcspn(open + 1, "]"), open + 1);
}

void host_detect(const char *root, host_facts *out)
{
    char line[256], mount[4096], groups[4096];
    struct rlimit limit;
    const char *at = root ? root : "";
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", at);
    snprintf(groups, sizeof groups, "%s/proc/self/cgroup", at);
    *out = (host_facts){.memory_limit = cgroup_memory(&(cgroup_source){mount, groups})};
    read_memory(at, out);
    first_line(at, "/sys/devices/system/cpu/online", line, sizeof line);
    long online = root ? 0 : sysconf(_SC_NPROCESSORS_ONLN);
    out->processors = listed(line) ? listed(line) : online;
    first_line(at, "/sys/devices/system/node/online", line, sizeof line);
    out->nodes = MAX(1, listed(line));
    if (first_line(at, "/proc/loadavg", line, sizeof line)) out->load = strtod(line, NULL);
    if (first_line(at, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", line, sizeof line))
        snprintf(out->governor, sizeof out->governor, "%.31s", line);
    if (first_line(at, "/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line))
        read_choice(line, out->huge_pages, sizeof out->huge_pages);
    if (!root && !getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY)
        out->address_space = (double)limit.rlim_cur;
}

bool disk_measure(const char *path, disk_facts *out)
{
    char at[4096];
    struct statvfs s;
    *out = (disk_facts){0};
    if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at) return false;
    while (statvfs(at, &s)) {
        char *slash = strrchr(at, '/');
        if (!strcmp(at, "/") || !strcmp(at, ".")) return false;
        if (!slash)
            strcpy(at, ".");
        else
            slash[slash == at] = 0; // "/a" -> "/", "a/b" -> "a"
    }
    *out = (disk_facts){.total = (double)s.f_blocks * (double)s.f_frsize,
                        .free = (double)s.f_bavail * (double)s.f_frsize,
                        .writable = !access(at, W_OK)};
    return true;
}
