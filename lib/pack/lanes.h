/* lanes.h - "lanes", the codes of a row as they are in memory: what the CPU kernels read.
 *
 * The same bytes as the bit planes, rearranged inside blocks so that a byte holds codes of columns
 * 32 apart, and 32 neighbouring columns ("a slot") come out of a 32-byte load by a shift and a
 * mask, one code per byte. Slot s holds columns 32s..32s+31 of its block; i = 0..31 counts bytes
 * and columns of a slot:
 *
 *   4 bits, block of 64 columns in 32 bytes                            high bits to the left
 *       byte i    [ slot 1 | slot 0 ]
 *   2 bits, block of 128 columns in 32 bytes
 *       byte i    [ slot 3 | slot 2 | slot 1 | slot 0 ]
 *   3 bits, block of 256 columns in 96 bytes; the codes of slots 6 and 7 are split into their
 *   upper two bits and bit 0
 *       byte i    [ upper 2 of slot 6 | slot 1 | slot 0 ]
 *       byte 32+i [ upper 2 of slot 7 | slot 3 | slot 2 ]
 *       byte 64+i [ bit 0 of slot 7 | bit 0 of slot 6 | slot 5 | slot 4 ]
 *
 * Columns after the last whole block of a row stay bit planes (planes.h). So a row has the same
 * number of bytes in both forms, nothing is padded, and the way back is exact. */
#ifndef GANQ_PACK_LANES_H
#define GANQ_PACK_LANES_H

#include "planes.h"

/* Columns and bytes of a block. */
static inline int64_t ganq__lanes_block(int bits) {
    return bits == 4 ? 64 : bits == 2 ? 128 : 256;
}
static inline int64_t ganq__lanes_block_bytes(int bits) {
    return bits == 3 ? 96 : 32;
}

/* Every block length divides this: runs of columns that begin at a multiple of it can be unpacked
 * by themselves. */
enum { GANQ__LANES_CHUNK = 256 };

/* codes [count] of a whole row, or of a run that ends where a block does, to
 * ganq__planes_bytes(count, bits) bytes. */
void ganq__lanes_pack(const uint8_t *codes, int64_t count, int bits, uint8_t *lanes);
/* The run is that of a row's columns [first, first + count): first is a multiple of the chunk, and
 * the run ends with the row or at another such multiple; lanes points at its first byte. */
void ganq__lanes_unpack(const uint8_t *lanes, int64_t count, int bits, uint8_t *codes);

#endif
