/* cmd_bench.c - `ganq bench`: its commands are in files of their own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* splitmix64 */
uint64_t cli_random_bits(cli_random *random) {
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Sum of four uniform 16-bit numbers. */
double cli_random_normal(cli_random *random) {
    uint64_t bits = cli_random_bits(random);
    double sum = (double)(bits & 0xffff) + (double)(bits >> 16 & 0xffff) +
                 (double)(bits >> 32 & 0xffff) + (double)(bits >> 48);
    return (sum / 65536.0 - 2.0) * sqrt(3.0);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cli_median(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

int cmd_bench(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "gemm"))
        return cmd_bench_gemm(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "decode"))
        return cmd_bench_decode(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "tune"))
        return cmd_bench_tune(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "quantize"))
        return cmd_bench_quantize(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "hessian"))
        return cmd_bench_hessian(argc - 1, argv + 1);
    int help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    fprintf(help ? stdout : stderr,
            "usage: ganq bench gemm|decode|quantize|hessian|tune [options]\n\n"
            "  gemm      Y = X W~^T of random layers against the speed of reading their codes\n"
            "  decode    tokens per second of a model, or of a shape with random weights\n"
            "  quantize  the solver on random weights, and what bounds each of its stages\n"
            "  hessian   summing X^T X, against a BLAS\n"
            "  tune      finds and keeps the best kernels of a GPU for layers of given shapes\n\n"
            "Each has --help.\n");
    return help ? CLI_OK : CLI_USAGE;
}
