/* lut_layout.h - "tile16", the codes of a layer as they lie in the memory of a GPU, as functions of
 * indices: the host packs with them, kernels walk along them, tests compare both. Drawing:
 * docs/kernels.md.
 *
 * A tile is 16 rows x 64 columns: the A operands of four mma.m16n8k16, one 32-bit word per lane and
 * mma. Byte 2h + p of word j of lane 4g + t is a pair, the codes of row g + 8h, columns c and c + 1:
 *
 *     c = 32 (j / 2) + 8 t + 4 (j % 2) + 2 p,         pair = code[c] | code[c + 1] << bits,
 *
 * so that a lane has, for each half of 32 columns, 8 neighbouring columns of two rows: 16 bytes of a
 * row of X in f16 are its B operands. Looking up the pair gives the two halves of an mma operand's
 * register at once.
 *
 * Four bytes of pairs take 8 x bits bits of a word; what is left is filled up:
 *
 *     4 bits   word j is stored as it is
 *     3 bits   words 0 1 2 keep their six bits per byte; the upper two bits of their bytes hold word
 *              3, two bits each
 *     2 bits   words 0 and 1 in the lower and upper halves of a byte, so 2 and 3
 *
 * A unit is what a lane loads 16 bytes at a time: 1, 4 or 2 tiles (4, 3, 2 bits), 64, 256 or 128
 * columns, in 1, 3 or 1 vectors of 16 bytes. Memory: [group of 16 rows][unit][vector][lane] x 16
 * bytes. Rows and columns that fill up the last group and unit have code 0; kernels read X as zero
 * there. */
#ifndef GANQ_CUDA_LUT_LAYOUT_H
#define GANQ_CUDA_LUT_LAYOUT_H

#include <stdint.h>

#if defined(__CUDACC__)
#define GANQ__HD __host__ __device__ __forceinline__
#else
#define GANQ__HD static inline
#endif

enum {
    GANQ__TILE_ROWS = 16,
    GANQ__TILE_COLUMNS = 64,
    GANQ__TILE_WORDS = 4 /* pair words of a lane in a tile */
};

GANQ__HD int ganq__unit_tiles(int bits) {
    return bits == 4 ? 1 : bits == 3 ? 4 : 2;
}
GANQ__HD int ganq__unit_vectors(int bits) {
    return bits == 3 ? 3 : 1;
}
GANQ__HD int ganq__unit_columns(int bits) {
    return GANQ__TILE_COLUMNS * ganq__unit_tiles(bits);
}
/* Stored words of a lane and tile. */
GANQ__HD int ganq__tile_stored_words(int bits) {
    return bits;
}

GANQ__HD int64_t ganq__lut_groups(int64_t N) {
    return (N + GANQ__TILE_ROWS - 1) / GANQ__TILE_ROWS;
}
GANQ__HD int64_t ganq__lut_units(int64_t K, int bits) {
    return (K + ganq__unit_columns(bits) - 1) / ganq__unit_columns(bits);
}
GANQ__HD int64_t ganq__lut_code_bytes(int64_t N, int64_t K, int bits) {
    return ganq__lut_groups(N) * ganq__lut_units(K, bits) * ganq__unit_vectors(bits) * 512;
}
/* Of the 16 bytes that `lane` reads as vector v of a unit, in units of 16 bytes. */
GANQ__HD int64_t ganq__lut_vector(int64_t group, int64_t unit, int64_t units, int bits, int v,
                                  int lane) {
    return ((group * units + unit) * ganq__unit_vectors(bits) + v) * 32 + lane;
}

/* Row in the group and first column in the tile of byte b of word j. */
GANQ__HD int ganq__pair_row(int lane, int b) {
    return lane / 4 + 8 * (b >> 1);
}
GANQ__HD int ganq__pair_column(int lane, int j, int b) {
    return 32 * (j >> 1) + 8 * (lane & 3) + 4 * (j & 1) + 2 * (b & 1);
}

/* The four pair words of a tile from its `bits` stored words, and back. */
GANQ__HD void ganq__pair_words(int bits, const uint32_t *stored, uint32_t *words) {
    if (bits == 4) {
        for (int j = 0; j < 4; j++)
            words[j] = stored[j];
    } else if (bits == 3) {
        for (int j = 0; j < 3; j++)
            words[j] = stored[j] & 0x3f3f3f3fu;
        words[3] = (stored[0] >> 6 & 0x03030303u) | (stored[1] >> 4 & 0x0c0c0c0cu) |
                   (stored[2] >> 2 & 0x30303030u);
    } else {
        words[0] = stored[0] & 0x0f0f0f0fu;
        words[1] = stored[0] >> 4 & 0x0f0f0f0fu;
        words[2] = stored[1] & 0x0f0f0f0fu;
        words[3] = stored[1] >> 4 & 0x0f0f0f0fu;
    }
}
GANQ__HD void ganq__stored_words(int bits, const uint32_t *words, uint32_t *stored) {
    if (bits == 4) {
        for (int j = 0; j < 4; j++)
            stored[j] = words[j];
    } else if (bits == 3) {
        for (int j = 0; j < 3; j++)
            stored[j] = words[j] | (words[3] >> 2 * j & 0x03030303u) << 6;
    } else {
        stored[0] = words[0] | words[1] << 4;
        stored[1] = words[2] | words[3] << 4;
    }
}

/* ---- X for warpgroups ----
 * An image of X in f16, as their products (wgmma.cuh) find it in shared memory: [tile of `wide` columns][64 of K][column] x
 * 128 bytes. Of the 64, the 16 of word j come together, in the order in which A has them; pieces of 16 bytes are
 * exchanged among those of a column, so that columns side by side lie in different banks. */

/* K of the image: as many units as their loop takes at a time. */
#if defined(__cplusplus)
constexpr
#endif
    GANQ__HD int ganq__image_step(int bits) {
    return bits == 3 ? 256 : 128;
}
GANQ__HD int64_t ganq__image_columns(int64_t K, int bits) {
    return (K + ganq__image_step(bits) - 1) / ganq__image_step(bits) * ganq__image_step(bits);
}
/* Byte of element k of a column; K: ganq__image_columns. Neighbours k, k + 1, k even, stay neighbours. */
GANQ__HD int64_t ganq__image_offset(int64_t column, int64_t k, int64_t K, int wide) {
    const int c = (int)(k % 64), j = c / 32 * 2 + c % 8 / 4, piece = 2 * j + c % 4 / 2;
    const int64_t row = (column / wide * (K / 64) + k / 64) * wide + column % wide;
    return row * 128 + ((piece ^ (int)(column % 8)) << 4) + c % 32 / 8 * 4 + c % 2 * 2;
}

#endif
