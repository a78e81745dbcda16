// dense.cu - dense products in fp32: a tiled product for many rows, and one that streams the weights for few.
//
// Sums       an element of C is summed over k in order, one fused multiply-add each, by one thread: the same bits for any
//            tile and any place in it. With few rows a warp takes the sum of a row, each lane every 32nd group of 8; the
//            same bits for 1 to 8 rows.
// Tiled      a block of 256 threads makes 128 x 128 of C (64 x 64 where that would leave most of the GPU idle); per step
//            of 16 in k it lays op(A) and op(B) down as [k][row] in shared memory, and a thread multiplies 8 x 8 (4 x 4):
//
//                      8 x tn   8 x tn + 64        a thread's columns lie in two halves of 4, 64 apart, so that the 16-byte
//              rows  [ 4 x 4 ][ 4 x 4 ]            reads of a quarter warp are side by side
//              + 64  [ 4 x 4 ][ 4 x 4 ]
//
// Streamed   a warp has 2 rows of W, 16 bytes per lane and load; x comes from L1. Bound by reading W.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "dense_kernels.h"
#include "ganq/common.h"
#include "ptx.cuh"
#include "reduce.cuh"

static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// ---------------------------------------------------------------- many rows

enum { TILED_THREADS = 256, DEPTH = 16 };

// A DEPTH x SIZE piece of a matrix in [k][row] order, row by row of shared memory SIZE + 4 long. along_k: neighbouring k are
// neighbours in memory (element (row, k) at row * ld + k), else neighbouring rows (k * ld + row).
template <int SIZE, typename T>
static __device__ __forceinline__ void load_piece(float *to, const T *from, int64_t ld, int along_k, int64_t row0, int64_t rows,
                                                  int64_t k0, int64_t depth) {
#pragma unroll
    for (int i = 0; i < SIZE * DEPTH / TILED_THREADS; i++) {
        const int index = i * TILED_THREADS + (int)threadIdx.x;
        const int k = along_k ? index % DEPTH : index / SIZE, row = along_k ? index / DEPTH : index % SIZE;
        const int64_t r = row0 + row, kk = k0 + k;
        to[k * (SIZE + 4) + row] = r < rows && kk < depth ? to_float(from[along_k ? r * ld + kk : kk * ld + r]) : 0;
    }
}

// SIDE: 4 x 4 pieces per thread in each direction.
template <typename T, int SIDE> static __global__ void __launch_bounds__(TILED_THREADS) tiled(const ganq__cuda_gemm_args g) {
    enum { SIZE = 64 * SIDE };
    __shared__ __align__(16) float as[DEPTH * (SIZE + 4)], bs[DEPTH * (SIZE + 4)];
    const int64_t m0 = (int64_t)blockIdx.y * SIZE, n0 = (int64_t)blockIdx.x * SIZE;
    if (g.lower && n0 > m0)
        return;
    const int tm = (int)threadIdx.x / 16, tn = (int)threadIdx.x % 16;
    float sums[4 * SIDE][4 * SIDE] = {};
    for (int64_t k0 = 0; k0 < g.K; k0 += DEPTH) {
        load_piece<SIZE>(as, g.a, g.lda, !g.a_transposed, m0, g.M, k0, g.K);
        load_piece<SIZE>(bs, (const T *)g.b, g.ldb, g.b_transposed, n0, g.N, k0, g.K);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float a[4 * SIDE], b[4 * SIDE];
#pragma unroll
            for (int s = 0; s < SIDE; s++) {
                const float4 av = *(const float4 *)(as + k * (SIZE + 4) + 64 * s + 4 * tm);
                const float4 bv = *(const float4 *)(bs + k * (SIZE + 4) + 64 * s + 4 * tn);
                a[4 * s] = av.x, a[4 * s + 1] = av.y, a[4 * s + 2] = av.z, a[4 * s + 3] = av.w;
                b[4 * s] = bv.x, b[4 * s + 1] = bv.y, b[4 * s + 2] = bv.z, b[4 * s + 3] = bv.w;
            }
#pragma unroll
            for (int i = 0; i < 4 * SIDE; i++)
#pragma unroll
                for (int j = 0; j < 4 * SIDE; j++)
                    sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4 * SIDE; i++)
#pragma unroll
        for (int j = 0; j < 4 * SIDE; j++) {
            const int64_t m = m0 + 64 * (i / 4) + 4 * tm + i % 4, n = n0 + 64 * (j / 4) + 4 * tn + j % 4;
            if (m >= g.M || n >= g.N)
                continue;
            float v = g.alpha * sums[i][j];
            if (g.beta != 0)
                v = fmaf(g.beta, g.c[m * g.ldc + n], v);
            if (g.bias)
                v += g.bias[n];
            g.c[m * g.ldc + n] = v;
        }
}

template <typename T> static cudaError_t launch_tiled(cudaStream_t stream, const ganq__cuda_gemm_args *g) {
    const int64_t large = (g->M + 127) / 128 * ((g->N + 127) / 128);
    if (large >= 64)
        return ganq_launch(tiled<T, 2>, dim3((unsigned)((g->N + 127) / 128), (unsigned)((g->M + 127) / 128)),
                           dim3(TILED_THREADS), 0, stream, *g);
    return ganq_launch(tiled<T, 1>, dim3((unsigned)((g->N + 63) / 64), (unsigned)((g->M + 63) / 64)), dim3(TILED_THREADS), 0,
                       stream, *g);
}

cudaError_t ganq__cuda_gemm(cudaStream_t stream, const ganq__cuda_gemm_args *g) {
    if (g->b_dtype == GANQ_DTYPE_F16)
        return launch_tiled<__half>(stream, g);
    if (g->b_dtype == GANQ_DTYPE_BF16)
        return launch_tiled<__nv_bfloat16>(stream, g);
    return launch_tiled<float>(stream, g);
}

static __global__ void mirror(int64_t K, float *h) {
    __shared__ float tile[32][33];
    const int64_t i0 = (int64_t)blockIdx.y * 32, j0 = (int64_t)blockIdx.x * 32;
    if (j0 > i0)
        return;
    const int64_t column = j0 + threadIdx.x;
    for (int r = (int)threadIdx.y; r < 32; r += 8)
        if (i0 + r < K && column < K)
            tile[r][threadIdx.x] = h[(i0 + r) * K + column];
    __syncthreads();
    for (int r = (int)threadIdx.y; r < 32; r += 8) {
        const int64_t row = j0 + r, to = i0 + threadIdx.x;
        if (row < K && to < K && to > row)
            h[row * K + to] = tile[threadIdx.x][r];
    }
}

cudaError_t ganq__cuda_mirror(cudaStream_t stream, int64_t K, float *h) {
    const unsigned tiles = (unsigned)((K + 31) / 32);
    return ganq_launch(mirror, dim3(tiles, tiles), dim3(32, 8), 0, stream, K, h);
}

// ---------------------------------------------------------------- few rows

enum { ROWS = 2, WARPS = 4 };

static __device__ __forceinline__ void unpack8(const float *w, float (&out)[8]) {
    const float4 low = ((const float4 *)w)[0], high = ((const float4 *)w)[1];
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
}
static __device__ __forceinline__ void unpack8(const __half *w, float (&out)[8]) {
    const uint4 v = ganq_load16_stream(w);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = __half2float(__ushort_as_half((unsigned short)(words[i] & 0xffff)));
        out[2 * i + 1] = __half2float(__ushort_as_half((unsigned short)(words[i] >> 16)));
    }
}
static __device__ __forceinline__ void unpack8(const __nv_bfloat16 *w, float (&out)[8]) {
    const uint4 v = ganq_load16_stream(w);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// VECTORS: all rows of w and x are aligned to 16 bytes and K is a multiple of 8.
template <typename T, int M, bool VECTORS>
static __global__ void __launch_bounds__(32 * WARPS) few(int64_t N, int64_t K, const float *x, int64_t ldx, const T *w,
                                                         const float *bias, float *y, int64_t ldy, int rows_of_x) {
    ganq_allow_next();
    ganq_wait_for_previous();
    const int lane = (int)threadIdx.x & 31;
    const int64_t n0 = ((int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5)) * ROWS;
    if (n0 >= N)
        return;
    const T *row[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        row[r] = w + (n0 + r < N ? n0 + r : n0) * K;
    float sums[ROWS][M] = {};
#pragma unroll 2
    for (int64_t k = 8 * lane; k < K; k += 256) {
        float weights[ROWS][8];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (VECTORS)
                unpack8(row[r] + k, weights[r]);
            else
#pragma unroll
                for (int i = 0; i < 8; i++)
                    weights[r][i] = k + i < K ? to_float(row[r][k + i]) : 0;
#pragma unroll
        for (int m = 0; m < M; m++) {
            float values[8];
            const float *from = x + (m < rows_of_x ? m : 0) * ldx + k;
            if (VECTORS)
                unpack8(from, values);
            else
#pragma unroll
                for (int i = 0; i < 8; i++)
                    values[i] = k + i < K ? from[i] : 0;
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    sums[r][m] = fmaf(weights[r][i], values[i], sums[r][m]);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float sum = ganq_warp_sum(sums[r][m]);
            if (lane == 0 && n0 + r < N && m < rows_of_x)
                y[m * ldy + n0 + r] = sum + (bias ? bias[n0 + r] : 0);
        }
}

template <typename T, int M>
static cudaError_t launch_few(ganq__cuda_queue queue, int64_t rows_of_x, int64_t N, int64_t K, const float *x, int64_t ldx, const T *w,
                              const float *bias, float *y, int64_t ldy) {
    const dim3 grid((unsigned)((N + ROWS * WARPS - 1) / (ROWS * WARPS))), block(32 * WARPS);
    const int vectors = K % 8 == 0 && ldx % 4 == 0 && (uintptr_t)x % 16 == 0 && (uintptr_t)w % 16 == 0;
    if (vectors)
        return ganq_start(few<T, M, true>, grid, block, 0, queue, N, K, x, ldx, w, bias, y, ldy, (int)rows_of_x);
    return ganq_start(few<T, M, false>, grid, block, 0, queue, N, K, x, ldx, w, bias, y, ldy, (int)rows_of_x);
}

template <typename T>
static cudaError_t choose_few(ganq__cuda_queue queue, int64_t M, int64_t N, int64_t K, const float *x, int64_t ldx, const T *w,
                              const float *bias, float *y, int64_t ldy) {
    return M == 1   ? launch_few<T, 1>(queue, M, N, K, x, ldx, w, bias, y, ldy)
           : M == 2 ? launch_few<T, 2>(queue, M, N, K, x, ldx, w, bias, y, ldy)
           : M <= 4 ? launch_few<T, 4>(queue, M, N, K, x, ldx, w, bias, y, ldy)
                    : launch_few<T, 8>(queue, M, N, K, x, ldx, w, bias, y, ldy);
}

cudaError_t ganq__cuda_linear_few(ganq__cuda_queue queue, int64_t M, int64_t N, int64_t K, const float *x, int64_t ldx, const void *w,
                                  int32_t dtype, const float *bias, float *y, int64_t ldy) {
    if (dtype == GANQ_DTYPE_F16)
        return choose_few(queue, M, N, K, x, ldx, (const __half *)w, bias, y, ldy);
    if (dtype == GANQ_DTYPE_BF16)
        return choose_few(queue, M, N, K, x, ldx, (const __nv_bfloat16 *)w, bias, y, ldy);
    return choose_few(queue, M, N, K, x, ldx, (const float *)w, bias, y, ldy);
}
