/* 02_hessian.c - Hessians are sums: collect them in parts (threads, machines, days), save, load and merge them.
 *   cc 02_hessian.c $(pkg-config --cflags --libs ganq) -lm && ./a.out */
#define _XOPEN_SOURCE 700 /* mkstemp */
#include "example.h"

#include <math.h>
#include <unistd.h>

enum { K = 48, TOKENS = 600 };

int main(void) {
    static float x[TOKENS * K], whole[K * K], parts[K * K];
    for (int i = 0; i < TOKENS * K; i++)
        x[i] = (float)sin(0.37 * i) + (float)cos(0.011 * i * (i % 7));
    char file[] = "/tmp/ganq-hessian-XXXXXX";
    ganq_context *ctx;
    CHECK(ganq_context_create(NULL, &ctx));

    ganq_hessian *all, *first, *second;
    CHECK(ganq_hessian_create(ctx, K, &all));
    CHECK(ganq_hessian_create(ctx, K, &first));
    CHECK(ganq_hessian_create(ctx, K, &second));
    ganq_matrix everything = GANQ_MATRIX(GANQ_DTYPE_F32, TOKENS, K, x);
    ganq_matrix front = GANQ_MATRIX(GANQ_DTYPE_F32, TOKENS / 3, K, x);
    ganq_matrix back = GANQ_MATRIX(GANQ_DTYPE_F32, TOKENS - TOKENS / 3, K, x + TOKENS / 3 * K);
    CHECK(ganq_hessian_add(ctx, all, &everything));
    CHECK(ganq_hessian_add(ctx, first, &front));
    CHECK(ganq_hessian_add(ctx, second, &back));

    /* The second part comes back from a file, as it would from another machine. */
    const int fd = mkstemp(file);
    if (fd < 0)
        return 1;
    CHECK(ganq_hessian_save(second, file));
    ganq_hessian_free(second);
    CHECK(ganq_hessian_load(ctx, file, &second));
    remove(file);
    close(fd);
    CHECK(ganq_hessian_merge(first, second));

    ganq_matrix a = GANQ_MATRIX(GANQ_DTYPE_F32, K, K, whole), b = GANQ_MATRIX(GANQ_DTYPE_F32, K, K, parts);
    CHECK(ganq_hessian_export(all, &a));
    CHECK(ganq_hessian_export(first, &b));
    double difference = 0, size = 0;
    for (int i = 0; i < K * K; i++) {
        difference += fabs(whole[i] - parts[i]);
        size += fabs(whole[i]);
    }
    printf("%lld tokens in one piece, %lld in two: relative difference %.1e\n", (long long)ganq_hessian_tokens(all),
           (long long)ganq_hessian_tokens(first), difference / size);
    ganq_hessian_free(all);
    ganq_hessian_free(first);
    ganq_hessian_free(second);
    ganq_context_free(ctx);
    return difference / size > 1e-5;
}
