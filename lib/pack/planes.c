/* planes.c - codes to bit planes and back, eight columns at a time in one 64-bit word. */
#include "planes.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "codes are eight bytes in the order of their columns");

/* Bit 0 of byte i becomes bit i: each byte's bit is moved by 56 - 7i, and no two of the products
 * meet. */
static inline uint8_t gather_bits(uint64_t bytes) {
    return (uint8_t)(((bytes & 0x0101010101010101u) * 0x0102040810204080u) >> 56);
}

/* Bit i becomes bit 0 of byte i. Bits 0..6 by a product (bit i moved by 7i); bit 7 would meet a
 * carry. */
static inline uint64_t spread_bits(uint8_t bits) {
    return (((bits & 0x7fu) * 0x0002040810204081u) & 0x0101010101010101u) |
           ((uint64_t)(bits & 0x80u) << 49);
}

void ganq__planes_pack(const uint8_t *codes, int64_t count, int bits, uint8_t *planes) {
    for (int64_t first = 0; first < count; first += GANQ__GROUP, planes += 4 * bits) {
        uint8_t group[GANQ__GROUP] = {0};
        const int64_t rest = count - first;
        memcpy(group, codes + first, (size_t)(rest < GANQ__GROUP ? rest : GANQ__GROUP));
        for (int i = 0; i < 4; i++) {
            uint64_t eight;
            memcpy(&eight, group + 8 * i, sizeof eight);
            for (int b = 0; b < bits; b++)
                planes[4 * b + i] = gather_bits(eight >> b);
        }
    }
}

void ganq__planes_unpack(const uint8_t *planes, int64_t count, int bits, uint8_t *codes) {
    for (int64_t first = 0; first < count; first += GANQ__GROUP, planes += 4 * bits) {
        uint8_t group[GANQ__GROUP];
        for (int i = 0; i < 4; i++) {
            uint64_t eight = 0;
            for (int b = 0; b < bits; b++)
                eight |= spread_bits(planes[4 * b + i]) << b;
            memcpy(group + 8 * i, &eight, sizeof eight);
        }
        const int64_t rest = count - first;
        memcpy(codes + first, group, (size_t)(rest < GANQ__GROUP ? rest : GANQ__GROUP));
    }
}

int64_t ganq__planes_find_padding(const uint8_t *planes, int64_t count, int bits) {
    const int used = (int)(count % GANQ__GROUP);
    if (used == 0)
        return -1;
    const uint8_t *group = planes + count / GANQ__GROUP * bits * 4;
    for (int j = used; j < GANQ__GROUP; j++)
        for (int b = 0; b < bits; b++)
            if (group[4 * b + j / 8] >> (j % 8) & 1)
                return count - used + j;
    return -1;
}
