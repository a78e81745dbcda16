// attention.cu - causal attention over a key/value cache of f32 or f16 (T below), arithmetic in f32.
//
// Decode     (few queries) the keys are cut at multiples of 128; a block takes one piece for all the query heads that
//            share a key head (at most 8), so that keys and values are read once:
//              scores   8 lanes per key, 4 keys per warp at a time, dot products summed in 3 shuffles
//              softmax  within the piece: maximum and sum of each query go to `extremes`
//              values   16 bytes per thread and key, the sums go to `partial`
//            With one token the block also norms and turns its queries first; the one that has the newest key stores that
//            and its value before. A second kernel puts the pieces together, in order. The cut depends on the keys alone, so the result
//            does not depend on how many pieces a recorded launch has room for.
// Prefill    a block takes 32 queries of one head through all their keys, 32 at a time, with a running softmax:
//
//                     32 keys                 dim
//            32 q [ scores S ]   x   [ values V ]  ->  sums O: a warp owns 8 queries, a lane 4 or 8 columns
//
//            Q [32][dim], K and then V [32][dim] and S [32][32] lie in shared memory; rows are padded by 16 bytes so that 8
//            rows at the same column are in 8 different groups of banks.
// Limits     dim <= 256
#include <cuda_fp16.h>
#include <math.h>

#include "ganq/common.h"
#include "heads.cuh"
#include "model_kernels.h"
#include "reduce.cuh"

// Elements of a row that a thread reads at once, 16 bytes.
template <typename T> struct width {
    enum { value = 16 / sizeof(T) };
};

// x[0 .. width) of a row with `left` elements from here on, as f32; what is beyond is 0. aligned: rows are multiples of
// 16 bytes.
static __device__ __forceinline__ void load_elements(const float *x, int left, int aligned, float (&v)[4]) {
    if (aligned) {
        const float4 four = *(const float4 *)x;
        v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = i < left ? x[i] : 0;
}
static __device__ __forceinline__ void load_elements(const __half *x, int left, int aligned, float (&v)[8]) {
    if (aligned) {
        const uint4 eight = *(const uint4 *)x;
        const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = __half2float(__ushort_as_half((unsigned short)(words[i / 2] >> 16 * (i % 2))));
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i < left ? __half2float(x[i]) : 0;
}
static __device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
static __device__ __forceinline__ void add4(float4 &sum, float p, float4 v) {
    sum.x = fmaf(p, v.x, sum.x);
    sum.y = fmaf(p, v.y, sum.y);
    sum.z = fmaf(p, v.z, sum.z);
    sum.w = fmaf(p, v.w, sum.w);
}

// The keys that the query at `position` sees: [first, position].
static __device__ __forceinline__ int64_t first_key(int64_t position, int64_t window) {
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
}
static __device__ __forceinline__ int64_t position_of(const ganq__cuda_attention_args &a, int64_t m) {
    return (a.counter ? (int64_t)*a.counter : a.position) + m;
}

enum { CHUNK = GANQ__ATTENTION_CHUNK, DECODE_THREADS = 128 };

// Grid (chunk, kv head x groups of GROUP queries, m).
template <int GROUP, typename T>
static __global__ void __launch_bounds__(DECODE_THREADS, GROUP == 8 ? 3 : 4) decode(const ganq__cuda_attention_args a) {
    GANQ_DYNAMIC_SHARED(float, shared);
    ganq_allow_next();
    ganq_wait_for_previous();
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    constexpr int WIDTH = width<T>::value;
    const int dim = a.dim, parts = (dim + WIDTH - 1) / WIDTH, padded = parts * WIDTH, aligned = dim % WIDTH == 0;
    float *q = shared;                    // [GROUP][padded]
    float *scores = q + GROUP * padded;   // [GROUP][CHUNK]
    float *sums = scores + GROUP * CHUNK; // [DECODE_THREADS][WIDTH]
    const int shared_by = a.heads / a.kv_heads, groups = (shared_by + GROUP - 1) / GROUP;
    const int kv_head = (int)blockIdx.y / groups, within = (int)blockIdx.y % groups * GROUP;
    const int count = min(GROUP, shared_by - within); // queries of this block
    const int first_head = kv_head * shared_by + within;
    const int64_t m = blockIdx.z, position = position_of(a, m);
    const int64_t begin = max((int64_t)blockIdx.x * CHUNK, first_key(position, a.window));
    const int64_t end = min(((int64_t)blockIdx.x + 1) * CHUNK, position + 1);
    if (begin >= end)
        return;
    const int keys = (int)(end - begin);

    const float *queries = a.q + (m * a.heads + first_head) * dim;
    for (int i = thread; i < GROUP * padded; i += DECODE_THREADS) {
        const int g = i / padded, d = i % padded;
        if (!a.turns || g >= count || d >= dim)
            q[i] = g < count && d < dim ? queries[g * dim + d] : 0;
    }
    if (a.turns) // the newest key and value come into the cache by the block that has them among its own
        for (int task = warp; task < count + 2 * (end == position + 1); task += DECODE_THREADS / 32) {
            const int64_t newest = ((int64_t)kv_head * a.capacity + position) * dim;
            if (task < count)
                ganq_turn_head(a.heads_args, queries + task * dim, a.heads_args.q_norm, position, lane,
                               [&](int d, float x) { q[task * padded + d] = x; });
            else if (task == count)
                ganq_turn_head(a.heads_args, a.heads_args.k + kv_head * dim, a.heads_args.k_norm, position, lane,
                               [&](int d, float x) { ganq_store_cached((T *)a.heads_args.keys + newest + d, x); });
            else
                ganq_store_head(a.heads_args.v + kv_head * dim, (T *)a.heads_args.values + newest, dim, lane);
        }
    __syncthreads();

    // scores
    const int part = lane & 7;
    for (int base = warp * 4; base < keys; base += DECODE_THREADS / 8) {
        const int key = base + lane / 8;
        const T *row = (const T *)a.keys + ((int64_t)kv_head * a.capacity + begin + min(key, keys - 1)) * dim;
        float dots[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; g++)
            dots[g] = 0;
#pragma unroll 4
        for (int i = part; i < parts; i += 8) {
            float k[WIDTH];
            load_elements(row + WIDTH * i, dim - WIDTH * i, aligned, k);
#pragma unroll
            for (int g = 0; g < GROUP; g++)
#pragma unroll
                for (int j = 0; j < WIDTH; j += 4)
                    dots[g] = dot4(*(const float4 *)(q + g * padded + WIDTH * i + j),
                                   make_float4(k[j], k[j + 1], k[j + 2], k[j + 3]), dots[g]);
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            const float dot = ganq_warp_sum(dots[g], 8);
            if (part == 0 && key < keys)
                scores[g * CHUNK + key] = dot * a.scale;
        }
    }
    __syncthreads();

    // softmax within the piece
    for (int g = warp; g < count; g += DECODE_THREADS / 32) {
        float largest = -INFINITY, sum = 0;
        for (int i = lane; i < keys; i += 32)
            largest = fmaxf(largest, scores[g * CHUNK + i]);
        largest = ganq_warp_max(largest);
        for (int i = lane; i < keys; i += 32) {
            const float p = expf(scores[g * CHUNK + i] - largest);
            scores[g * CHUNK + i] = p;
            sum += p;
        }
        sum = ganq_warp_sum(sum);
        if (lane == 0) {
            float *extreme = a.extremes + 2 * ((m * a.heads + first_head + g) * a.chunks + blockIdx.x);
            extreme[0] = largest;
            extreme[1] = sum;
        }
    }
    __syncthreads();

    // values: `slices` threads share WIDTH columns and take every slices-th key
    const int slices = DECODE_THREADS / parts, column = WIDTH * (thread % parts), slice = thread / parts;
    float acc[GROUP][WIDTH] = {};
    if (slice < slices) {
        const T *row = (const T *)a.values + ((int64_t)kv_head * a.capacity + begin) * dim + column;
#pragma unroll 4
        for (int key = slice; key < keys; key += slices) {
            float v[WIDTH];
            load_elements(row + (int64_t)key * dim, dim - column, aligned, v);
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                const float p = scores[g * CHUNK + key];
#pragma unroll
                for (int j = 0; j < WIDTH; j++)
                    acc[g][j] = fmaf(p, v[j], acc[g][j]);
            }
        }
    }
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
        if (g >= count)
            break;
#pragma unroll
        for (int j = 0; j < WIDTH; j += 4)
            *(float4 *)(sums + WIDTH * thread + j) = make_float4(acc[g][j], acc[g][j + 1], acc[g][j + 2], acc[g][j + 3]);
        __syncthreads();
        float *partial = a.partial + ((m * a.heads + first_head + g) * a.chunks + blockIdx.x) * dim;
        for (int d = thread; d < dim; d += DECODE_THREADS) {
            float sum = 0;
            for (int s = 0; s < slices; s++)
                sum += sums[s * padded + d];
            partial[d] = sum;
        }
        __syncthreads();
    }
}

// Grid (head, m), a thread per column.
static __global__ void __launch_bounds__(256) combine(const ganq__cuda_attention_args a) {
    ganq_allow_next();
    ganq_wait_for_previous();
    const int64_t m = blockIdx.y, row = m * a.heads + blockIdx.x, position = position_of(a, m);
    const int64_t first = first_key(position, a.window) / CHUNK, last = position / CHUNK;
    const float *extremes = a.extremes + 2 * row * a.chunks, *partial = a.partial + row * a.chunks * a.dim;
    float largest = -INFINITY;
    for (int64_t c = first; c <= last; c++)
        largest = fmaxf(largest, extremes[2 * c]);
    float weights = 0, sum = 0;
    const int d = (int)threadIdx.x;
    for (int64_t c = first; c <= last; c++) {
        const float w = expf(extremes[2 * c] - largest);
        weights = fmaf(w, extremes[2 * c + 1], weights);
        if (d < a.dim)
            sum = fmaf(w, partial[c * a.dim + d], sum);
    }
    if (d < a.dim)
        a.out[row * a.dim + d] = sum / weights;
}

template <int GROUP, typename T>
static cudaError_t launch_decode(ganq__cuda_queue queue, const ganq__cuda_attention_args *a) {
    const int shared_by = a->heads / a->kv_heads, groups = (shared_by + GROUP - 1) / GROUP, WIDTH = width<T>::value;
    const int padded = (a->dim + WIDTH - 1) / WIDTH * WIDTH;
    const size_t bytes = sizeof(float) * (size_t)(GROUP * (padded + CHUNK) + WIDTH * DECODE_THREADS);
    return ganq_start(decode<GROUP, T>, dim3((unsigned)a->chunks, (unsigned)(a->kv_heads * groups), (unsigned)a->M),
                      dim3(DECODE_THREADS), bytes, queue, *a);
}

template <typename T> static cudaError_t launch_group(ganq__cuda_queue queue, const ganq__cuda_attention_args *a) {
    const int shared_by = a->heads / a->kv_heads;
    return shared_by == 1   ? launch_decode<1, T>(queue, a)
           : shared_by == 2 ? launch_decode<2, T>(queue, a)
           : shared_by <= 4 ? launch_decode<4, T>(queue, a)
                            : launch_decode<8, T>(queue, a);
}

cudaError_t ganq__cuda_attention_decode(ganq__cuda_queue queue, const ganq__cuda_attention_args *a) {
    const cudaError_t error =
        a->cache_dtype == GANQ_DTYPE_F16 ? launch_group<__half>(queue, a) : launch_group<float>(queue, a);
    if (error != cudaSuccess)
        return error;
    return ganq_start(combine, dim3((unsigned)a->heads, (unsigned)a->M), dim3((unsigned)(a->dim + 31) / 32 * 32), 0, queue, *a);
}

enum { QUERIES = 32, KEYS = 32, PREFILL_THREADS = 128, S_STRIDE = KEYS + 4 };

// Rows [0, count) of 32 from global memory (dim apart) to shared memory (stride apart); the rest is zero.
template <typename T>
static __device__ __forceinline__ void load_tile(float *to, int stride, const T *from, int64_t from_stride, int count, int dim) {
    constexpr int WIDTH = width<T>::value;
    const int parts = (dim + WIDTH - 1) / WIDTH, aligned = dim % WIDTH == 0;
    for (int i = (int)threadIdx.x; i < 32 * parts; i += PREFILL_THREADS) {
        const int row = i / parts, d = WIDTH * (i % parts);
        float v[WIDTH] = {};
        if (row < count)
            load_elements(from + row * from_stride + d, dim - d, aligned, v);
#pragma unroll
        for (int j = 0; j < WIDTH; j += 4)
            if (d + j < dim)
                *(float4 *)(to + row * stride + d + j) = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
    }
}

// Grid (32 queries, head). WIDTH: groups of 128 columns of a head, 1 or 2.
template <int WIDTH, typename T>
static __global__ void __launch_bounds__(PREFILL_THREADS, WIDTH == 1 ? 3 : 2) prefill(const ganq__cuda_attention_args a) {
    GANQ_DYNAMIC_SHARED(float, shared);
    ganq_allow_next();
    ganq_wait_for_previous();
    const int thread = (int)threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const int dim = a.dim, dim4 = (dim + 3) / 4, stride = 4 * dim4 + 4;
    float *q = shared;                  // [QUERIES][stride]
    float *kv = q + QUERIES * stride;   // [KEYS][stride]
    float *s = kv + KEYS * stride;      // [QUERIES][S_STRIDE]
    float *rescale = s + QUERIES * S_STRIDE; // [QUERIES]
    const int head = (int)blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const int64_t first_query = (int64_t)blockIdx.x * QUERIES;
    const int queries = (int)min((int64_t)QUERIES, a.M - first_query);
    const int64_t position = position_of(a, first_query);
    const int64_t begin = first_key(position, a.window) / KEYS * KEYS, end = position + queries;
    const T *keys = (const T *)a.keys + (int64_t)kv_head * a.capacity * dim;
    const T *values = (const T *)a.values + (int64_t)kv_head * a.capacity * dim;

    load_tile(q, stride, a.q + (first_query * a.heads + head) * dim, (int64_t)a.heads * dim, queries, dim);
    float4 acc[8][WIDTH]; // query 8 warp + i, columns 4 lane + 128 j
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < WIDTH; j++)
            acc[i][j] = make_float4(0, 0, 0, 0);
    float largest = -INFINITY, weight = 0; // of query thread / 4, the same in its 4 threads

    for (int64_t base = begin; base < end; base += KEYS) {
        const int count = (int)min((int64_t)KEYS, end - base);
        __syncthreads(); // the values of the last round are done with
        load_tile(kv, stride, keys + base * dim, dim, count, dim);
        __syncthreads();

        // scores: a thread has queries tq, tq + 16 and keys tk, tk + 8, tk + 16, tk + 24
        const int tq = thread / 8, tk = thread % 8;
        float dots[2][4] = {};
        for (int d = 0; d < dim4; d++) {
            const float4 q0 = *(const float4 *)(q + tq * stride + 4 * d), q1 = *(const float4 *)(q + (tq + 16) * stride + 4 * d);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float4 k = *(const float4 *)(kv + (tk + 8 * j) * stride + 4 * d);
                dots[0][j] = dot4(q0, k, dots[0][j]);
                dots[1][j] = dot4(q1, k, dots[1][j]);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int row = tq + 16 * i, column = tk + 8 * j;
                const int64_t key = base + column, at = position + row;
                const int seen = key <= at && key >= first_key(at, a.window);
                s[row * S_STRIDE + column] = seen ? dots[i][j] * a.scale : -INFINITY;
            }
        __syncthreads();

        // running softmax: 4 threads per query, each 8 keys; the values take the keys' place meanwhile
        {
            const int row = thread / 4;
            float *mine = s + row * S_STRIDE + thread % 4 * 8;
            float top = largest, sum = 0;
            for (int i = 0; i < 8; i++)
                top = fmaxf(top, mine[i]);
            top = ganq_warp_max(top, 4);
            const float shift = top == -INFINITY ? 0 : top; // no key of the tile is seen yet
            const float old = expf(largest - shift);
            for (int i = 0; i < 8; i++) {
                mine[i] = expf(mine[i] - shift);
                sum += mine[i];
            }
            weight = weight * old + ganq_warp_sum(sum, 4);
            largest = top;
            if (thread % 4 == 0)
                rescale[row] = old;
        }
        load_tile(kv, stride, values + base * dim, dim, count, dim);
        __syncthreads();

        // sums
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float r = rescale[8 * warp + i];
#pragma unroll
            for (int j = 0; j < WIDTH; j++) {
                acc[i][j].x *= r;
                acc[i][j].y *= r;
                acc[i][j].z *= r;
                acc[i][j].w *= r;
            }
        }
        for (int key = 0; key < KEYS; key += 4) {
            float4 v[4][WIDTH];
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int j = 0; j < WIDTH; j++)
                    v[k][j] = lane + 32 * j < dim4 ? *(const float4 *)(kv + (key + k) * stride + 4 * (lane + 32 * j))
                                                   : make_float4(0, 0, 0, 0);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float4 p = *(const float4 *)(s + (8 * warp + i) * S_STRIDE + key);
#pragma unroll
                for (int j = 0; j < WIDTH; j++) {
                    add4(acc[i][j], p.x, v[0][j]);
                    add4(acc[i][j], p.y, v[1][j]);
                    add4(acc[i][j], p.z, v[2][j]);
                    add4(acc[i][j], p.w, v[3][j]);
                }
            }
        }
    }

    __syncthreads();
    if (thread % 4 == 0)
        rescale[thread / 4] = 1 / weight;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = 8 * warp + i;
        if (row >= queries)
            break;
        float *out = a.out + ((first_query + row) * a.heads + head) * dim;
        const float r = rescale[row];
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
            const int d = 4 * (lane + 32 * j);
            const float4 o = acc[i][j];
            if (d < dim)
                out[d] = o.x * r;
            if (d + 1 < dim)
                out[d + 1] = o.y * r;
            if (d + 2 < dim)
                out[d + 2] = o.z * r;
            if (d + 3 < dim)
                out[d + 3] = o.w * r;
        }
    }
}

template <int WIDTH> static cudaError_t launch_prefill(ganq__cuda_queue queue, const ganq__cuda_attention_args *a) {
    const int stride = (a->dim + 3) / 4 * 4 + 4;
    const size_t bytes = sizeof(float) * (size_t)((QUERIES + KEYS) * stride + QUERIES * S_STRIDE + QUERIES);
    return ganq_start(a->cache_dtype == GANQ_DTYPE_F16 ? prefill<WIDTH, __half> : prefill<WIDTH, float>,
                      dim3((unsigned)((a->M + QUERIES - 1) / QUERIES), (unsigned)a->heads), dim3(PREFILL_THREADS), bytes,
                      queue, *a);
}

cudaError_t ganq__cuda_attention_prefill(ganq__cuda_queue queue, const ganq__cuda_attention_args *a) {
    return a->dim <= 128 ? launch_prefill<1>(queue, a) : launch_prefill<2>(queue, a);
}
