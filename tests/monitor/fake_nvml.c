/* A driver's NVML for tests: two GPUs that behave as the file named by FAKE_NVML says.
   "ok", "lost" (GPU 1 fell off the bus), "gone" (so did the driver), "bare" (no value but the name is supported). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute; } process_t;

static int initialised;
static char indexes[2];

static int mode(const char *wanted) {
    char text[16] = "";
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    if (file) {
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    return strncmp(text, wanted, strlen(wanted)) == 0;
}

static int index_of(void *device) { return (int)((char *)device - indexes); }
static int value_status(void) { return mode("bare") ? NOT_SUPPORTED : OK; }

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (mode("gone")) return DRIVER_NOT_LOADED;
    initialised = 1;
    return OK;
}
int nvmlShutdown(void) { initialised = 0; return OK; }
const char *nvmlErrorString(int code) { (void)code; return "error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return !initialised ? UNINITIALIZED : mode("gone") ? DRIVER_NOT_LOADED : OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &indexes[index];
    return index == 1 && mode("lost") ? GPU_IS_LOST : OK;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    snprintf(name, length, "NVIDIA Test %d", index_of(device));
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *device, rates_t *rates) {
    rates->gpu = 40 + index_of(device);
    rates->memory = 1;
    return value_status();
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    (void)device;
    memory->total = 8000, memory->free = 5000, memory->used = 3000;
    return value_status();
}
/* As an old driver: GPU 1 has version 1 of the call only. */
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2_t *memory) {
    if (index_of(device) == 1) return NOT_SUPPORTED;
    memory->total = 8000, memory->reserved = 500, memory->free = 5000, memory->used = 2500;
    return value_status();
}
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    (void)device, (void)sensor;
    *celsius = 61;
    return value_status();
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 123500;
    return value_status();
}

static int processes(unsigned *count, process_t *found, const process_t *list, unsigned length) {
    if (value_status() != OK) return NOT_SUPPORTED;
    if (*count < length) { *count = length; return INSUFFICIENT_SIZE; }
    memcpy(found, list, length * sizeof *list);
    *count = length;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
    static const process_t list[2][2] = {{{100, 1000, 0, 0}, {200, 50, 0, 0}}, {{100, 700, 0, 0}, {300, ~0ULL, 0, 0}}};
    return processes(count, found, list[index_of(device)], 2);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
    static const process_t list[1] = {{200, 50, 0, 0}};
    if (index_of(device) == 1) { *count = 0; return value_status(); }
    return processes(count, found, list, 1);
}
