// solver.cu - the solver's steps as kernels; solver_kernels.h says what each is.
//
// A trial's numbers never depend on the other trials of the batch: sums run in an order that ld alone decides.
#include "solver_kernels.h"

#include <math.h>

#include "launch.cuh"

enum {
    WARP = 32,
    BLOCK = 64,  // columns that one warp settles in a row: two per lane
    OUTER = GANQ__SWEEP_COLUMNS,
    TILE = 128, // rows and columns of a product's tile
    DEPTH = GANQ__PRODUCT_DEPTH,
    CHUNK = GANQ__SORT_COLUMNS, // rows of L in shared memory for the table step
    SLOTS = GANQ__SORT_SLOTS,
    PAIRS = 136, // s, t <= s for 16 entries
    SUMS = GANQ__GRAM_SUMS,
    SPLITS = GANQ__GRAM_PARTS,
    GRAM_WARPS = 16, // of a block of the table step, two trials each
    ROW_WARPS = 8,   // trials per block where a warp has one trial
    ENERGY_TILE = GANQ__ENERGY_COLUMNS
};
typedef ganq__batch_row batch_row;

// As ganq__has_code: the others are outliers.
__device__ __forceinline__ int has_code(int code) {
    return code < GANQ__LEVELS;
}

__device__ __forceinline__ double warp_sum(double x) {
    for (int d = WARP / 2; d > 0; d /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}

// ---- vectors ----

// x = (w - shift) * scale at the factor's places.
static __global__ void load_rows(int count, int64_t live, int64_t ld, int64_t K, const float *w, const int64_t *rows,
                                 const double *frames, const int32_t *columns, float *x) {
    const int i = (int)blockIdx.y;
    const int64_t k = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || k >= ld)
        return;
    const double shift = frames[2 * i], scale = frames[2 * i + 1];
    x[i * ld + k] = k < live ? (float)(((double)w[rows[i] * K + columns[k]] - shift) * scale) : 0.0f;
}

// Codes move from their factor's places to live numbers.
static __global__ void renumber_places(int count, int64_t live, int64_t ld, const int32_t *const *live_index,
                                       const int *factors, const uint8_t *from, uint8_t *to) {
    const int i = (int)blockIdx.y;
    const int64_t k = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && k < live)
        to[i * ld + live_index[factors[i]][k]] = from[i * ld + k];
}

// e = w - table[code], 0 for outliers.
static __global__ void subtract_tables(const int *places, int count, int64_t live, int64_t ld, const batch_row *rows,
                                       const uint8_t *codes, const float *w, float *e) {
    const int64_t k = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if ((int)blockIdx.y >= count || k >= live)
        return;
    const int64_t i = places[blockIdx.y];
    const uint8_t code = codes[i * ld + k];
    e[i * ld + k] = has_code(code) ? w[i * ld + k] - rows[i].table.value[code] : 0.0f;
}

// ---- products ----

// C[place, n] (+)= sum_u A[place, u] B[u, n] for u in [0, depth), n in [0, width); pointers are at the first column
// or row that takes part. depth is a multiple of 16, width and leading dimensions of 4. Sums run over u in order.
static __global__ void __launch_bounds__(256)
    multiply(const int *places, int count, int64_t depth, int64_t width, const float *__restrict__ a, int64_t lda,
             const float *__restrict__ b, int64_t ldb, float *__restrict__ c, int64_t ldc, int accumulate) {
    __shared__ __align__(16) float as[DEPTH][TILE + 4];
    __shared__ __align__(16) float bs[DEPTH][TILE];
    const int t = (int)threadIdx.x;
    const int64_t row0 = (int64_t)blockIdx.y * TILE, col0 = (int64_t)blockIdx.x * TILE;
    // Loads: 128 x 16 of A as two float4 along u, 16 x 128 of B as two float4 along n, per thread.
    const int am = t / 4, au = t % 4 * 4, bu = t / 32, bn = t % 32 * 4;
    const float *arow[2];
    for (int h = 0; h < 2; h++) {
        const int64_t m = row0 + am + 64 * h;
        arow[h] = m < count ? a + (int64_t)places[m] * lda : nullptr;
    }
    const int ty = t / 16, tx = t % 16;
    float sum[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            sum[i][j] = 0;
    const float4 zero = make_float4(0, 0, 0, 0);
    for (int64_t u = 0; u < depth; u += DEPTH) {
        float4 av[2], bv[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            av[h] = arow[h] ? *(const float4 *)(arow[h] + u + au) : zero;
            bv[h] = col0 + bn < width ? *(const float4 *)(b + (u + bu + 8 * h) * ldb + col0 + bn) : zero;
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < 2; h++) {
            as[au + 0][am + 64 * h] = av[h].x;
            as[au + 1][am + 64 * h] = av[h].y;
            as[au + 2][am + 64 * h] = av[h].z;
            as[au + 3][am + 64 * h] = av[h].w;
            *(float4 *)&bs[bu + 8 * h][bn] = bv[h];
        }
        __syncthreads();
#pragma unroll
        for (int s = 0; s < DEPTH; s++) {
            float x[8], y[8];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float4 p = *(const float4 *)&as[s][64 * h + 4 * ty];
                const float4 q = *(const float4 *)&bs[s][64 * h + 4 * tx];
                x[4 * h] = p.x, x[4 * h + 1] = p.y, x[4 * h + 2] = p.z, x[4 * h + 3] = p.w;
                y[4 * h] = q.x, y[4 * h + 1] = q.y, y[4 * h + 2] = q.z, y[4 * h + 3] = q.w;
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int64_t m = row0 + 64 * (i / 4) + 4 * ty + i % 4;
        if (m >= count)
            continue;
        float *row = c + (int64_t)places[m] * ldc;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int64_t n = col0 + 64 * h + 4 * tx;
            if (n >= width)
                continue;
            float4 v = make_float4(sum[i][4 * h], sum[i][4 * h + 1], sum[i][4 * h + 2], sum[i][4 * h + 3]);
            if (accumulate) {
                const float4 old = *(const float4 *)(row + n);
                v.x += old.x, v.y += old.y, v.z += old.z, v.w += old.w;
            }
            *(float4 *)(row + n) = v;
        }
    }
}

// parts[tile, i] = the part of e_i H e_i^T whose columns are in the tile: products in float32 over 16 columns, sums
// of those in float64. 64 x 64 tiles, 4 x 4 per thread.
static __global__ void __launch_bounds__(256)
    energy_tiles(const int *places, int count, int64_t ld, const float *__restrict__ e, const float *__restrict__ h,
                 double *__restrict__ parts) {
    __shared__ __align__(16) float as[DEPTH][64 + 4];
    __shared__ __align__(16) float bs[DEPTH][64];
    __shared__ double lanes[64][16];
    const int t = (int)threadIdx.x, am = t / 4, au = t % 4 * 4, bu = t / 16, bn = t % 16 * 4, ty = t / 16, tx = t % 16;
    const int64_t row0 = (int64_t)blockIdx.y * 64, col0 = (int64_t)blockIdx.x * 64;
    const float4 zero = make_float4(0, 0, 0, 0);
    const float *arow = row0 + am < count ? e + (int64_t)places[row0 + am] * ld : nullptr;
    double total[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            total[i][j] = 0;
    for (int64_t u = 0; u < ld; u += DEPTH) {
        const float4 av = arow ? *(const float4 *)(arow + u + au) : zero;
        const float4 bv = col0 + bn < ld ? *(const float4 *)(h + (u + bu) * ld + col0 + bn) : zero;
        __syncthreads();
        as[au + 0][am] = av.x;
        as[au + 1][am] = av.y;
        as[au + 2][am] = av.z;
        as[au + 3][am] = av.w;
        *(float4 *)&bs[bu][bn] = bv;
        __syncthreads();
        float sum[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[i][j] = 0;
#pragma unroll
        for (int s = 0; s < DEPTH; s++) {
            const float4 p = *(const float4 *)&as[s][4 * ty], q = *(const float4 *)&bs[s][4 * tx];
            const float x[4] = {p.x, p.y, p.z, p.w}, y[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                total[i][j] += sum[i][j];
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t m = row0 + 4 * ty + i;
        double part = 0;
        if (m < count) {
            const float *row = e + (int64_t)places[m] * ld;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int64_t n = col0 + 4 * tx + j;
                part += n < ld ? (double)row[n] * total[i][j] : 0.0;
            }
        }
        lanes[4 * ty + i][tx] = part;
    }
    __syncthreads();
    if (t < 64 && row0 + t < count) {
        double sum = 0;
        for (int j = 0; j < 16; j++)
            sum += lanes[t][j];
        parts[(int64_t)blockIdx.x * count + row0 + t] = sum;
    }
}

static __global__ void energy_sums(int count, int tiles, const double *parts, double *energies) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= count)
        return;
    double sum = 0;
    for (int t = 0; t < tiles; t++)
        sum += parts[(int64_t)t * count + i];
    energies[i] = sum;
}

// ---- S-step ----

// Columns [begin, begin + 64) of every place, the last first (paper, eq. 7-9): r holds what later columns contribute,
// and gets this block's contribution to itself. A warp per place.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    assign_block(const int *places, int count, int64_t begin, int64_t live, int64_t ld, const float *__restrict__ factor,
                 const float *__restrict__ inverse, const batch_row *__restrict__ rows, const float *__restrict__ w,
                 uint8_t *__restrict__ codes, float *__restrict__ e, float *__restrict__ r) {
    __shared__ float block[BLOCK][BLOCK];
    __shared__ float inv[BLOCK];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t end = begin + BLOCK < live ? begin + BLOCK : live;
    for (int i = (int)threadIdx.x; i < BLOCK * BLOCK; i += WARP * ROW_WARPS) {
        const int64_t u = begin + i / BLOCK, k = begin + i % BLOCK;
        block[i / BLOCK][i % BLOCK] = u < end && k < end ? factor[u * ld + k] : 0.0f;
    }
    if ((int)threadIdx.x < BLOCK)
        inv[threadIdx.x] = begin + threadIdx.x < end ? inverse[begin + threadIdx.x] : 0.0f;
    __syncthreads();
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t at = (int64_t)places[index] * ld + begin;
    const batch_row *row = &rows[places[index]];
    const float value = row->table.value[lane & 15];
    const float middle = lane < GANQ__LEVELS ? row->table.middle[lane] : INFINITY;
    const int has[2] = {begin + lane < end, begin + WARP + lane < end};
    float x[2], sum[2], left[2] = {0, 0};
    int code[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        x[h] = has[h] ? w[at + WARP * h + lane] : 0.0f;
        sum[h] = has[h] ? r[at + WARP * h + lane] : 0.0f;
        code[h] = has[h] ? codes[at + WARP * h + lane] : (int)GANQ__EXACT;
    }
#pragma unroll
    for (int h = 1; h >= 0; h--) {
        for (int k = WARP - 1; k >= 0; k--) {
            if (begin + WARP * h + k >= end)
                continue;
            const float xk = __shfl_sync(0xffffffffu, x[h], k), ck = __shfl_sync(0xffffffffu, sum[h], k);
            const int old = __shfl_sync(0xffffffffu, code[h], k);
            const float wanted = ck * inv[WARP * h + k];
            const int s = __popc(__ballot_sync(0xffffffffu, xk + wanted > middle));
            const float entry = __shfl_sync(0xffffffffu, value, s);
            if (old == GANQ__EXACT)
                continue;
            const float ek = has_code(old) ? xk - entry : -wanted;
            if (lane == k) {
                code[h] = has_code(old) ? s : old;
                left[h] = ek;
            }
            sum[0] = fmaf(ek, block[WARP * h + k][lane], sum[0]);
            sum[1] = fmaf(ek, block[WARP * h + k][WARP + lane], sum[1]);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (has[h]) {
            codes[at + WARP * h + lane] = (uint8_t)code[h];
            e[at + WARP * h + lane] = left[h];
            r[at + WARP * h + lane] = sum[h];
        }
}

// ---- descent ----

// Coordinate descent over columns [begin, begin + 64) of every place. delta [places, OUTER], at this block's columns,
// gets the changes of e. A warp per place.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    sweep_block(const int *places, int count, int64_t begin, int64_t live, int64_t ld,
                const float *__restrict__ hessian, const float *__restrict__ diagonals,
                const float *__restrict__ inverses, batch_row *__restrict__ rows, const float *__restrict__ w,
                uint8_t *__restrict__ codes, float *__restrict__ e, float *__restrict__ g, float *__restrict__ delta) {
    __shared__ float block[BLOCK][BLOCK];
    __shared__ float inv[BLOCK], diagonal[BLOCK];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t end = begin + BLOCK < live ? begin + BLOCK : live;
    for (int i = (int)threadIdx.x; i < BLOCK * BLOCK; i += WARP * ROW_WARPS) {
        const int64_t u = begin + i / BLOCK, k = begin + i % BLOCK;
        block[i / BLOCK][i % BLOCK] = u < end && k < end ? hessian[u * ld + k] : 0.0f;
    }
    if ((int)threadIdx.x < BLOCK) {
        const int in = begin + threadIdx.x < end;
        inv[threadIdx.x] = in ? inverses[begin + threadIdx.x] : 0.0f;
        diagonal[threadIdx.x] = in ? diagonals[begin + threadIdx.x] : 0.0f;
    }
    __syncthreads();
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t place = places[index], at = place * ld + begin;
    batch_row *row = &rows[place];
    const float value = row->table.value[lane & 15];
    const float above = row->table.middle[lane & 15]; // of the interval in which entry `lane` is the nearest
    const float below = (lane & 15) > 0 ? row->table.middle[(lane & 15) - 1] : -INFINITY;
    const float middle = lane < GANQ__LEVELS ? above : INFINITY;
    float gradient[2], step[2] = {0, 0};
    int code[2], moves = 0;
    double change = 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int in = begin + WARP * h + lane < end;
        gradient[h] = in ? g[at + WARP * h + lane] : 0.0f;
        code[h] = in ? codes[at + WARP * h + lane] : (int)GANQ__EXACT;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        unsigned open = 0xffffffffu;
        for (;;) {
            const int q = code[h] & 15;
            const float x = __shfl_sync(0xffffffffu, value, q) + gradient[h] * inv[WARP * h + lane];
            const float up = __shfl_sync(0xffffffffu, above, q), down = __shfl_sync(0xffffffffu, below, q);
            const unsigned wanting =
                __ballot_sync(0xffffffffu, has_code(code[h]) && (x > up || x <= down)) & open;
            if (!wanting)
                break;
            const int k = __ffs((int)wanting) - 1;
            open = k == WARP - 1 ? 0u : 0xffffffffu << (k + 1); // columns after this one
            const float gk = __shfl_sync(0xffffffffu, gradient[h], k), xk = __shfl_sync(0xffffffffu, x, k);
            const int old = __shfl_sync(0xffffffffu, code[h], k);
            const int s = __popc(__ballot_sync(0xffffffffu, xk > middle));
            const float d =
                __shfl_sync(0xffffffffu, value, old & 15) - __shfl_sync(0xffffffffu, value, s & 15);
            const double gain = (double)d * (2.0 * (double)gk + (double)d * (double)diagonal[WARP * h + k]);
            if (!(gain < 0))
                continue;
            change += gain;
            moves++;
            if (lane == k) {
                code[h] = s;
                step[h] = d;
            }
            gradient[0] = fmaf(d, block[WARP * h + k][lane], gradient[0]);
            gradient[1] = fmaf(d, block[WARP * h + k][WARP + lane], gradient[1]);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int k = WARP * h + lane;
        const float entry = __shfl_sync(0xffffffffu, value, code[h] & 15);
        if (begin + k < ld)
            delta[place * OUTER + begin % OUTER + k] = step[h];
        if (begin + k >= end)
            continue;
        g[at + k] = gradient[h];
        if (step[h] != 0.0f) {
            codes[at + k] = (uint8_t)code[h];
            e[at + k] = w[at + k] - entry;
        }
    }
    if (lane == 0) {
        row->change += change;
        row->moves += moves;
    }
}

static __global__ void begin_sweep(const int *places, int count, int first, batch_row *rows) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= count)
        return;
    batch_row *row = &rows[places[i]];
    if (first) {
        row->change = 0;
        row->all_moves = 0;
    } else {
        row->all_moves += row->moves;
    }
    row->moves = 0;
}

// ---- the table step ----

// The rows of each chunk of 256 columns sorted by code, as indices into the chunk: lists padded to multiples of four
// with CHUNK, which is a row of zeros. ends[i, chunk, s]: where list s ends. A warp per place and chunk.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    sort_codes(const int *places, int count, int64_t live, int64_t ld, int chunks, const uint8_t *__restrict__ codes,
               uint16_t *__restrict__ lists, uint16_t *__restrict__ ends) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp, chunk = (int)blockIdx.y;
    if (index >= count)
        return;
    const int64_t base = (int64_t)chunk * CHUNK;
    const uint8_t *row = codes + (int64_t)places[index] * ld;
    uint16_t *list = lists + ((int64_t)index * chunks + chunk) * SLOTS;
    int code[CHUNK / WARP], filled = 0;
#pragma unroll
    for (int j = 0; j < CHUNK / WARP; j++) {
        const int64_t k = base + WARP * j + lane;
        code[j] = k < live ? row[k] : (int)GANQ__EXACT;
    }
    const unsigned before = (1u << lane) - 1u;
    for (int s = 0; s < GANQ__LEVELS; s++) {
#pragma unroll
        for (int j = 0; j < CHUNK / WARP; j++) {
            const unsigned mask = __ballot_sync(0xffffffffu, code[j] == s);
            if (code[j] == s)
                list[filled + __popc(mask & before)] = (uint16_t)(WARP * j + lane);
            filled += __popc(mask);
        }
        const int padded = (filled + 3) & ~3;
        if (filled + lane < padded)
            list[filled + lane] = CHUNK;
        filled = padded;
        if (lane == 0)
            ends[((int64_t)index * chunks + chunk) * GANQ__LEVELS + s] = (uint16_t)filled;
    }
}

// parts[split, i, :]: gram = S L (S L)^T (pairs s, t <= s) and slope = S L r^T of the panels of 32 columns that are this
// split's. A lane has one column of U = S L, its sixteen sums in registers; the rows of L pass through shared memory,
// sorted by code, so that no sum is ever addressed.
static __global__ void __launch_bounds__(WARP *GRAM_WARPS)
    gram_parts(const int *places, int count, int64_t live, int64_t ld, int chunks, const float *__restrict__ factor,
               const uint16_t *__restrict__ lists, const uint16_t *__restrict__ ends, const float *__restrict__ r,
               float *__restrict__ parts) {
    enum { PER_WARP = 2, STAGE = 17 * 33 };
    __shared__ __align__(16) float rows[(CHUNK + 1) * WARP];
    __shared__ uint2 order[GRAM_WARPS][SLOTS / 4]; // four indices each
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int first = ((int)blockIdx.x * GRAM_WARPS + warp) * PER_WARP;
    float pairs[PER_WARP][5];
#pragma unroll
    for (int t = 0; t < PER_WARP; t++)
#pragma unroll
        for (int j = 0; j < 5; j++)
            pairs[t][j] = 0;
    for (int64_t begin = (int64_t)blockIdx.y * WARP; begin < live; begin += SPLITS * WARP) {
        float u[PER_WARP][GANQ__LEVELS];
#pragma unroll
        for (int t = 0; t < PER_WARP; t++)
#pragma unroll
            for (int s = 0; s < GANQ__LEVELS; s++)
                u[t][s] = 0;
        for (int chunk = (int)(begin / CHUNK); chunk < chunks; chunk++) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < (CHUNK + 1) * WARP / 4; i += WARP * GRAM_WARPS) {
                const int64_t k = (int64_t)chunk * CHUNK + i / (WARP / 4), n = begin + i % (WARP / 4) * 4;
                const int in = i < CHUNK * WARP / 4 && k < live && n < ld;
                ((float4 *)rows)[i] = in ? *(const float4 *)(factor + k * ld + n) : make_float4(0, 0, 0, 0);
            }
            __syncthreads();
#pragma unroll
            for (int t = 0; t < PER_WARP; t++) {
                if (first + t >= count)
                    continue;
                const int64_t at = (int64_t)(first + t) * chunks + chunk;
                const uint16_t *end = ends + at * GANQ__LEVELS;
                __syncwarp();
                for (int i = lane; i < SLOTS / 4; i += WARP)
                    order[warp][i] = ((const uint2 *)(lists + at * SLOTS))[i];
                __syncwarp();
                int from = 0;
#pragma unroll
                for (int s = 0; s < GANQ__LEVELS; s++) {
                    const int to = end[s];
                    float sum = u[t][s];
                    for (int i = from; i < to; i += 4) {
                        const uint2 four = order[warp][i / 4];
                        sum += rows[(four.x & 0xffffu) * WARP + lane];
                        sum += rows[(four.x >> 16) * WARP + lane];
                        sum += rows[(four.y & 0xffffu) * WARP + lane];
                        sum += rows[(four.y >> 16) * WARP + lane];
                    }
                    u[t][s] = sum;
                    from = to;
                }
            }
        }
        // U and r of this panel through shared memory; a lane sums up to five products of two of their rows.
#pragma unroll
        for (int t = 0; t < PER_WARP; t++) {
            for (int turn = 0; turn < 2; turn++) { // eight warps at a time fit
                __syncthreads();
                float *stage = rows + warp % (GRAM_WARPS / 2) * STAGE;
                const int mine = warp / (GRAM_WARPS / 2) == turn && first + t < count;
                if (mine) {
#pragma unroll
                    for (int s = 0; s < GANQ__LEVELS; s++)
                        stage[s * 33 + lane] = u[t][s];
                    const int64_t place = places[first + t];
                    stage[16 * 33 + lane] = r && begin + lane < live ? r[place * ld + begin + lane] : 0.0f;
                }
                __syncthreads();
                if (!mine)
                    continue;
#pragma unroll
                for (int j = 0; j < 5; j++) {
                    const int pair = lane + WARP * j;
                    if (pair >= SUMS)
                        continue;
                    int s = 16, q = pair - PAIRS;
                    if (pair < PAIRS) {
                        s = (int)((sqrtf(8.0f * (float)pair + 1.0f) - 1.0f) * 0.5f);
                        s += (s + 1) * (s + 2) / 2 <= pair;
                        s -= s * (s + 1) / 2 > pair;
                        q = pair - s * (s + 1) / 2;
                    }
                    float sum = 0;
                    for (int n = 0; n < WARP; n++)
                        sum = fmaf(stage[s * 33 + n], stage[q * 33 + n], sum);
                    pairs[t][j] += sum;
                }
            }
        }
    }
#pragma unroll
    for (int t = 0; t < PER_WARP; t++)
#pragma unroll
        for (int j = 0; j < 5; j++)
            if (first + t < count && lane + WARP * j < SUMS)
                parts[((int64_t)blockIdx.y * count + first + t) * SUMS + lane + WARP * j] = pairs[t][j];
}

// What float32 sums cannot tell from zero, relative to the diagonal.
#define GRAM_NOISE 1e-5

// Lane s holds row s of a symmetric 16 x 16 system (gram) and slope s; `used` lanes take part. Returns this lane's step;
// directions that are lost in rounding get none.
__device__ __forceinline__ double solve_system(int lane, int used, double *a, double slope) {
    double diagonal = 0;
#pragma unroll
    for (int c = 0; c < GANQ__LEVELS; c++)
        diagonal = lane == c ? a[c] : diagonal;
    int kept = used;
#pragma unroll
    for (int c = 0; c < GANQ__LEVELS; c++) { // a[c] becomes column c of the Cholesky factor
        const double pivot = __shfl_sync(0xffffffffu, a[c], c), whole = __shfl_sync(0xffffffffu, diagonal, c);
        const int take = __shfl_sync(0xffffffffu, used, c) && pivot > GRAM_NOISE * whole;
        if (lane == c)
            kept = take;
        const double root = take ? sqrt(pivot) : 1.0;
        a[c] = !take || !used || lane < c ? 0.0 : lane == c ? root : a[c] / root;
#pragma unroll
        for (int d = c + 1; d < GANQ__LEVELS; d++)
            a[d] -= a[c] * __shfl_sync(0xffffffffu, a[c], d);
    }
    double y = kept ? slope : 0.0;
#pragma unroll
    for (int c = 0; c < GANQ__LEVELS; c++) {
        const int take = __shfl_sync(0xffffffffu, kept, c);
        const double value = take ? __shfl_sync(0xffffffffu, y, c) / __shfl_sync(0xffffffffu, a[c], c) : 0.0;
        y = lane == c ? value : lane > c ? y - a[c] * value : y;
    }
#pragma unroll
    for (int c = GANQ__LEVELS - 1; c >= 0; c--) {
        const double product = lane > c && lane < GANQ__LEVELS ? a[c] * y : 0.0;
        const double below = warp_sum(product);
        const int take = __shfl_sync(0xffffffffu, kept, c);
        if (lane == c)
            y = take ? (y - below) / a[c] : 0.0;
    }
    return kept ? y : 0.0;
}

// This lane's row of gram (lanes >= 16: zeros) and its slope, from the splits' parts.
__device__ __forceinline__ void load_system(int lane, int index, int count, const float *parts, double *a,
                                            double *slope) {
    const int s = lane & 15;
#pragma unroll
    for (int t = 0; t < GANQ__LEVELS; t++) {
        const int high = s > t ? s : t, low = s > t ? t : s;
        double sum = 0;
        for (int p = 0; p < SPLITS; p++)
            sum += (double)parts[((int64_t)p * count + index) * SUMS + high * (high + 1) / 2 + low];
        a[t] = lane < GANQ__LEVELS ? sum : 0.0;
    }
    double sum = 0;
    for (int p = 0; p < SPLITS; p++)
        sum += (double)parts[((int64_t)p * count + index) * SUMS + PAIRS + s];
    *slope = lane < GANQ__LEVELS ? sum : 0.0;
}

// The table whose entry `lane` would be `value`, sorted (ties keep their order); *place: where this lane's went.
__device__ __forceinline__ void sorted_table(int lane, int levels, double value, ganq__trial_table *table,
                                             int *place) {
    int rank = 0;
    for (int s = 0; s < levels; s++) {
        const double other = __shfl_sync(0xffffffffu, value, s);
        rank += other < value || (other == value && s < lane);
    }
    *place = rank;
    if (lane < levels)
        table->value[rank] = (float)value;
    __syncwarp();
    const float last = table->value[levels - 1];
    if (lane >= levels && lane < GANQ__LEVELS)
        table->value[lane] = last;
    __syncwarp();
    if (lane < GANQ__LEVELS)
        table->middle[lane] =
            lane + 1 < levels ? 0.5f * (table->value[lane] + table->value[lane + 1]) : INFINITY;
    __syncwarp();
}

// Sums over a row: |r|^2, e D e^T, and which entries are used. A warp per place. With `descent` (r is g): slope = S g and
// the sums of D by code, in float64, into sums [places, 32].
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    row_sums(const int *places, int count, int64_t live, int64_t ld, int descent, const double *__restrict__ offset,
             const uint8_t *__restrict__ codes, const float *__restrict__ e, const float *__restrict__ r,
             batch_row *__restrict__ rows, double *__restrict__ sums, unsigned *__restrict__ used) {
    __shared__ double bins[ROW_WARPS][GANQ__LEVELS][WARP];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t place = places[index], at = place * ld;
    double square = 0, damping = 0;
    unsigned mask = 0;
    for (int64_t k = lane; k < live; k += WARP) {
        const uint8_t code = codes[at + k];
        square += (double)r[at + k] * (double)r[at + k];
        damping += offset[k] * (double)e[at + k] * (double)e[at + k];
        if (has_code(code))
            mask |= 1u << code;
    }
    square = warp_sum(square);
    damping = warp_sum(damping);
    for (int d = WARP / 2; d > 0; d /= 2)
        mask |= __shfl_xor_sync(0xffffffffu, mask, d);
    if (lane == 0) {
        used[place] = mask;
        if (!descent) {
            rows[place].damped = square;
            rows[place].current = square < damping ? 0 : square - damping; // below 0 by rounding only
        }
    }
    for (int which = 0; descent && which < 2; which++) {
        for (int s = 0; s < GANQ__LEVELS; s++)
            bins[warp][s][lane] = 0;
        for (int64_t k = lane; k < live; k += WARP)
            if (has_code(codes[at + k]))
                bins[warp][codes[at + k]][lane] += which ? offset[k] : (double)r[at + k];
        for (int s = 0; s < GANQ__LEVELS; s++) {
            const double sum = warp_sum(bins[warp][s][lane]);
            if (lane == 0)
                sums[place * 2 * GANQ__LEVELS + which * GANQ__LEVELS + s] = sum;
        }
    }
}

// The best so far: where the current error is less, or always.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    keep_best(const int *places, int count, int64_t ld, int always, int stride, int slot,
              const uint8_t *__restrict__ codes, uint8_t *__restrict__ best, batch_row *__restrict__ rows,
              double *__restrict__ traces) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t place = places[index];
    batch_row *row = &rows[place];
    const double current = row->current, error = row->error;
    if (lane == 0 && traces)
        traces[place * stride + slot] = current;
    if (!always && !(current < error))
        return;
    __syncwarp();
    for (int64_t k = 16 * lane; k < ld; k += 16 * WARP)
        *(uint4 *)(best + place * ld + k) = *(const uint4 *)(codes + place * ld + k);
    if (lane < GANQ__LEVELS) {
        row->best.value[lane] = row->table.value[lane];
        row->best.middle[lane] = row->table.middle[lane];
    }
    if (lane == 0)
        row->error = current;
}

static __global__ void trace_current(const int *places, int count, int stride, int slot, const batch_row *rows,
                                     double *traces) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count)
        traces[(int64_t)places[i] * stride + slot] = rows[places[i]].current;
}

// The table step of the alternation (eq. 6, for the change of the table). A warp per place.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    step_tables(const int *places, int count, int levels, int literal, const float *__restrict__ parts,
                const unsigned *__restrict__ used, batch_row *__restrict__ rows) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    batch_row *row = &rows[places[index]];
    double a[GANQ__LEVELS], slope;
    load_system(lane, index, count, parts, a, &slope);
    const int mine = lane < levels && (used[places[index]] >> lane & 1u);
    double step = solve_system(lane, mine, a, slope);
    double fall = warp_sum(mine ? slope * step : 0.0);
    if (fall > row->damped && !literal) { // lost in rounding: no step
        step = 0;
        fall = 0;
    }
    const float value = row->table.value[lane & 15];
    if (literal && lane < levels && !mine) // what the pseudo-inverse gives
        step = -(double)value;
    int place;
    __syncwarp();
    sorted_table(lane, levels, (double)value + step, &row->table, &place);
    if (lane == 0 && literal)
        for (int s = levels - 2; s >= 0; s--) // as ganq__table_close_duplicates
            if (row->table.value[s] == row->table.value[s + 1])
                row->table.middle[s] = row->table.middle[s + 1];
    if (lane < levels)
        row->place[lane] = (uint8_t)place;
    if (lane == 0)
        row->fall = fall;
}

// The undamped table step of descent; not taken unless the quadratic falls. `fall` is how much it changes.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    step_tables_exactly(const int *places, int count, int levels, const float *__restrict__ parts,
                        const unsigned *__restrict__ used, const double *__restrict__ sums,
                        batch_row *__restrict__ rows) {
    __shared__ ganq__trial_table moved[ROW_WARPS];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t at = places[index];
    batch_row *row = &rows[at];
    double a[GANQ__LEVELS], system[GANQ__LEVELS], ignored;
    load_system(lane, index, count, parts, a, &ignored);
    const int mine = lane < levels && (used[at] >> lane & 1u);
    const double slope = lane < GANQ__LEVELS ? sums[at * 2 * GANQ__LEVELS + lane] : 0.0;
    const double offset = lane < GANQ__LEVELS ? sums[at * 2 * GANQ__LEVELS + GANQ__LEVELS + lane] : 0.0;
#pragma unroll
    for (int c = 0; c < GANQ__LEVELS; c++) {
        a[c] -= lane == c ? offset : 0.0;
        system[c] = a[c];
    }
    const double step = solve_system(lane, mine, a, slope);
    const float value = row->table.value[lane & 15];
    int place;
    sorted_table(lane, levels, (double)value + step, &moved[warp], &place);
    const double taken = mine ? (double)moved[warp].value[place] - (double)value : 0.0;
    double product = 0;
#pragma unroll
    for (int c = 0; c < GANQ__LEVELS; c++)
        product += system[c] * __shfl_sync(0xffffffffu, taken, c);
    const double change = warp_sum(mine ? taken * (product - 2 * slope) : 0.0);
    const int take = change < 0;
    if (lane < GANQ__LEVELS && take) {
        row->table.value[lane] = moved[warp].value[lane];
        row->table.middle[lane] = moved[warp].middle[lane];
    }
    if (lane < GANQ__LEVELS)
        row->place[lane] = (uint8_t)(take && lane < levels ? place : lane);
    if (lane == 0)
        row->fall = take ? -change : 0.0;
}

// After a table step: codes take their entries' new places, e follows. current = |r|^2 - fall - e D e^T when there is
// damping (the alternation). A warp per place.
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    apply_tables(const int *places, int count, int64_t live, int64_t ld, const double *__restrict__ offset,
                 const float *__restrict__ w, uint8_t *__restrict__ codes, float *__restrict__ e,
                 batch_row *__restrict__ rows) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t at = (int64_t)places[index] * ld;
    batch_row *row = &rows[places[index]];
    double damping = 0;
    for (int64_t k = lane; k < live; k += WARP) {
        const uint8_t code = codes[at + k];
        float left = e[at + k];
        if (has_code(code)) {
            const uint8_t s = row->place[code];
            codes[at + k] = s;
            e[at + k] = left = w[at + k] - row->table.value[s];
        }
        damping += offset ? offset[k] * (double)left * (double)left : 0.0;
    }
    damping = warp_sum(damping);
    if (lane == 0 && offset) {
        const double current = row->damped - row->fall - damping;
        row->current = current < 0 ? 0 : current;
    }
}

// Whether e g^T agrees with what the table step promised; if not, the round begins again from the best (paper's tables
// are solved from float32 sums: along a direction in which the inputs hardly vary they may be far off).
static __global__ void __launch_bounds__(WARP *ROW_WARPS)
    check_tables(const int *places, int count, int64_t live, int64_t ld, const float *__restrict__ w,
                 const uint8_t *__restrict__ best, uint8_t *__restrict__ codes, float *__restrict__ e,
                 const float *__restrict__ g, batch_row *__restrict__ rows) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int index = (int)blockIdx.x * ROW_WARPS + warp;
    if (index >= count)
        return;
    const int64_t at = (int64_t)places[index] * ld;
    batch_row *row = &rows[places[index]];
    double error = 0, size = 0;
    for (int64_t k = lane; k < live; k += WARP) {
        const double part = (double)e[at + k] * (double)g[at + k];
        error += part;
        size += fabs(part);
    }
    error = warp_sum(error);
    size = warp_sum(size);
    const double before = row->current, promised = before - row->fall;
    const int holds = fabs(error - promised) <= 0.02 * before + 2e-6 * size;
    __syncwarp();
    if (!holds) {
        if (lane < GANQ__LEVELS) {
            row->table.value[lane] = row->best.value[lane];
            row->table.middle[lane] = row->best.middle[lane];
        }
        __syncwarp();
        for (int64_t k = lane; k < live; k += WARP) {
            const uint8_t code = best[at + k];
            codes[at + k] = code;
            if (has_code(code))
                e[at + k] = w[at + k] - row->table.value[code];
        }
    }
    if (lane == 0) {
        row->lost = !holds;
        if (holds)
            row->current = promised;
    }
}

// After the sweeps of a round.
static __global__ void end_sweeps(const int *places, int count, batch_row *rows) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= count)
        return;
    batch_row *row = &rows[places[i]];
    row->all_moves += row->moves;
    row->moves = 0;
    row->current += row->change;
}

static __global__ void take_energies(const int *places, int count, const double *energies, batch_row *rows) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= count)
        return;
    rows[places[i]].current = energies[i];
    rows[places[i]].error = energies[i];
}

// ---- launchers ----

#define TRY(call)                                                                                              \
    do {                                                                                                       \
        const cudaError_t error_ = (call);                                                                     \
        if (error_ != cudaSuccess)                                                                             \
            return error_;                                                                                     \
    } while (0)

static dim3 by_rows(int64_t columns, int count) {
    return dim3((unsigned)((columns + 255) / 256), (unsigned)count);
}
static dim3 by_warps(int count) {
    return dim3((unsigned)((count + ROW_WARPS - 1) / ROW_WARPS));
}
static dim3 by_threads(int count) {
    return dim3((unsigned)((count + 255) / 256));
}
static const int row_threads = WARP * ROW_WARPS;

cudaError_t ganq__cuda_load_rows(cudaStream_t stream, const ganq__cuda_batch *b, int count, const int32_t *columns) {
    return ganq_launch(load_rows, by_rows(b->ld, count), dim3(256), 0, stream, count, b->live, b->ld, b->K, b->weights,
                       b->row_numbers, b->frames, columns, b->w);
}

cudaError_t ganq__cuda_renumber(cudaStream_t stream, const ganq__cuda_batch *b, int count) {
    TRY(cudaMemsetAsync(b->best, 0, (size_t)(count * b->ld), stream));
    return ganq_launch(renumber_places, by_rows(b->live, count), dim3(256), 0, stream, count, b->live, b->ld,
                       b->live_indices, b->trial_factors, b->codes, b->best);
}

cudaError_t ganq__cuda_subtract(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count) {
    return ganq_launch(subtract_tables, by_rows(b->live, count), dim3(256), 0, stream, places, count, b->live, b->ld,
                       b->rows, b->codes, b->w, b->e);
}

// C[place, n] (+)= A[place, :depth] B[:depth, n], n in [0, width).
static cudaError_t product(cudaStream_t stream, const int *places, int count, int64_t depth, int64_t width,
                           const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc,
                           int accumulate) {
    if (count == 0 || width <= 0 || depth <= 0)
        return cudaSuccess;
    const dim3 grid((unsigned)((width + TILE - 1) / TILE), (unsigned)((count + TILE - 1) / TILE));
    return ganq_launch(multiply, grid, dim3(256), 0, stream, places, count, depth, width, a, lda, b, ldb, c, ldc,
                       accumulate);
}

cudaError_t ganq__cuda_assign(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                              const int *places, int count) {
    const int64_t ld = b->ld, last = (b->live - 1) / OUTER * OUTER;
    TRY(cudaMemsetAsync(b->g, 0, (size_t)(b->capacity * ld) * sizeof(float), stream));
    for (int64_t outer = last; outer >= 0; outer -= OUTER) {
        const int64_t outer_end = outer + OUTER < ld ? outer + OUTER : ld;
        for (int64_t begin = (outer_end - 1 - outer) / BLOCK * BLOCK + outer; begin >= outer; begin -= BLOCK) {
            const int64_t end = begin + BLOCK < ld ? begin + BLOCK : ld;
            TRY(ganq_launch(assign_block, by_warps(count), dim3(row_threads), 0, stream, places, count, begin, b->live,
                            ld, factor->lower, factor->inverse, b->rows, b->w, b->codes, b->e, b->g));
            TRY(product(stream, places, count, end - begin, begin - outer, b->e + begin, ld,
                        factor->lower + begin * ld + outer, ld, b->g + outer, ld, 1));
        }
        TRY(product(stream, places, count, outer_end - outer, outer, b->e + outer, ld, factor->lower + outer * ld, ld,
                    b->g, ld, 1));
    }
    return cudaSuccess;
}

// gram, and slopes where r is not NULL.
static cudaError_t sum_tables(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                              const int *places, int count, const float *r) {
    TRY(ganq_launch(sort_codes, dim3(by_warps(count).x, (unsigned)b->chunks), dim3(row_threads), 0, stream, places,
                    count, b->live, b->ld, b->chunks, b->codes, b->lists, b->ends));
    const unsigned blocks = (unsigned)((count + 2 * GRAM_WARPS - 1) / (2 * GRAM_WARPS));
    return ganq_launch(gram_parts, dim3(blocks, SPLITS), dim3(WARP * GRAM_WARPS), 0, stream, places, count, b->live,
                       b->ld, b->chunks, factor->lower, b->lists, b->ends, r, b->gram);
}

cudaError_t ganq__cuda_sum_trials(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                                  const int *places, int count) {
    TRY(sum_tables(stream, b, factor, places, count, b->g));
    return ganq_launch(row_sums, by_warps(count), dim3(row_threads), 0, stream, places, count, b->live, b->ld, 0,
                       factor->offset, b->codes, b->e, b->g, b->rows, b->sums, b->used);
}

cudaError_t ganq__cuda_step_tables(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                                   int literal, const int *places, int count) {
    TRY(ganq_launch(step_tables, by_warps(count), dim3(row_threads), 0, stream, places, count, b->levels, literal,
                    b->gram, b->used, b->rows));
    return ganq_launch(apply_tables, by_warps(count), dim3(row_threads), 0, stream, places, count, b->live, b->ld,
                       factor->offset, b->w, b->codes, b->e, b->rows);
}

cudaError_t ganq__cuda_keep_best(cudaStream_t stream, const ganq__cuda_batch *b, int always, int slot,
                                 const int *places, int count) {
    return ganq_launch(keep_best, by_warps(count), dim3(row_threads), 0, stream, places, count, b->ld, always,
                       b->trace_stride, slot, b->codes, b->best, b->rows, b->traces);
}

cudaError_t ganq__cuda_trace(cudaStream_t stream, const ganq__cuda_batch *b, int slot, const int *places, int count) {
    return ganq_launch(trace_current, by_threads(count), dim3(256), 0, stream, places, count, b->trace_stride, slot,
                       b->rows, b->traces);
}

cudaError_t ganq__cuda_energies(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count) {
    const dim3 grid((unsigned)b->energy_parts, (unsigned)((count + 63) / 64));
    TRY(ganq_launch(energy_tiles, grid, dim3(256), 0, stream, places, count, b->ld, b->e, b->hessian, b->parts));
    return ganq_launch(energy_sums, by_threads(count), dim3(256), 0, stream, count, b->energy_parts, b->parts,
                       b->energies);
}

cudaError_t ganq__cuda_take_energies(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count) {
    return ganq_launch(take_energies, by_threads(count), dim3(256), 0, stream, places, count, b->energies, b->rows);
}

cudaError_t ganq__cuda_gradients(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count) {
    return product(stream, places, count, b->ld, b->ld, b->e, b->ld, b->hessian, b->ld, b->g, b->ld, 0);
}

cudaError_t ganq__cuda_descend_tables(cudaStream_t stream, const ganq__cuda_batch *b, const ganq__cuda_factor *factor,
                                      const int *places, int count) {
    TRY(sum_tables(stream, b, factor, places, count, nullptr));
    TRY(ganq_launch(row_sums, by_warps(count), dim3(row_threads), 0, stream, places, count, b->live, b->ld, 1,
                    factor->offset, b->codes, b->e, b->g, b->rows, b->sums, b->used));
    TRY(ganq_launch(step_tables_exactly, by_warps(count), dim3(row_threads), 0, stream, places, count, b->levels,
                    b->gram, b->used, b->sums, b->rows));
    return ganq_launch(apply_tables, by_warps(count), dim3(row_threads), 0, stream, places, count, b->live, b->ld,
                       (const double *)nullptr, b->w, b->codes, b->e, b->rows);
}

cudaError_t ganq__cuda_check_tables(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count) {
    return ganq_launch(check_tables, by_warps(count), dim3(row_threads), 0, stream, places, count, b->live, b->ld, b->w,
                       b->best, b->codes, b->e, b->g, b->rows);
}

cudaError_t ganq__cuda_sweep(cudaStream_t stream, const ganq__cuda_batch *b, int first, const int *places, int count) {
    const int64_t ld = b->ld;
    TRY(ganq_launch(begin_sweep, by_threads(count), dim3(256), 0, stream, places, count, first, b->rows));
    for (int64_t outer = 0; outer < b->live; outer += OUTER) {
        const int64_t outer_end = outer + OUTER < ld ? outer + OUTER : ld;
        for (int64_t begin = outer; begin < outer_end; begin += BLOCK) {
            const int64_t end = begin + BLOCK < outer_end ? begin + BLOCK : outer_end;
            TRY(ganq_launch(sweep_block, by_warps(count), dim3(row_threads), 0, stream, places, count, begin, b->live,
                            ld, b->hessian, b->diagonals, b->inverses, b->rows, b->w, b->codes, b->e, b->g, b->delta));
            const float *changes = b->delta + (begin - outer), *h = b->hessian + begin * ld;
            TRY(product(stream, places, count, end - begin, begin - outer, changes, OUTER, h + outer, ld,
                        b->g + outer, ld, 1));
            TRY(product(stream, places, count, end - begin, outer_end - end, changes, OUTER, h + end, ld, b->g + end,
                        ld, 1));
        }
        const float *h = b->hessian + outer * ld;
        TRY(product(stream, places, count, outer_end - outer, outer, b->delta, OUTER, h, ld, b->g, ld, 1));
        TRY(product(stream, places, count, outer_end - outer, ld - outer_end, b->delta, OUTER, h + outer_end, ld,
                    b->g + outer_end, ld, 1));
    }
    return cudaSuccess;
}

cudaError_t ganq__cuda_end_sweeps(cudaStream_t stream, const ganq__cuda_batch *b, const int *places, int count) {
    return ganq_launch(end_sweeps, by_threads(count), dim3(256), 0, stream, places, count, b->rows);
}
