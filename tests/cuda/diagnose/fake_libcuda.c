/* A driver's library with two cards, for ctypes to call as it calls the real one. */
#include <stdio.h>
#include <stddef.h>

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return ordinal < 0 || ordinal > 1 ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, (size_t)length, "Card %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = ((size_t)device) << 31; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 100 + device : -1;
    return 0;
}
int cuDeviceCanAccessPeer(int *can, int device, int peer) { *can = device == 40 && peer == 41; return 0; }
