/* backends.c - the one file that names the devices, best first. */
#include "backends.h"

#include "cpu.h"

const ganq__backend_list ganq__backends = {{&ganq__cpu_backend, NULL}};
