/* layer.c - layers in memory: creation, first use, dequantization. */
#include "layer.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc.h"
#include "dtype.h"
#include "half.h"
#include "lanes.h"
#include "layer_internal.h"

ganq_layer *ganq__layer_retain(const ganq_layer *layer) {
    ganq_layer *shared = (ganq_layer *)layer;
    atomic_fetch_add_explicit(&shared->references, 1, memory_order_relaxed);
    return shared;
}

void ganq__layer_release(ganq_layer *layer) {
    if (!layer || atomic_fetch_sub_explicit(&layer->references, 1, memory_order_acq_rel) > 1)
        return;
    ganq__detach_all(&layer->attachments);
    ganq__free(atomic_load_explicit(&layer->lanes, memory_order_relaxed));
    ganq__free(layer->wide);
    ganq__free((char *)layer->planes.name);
    ganq__map_release(layer->planes.map);
    ganq__free(layer->lut);
    ganq__free(layer->outlier_rowptr);
    ganq__free(layer->outlier_cols);
    ganq__free(layer->outlier_vals);
    ganq__free(layer->bias);
    ganq__free(layer->steps);
    ganq__free(layer->note);
    pthread_mutex_destroy(&layer->guard);
    ganq__free(layer);
}

ganq_status ganq__layer_alloc(int bits, int64_t N, int64_t K, ganq_layer **out) {
    if (bits < 2 || bits > 4)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%d bits; 2, 3 and 4 are supported", bits);
    if (N < 1 || K < 1 || N > INT32_MAX || K > INT32_MAX)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "a layer of %lld x %lld; both must be 1 to 2147483647",
                  (long long)N, (long long)K);
    ganq_layer *layer = ganq__calloc(1, sizeof *layer);
    if (!layer)
        return GANQ_ERR_NO_MEMORY;
    atomic_init(&layer->references, 1);
    atomic_init(&layer->lanes, NULL);
    pthread_mutex_init(&layer->guard, NULL);
    layer->bits = bits;
    layer->N = N;
    layer->K = K;
    layer->L = (int64_t)1 << bits;
    layer->row_bytes = ganq__planes_bytes(K, bits);
    layer->lut_dtype = layer->outlier_dtype = GANQ_DTYPE_F16;
    layer->bias_dtype = GANQ_DTYPE_F32;
    layer->report.struct_size = sizeof layer->report;
    layer->report.note = "";
    *out = layer;
    return GANQ_OK;
}

static void *table_at(const ganq_layer *layer, int64_t n) {
    return (char *)layer->lut + (size_t)(n * layer->L) * ganq__dtype_size(layer->lut_dtype);
}

void ganq__layer_table(const ganq_layer *layer, int64_t n, float *t) {
    ganq__to_f32(t, table_at(layer, n), layer->lut_dtype, layer->L);
}

/* ---- rows that 16-bit tables are too coarse for ---- */

/* Does a table of integers, the largest entry becoming GANQ__FIXED_TABLE, lose more than 2e-4 of
 * the row's norm? */
static int is_wide(const float *t, int64_t L, const uint8_t *codes, int64_t K) {
    uint32_t counts[4][16] = {{0}}; /* four: the next count need not wait for the last one */
    float largest = 0;
    double loss = 0, norm = 0;
    for (int64_t k = 0; k < K; k++)
        counts[k % 4][codes[k]]++;
    for (int64_t s = 0; s < L; s++)
        largest = fmaxf(largest, fabsf(t[s]));
    for (int64_t s = 0; s < L && largest > 0; s++) {
        const double count = (double)counts[0][s] + counts[1][s] + counts[2][s] + counts[3][s];
        const double value = (double)t[s] / largest * GANQ__FIXED_TABLE;
        loss += count * (value - rint(value)) * (value - rint(value));
        norm += count * value * value;
    }
    return loss > 4e-8 * norm;
}

static ganq_status mark_if_wide(ganq_layer *layer, int64_t n, const uint8_t *codes) {
    float t[16];
    ganq__layer_table(layer, n, t);
    if (!is_wide(t, layer->L, codes, layer->K))
        return GANQ_OK;
    if (!layer->wide && !(layer->wide = ganq__calloc((size_t)layer->N, 1)))
        return GANQ_ERR_NO_MEMORY;
    layer->wide[n] = 1;
    return GANQ_OK;
}

/* ---- creation ---- */

/* order[s] = index in t of the s-th smallest entry; equal entries keep their order. */
static void sort_table(const float *t, int64_t L, uint8_t *order) {
    for (int64_t s = 0; s < L; s++) {
        int64_t at = s;
        for (; at > 0 && t[order[at - 1]] > t[s]; at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)s;
    }
}

static int f16_holds_row(const float *t, int64_t L) {
    float largest = 0, loss = 0;
    for (int64_t s = 0; s < L; s++) {
        largest = fmaxf(largest, fabsf(t[s]));
        loss = fmaxf(loss, fabsf(ganq__f16_to_f32(ganq__f32_to_f16(t[s])) - t[s]));
    }
    return loss <= largest * 0x1p-10f;
}

static int f16_is_exact(const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (ganq__f16_to_f32(ganq__f32_to_f16(values[i])) != values[i])
            return 0;
    return 1;
}

ganq_status ganq__layer_check_outliers(int64_t N, int64_t K, const int32_t *rowptr,
                                       const int32_t *cols, const float *vals) {
    if (rowptr[0] != 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "outlier_rowptr[0] is %d, expected 0", (int)rowptr[0]);
    for (int64_t n = 0; n < N; n++)
        if (rowptr[n + 1] < rowptr[n] || rowptr[n + 1] - rowptr[n] > K)
            GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                      "outlier_rowptr[%lld] is %d after %d, expected 0 to %lld more",
                      (long long)n + 1, (int)rowptr[n + 1], (int)rowptr[n], (long long)K);
    for (int64_t n = 0; n < N; n++)
        for (int32_t i = rowptr[n]; i < rowptr[n + 1]; i++) {
            const int32_t low = i > rowptr[n] ? cols[i - 1] + 1 : 0;
            if (cols[i] < low || cols[i] >= K)
                GANQ_FAIL(
                    GANQ_ERR_INVALID_ARG,
                    "outlier_cols[%d] is %d in row %lld, expected %d to %lld (columns ascend)",
                    (int)i, (int)cols[i], (long long)n, (int)low, (long long)K - 1);
            if (!isfinite(vals[i]))
                GANQ_FAIL(GANQ_ERR_INVALID_ARG, "outlier_vals[%d] at row %lld, column %d is %g",
                          (int)i, (long long)n, (int)cols[i], (double)vals[i]);
        }
    return GANQ_OK;
}

static ganq_status set_outliers(ganq_layer *layer, const int32_t *rowptr, const int32_t *cols,
                                const float *vals) {
    if (!rowptr && !cols && !vals)
        return GANQ_OK;
    if (!rowptr || !cols || !vals)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "outlier_rowptr, _cols and _vals must be given together");
    GANQ_TRY(ganq__layer_check_outliers(layer->N, layer->K, rowptr, cols, vals));
    const int64_t count = rowptr[layer->N];
    if (count == 0)
        return GANQ_OK;
    GANQ_ALLOC(layer->outlier_rowptr, (size_t)layer->N + 1);
    GANQ_ALLOC(layer->outlier_cols, (size_t)count);
    GANQ_ALLOC(layer->outlier_vals, (size_t)count);
    memcpy(layer->outlier_rowptr, rowptr, (size_t)(layer->N + 1) * sizeof *rowptr);
    memcpy(layer->outlier_cols, cols, (size_t)count * sizeof *cols);
    memcpy(layer->outlier_vals, vals, (size_t)count * sizeof *vals);
    layer->outlier_dtype = f16_is_exact(vals, count) ? GANQ_DTYPE_F16 : GANQ_DTYPE_F32;
    return GANQ_OK;
}

static ganq_status set_bias(ganq_layer *layer, const float *bias, int32_t bias_dtype) {
    if (!bias)
        return GANQ_OK;
    const int64_t bad = ganq__find_nonfinite(bias, layer->N);
    if (bad >= 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "bias[%lld] is %g", (long long)bad, (double)bias[bad]);
    GANQ_ALLOC(layer->bias, (size_t)layer->N);
    memcpy(layer->bias, bias, (size_t)layer->N * sizeof *bias);
    layer->bias_dtype = bias_dtype;
    return GANQ_OK;
}

static ganq_status set_lut(ganq_layer *layer, const float *lut, int32_t lut_dtype) {
    const int64_t N = layer->N, L = layer->L, bad = ganq__find_nonfinite(lut, N * L);
    if (bad >= 0)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "lut[%lld,%lld] is %g", (long long)(bad / L),
                  (long long)(bad % L), (double)lut[bad]);
    for (int64_t n = 0; n < N && lut_dtype == GANQ_DTYPE_F16; n++)
        if (!f16_holds_row(lut + n * L, L))
            lut_dtype = GANQ_DTYPE_F32;
    layer->lut_dtype = lut_dtype;
    layer->lut = ganq__malloc_aligned((size_t)(N * L), ganq__dtype_size(lut_dtype));
    return layer->lut ? GANQ_OK : GANQ_ERR_NO_MEMORY;
}

/* Row n of codes and table, sorted, into the layer; renumbered is scratch [K]. */
static ganq_status set_row(ganq_layer *layer, uint8_t *lanes, int64_t n, const uint8_t *codes,
                           const float *t, uint8_t *renumbered) {
    uint8_t order[16] = {0}, rank[16] = {0};
    float sorted[16];
    sort_table(t, layer->L, order);
    for (int64_t s = 0; s < layer->L; s++) {
        sorted[s] = t[order[s]];
        rank[order[s]] = (uint8_t)s;
    }
    ganq__from_f32(table_at(layer, n), sorted, layer->lut_dtype, layer->L);
    uint8_t seen = 0;
    for (int64_t k = 0; k < layer->K; k++) {
        seen |= codes[k];
        renumbered[k] = rank[codes[k] & 15];
    }
    if (seen >= layer->L)
        for (int64_t k = 0; k < layer->K; k++)
            if (codes[k] >= layer->L)
                GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                          "code at row %lld, column %lld is %d, expected 0 to %lld", (long long)n,
                          (long long)k, (int)codes[k], (long long)layer->L - 1);
    ganq__lanes_pack(renumbered, layer->K, layer->bits, lanes + n * layer->row_bytes);
    return mark_if_wide(layer, n, renumbered);
}

ganq_status ganq__layer_create(int bits, int64_t N, int64_t K, const uint8_t *codes,
                               const float *lut, int32_t lut_dtype, const int32_t *rowptr,
                               const int32_t *cols, const float *vals, const float *bias,
                               int32_t bias_dtype, ganq_layer **out) {
    ganq_layer *layer;
    uint8_t *lanes, *renumbered = NULL;
    ganq_status status;
    GANQ_TRY(ganq__layer_alloc(bits, N, K, &layer));
    GANQ_TRY_GOTO(release, set_lut(layer, lut, lut_dtype));
    GANQ_TRY_GOTO(release, set_bias(layer, bias, bias_dtype));
    GANQ_TRY_GOTO(release, set_outliers(layer, rowptr, cols, vals));
    GANQ_ALLOC_GOTO(release, renumbered, (size_t)K);
    lanes = ganq__malloc_aligned((size_t)N, (size_t)layer->row_bytes);
    if (!lanes) {
        status = GANQ_ERR_NO_MEMORY;
        goto release;
    }
    atomic_init(&layer->lanes, lanes);
    for (int64_t n = 0; n < N; n++)
        GANQ_TRY_GOTO(release,
                      set_row(layer, lanes, n, codes + n * K, lut + n * layer->L, renumbered));
    ganq__free(renumbered);
    *out = layer;
    return GANQ_OK;
release:
    ganq__free(renumbered);
    ganq__layer_release(layer);
    return status;
}

ganq_status ganq__layer_set_report(ganq_layer *layer, const ganq_layer_report *report) {
    ganq_step *steps = NULL;
    char *note = ganq__strdup(report->note ? report->note : "");
    if (!note)
        return GANQ_ERR_NO_MEMORY;
    if (report->step_count > 0) {
        steps = ganq__malloc((size_t)report->step_count, sizeof *steps);
        if (!steps) {
            ganq__free(note);
            return GANQ_ERR_NO_MEMORY;
        }
        memcpy(steps, report->steps, (size_t)report->step_count * sizeof *steps);
    }
    ganq__free(layer->steps);
    ganq__free(layer->note);
    layer->steps = steps;
    layer->note = note;
    layer->report = *report;
    layer->report.struct_size = sizeof layer->report;
    layer->report.steps = steps;
    layer->report.note = note;
    layer->report.costs = layer->costs;
    for (int64_t i = 0; i < report->cost_count; i++)
        layer->costs[i] = report->costs[i];
    return GANQ_OK;
}

/* ---- first use ---- */

static const uint8_t *planes_row(const ganq_layer *layer, int64_t n) {
    return (const uint8_t *)layer->planes.data + n * layer->row_bytes;
}

/* Caller holds the guard. */
static ganq_status check_locked(ganq_layer *layer) {
    if (layer->checked)
        return GANQ_OK;
    GANQ_TRY(ganq__tensor_verify(&layer->planes));
    for (int64_t n = 0; n < layer->N; n++) {
        const int64_t column =
            ganq__planes_find_padding(planes_row(layer, n), layer->K, layer->bits);
        if (column >= 0)
            GANQ_FAIL(GANQ_ERR_FORMAT,
                      "%s: %s: row %lld has a bit set for column %lld, expected 0 beyond the %lld "
                      "columns",
                      ganq__tensor_file(&layer->planes), layer->planes.name, (long long)n,
                      (long long)column, (long long)layer->K);
    }
    layer->checked = 1;
    return GANQ_OK;
}

ganq_status ganq__layer_check(const ganq_layer *layer) {
    ganq_layer *shared = (ganq_layer *)layer;
    if (atomic_load_explicit(&shared->lanes, memory_order_acquire))
        return GANQ_OK;
    pthread_mutex_lock(&shared->guard);
    const ganq_status status = check_locked(shared);
    pthread_mutex_unlock(&shared->guard);
    return status;
}

void ganq__layer_drop_pages(const ganq__tensor *tensor) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)tensor->data + page - 1) / page * page;
    const uintptr_t to = ((uintptr_t)tensor->data + tensor->size_bytes) / page * page;
    if (from < to)
        (void)madvise((void *)from, to - from,
                      MADV_DONTNEED); /* advice: nothing is lost when it is refused */
}

/* Caller holds the guard. */
static ganq_status make_lanes_locked(ganq_layer *layer) {
    uint8_t *lanes, *codes;
    ganq_status status = GANQ_OK;
    GANQ_TRY(check_locked(layer));
    codes = ganq__malloc((size_t)layer->K, 1);
    lanes = codes ? ganq__malloc_aligned((size_t)layer->N, (size_t)layer->row_bytes) : NULL;
    if (!lanes) {
        ganq__free(codes);
        return GANQ_ERR_NO_MEMORY;
    }
    for (int64_t n = 0; n < layer->N && status == GANQ_OK; n++) {
        ganq__planes_unpack(planes_row(layer, n), layer->K, layer->bits, codes);
        ganq__lanes_pack(codes, layer->K, layer->bits, lanes + n * layer->row_bytes);
        status = mark_if_wide(layer, n, codes);
    }
    ganq__free(codes);
    if (status != GANQ_OK) {
        ganq__free(lanes);
        return status;
    }
    atomic_store_explicit(&layer->lanes, lanes, memory_order_release);
    ganq__layer_drop_pages(&layer->planes);
    return GANQ_OK;
}

ganq_status ganq__layer_prepare(const ganq_layer *layer) {
    ganq_layer *shared = (ganq_layer *)layer;
    ganq_status status = GANQ_OK;
    if (atomic_load_explicit(&shared->lanes, memory_order_acquire))
        return GANQ_OK;
    pthread_mutex_lock(&shared->guard);
    if (!atomic_load_explicit(&shared->lanes, memory_order_relaxed))
        status = make_lanes_locked(shared);
    pthread_mutex_unlock(&shared->guard);
    return status;
}

/* ---- reading ---- */

/* Columns [first, first + count) of row n; first is a multiple of the chunk, count at most the
 * chunk. */
static void codes_chunk(const ganq_layer *layer, int64_t n, int64_t first, int64_t count,
                        uint8_t *codes) {
    const uint8_t *lanes =
        atomic_load_explicit(&((ganq_layer *)layer)->lanes, memory_order_acquire);
    const int64_t at = n * layer->row_bytes + ganq__planes_bytes(first, layer->bits);
    if (lanes)
        ganq__lanes_unpack(lanes + at, count, layer->bits, codes);
    else
        ganq__planes_unpack((const uint8_t *)layer->planes.data + at, count, layer->bits, codes);
}

void ganq__layer_codes_row(const ganq_layer *layer, int64_t n, uint8_t *codes) {
    for (int64_t k = 0; k < layer->K; k += GANQ__LANES_CHUNK) {
        const int64_t rest = layer->K - k;
        codes_chunk(layer, n, k, rest < GANQ__LANES_CHUNK ? rest : GANQ__LANES_CHUNK, codes + k);
    }
}

void ganq__layer_dequantize_rows(const ganq_layer *layer, int64_t first, int64_t count, float *out,
                                 int64_t stride) {
    for (int64_t n = first; n < first + count; n++, out += stride) {
        float t[16];
        ganq__layer_table(layer, n, t);
        for (int64_t k = 0; k < layer->K; k += GANQ__LANES_CHUNK) {
            uint8_t codes[GANQ__LANES_CHUNK];
            const int64_t rest = layer->K - k,
                          chunk = rest < GANQ__LANES_CHUNK ? rest : GANQ__LANES_CHUNK;
            codes_chunk(layer, n, k, chunk, codes);
            for (int64_t i = 0; i < chunk; i++)
                out[k + i] = t[codes[i]];
        }
        if (layer->outlier_rowptr)
            for (int32_t i = layer->outlier_rowptr[n]; i < layer->outlier_rowptr[n + 1]; i++)
                out[layer->outlier_cols[i]] += layer->outlier_vals[i];
    }
}

void ganq__layer_planes_row(const ganq_layer *layer, int64_t n, uint8_t *codes, uint8_t *planes) {
    const uint8_t *lanes =
        atomic_load_explicit(&((ganq_layer *)layer)->lanes, memory_order_acquire);
    if (!lanes) {
        memcpy(planes, planes_row(layer, n), (size_t)layer->row_bytes);
        return;
    }
    ganq__lanes_unpack(lanes + n * layer->row_bytes, layer->K, layer->bits, codes);
    ganq__planes_pack(codes, layer->K, layer->bits, planes);
}

static int64_t outlier_count(const ganq_layer *layer) {
    return layer->outlier_rowptr ? layer->outlier_rowptr[layer->N] : 0;
}

int64_t ganq__layer_stored_bytes(const ganq_layer *layer) {
    int64_t bytes =
        layer->N * (layer->row_bytes + layer->L * (int64_t)ganq__dtype_size(layer->lut_dtype));
    if (layer->outlier_rowptr)
        bytes += 4 * (layer->N + 1) +
                 outlier_count(layer) * (4 + (int64_t)ganq__dtype_size(layer->outlier_dtype));
    if (layer->bias)
        bytes += layer->N * (int64_t)ganq__dtype_size(layer->bias_dtype);
    return bytes;
}

int64_t ganq__layer_resident_bytes(const ganq_layer *layer) {
    int64_t bytes =
        (int64_t)sizeof *layer + layer->N * layer->L * (int64_t)ganq__dtype_size(layer->lut_dtype);
    if (atomic_load_explicit(&((ganq_layer *)layer)->lanes, memory_order_acquire))
        bytes += layer->N * layer->row_bytes + (layer->wide ? layer->N : 0);
    if (layer->outlier_rowptr)
        bytes += 4 * (layer->N + 1) + 8 * outlier_count(layer);
    if (layer->bias)
        bytes += 4 * layer->N;
    return bytes + layer->report.step_count * (int64_t)sizeof *layer->steps;
}
