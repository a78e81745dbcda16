// lut_simt.cu - Y = X W~^T for up to 8 rows of X with fp32 multiply-adds, codes 2/3/4 bit, X in f32,
// f16 or bf16.
//
// For what tensor cores cannot take as it is: f32 activations exactly, without a kernel that splits
// them first; tables in f32; rows of X at any address. Also the least work before the first product: 1
// to 4 KB of tables per block.
//
// Layout   codes: tile16 (lut_layout.h)
// Work     a block has 16 rows of W~ and one of `splits` parts of K, which its warps share, in one
//          piece each. A lane has two rows, 8 neighbouring columns at a time; the four lanes of a row
//          and then the warps are added in order.
// Tables   f32, the lane's own column of shared memory, no conflicts:
//              address = entry * 256 + (row / 8) * 128 + lane * 4
// Cost     per weight: 2 instructions for the address, 1 lookup, M multiply-adds
#include "lut_decode.cuh"
#include "lut_launch.cuh"

namespace lut {

// 8 neighbouring elements of a row of X from column k on; zero from K on.
static __device__ __forceinline__ void load_8(const ganq__lut_args &args, int64_t row, int k,
                                              float (&to)[8]) {
    if (!args.x_vectors) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            to[i] = k + i < args.K ? value_at(args.x, args.x_dtype, row + k + i) : 0.0f;
    } else if (k >= args.K) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            to[i] = 0;
    } else if (args.x_dtype == GANQ_DTYPE_F32) {
        const float4 *from = (const float4 *)((const float *)args.x + row + k);
        const float4 a = from[0], b = from[1];
        to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
        to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
    } else {
        const uint4 a = *(const uint4 *)((const uint16_t *)args.x + row + k);
        const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint16_t bits = (uint16_t)(words[i / 2] >> 16 * (i % 2));
            to[i] = args.x_dtype == GANQ_DTYPE_BF16 ? __uint_as_float((uint32_t)bits << 16)
                                                    : __half2float(__ushort_as_half(bits));
        }
    }
}

template <int BITS, int MT>
static __global__ void __launch_bounds__(256, MT <= 2   ? 3
                                              : MT == 4 ? 2
                                                        : 1)
    simt_kernel(const __grid_constant__ ganq__lut_args args) {
    constexpr int L = 1 << BITS,
                  UNIT_TILES = BITS == 4   ? 1
                               : BITS == 3 ? 4
                                           : 2,
                  VECTORS = BITS == 3 ? 3 : 1;
    constexpr int DEPTH = BITS == 3 ? 1 : 2, UNIT_COLUMNS = 64 * UNIT_TILES;
    __shared__ __align__(16) unsigned char tables[L * 256];
    __shared__ float all[8][16][MT], outliers[16 * 8];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32,
              warps = (int)blockDim.x / 32;
    const ganq__lut_part &part = args.part[part_of_block(args, (int)blockIdx.x)];
    const int group = (int)blockIdx.x - part.first_block, first_row = 16 * group;
    const int units = (args.K + UNIT_COLUMNS - 1) / UNIT_COLUMNS;
    int unit, left;
    unit_range(args, units, warp, warps, &unit, &left);

    const uint4 *codes =
        (const uint4 *)part.codes + ((int64_t)group * units + unit) * (VECTORS * 32) + lane;
    uint4 now[DEPTH][VECTORS], next[DEPTH][VECTORS];
    const auto load_codes = [&](int ahead, uint4(&to)[VECTORS]) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            to[v] = ganq_load16_stream(codes + (ahead * VECTORS + v) * 32);
    };
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
        if (d < left)
            load_codes(d, now[d]);

    ganq_allow_next();
    for (int i = (int)threadIdx.x; i < 16 * L; i += (int)blockDim.x) {
        const int row = i % 16, entry = i / 16;
        const float t = value_at(part.tables, args.table_f32 ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16,
                                 (int64_t)(first_row + row) * L + entry);
        *(float4 *)(tables + entry * 256 + row / 8 * 128 + row % 8 * 16) = make_float4(t, t, t, t);
    }
    ganq_wait_for_previous();
    const bool has_outliers = part.rowptr && blockIdx.y == 0;
    if (has_outliers)
        outlier_sums(
            part, first_row, 16, args.M, 8,
            [&](int m, int k) { return value_at(args.x, args.x_dtype, m * args.ldx + k); },
            outliers);
    __syncthreads();

    float sums[MT][2] = {};
    int k = unit * UNIT_COLUMNS + lane % 4 * 8;
    for (; left > 0; left -= DEPTH) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
            if (d + DEPTH < left)
                load_codes(d + DEPTH, next[d]);
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            if (d >= left)
                break;
#pragma unroll
            for (int q = 0; q < UNIT_TILES; q++) {
                uint32_t words[4];
                tile_words<BITS>(now[d], q, words);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int column = k + 64 * (d * UNIT_TILES + q) + 32 * half;
                    float w[2][8];
#pragma unroll
                    for (int i = 0; i < 16; i++) {
                        // Word, byte and place in the pair of column i % 8 of row i / 8.
                        const int c = i % 8, h = i / 8, b = 2 * h + c / 2 % 2,
                                  shift = 8 * b + BITS * (c % 2) - 8;
                        const uint32_t word = words[2 * half + c / 4];
                        const uint32_t at =
                            ((shift < 0 ? word << -shift : word >> shift) & ((L - 1u) << 8)) |
                            lane * 4u;
                        w[h][c] = *(const float *)(tables + h * 128 + at);
                    }
#pragma unroll
                    for (int m = 0; m < MT; m++) {
                        float x[8];
                        if (MT > 1 && m >= args.M)
                            break;
                        load_8(args, m * args.ldx, column, x);
#pragma unroll
                        for (int c = 0; c < 8; c++) {
                            sums[m][0] = fmaf(w[0][c], x[c], sums[m][0]);
                            sums[m][1] = fmaf(w[1][c], x[c], sums[m][1]);
                        }
                    }
                }
            }
        }
        k += DEPTH * UNIT_COLUMNS;
        codes += DEPTH * VECTORS * 32;
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                now[d][v] = next[d][v];
    }

#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = sums[m][h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if (lane % 4 == 0)
                all[warp][lane / 4 + 8 * h][m] = sum;
        }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < 16 * args.M; i += (int)blockDim.x) {
        const int r = i % 16, m = i / 16;
        const auto sum = [&](int column) {
            float total = has_outliers ? outliers[r * 8 + column] : 0.0f;
            for (int w = 0; w < warps; w++)
                total += all[w][r][column];
            return total;
        };
        if (args.splits > 1)
            args.partial[((int64_t)blockIdx.y * args.M + m) * args.blocks * 16 + blockIdx.x * 16 +
                         r] = sum(m);
        else if (first_row + r < part.N)
            finish(args, part, first_row + r, m, args.scales, sum);
    }
}

template <int BITS>
static cudaError_t launch_simt(ganq__cuda_queue queue, ganq__lut_args args, const ganq__lut_plan *plan) {
    count_blocks(args, 16);
    const auto kernel = args.M == 1   ? simt_kernel<BITS, 1>
                        : args.M == 2 ? simt_kernel<BITS, 2>
                        : args.M <= 4 ? simt_kernel<BITS, 4>
                                      : simt_kernel<BITS, 8>;
    return ganq_start(kernel, dim3((unsigned)args.blocks, (unsigned)args.splits),
                      dim3(32u * (unsigned)plan->warps), 0, queue, args);
}

} // namespace lut

cudaError_t ganq__lut_launch_simt(ganq__cuda_queue queue, const ganq__lut_args *args,
                                  const ganq__lut_plan *plan) {
    if (args->M > GANQ__LUT_SIMT_ROWS || plan->warps > 8)
        return cudaErrorInvalidValue;
    return args->bits == 4   ? lut::launch_simt<4>(queue, *args, plan)
           : args->bits == 3 ? lut::launch_simt<3>(queue, *args, plan)
                             : lut::launch_simt<2>(queue, *args, plan);
}
