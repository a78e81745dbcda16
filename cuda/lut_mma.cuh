// lut_mma.cuh - Y = X W~^T for up to 32 columns of X on tensor cores, codes 2/3/4 bit, f16 in, fp32
// sums (sm_80 and later).
//
// Layout   codes: tile16 (lut_layout.h); tables [N][L] f16; X [columns, K] f16, rows 16-byte aligned,
//          K % 8 == 0
//
// Work     a block has ROW_TILES x 16 rows of W~ and one of `splits` parts of K, which its warps
//          share, in one piece each, for all columns of X:
//
//              K         | units of warp 0 | units of warp 1 | ...
//              rows 16   |                 |                 |
//
//          At the end the warps' sums are added in the order of the warps.
//
// Tables   W~ is the A operand: a register of it is two neighbouring columns of one row, so one
//          lookup in a table of pairs, [t[lo], t[hi]] for all L x L pairs, gives a register.
//          COPIES 4: the lane's own column of shared memory, lane = 4 (row % 8) + (0..3),
//              address = pair * 256 + (row / 8) * 128 + lane * 4:
//          no bank conflict whatever the codes, and one PRMT makes the address from the byte of codes
//          and 4 * lane.
//          COPIES 1 (4 bits only): address = row * 1024 + pair * 4, a quarter of the memory and of
//          the time to fill it; 32 random words fall 3.3-fold on the worst bank.
//
// Bytes    DEPTH units (64 to 96 bytes per lane) are multiplied while the next DEPTH are on their way
//
// Order    codes of the first units are asked for, tables made, and only then the kernel before this
//          one awaited: neither depends on it
//
// Bound    issue slots per weight, main loop, M <= 8: docs/kernels.md
//
// Tried    refilling each unit's registers as soon as it was multiplied: ptxas moves those loads to
//          the end of the loop (sm_90, CUDA 13.0), where they are awaited at once
#ifndef GANQ_CUDA_LUT_MMA_CUH
#define GANQ_CUDA_LUT_MMA_CUH

#include "lut_decode.cuh"

namespace lut {

template <int BITS, int COPIES> static __host__ __device__ constexpr int table_bytes() {
    return BITS == 4 ? 16384 * COPIES : BITS == 3 ? 16384 : 4096;
}

// Threads at most, and blocks that must find room on a multiprocessor: registers are cut
// accordingly.
static __host__ __device__ constexpr int mma_threads(int bits, int row_tiles, int column_tiles) {
    return row_tiles == 2 && column_tiles * (bits == 3 ? 2 : 1) <= 2 ? 512 : 256;
}
static __host__ __device__ constexpr int mma_blocks(int bits, int row_tiles) {
    return row_tiles == 2 ? 1 : bits == 3 ? 2 : 3;
}

template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) chunk { T v[COUNT]; };

// The pair tables of 16 rows, `tables` [16, L].
template <int BITS, int COPIES>
static __device__ __forceinline__ void make_pairs(const uint16_t *tables, unsigned char *shared) {
    constexpr int L = 1 << BITS;
    if (COPIES == 4) {
        // One task: one row, one lower entry, a quarter of the upper ones. 16 neighbouring threads
        // fill an entry's 256 bytes.
        constexpr int QUARTER = L / 4;
        for (int i = (int)threadIdx.x; i < 16 * L * 4; i += (int)blockDim.x) {
            const int row = i % 16, low = i / 16 % L, first = i / (16 * L) * QUARTER;
            const uint32_t t_low = tables[row * L + low];
            const auto t_high = *(const chunk<uint16_t, QUARTER> *)(tables + row * L + first);
#pragma unroll
            for (int q = 0; q < QUARTER; q++) {
                const uint32_t pair = t_low | (uint32_t)t_high.v[q] << 16;
                *(uint4 *)(shared + (low + (first + q) * L) * 256 + row / 8 * 128 + row % 8 * 16) =
                    make_uint4(pair, pair, pair, pair);
            }
        }
    } else {
        for (int i = (int)threadIdx.x; i < 16 * L * L; i += (int)blockDim.x) {
            const int row = i / (L * L), low = i % L, high = i / L % L;
            *(uint32_t *)(shared + i * 4) = tables[row * L + low] | (uint32_t)tables[row * L + high]
                                                                        << 16;
        }
    }
}

// The A operand of a word of four pairs. `place`: the lane's part of an address.
template <int COPIES>
static __device__ __forceinline__ void lookup(const unsigned char *shared, uint32_t word,
                                              uint32_t place, uint32_t (&a)[4]) {
#pragma unroll
    for (int b = 0; b < 4; b++) {
        if (COPIES == 4) {
            const uint32_t at = __byte_perm(word, place, 0x5504u | (uint32_t)b << 4);
            a[b] = *(const uint32_t *)(shared + (b & 1) * 128 + at);
        } else {
            const uint32_t at = ((b == 0 ? word << 2 : word >> (8 * b - 2)) & 0x3fcu) | place;
            a[b] = *(const uint32_t *)(shared + (b & 1) * 8192 + at);
        }
    }
}

// Whether a turn of the loop over units checks for the end of the warp's units and of K.
struct unchecked {
    static constexpr bool value = false;
};
struct checked {
    static constexpr bool value = true;
};

template <int BITS, int COPIES, int ROW_TILES, int NT>
static __global__ void __launch_bounds__(mma_threads(BITS, ROW_TILES, NT),
                                         mma_blocks(BITS, ROW_TILES))
    mma_kernel(const __grid_constant__ ganq__lut_args args) {
    constexpr int UNIT_TILES = BITS == 4 ? 1 : BITS == 3 ? 4 : 2, VECTORS = BITS == 3 ? 3 : 1;
    constexpr int DEPTH = (BITS == 3 ? 2 : 4) / ROW_TILES, UNIT_COLUMNS = 64 * UNIT_TILES;
    constexpr int ROWS = 16 * ROW_TILES, WIDTH = 8 * NT, TABLE = table_bytes<BITS, COPIES>();
    constexpr bool AHEAD =
        NT <= 2; // X of the next tile is asked for before this tile is multiplied
    GANQ_DYNAMIC_SHARED(unsigned char, shared);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32,
              warps = (int)blockDim.x / 32;
    const ganq__lut_part &part = args.part[part_of_block(args)];
    const int first_row = ((int)blockIdx.x - part.first_block) * ROWS;
    const int groups = (part.N + 15) / 16, units = (args.K + UNIT_COLUMNS - 1) / UNIT_COLUMNS;
    int unit, left; // the warp's next unit, and how many it has left
    unit_range(args, units, warp, warps, &unit, &left);

    // Rows beyond the last group repeat it; they are not stored.
    const uint4 *codes[ROW_TILES];
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++) {
        const int group = min(first_row / 16 + i, groups - 1);
        codes[i] =
            (const uint4 *)part.codes + ((int64_t)group * units + unit) * (VECTORS * 32) + lane;
    }
    uint4 units_now[DEPTH][ROW_TILES][VECTORS], units_next[DEPTH][ROW_TILES][VECTORS];
    const auto load_codes = [&](int ahead, uint4(&to)[ROW_TILES][VECTORS]) {
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                to[i][v] = ganq_load16_stream(codes[i] + (ahead * VECTORS + v) * 32);
    };
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
        if (d < left)
            load_codes(d, units_now[d]);

    allow_next();
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
        make_pairs<BITS, COPIES>((const uint16_t *)part.tables +
                                     min(first_row / 16 + i, groups - 1) * (16 << BITS),
                                 shared + i * TABLE);
    wait_for_previous();

    // A lane's share of X: column lane / 4 of 8, 8 elements from 8 (lane % 4) on in each half of a
    // tile. Columns beyond the last repeat it: what comes out for them is not stored.
    const __half *x = (const __half *)args.x + unit * UNIT_COLUMNS + lane % 4 * 8;
    // More than half of the NT tiles of columns are there: only the other half can run out of
    // columns.
    constexpr int WHOLE = NT / 2;
    const int64_t x_first = lane / 4 * args.ldx;
    int64_t x_last[NT - WHOLE];
#pragma unroll
    for (int n = WHOLE; n < NT; n++)
        x_last[n - WHOLE] = min(8 * n + lane / 4, args.columns - 1) * args.ldx;
    int k_left = args.K - unit * UNIT_COLUMNS; // columns of K from the warp's next unit to the end
    uint4 xs[2][2][NT];                        // [tile, even and odd][half]
    const auto load_x = [&](auto check, int tile, int half, uint4(&to)[NT]) {
        const int k = 64 * tile + 32 * half;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const __half *const from =
                x + (n < WHOLE ? x_first + 8 * n * args.ldx : x_last[n < WHOLE ? 0 : n - WHOLE]) +
                k;
            if (!decltype(check)::value)
                to[n] = *(const uint4 *)from;
            else
                to[n] = k + lane % 4 * 8 < k_left ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
        }
    };
    if (AHEAD && left > 0) {
        load_x(checked(), 0, 0, xs[0][0]);
        load_x(checked(), 0, 1, xs[0][1]);
    }
    float *const outliers = (float *)(shared + max(ROW_TILES * TABLE, warps * ROWS * WIDTH * 4));
    const bool has_outliers = part.rowptr && blockIdx.y == 0;
    if (has_outliers)
        outlier_sums(
            part, first_row, ROWS, args.columns, WIDTH,
            [&](int column, int k) {
                return __half2float(((const __half *)args.x)[column * args.ldx + k]);
            },
            outliers);
    __syncthreads();

    float sums[ROW_TILES][NT][4] = {};
    const uint32_t place = COPIES == 4 ? (uint32_t)lane * 4 : (uint32_t)(lane / 4) << 10;
    // DEPTH units, and the loads of the DEPTH after them.
    const auto turn = [&](auto check) {
        constexpr bool CHECK = decltype(check)::value;
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
            if (!CHECK || d + DEPTH < left)
                load_codes(d + DEPTH, units_next[d]);
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            if (CHECK && d >= left)
                break;
#pragma unroll
            for (int q = 0; q < UNIT_TILES; q++) {
                const int tile = d * UNIT_TILES + q;
                uint32_t words[ROW_TILES][4];
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++)
                    tile_words<BITS>(units_now[d][i], q, words[i]);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    uint4(&b)[NT] = xs[tile & 1][half];
                    if (!AHEAD)
                        load_x(check, tile, half, b);
                    else if (CHECK || tile + 1 == DEPTH * UNIT_TILES)
                        load_x(checked(), tile + 1, half, xs[~tile & 1][half]);
                    else
                        load_x(unchecked(), tile + 1, half, xs[~tile & 1][half]);
#pragma unroll
                    for (int j = 0; j < 2; j++)
#pragma unroll
                        for (int i = 0; i < ROW_TILES; i++) {
                            uint32_t a[4];
                            lookup<COPIES>(shared + i * TABLE, words[i][2 * half + j], place, a);
#pragma unroll
                            for (int n = 0; n < NT; n++) {
                                const uint32_t operand[2] = {j ? b[n].z : b[n].x,
                                                             j ? b[n].w : b[n].y};
                                ganq_mma_f16(sums[i][n], a, operand);
                            }
                        }
                }
            }
        }
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
                for (int v = 0; v < VECTORS; v++)
                    units_now[d][i][v] = units_next[d][i][v];
        left -= DEPTH;
        x += DEPTH * UNIT_COLUMNS;
        k_left -= DEPTH * UNIT_COLUMNS;
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
            codes[i] += DEPTH * VECTORS * 32;
    };
    while (left >= 2 * DEPTH && k_left >= DEPTH * UNIT_COLUMNS)
        turn(unchecked());
    while (left > 0)
        turn(checked());

    // The warps' sums, where the tables were: [warp][row][column].
    __syncthreads();
    float *const all = (float *)shared;
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                all[(warp * ROWS + 16 * i + lane / 4 + 8 * (e >> 1)) * WIDTH + 8 * n +
                    2 * (lane % 4) + (e & 1)] = sums[i][n][e];
    __syncthreads();
    const int outputs = args.splits > 1 ? args.columns : args.M;
    for (int i = (int)threadIdx.x; i < ROWS * outputs; i += (int)blockDim.x) {
        const int r = i % ROWS, m = i / ROWS;
        const auto sum = [&](int column) {
            float total = has_outliers ? outliers[r * WIDTH + column] : 0.0f;
            for (int w = 0; w < warps; w++)
                total += all[(w * ROWS + r) * WIDTH + column];
            return total;
        };
        if (args.splits > 1)
            args.partial[((int64_t)blockIdx.y * args.columns + m) * args.blocks * ROWS +
                         blockIdx.x * ROWS + r] = sum(m);
        else if (first_row + r < part.N)
            finish(args, part, first_row + r, m, sum);
    }
}

} // namespace lut

#endif
