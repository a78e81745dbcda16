// lut_mma.cuh - Y = X W~^T for up to 32 columns of X on tensor cores, codes 2/3/4 bit, f16 in, fp32
// sums (sm_80 and later).
//
// Layout   codes: tile16 (lut_layout.h); tables [N][L] f16; X [columns, K] f16, rows 16-byte aligned,
//          K % 8 == 0; or (`convert`, one row tile) rows of X of any type, or what they are made from
//
// Work     a block has one of `splits` parts of K, and ROW_TILES x 16 rows of W~ at a time, as many
//          times as it takes: rows b, b + blocks of the grid, ... Its warps share the part of K, in one
//          piece each, for all columns of X:
//
//              K         | units of warp 0 | units of warp 1 | ...
//              rows b    |                 |                 |     sums of the warps, in their order
//              rows b'   |                 |                 |
//
//          The codes of b' are on their way before the sums of b are done, so are its tables.
//
// Tables   W~ is the A operand; where its registers come from: lut_tables.cuh. COPIES 4, 1: pairs in shared memory; 0: planes
//          in each warp's registers, so that a block has nothing to fill, and room for more X; 2: both
//
// X        one row tile, up to 8 columns: the block's part of X lies in shared memory, as f16 columns
//          (lut_input.cuh, which also makes norms and SwiGLU on the way), 64 bytes beside a multiple of
//          128 apart, so that the 16-byte reads of 8 lanes meet different banks.
//          Two row tiles: it is read through the first-level cache, which keeps some or all of it from rows
//          to rows. Lanes of columns that are not there read nothing: they have zeros.
//
// Bytes    DEPTH units (64 to 96 bytes per lane) are multiplied while the next DEPTH are on their way
//
// Order    codes of the first units are asked for, tables made, and only then the kernel before this
//          one awaited: neither depends on it
// Ahead    with `ahead` L2 is asked at once for all codes of a block's first rows, those of rows whose block has no room yet among
//          them, and for those of the next rows when it begins with some: memory works while blocks wait for each other
//
// Bound    issue slots per weight, main loop, M <= 8: docs/kernels.md
//
// Tried    refilling each unit's registers as soon as it was multiplied: ptxas moves those loads to
//          the end of the loop (sm_90, CUDA 13.0), where they are awaited at once
#ifndef GANQ_CUDA_LUT_MMA_CUH
#define GANQ_CUDA_LUT_MMA_CUH

#include "lut_input.cuh"
#include "lut_tables.cuh"

namespace lut {

// Threads at most, and blocks that must find room on a multiprocessor: registers are cut
// accordingly. ganq__lut_mma_slots has the same numbers.
static __host__ __device__ constexpr int mma_threads(int bits, int copies, int row_tiles, int column_tiles) {
    return row_tiles == 1                      ? (bits != 4 || copies != 4 ? 256 : 384)
           : column_tiles == 1 && copies != 0 ? 512
           : column_tiles <= 2                ? 384
                                              : 256;
}
static __host__ __device__ constexpr int mma_blocks(int row_tiles) {
    return row_tiles == 2 ? 1 : 2;
}

// Whether a turn of the loop over units checks for the end of the warp's units and of K.
struct unchecked {
    static constexpr bool value = false;
};
struct checked {
    static constexpr bool value = true;
};

// Columns [first, first + count) of K of all columns of X to shared memory, f16, zero from K on; count
// is a multiple of 64. convert: from rows of any type, or what they are made from, scaled, with their lower parts where there
// are twice as many columns as rows; scales gets what a column is to be multiplied with.
static __device__ __forceinline__ void stage_x(const ganq__lut_args &args, int first, int count, float *box,
                                               float *scales, __half *to) {
    enum { HELD = 4 }; // rows up to 4096 columns with 8 warps
    const int ld = args.shared.x_ld, threads = (int)blockDim.x, mine = (int)threadIdx.x;
    if (!args.convert) {
        for (int c = 0; c < args.columns; c++)
#pragma unroll 4
            for (int k = 8 * mine; k < count; k += 8 * threads)
                *(uint4 *)(to + c * ld + k) =
                    first + k < args.K
                        ? *(const uint4 *)((const __half *)args.x + c * args.ldx + first + k)
                        : make_uint4(0, 0, 0, 0);
        return;
    }
    for (int m = 0; m < args.M; m++)
        convert_row<HELD>(args, m, count, blockIdx.x == 0, box, scales + m, column_rows{to, ld});
}

template <int BITS, int COPIES, int ROW_TILES, int NT>
static __global__ void __launch_bounds__(mma_threads(BITS, COPIES, ROW_TILES, NT), mma_blocks(ROW_TILES))
    mma_kernel(const __grid_constant__ ganq__lut_args args) {
    constexpr int UNIT_TILES = BITS == 4 ? 1 : BITS == 3 ? 4 : 2, VECTORS = BITS == 3 ? 3 : 1;
    constexpr int DEPTH = (BITS == 3 ? 2 : 4) / ROW_TILES, UNIT_COLUMNS = 64 * UNIT_TILES, L = 1 << BITS;
    constexpr int ROWS = 16 * ROW_TILES, TABLE = ganq__pair_table_bytes(BITS, COPIES);
    constexpr bool STAGED = ROW_TILES == 1;
    constexpr bool AHEAD = NT <= 2; // X of the next tile is asked for before this tile is multiplied
    GANQ_DYNAMIC_SHARED(unsigned char, shared);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    const int units = (args.K + UNIT_COLUMNS - 1) / UNIT_COLUMNS, width = args.columns;
    const int slice = (int)((int64_t)units * blockIdx.y / args.splits); // its columns are the block's part of K
    const int slice_columns = ((int)((int64_t)units * (blockIdx.y + 1) / args.splits) - slice) * UNIT_COLUMNS;
    int first_unit, count; // of the warp, the same for all rows
    unit_range(args, units, warp, warps, &first_unit, &count);
    unsigned char *const raw = shared + args.shared.raw;
    float *const all = (float *)(shared + args.shared.sums), *const outliers = (float *)(shared + args.shared.outliers);
    float *const scales = (float *)(shared + args.shared.scales);

    // Rows beyond the last group repeat it; they are not stored.
    const auto group_of = [&](const ganq__lut_part &part, int block, int i) {
        return min((block - part.first_block) * ROW_TILES + i, (part.N + 15) / 16 - 1);
    };
    const auto find_codes = [&](int block, const uint4 *(&to)[ROW_TILES]) {
        const ganq__lut_part &part = args.part[part_of_block(args, block)];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
            to[i] = (const uint4 *)part.codes +
                    ((int64_t)group_of(part, block, i) * units + first_unit) * (VECTORS * 32) + lane;
    };
    const uint4 *codes[ROW_TILES];
    uint4 units_now[DEPTH][ROW_TILES][VECTORS], units_next[DEPTH][ROW_TILES][VECTORS];
    const auto load_codes = [&](const uint4 *const(&from)[ROW_TILES], int d, uint4(&to)[ROW_TILES][VECTORS]) {
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                to[i][v] = ganq_load16_stream(from[i] + (d * VECTORS + v) * 32);
    };
    int block = (int)blockIdx.x;
    find_codes(block, codes);
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
        if (d < count)
            load_codes(codes, d, units_now[d]);

    // To L2, what follows those units of the warp's codes of the rows of `of`.
    const auto ask_for_codes = [&](int of) {
        const ganq__lut_part &part = args.part[part_of_block(args, of)];
        const int its_lane = ganq_anew((int)threadIdx.x) % 32; // of 128 bytes of codes
#pragma unroll 1
        for (int i = 0; i < ROW_TILES; i++) {
            const char *const from = (const char *)part.codes +
                                     ((int64_t)group_of(part, of, i) * units + first_unit) * (VECTORS * 512) + 128 * its_lane;
#pragma unroll 1
            for (int at = DEPTH * VECTORS * 512; at < count * VECTORS * 512 - 128 * its_lane; at += 32 * 128)
                ganq_prefetch(from + at);
        }
    };
    if (args.ahead) {
        ask_for_codes(block);
        if (block + ((int)gridDim.x + 1) / 2 < (int)gridDim.x) // a block that may not have begun
            ask_for_codes(block + ((int)gridDim.x + 1) / 2);
    }
    ganq_allow_next();
    constexpr bool PLANES = COPIES == 0 || COPIES == 2;
    planes<BITS> held[PLANES ? ROW_TILES : 1];
    const auto make_tables = [&](int i, const uint16_t *tables) {
        if constexpr (PLANES)
            held[i].load(tables, lane);
        if constexpr (COPIES != 0)
            make_pairs<BITS, COPIES == 1 ? 1 : 4>(tables, shared + i * TABLE);
    };
    {
        const ganq__lut_part &part = args.part[part_of_block(args, block)];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
            make_tables(i, (const uint16_t *)part.tables + (int64_t)group_of(part, block, i) * (16 << BITS));
    }
    if (STAGED && args.convert)
        ask_for_weight(args);
    ganq_wait_for_previous();
    if (STAGED)
        stage_x(args, slice * UNIT_COLUMNS, slice_columns, all, scales, (__half *)(shared + args.shared.x));
    __syncthreads();

    // A lane's share of X: column lane / 4 of 8, 8 elements from 8 (lane % 4) on in each half of a tile.
    const auto column_of = [&](int n) { return min(8 * n + lane / 4, width - 1); };
    const int x_begin = (first_unit - (STAGED ? slice : 0)) * UNIT_COLUMNS; // in the slice, or in K
    int x_row[NT];
#pragma unroll
    for (int n = 0; n < NT; n++)
        x_row[n] = STAGED ? args.shared.x + 2 * (column_of(n) * args.shared.x_ld + 8 * (lane % 4)) : 0;
    const __half *x_global[NT];
#pragma unroll
    for (int n = 0; n < NT; n++)
        x_global[n] = (const __half *)args.x + (STAGED ? 0 : column_of(n) * args.ldx + 8 * (lane % 4));
    const auto load_x = [&](auto check, int at, uint4(&to)[NT]) {
#pragma unroll
        for (int n = 0; n < NT; n++)
            if (8 * n + lane / 4 < width) {
                if (STAGED)
                    to[n] = *(const uint4 *)(shared + x_row[n] + 2 * at);
                else if (!decltype(check)::value || at + lane % 4 * 8 < args.K)
                    to[n] = *(const uint4 *)(x_global[n] + at);
                else
                    to[n] = make_uint4(0, 0, 0, 0);
            }
    };
    uint4 xs[2][2][NT] = {}; // [tile, even and odd][half]
    if (AHEAD && count > 0) {
        load_x(checked(), x_begin, xs[0][0]);
        load_x(checked(), x_begin + 32, xs[0][1]);
    }
    const uint32_t place = COPIES != 1 ? (uint32_t)lane * 4 : (uint32_t)(lane / 4) << 10;

    for (;;) {
        const ganq__lut_part &part = args.part[part_of_block(args, block)];
        const int first_row = (block - part.first_block) * ROWS, next = block + (int)gridDim.x;
        const bool more = next < args.blocks;
        if (more) { // tables of the next rows, as they are in memory
            constexpr int CHUNKS = 2 * L; // of 16 bytes per 16 rows
            const ganq__lut_part &its = args.part[part_of_block(args, next)];
            for (int i = (int)threadIdx.x; i < ROW_TILES * CHUNKS; i += (int)blockDim.x)
                ganq_copy16_async(raw + 16 * i, (const unsigned char *)its.tables +
                                                    (int64_t)group_of(its, next, i / CHUNKS) * (32 << BITS) +
                                                    16 * (i % CHUNKS));
        }
        ganq_copy_commit();
        if (more && args.ahead)
            ask_for_codes(next);
        const bool has_outliers = part.rowptr != nullptr;
        if (has_outliers && (STAGED || blockIdx.y == 0))
            outlier_sums(
                part, first_row, ROWS, width, 8 * NT,
                [&](int column, int k) {
                    if (!STAGED)
                        return __half2float(((const __half *)args.x)[column * args.ldx + k]);
                    const int at = k - slice * UNIT_COLUMNS;
                    return (unsigned)at < (unsigned)slice_columns
                               ? __half2float(((const __half *)(shared + args.shared.x))[column * args.shared.x_ld + at])
                               : 0.0f;
                },
                outliers);
        float sums[ROW_TILES][NT][4] = {};
        int left = ganq_anew(count), x_at = x_begin;
        // DEPTH units, and the loads of the DEPTH after them, which may be the next rows' first.
        const auto turn = [&](auto check) {
            constexpr bool CHECK = decltype(check)::value;
            const bool last = left <= DEPTH;
            const int available = !last ? left - DEPTH : more ? count : 0;
            const int x_next = last ? x_begin : x_at + DEPTH * UNIT_COLUMNS;
            if (!last) {
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++)
                    codes[i] += DEPTH * VECTORS * 32;
            } else if (more) {
                find_codes(next, codes);
            }
#pragma unroll
            for (int d = 0; d < DEPTH; d++)
                if (!CHECK || d < available)
                    load_codes(codes, d, units_next[d]);
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
                            load_x(check, x_at + 64 * tile + 32 * half, b);
                        else if (tile + 1 == DEPTH * UNIT_TILES)
                            load_x(checked(), x_next + 32 * half, xs[~tile & 1][half]);
                        else if (!CHECK || q + 1 < UNIT_TILES || d + 1 < left)
                            load_x(check, x_at + 64 * (tile + 1) + 32 * half, xs[~tile & 1][half]);
#pragma unroll
                        for (int j = 0; j < 2; j++)
#pragma unroll
                            for (int i = 0; i < ROW_TILES; i++) {
                                uint32_t a[4];
                                if (COPIES == 0 || (COPIES == 2 && by_planes(2 * half + j)))
                                    held[PLANES ? i : 0].lookup(words[i][2 * half + j], a);
                                else
                                    lookup<COPIES == 1 ? 1 : 4>(shared + i * TABLE, words[i][2 * half + j], place, a);
#pragma unroll
                                for (int n = 0; n < NT; n++) {
                                    const uint32_t operand[2] = {j ? b[n].z : b[n].x, j ? b[n].w : b[n].y};
                                    ganq_mma_f16(sums[i][n], a, operand);
                                }
                            }
                        // The warp's last unit, where it does not end a turn: the next rows begin with xs[0].
                        if (AHEAD && CHECK && tile + 1 < DEPTH * UNIT_TILES && q + 1 == UNIT_TILES && d + 1 >= left)
                            load_x(checked(), x_next + 32 * half, xs[0][half]);
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
            x_at = x_next;
        };
        while (left > 0) {
            const bool whole = left >= 2 * DEPTH || (left == DEPTH && more && count >= DEPTH);
            if (whole && (STAGED || x_at + DEPTH * UNIT_COLUMNS <= args.K))
                turn(unchecked());
            else
                turn(checked());
        }

        // The warps' sums: [warp][row][column].
        const int thread = ganq_anew((int)threadIdx.x), row = thread % 32 / 4, first_column = 2 * (thread % 4);
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int column = 8 * n + first_column + (e & 1);
                    if (column < width)
                        all[(thread / 32 * ROWS + 16 * i + row + 8 * (e >> 1)) * width + column] = sums[i][n][e];
                }
        ganq_copy_wait<0>();
        __syncthreads();
        const int outputs = args.splits > 1 ? width : args.M;
        for (int i = (int)threadIdx.x; i < ROWS * outputs; i += (int)blockDim.x) {
            const int r = i % ROWS, m = i / ROWS;
            const auto sum = [&](int column) {
                float total = has_outliers && (STAGED || blockIdx.y == 0) ? outliers[r * 8 * NT + column] : 0.0f;
                for (int w = 0; w < warps; w++)
                    total += all[(w * ROWS + r) * width + column];
                return total;
            };
            if (args.splits > 1)
                args.partial[((int64_t)blockIdx.y * width + m) * args.blocks * ROWS + block * ROWS + r] = sum(m);
            else if (first_row + r < part.N)
                finish(args, part, first_row + r, m, args.convert ? scales : args.scales, sum);
        }
        if (!more)
            return;
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++)
            make_tables(i, (const uint16_t *)(raw + i * (32 << BITS)));
        block = next;
        __syncthreads();
    }
}

} // namespace lut

#endif
