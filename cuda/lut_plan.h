/* lut_plan.h - which kernel multiplies, and how it is cut: chosen for (GPU, bits, N, K, columns of
 * X). Rows measured by `ganq bench tune` come first; they are kept in a file. What was not
 * measured follows the built-in rows: measured on an H200 for sm_90, elsewhere from the model in
 * docs/kernels.md. */
#ifndef GANQ_CUDA_LUT_PLAN_H
#define GANQ_CUDA_LUT_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ganq__lut_variant {
    GANQ__LUT_SIMT = 1, /* fp32 multiply-adds, X of any type, M <= 8             */
    GANQ__LUT_MMA = 2,  /* tensor cores, pairs looked up into fragments          */
    GANQ__LUT_TILES = 3, /* rows of W~ in f16 through the workspace into cuBLASLt */
    GANQ__LUT_WGMMA = 4  /* sm_90: tensor cores of warpgroups, W~ looked up into registers */
} ganq__lut_variant;

typedef struct ganq__lut_plan {
    int32_t variant;
    int32_t warps;     /* per block; at most ganq__lut_mma_warps                              */
    int32_t row_tiles; /* MMA: of 16 rows per block, 1 or 2. TILES: 1, 2, 4 or 8, for pieces of so many times 48 MB.
                          WGMMA: of 8 columns of X per block, 2, 4, 8, 16, 24 or 32 */
    int32_t
        copies; /* of a pair table: 4, no bank conflicts, 64 KB per row tile at 4 bits; 1 (4 bits only), 16 KB; MMA
                   alone: 0, tables in registers, 2, both */
    int32_t splits; /* of K over blocks, 1..8; more than 1 takes a second kernel           */
    int32_t ahead;  /* MMA: 1, codes are asked to L2 long before they are read             */
} ganq__lut_plan;

/* What decides. */
typedef struct ganq__lut_shape {
    int32_t sm, multiprocessors;
    int32_t bits;
    int32_t simt_only;     /* tables in f32 */
    int32_t exact;         /* exact numerics: a sum has more than one accumulator */
    int32_t needs_columns; /* X cannot go to tensor cores as it is: a kernel must prepare it */
    int64_t N, K;          /* N of all layers of the launch */
    int64_t M, columns;    /* rows of X; the mma kernels' columns for them */
} ganq__lut_shape;

/* Measured rows. */
typedef struct ganq__lut_tuned {
    int32_t sm, multiprocessors, bits, columns; /* columns: the class, see ganq__lut_class */
    int64_t N, K;
    ganq__lut_plan plan;
    double microseconds;
} ganq__lut_tuned;
typedef struct ganq__lut_tuning {
    ganq__lut_tuned *rows;
    int64_t count;
} ganq__lut_tuning;

/* 1, 2, 4, 8, 16, 32, then 64, 128, ...: the next power of two. */
int64_t ganq__lut_class(int64_t columns);
/* Bytes of shared memory of a block at most, and a KB less than those of a multiprocessor. */
int32_t ganq__lut_shared_bytes(int32_t sm);
/* Never fails; tuning may be NULL. */
ganq__lut_plan ganq__lut_choose(const ganq__lut_tuning *tuning, const ganq__lut_shape *shape);
/* Can the kernels run this plan for the shape. */
int ganq__lut_plan_fits(const ganq__lut_plan *plan, const ganq__lut_shape *shape);
/* Plans worth measuring; the first is what the built-in rows say. At most `room`, of which
 * GANQ__LUT_CANDIDATES are enough; returns how many. */
enum { GANQ__LUT_CANDIDATES = 128 };
int ganq__lut_candidates(const ganq__lut_shape *shape, ganq__lut_plan *out, int room);

/* $GANQ_CACHE_DIR, else $XDG_CACHE_HOME/ganq, else $HOME/.cache/ganq, and "/lut-tuning.txt";
 * NOT_FOUND without any. */
ganq_status ganq__lut_tuning_path(char *path, size_t size);
/* A missing file is no rows. FORMAT names file and line. */
ganq_status ganq__lut_tuning_read(const char *path, ganq__lut_tuning *out);
/* Adds the row, or replaces the one with the same key. */
ganq_status ganq__lut_tuning_set(ganq__lut_tuning *tuning, const ganq__lut_tuned *row);
/* Whole or not at all; makes the folder. */
ganq_status ganq__lut_tuning_write(const char *path, const ganq__lut_tuning *tuning);
/* Puts the row into the file, one process after the other. *anew 1: what was there was no such file, says the thread's
 * message, and is gone. */
ganq_status ganq__lut_tuning_keep(const char *path, const ganq__lut_tuned *row, int *anew);
void ganq__lut_tuning_free(ganq__lut_tuning *tuning);

#ifdef __cplusplus
}
#endif
#endif
