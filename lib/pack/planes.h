/* planes.h - "bitplane32", the codes of a row as they are on disk (docs/format.md).
 *
 * 32 columns are a group; a group is `bits` little-endian words of 32 bits. Bit j of word b is bit
 * b of the code of column 32g+j, b = 0 the least significant:
 *
 *     group g:  | word 0: bit 0 of columns 32g..32g+31 | word 1: bit 1 of ... | .. word bits-1 |
 *
 * Bits of columns >= K are 0. A tensor-parallel slice is a plain slice: along N anywhere, along K
 * at multiples of 32. */
#ifndef GANQ_PACK_PLANES_H
#define GANQ_PACK_PLANES_H

#include <stdint.h>

enum { GANQ__GROUP = 32 };

/* Bytes of `count` columns, the last group padded. */
static inline int64_t ganq__planes_bytes(int64_t count, int bits) {
    return (count + GANQ__GROUP - 1) / GANQ__GROUP * bits * 4;
}

/* codes [count], each < 2^bits, to planes [ganq__planes_bytes]; any alignment. */
void ganq__planes_pack(const uint8_t *codes, int64_t count, int bits, uint8_t *planes);
void ganq__planes_unpack(const uint8_t *planes, int64_t count, int bits, uint8_t *codes);
/* The first column >= count whose bits are not 0, or -1. */
int64_t ganq__planes_find_padding(const uint8_t *planes, int64_t count, int bits);

#endif
