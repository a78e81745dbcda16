/* lanes.c - codes to the in-memory layout and back. */
#include "lanes.h"

enum { SLOT = 32 };

static void pack_block(const uint8_t *c, int bits, uint8_t *out) {
    for (int i = 0; i < SLOT; i++, c++) {
        if (bits == 4) {
            out[i] = (uint8_t)(c[0] | c[SLOT] << 4);
        } else if (bits == 2) {
            out[i] = (uint8_t)(c[0] | c[SLOT] << 2 | c[2 * SLOT] << 4 | c[3 * SLOT] << 6);
        } else {
            const int six = c[6 * SLOT], seven = c[7 * SLOT];
            out[i] = (uint8_t)(c[0] | c[SLOT] << 3 | (six >> 1) << 6);
            out[32 + i] = (uint8_t)(c[2 * SLOT] | c[3 * SLOT] << 3 | (seven >> 1) << 6);
            out[64 + i] =
                (uint8_t)(c[4 * SLOT] | c[5 * SLOT] << 3 | (six & 1) << 6 | (seven & 1) << 7);
        }
    }
}

static void unpack_block(const uint8_t *in, int bits, uint8_t *c) {
    for (int i = 0; i < SLOT; i++, c++) {
        if (bits == 4) {
            c[0] = in[i] & 15;
            c[SLOT] = in[i] >> 4;
        } else if (bits == 2) {
            for (int s = 0; s < 4; s++)
                c[s * SLOT] = in[i] >> (2 * s) & 3;
        } else {
            const int x = in[i], y = in[32 + i], z = in[64 + i];
            c[0] = x & 7;
            c[SLOT] = x >> 3 & 7;
            c[2 * SLOT] = y & 7;
            c[3 * SLOT] = y >> 3 & 7;
            c[4 * SLOT] = z & 7;
            c[5 * SLOT] = z >> 3 & 7;
            c[6 * SLOT] = (uint8_t)((x >> 6) << 1 | (z >> 6 & 1));
            c[7 * SLOT] = (uint8_t)((y >> 6) << 1 | z >> 7);
        }
    }
}

void ganq__lanes_pack(const uint8_t *codes, int64_t count, int bits, uint8_t *lanes) {
    const int64_t block = ganq__lanes_block(bits);
    for (; count >= block; count -= block) {
        pack_block(codes, bits, lanes);
        codes += block;
        lanes += ganq__lanes_block_bytes(bits);
    }
    ganq__planes_pack(codes, count, bits, lanes);
}

void ganq__lanes_unpack(const uint8_t *lanes, int64_t count, int bits, uint8_t *codes) {
    const int64_t block = ganq__lanes_block(bits);
    for (; count >= block; count -= block) {
        unpack_block(lanes, bits, codes);
        codes += block;
        lanes += ganq__lanes_block_bytes(bits);
    }
    ganq__planes_unpack(lanes, count, bits, codes);
}
