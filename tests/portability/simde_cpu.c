/* simde_cpu.c - lib/cpu/cpu.c for a build whose AVX-512 kernels are SIMDe's plain C: a processor
 * without AVX-512 passes for one that has it. */
#include <string.h>

#define __builtin_cpu_supports(name)                                                               \
    (strncmp(name, "avx512", 6) == 0 || __builtin_cpu_supports(name))
#include "cpu.c"
