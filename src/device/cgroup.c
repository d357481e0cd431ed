/* cgroup: the files of both versions, read from our group up to the root. */
#include "device/cgroup.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A limit of version 1 beyond this is how it says "none" (the largest number of pages). */
static const double MOST_BYTES = 0x1p60;

/* Does the list "cpu,cpuacct" hold NAME? An empty NAME asks for an empty list (version 2). */
static bool holds(const char *list, const char *name)
{
    if (!*name) return !*list;
    size_t n = strlen(name);
    for (const char *s = list; *s; s += strcspn(s, ","), s += *s == ',')
        if (strcspn(s, ",") == n && !strncmp(s, name, n)) return true;
    return false;
}

/* The path of our group in the hierarchy of CONTROLLER ("" is version 2): "number:controllers:path". False
 * where there is none. */
static bool own_group(const char *file, const char *controller, char *path, size_t bytes)
{
    char line[4200];
    bool found = false;
    FILE *f = fopen(file, "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        *at = 0;
        if (holds(list + 1, controller)) found = snprintf(path, bytes, "%s", at + 1) < (int)bytes;
    }
    if (f) fclose(f);
    return found;
}

/* The limit that the files of FOLDER state; 0: none. */
typedef double limit_of(const char *folder);

/* Numbers at the head of FOLDER/NAME: how many of two there are. "max" is none. */
static int numbers(const char *folder, const char *name, double out[2])
{
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    int n = f ? fscanf(f, "%lf %lf", &out[0], &out[1]) : 0;
    if (f) fclose(f);
    return n;
}

static double cpus_2(const char *folder)
{
    double x[2];
    return numbers(folder, "cpu.max", x) == 2 && x[0] > 0 && x[1] > 0 ? x[0] / x[1] : 0;
}

static double cpus_1(const char *folder)
{
    double quota[2], period[2];
    bool known =
        numbers(folder, "cpu.cfs_quota_us", quota) > 0 && numbers(folder, "cpu.cfs_period_us", period) > 0;
    return known && quota[0] > 0 && period[0] > 0 ? quota[0] / period[0] : 0; // -1: no quota
}

static double memory_2(const char *folder)
{
    double x[2];
    return numbers(folder, "memory.max", x) > 0 && x[0] > 0 ? x[0] : 0;
}

static double memory_1(const char *folder)
{
    double x[2];
    return numbers(folder, "memory.limit_in_bytes", x) > 0 && x[0] > 0 && x[0] < MOST_BYTES ? x[0] : 0;
}

static double tighter(double a, double b) { return a > 0 && (!(b > 0) || a < b) ? a : b; }

/* The tightest limit from GROUP up to ROOT, the root of its hierarchy. */
static double tightest(const char *root, char *group, limit_of *limit)
{
    char folder[4300];
    double least = 0;
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", root, strcmp(group, "/") ? group : "");
        least = tighter(limit(folder), least);
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = 0; // "/a/b" -> "/a" -> "" (the root itself) -> done
    }
}

static double look(const cgroup_source *from, const char *controller, limit_of *second, limit_of *first)
{
    const char *mount = from && from->mount ? from->mount : "/sys/fs/cgroup";
    const char *groups = from && from->groups ? from->groups : "/proc/self/cgroup";
    char group[4096], root[200];
    double least = 0;
    if (own_group(groups, "", group, sizeof group)) {
        snprintf(root, sizeof root, "%s/unified/cgroup.controllers", mount); // beside version 1
        bool beside = !access(root, F_OK);
        snprintf(root, sizeof root, "%s%s", mount, beside ? "/unified" : "");
        least = tightest(root, group, second);
    }
    if (own_group(groups, controller, group, sizeof group)) {
        snprintf(root, sizeof root, "%s/%s", mount, controller); // "cpu" is a link to "cpu,cpuacct"
        least = tighter(tightest(root, group, first), least);
    }
    return least;
}

double cgroup_cpus(const cgroup_source *from) { return look(from, "cpu", cpus_2, cpus_1); }
double cgroup_memory(const cgroup_source *from) { return look(from, "memory", memory_2, memory_1); }
