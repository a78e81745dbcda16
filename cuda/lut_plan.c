/* lut_plan.c - the choice of a kernel: built-in rows per architecture, rows that were measured, and
 * their file. */
#include "lut_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "alloc.h"
#include "file.h"
#include "lut_kernels.h"

/* What decides, by architecture. 90 was measured on an H200 (docs/bench/gpu-h200.json) and stands in for its
 * successors; the others are modelled: docs/kernels.md derives them. */
typedef struct architecture {
    int32_t sm;
    int32_t shared; /* bytes of shared memory per block, at most                                  */
    int32_t
        copies; /* of the 4-bit pair table: 4 where lookups are what limits, 1 where memory is */
    int32_t wide_warps;  /* per block of two row tiles, up to 8 columns  */
    int32_t simt_rows;   /* most rows of X for which fp32 beats preparing X for tensor cores   */
    int32_t piece;       /* of W~ that cuBLASLt gets at a time, times 48 MB */
    double bytes_per_us; /* of device memory */
} architecture;

static const architecture ARCHITECTURES[] = {
    {80, 163 * 1024, 4, 16, 1, 1, 2.0e6}, /* A100 */
    {86, 99 * 1024, 1, 8, 4, 1, 0.77e6},  /* RTX A6000  */
    {89, 99 * 1024, 1, 8, 4, 1, 1.0e6}, /* RTX 4090: 20 issue slots per 4-bit weight, conflicts hide */
    {90, 227 * 1024, 4, 16, 0, 2, 4.8e6},  /* H200: 3.2 issue slots per 4-bit weight  */
    {100, 227 * 1024, 4, 16, 0, 2, 8.0e6}, /* B200 */
    {120, 99 * 1024, 1, 8, 4, 1, 1.8e6},   /* RTX 5090   */
};

enum {
    FEW_COLUMNS = 4, /* up to here one row tile per block: reading X costs less than fewer blocks */
    MANY_ROWS = 200, /* per multiprocessor: 28672 rows of an H200 are, 12288 are not */
    TILE_COLUMNS = 64, /* from more columns than this on W~ is written out for cuBLASLt */
    MOST_SPLITS = 8
};
/* A second kernel for the sum over splits; one block of 8 warps with 64 bytes per lane on the way
 * at 0.8 us. */
static const double FINISH_US = 2.0, BLOCK_BYTES_PER_US = 20e3;

/* The newest that is not newer: 87 runs as 86. */
static const architecture *architecture_of(int32_t sm) {
    const architecture *best = ARCHITECTURES;
    for (size_t i = 1; i < sizeof ARCHITECTURES / sizeof *ARCHITECTURES; i++)
        if (ARCHITECTURES[i].sm <= sm)
            best = &ARCHITECTURES[i];
    return best;
}

int64_t ganq__lut_class(int64_t columns) {
    int64_t class = 1;
    while (class < columns)
        class *= 2;
    return class;
}

static int64_t launch_columns(const ganq__lut_shape *shape) {
    return shape->columns < GANQ__LUT_MMA_COLUMNS ? shape->columns : GANQ__LUT_MMA_COLUMNS;
}

int32_t ganq__lut_shared_bytes(int32_t sm) {
    return architecture_of(sm)->shared;
}

static int most_warps(const ganq__lut_shape *shape, int copies, int row_tiles) {
    return ganq__lut_mma_warps(shape->bits, copies, (int)launch_columns(shape), row_tiles);
}

int ganq__lut_plan_fits(const ganq__lut_plan *plan, const ganq__lut_shape *shape) {
    if (plan->splits < 1 || plan->splits > MOST_SPLITS || plan->warps < 1 || plan->ahead < 0 ||
        plan->ahead > (plan->variant == GANQ__LUT_MMA))
        return 0;
    switch (plan->variant) {
    case GANQ__LUT_SIMT:
        return plan->warps <= 8 && plan->row_tiles == 1;
    case GANQ__LUT_MMA:
        return !shape->simt_only &&
               (plan->row_tiles == 2 || (plan->row_tiles == 1 && shape->columns <= 8)) &&
               (plan->copies == 4 || plan->copies == 2 || plan->copies == 0 || (plan->copies == 1 && shape->bits == 4)) &&
               plan->warps <= most_warps(shape, plan->copies, plan->row_tiles) &&
               ganq__lut_mma_layout(shape->bits, (int)launch_columns(shape), shape->K, plan).total <=
                   architecture_of(shape->sm)->shared;
    case GANQ__LUT_TILES:
        return !shape->simt_only && plan->splits == 1 && plan->row_tiles >= 1 && plan->row_tiles <= 8;
#if defined(GANQ_HAS_WGMMA)
    case GANQ__LUT_WGMMA: {
        const int32_t wide = plan->row_tiles;
        return !shape->simt_only && !shape->exact && shape->sm == 90 && plan->warps == 8 && plan->copies == 0 &&
               (wide == 2 || wide == 4 || wide == 8 || wide == 16 || wide == 24 || wide == 32);
    }
#endif
    default:
        return 0;
    }
}

/* As few splits of K as the model says: where blocks are too few to keep the memory busy, and the
 * sum is worth it. */
static int32_t model_splits(const architecture *a, const ganq__lut_shape *shape,
                            const ganq__lut_plan *plan) {
    const int64_t rows = 16 * plan->row_tiles, blocks = (shape->N + rows - 1) / rows;
    const double bytes = (double)shape->K * shape->bits / 8,
                 all = bytes * (double)shape->N / a->bytes_per_us;
    int32_t best = 1;
    double best_us = 0;
    for (int32_t splits = 1; splits <= MOST_SPLITS; splits *= 2) {
        if (splits > 1 && blocks * splits > 2 * shape->multiprocessors)
            break;
        const double block = bytes * (double)rows / splits / BLOCK_BYTES_PER_US;
        const double us = (all > block ? all : block) + (splits > 1 ? FINISH_US : 0);
        if (splits == 1 || us < best_us) {
            best = splits;
            best_us = us;
        }
    }
    return best;
}

static ganq__lut_plan built_in(const ganq__lut_shape *shape) {
    const architecture *a = architecture_of(shape->sm);
    const int copies = shape->bits == 4 ? a->copies : 4;
    const int64_t columns = launch_columns(shape);
    ganq__lut_plan plan = {GANQ__LUT_SIMT, 8, 1, copies, 1};
    if (shape->simt_only || (shape->needs_columns && shape->M <= a->simt_rows)) {
        plan.splits = model_splits(a, shape, &plan);
        return plan;
    }
    if (shape->columns > TILE_COLUMNS) {
        plan.variant = GANQ__LUT_TILES;
        plan.row_tiles = a->piece;
        return plan;
    }
    plan.variant = GANQ__LUT_MMA;
    /* Two row tiles read X half as often; with few rows of W they would leave multiprocessors
     * without a block. */
    if (columns > 8 ||
        (columns > FEW_COLUMNS && shape->N >= 32 * (int64_t)shape->multiprocessors)) {
        const int most = most_warps(shape, copies, 2);
        plan.row_tiles = 2;
        plan.warps = a->wide_warps < most ? a->wide_warps : most;
    }
    /* Small tables leave room for many small blocks, which wait for each other less. */
    if (a->copies == 4 && shape->bits < 4 && shape->N >= MANY_ROWS * (int64_t)shape->multiprocessors) {
        plan.row_tiles = 2;
        plan.warps = 4;
    }
    plan.splits = model_splits(a, shape, &plan);
    if (!ganq__lut_plan_fits(&plan, shape)) /* X does not fit beside the tables, or too many warps' sums */
        plan.row_tiles = 2;
    while (!ganq__lut_plan_fits(&plan, shape) && plan.warps > 1)
        plan.warps /= 2;
    return plan;
}

static int same_key(const ganq__lut_tuned *row, const ganq__lut_shape *shape) {
    return row->sm == shape->sm && row->multiprocessors == shape->multiprocessors &&
           row->bits == shape->bits && row->N == shape->N && row->K == shape->K &&
           row->columns == ganq__lut_class(shape->columns);
}

ganq__lut_plan ganq__lut_choose(const ganq__lut_tuning *tuning, const ganq__lut_shape *shape) {
    for (int64_t i = 0; tuning && i < tuning->count; i++)
        if (same_key(&tuning->rows[i], shape) && ganq__lut_plan_fits(&tuning->rows[i].plan, shape))
            return tuning->rows[i].plan;
    return built_in(shape);
}

static int add_candidate(const ganq__lut_shape *shape, const ganq__lut_plan *plan,
                         ganq__lut_plan *out, int count, int room) {
    if (count == room || !ganq__lut_plan_fits(plan, shape))
        return count;
    for (int i = 0; i < count; i++)
        if (!memcmp(&out[i], plan, sizeof *plan))
            return count;
    out[count] = *plan;
    return count + 1;
}

int ganq__lut_candidates(const ganq__lut_shape *shape, ganq__lut_plan *out, int room) {
    const ganq__lut_plan first = built_in(shape);
    int count = add_candidate(shape, &first, out, 0, room);
    static const int32_t warps[2][4] = {{4, 6, 8, 12}, {4, 8, 12, 16}}; /* by row tiles */
    for (int32_t row_tiles = 1; row_tiles <= 2; row_tiles++)
        for (int w = 0; w < 4; w++)
            for (int c = 0; c < 4; c++) {
                static const int32_t copies[] = {4, 2, 1, 0};
                ganq__lut_plan mma = {GANQ__LUT_MMA, warps[row_tiles - 1][w], row_tiles, copies[c], 1};
                for (; mma.splits <= 2; mma.splits++)
                    count = add_candidate(shape, &mma, out, count, room);
                mma.splits = mma.ahead = 1;
                count = add_candidate(shape, &mma, out, count, room);
            }
    for (int32_t splits = 1; splits <= 4 && shape->M <= GANQ__LUT_SIMT_ROWS; splits *= 2) {
        const ganq__lut_plan simt = {GANQ__LUT_SIMT, 8, 1, first.copies, splits};
        count = add_candidate(shape, &simt, out, count, room);
    }
    for (int32_t pieces = 1; pieces <= 8 && shape->columns > GANQ__LUT_SIMT_ROWS; pieces *= 2) {
        const ganq__lut_plan tiles = {GANQ__LUT_TILES, 8, pieces, first.copies, 1};
        count = add_candidate(shape, &tiles, out, count, room);
    }
    static const int32_t wide[] = {2, 4, 8, 16, 24, 32};
    for (int w = 0; w < 6 && shape->columns > GANQ__LUT_SIMT_ROWS / 2; w++) {
        const int one_tile = 8 * wide[w] >= shape->columns;
        for (int32_t splits = 1; splits <= (one_tile ? 4 : 1); splits *= 2) {
            const ganq__lut_plan wgmma = {GANQ__LUT_WGMMA, 8, wide[w], 0, splits};
            count = add_candidate(shape, &wgmma, out, count, room);
        }
        if (one_tile) /* wider ones multiply by nothing */
            break;
    }
    return count;
}

/* ---- the file of measured rows ---- */

static const char HEADER[] = "ganq lut-tuning 2";
static const char OLD_HEADER[] = "ganq lut-tuning 1"; /* measured with other kernels: no rows */
static const char *const VARIANTS[] = {"", "simt", "mma", "tiles", "wgmma"};
enum { MOST_BYTES = 16 << 20 };

ganq_status ganq__lut_tuning_path(char *path, size_t size) {
    const char *own = getenv("GANQ_CACHE_DIR"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    int length;
    if (own && *own)
        length = snprintf(path, size, "%s/lut-tuning.txt", own);
    else if (cache && *cache == '/')
        length = snprintf(path, size, "%s/ganq/lut-tuning.txt", cache);
    else if (home && *home)
        length = snprintf(path, size, "%s/.cache/ganq/lut-tuning.txt", home);
    else
        GANQ_FAIL(
            GANQ_ERR_NOT_FOUND,
            "no folder for measured plans: none of GANQ_CACHE_DIR, XDG_CACHE_HOME and HOME is set");
    if (length < 0 || (size_t)length >= size)
        GANQ_FAIL(GANQ_ERR_NOT_FOUND,
                  "the path of the folder for measured plans is longer than %zu bytes", size - 1);
    return GANQ_OK;
}

static int variant_of(const char *name) {
    for (int v = GANQ__LUT_SIMT; v <= GANQ__LUT_WGMMA; v++)
        if (!strcmp(name, VARIANTS[v]))
            return v;
    return 0;
}

/* "sm 89 x 128, 4 bits, 4096 x 4096, 1 column: mma 8 warps 1 x 16 rows 4 copies 1 split 0 ahead
 * 8.25 us" without the words. */
static int parse_row(const char *line, ganq__lut_tuned *row) {
    char variant[16];
    memset(row, 0, sizeof *row);
    if (sscanf(line,
               "%" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd64 " %" SCNd64 " %" SCNd32
               " %15s %" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd32 " %" SCNd32 " %lf",
               &row->sm, &row->multiprocessors, &row->bits, &row->N, &row->K, &row->columns,
               variant, &row->plan.warps, &row->plan.row_tiles, &row->plan.copies,
               &row->plan.splits, &row->plan.ahead, &row->microseconds) != 13)
        return 0;
    row->plan.variant = variant_of(variant);
    return row->plan.variant && row->bits >= 2 && row->bits <= 4 && row->N > 0 && row->K > 0 &&
           row->columns > 0;
}

ganq_status ganq__lut_tuning_read(const char *path, ganq__lut_tuning *out) {
    ganq__lut_tuning tuning = {0};
    char *text, *line, *rest;
    size_t size;
    ganq_status status = GANQ_OK;
    *out = tuning;
    if (!ganq__path_exists(path))
        return GANQ_OK;
    GANQ_TRY(ganq__file_read(path, MOST_BYTES, &text, &size));
    line = strtok_r(text, "\n", &rest);
    if (line && !strcmp(line, OLD_HEADER))
        goto free_text;
    if (!line || strcmp(line, HEADER))
        GANQ_FAIL_GOTO(free_text, GANQ_ERR_FORMAT, "%s: line 1 is not \"%s\"", path, HEADER);
    for (int number = 2; (line = strtok_r(NULL, "\n", &rest)) != NULL; number++) {
        ganq__lut_tuned row;
        if (*line == '#')
            continue;
        if (!parse_row(line, &row))
            GANQ_FAIL_GOTO(free_text, GANQ_ERR_FORMAT,
                           "%s: line %d is no measured plan (sm multiprocessors bits N K columns "
                           "variant warps row_tiles "
                           "copies splits ahead microseconds)",
                           path, number);
        GANQ_TRY_GOTO(free_text, ganq__lut_tuning_set(&tuning, &row));
    }
    *out = tuning;
    tuning = (ganq__lut_tuning){0};
free_text:
    ganq__free(text);
    ganq__lut_tuning_free(&tuning);
    return status;
}

ganq_status ganq__lut_tuning_set(ganq__lut_tuning *tuning, const ganq__lut_tuned *row) {
    for (int64_t i = 0; i < tuning->count; i++) {
        ganq__lut_tuned *old = &tuning->rows[i];
        if (old->sm == row->sm && old->multiprocessors == row->multiprocessors &&
            old->bits == row->bits && old->N == row->N && old->K == row->K &&
            old->columns == row->columns) {
            *old = *row;
            return GANQ_OK;
        }
    }
    ganq__lut_tuned *rows = ganq__realloc(tuning->rows, (size_t)tuning->count + 1, sizeof *rows);
    if (!rows)
        return GANQ_ERR_NO_MEMORY;
    rows[tuning->count++] = *row;
    tuning->rows = rows;
    return GANQ_OK;
}

/* Or another process has. */
static ganq_status make_dir(const char *folder) {
    ganq__message before;
    ganq__message_keep(&before);
    const ganq_status status = ganq__make_dir(folder);
    if (status == GANQ_OK || !ganq__path_is_dir(folder))
        return status;
    ganq__message_restore(&before);
    return GANQ_OK;
}

static ganq_status make_folder(const char *path) {
    char *folder = ganq__strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    ganq_status status = folder ? GANQ_OK : GANQ_ERR_NO_MEMORY;
    if (slash && slash != folder) {
        *slash = 0;
        status = make_folder(folder);
        if (status == GANQ_OK)
            status = make_dir(folder);
    }
    ganq__free(folder);
    return status;
}

ganq_status ganq__lut_tuning_write(const char *path, const ganq__lut_tuning *tuning) {
    ganq__writer writer;
    char line[256];
    ganq_status status;
    GANQ_TRY(make_folder(path));
    GANQ_TRY(ganq__writer_open(&writer, path));
    int length = snprintf(line, sizeof line,
                          "%s\n# sm multiprocessors bits N K columns variant warps row_tiles "
                          "copies splits ahead microseconds\n",
                          HEADER);
    GANQ_TRY_GOTO(abort, ganq__writer_write(&writer, line, (size_t)length));
    for (int64_t i = 0; i < tuning->count; i++) {
        const ganq__lut_tuned *r = &tuning->rows[i];
        length = snprintf(line, sizeof line,
                          "%" PRId32 " %" PRId32 " %" PRId32 " %" PRId64 " %" PRId64 " %" PRId32
                          " %s %" PRId32 " %" PRId32 " %" PRId32 " %" PRId32 " %" PRId32 " %.3f\n",
                          r->sm, r->multiprocessors, r->bits, r->N, r->K, r->columns,
                          VARIANTS[r->plan.variant], r->plan.warps, r->plan.row_tiles,
                          r->plan.copies, r->plan.splits, r->plan.ahead, r->microseconds);
        GANQ_TRY_GOTO(abort, ganq__writer_write(&writer, line, (size_t)length));
    }
    return ganq__writer_commit(&writer);
abort:
    ganq__writer_abort(&writer);
    return status;
}

/* Of PATH.lock, until it is closed. A file system without locks has none: processes then take their chances. */
static ganq_status lock_file(const char *path, int *lock) {
    char name[4096 + 8];
    GANQ_TRY(make_folder(path));
    snprintf(name, sizeof name, "%s.lock", path);
    *lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*lock < 0)
        GANQ_FAIL(GANQ_ERR_IO, "cannot open %s: %s", name, strerror(errno));
    while (flock(*lock, LOCK_EX) != 0 && errno == EINTR)
        ;
    return GANQ_OK;
}

ganq_status ganq__lut_tuning_keep(const char *path, const ganq__lut_tuned *row, int *anew) {
    ganq__lut_tuning tuning = {0};
    int lock;
    GANQ_TRY(lock_file(path, &lock));
    ganq_status status = ganq__lut_tuning_read(path, &tuning);
    *anew = status == GANQ_ERR_FORMAT;
    if (status == GANQ_OK || *anew)
        status = ganq__lut_tuning_set(&tuning, row);
    if (status == GANQ_OK)
        status = ganq__lut_tuning_write(path, &tuning);
    ganq__lut_tuning_free(&tuning);
    close(lock);
    return status;
}

void ganq__lut_tuning_free(ganq__lut_tuning *tuning) {
    ganq__free(tuning->rows);
    *tuning = (ganq__lut_tuning){0};
}
