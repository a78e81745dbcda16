/* intrinsics.c - calls of the intrinsics that simde/immintrin.h supplies, by number. Compiled
 * twice: with that header, and, as GANQ_NATIVE, with the compiler's own. */
#include "intrinsics.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static __m512 floats(const void *in) {
    return _mm512_loadu_ps(in);
}
static void put(void *out, __m512 v) {
    _mm512_storeu_ps(out, v);
}
static void put_i(void *out, __m512i v) {
    _mm512_storeu_si512(out, v);
}
static void put_float(void *out, float v) {
    memcpy(out, &v, sizeof v);
}

/* in: 128 bytes, out: 64 bytes, zeros at first. */
#if defined(GANQ_NATIVE)
void call_native(int number, const unsigned char *in, unsigned char *out) {
#else
void call_simde(int number, const unsigned char *in, unsigned char *out) {
#endif
    uint32_t word;
    memcpy(&word, in + 64, sizeof word);
    switch (number) {
    case 0:
        put_i(out, _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)in)));
        break;
    case 1:
        put_i(out, _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)in)));
        break;
    case 2:
        put_i(out, _mm512_cvtps_epi32(floats(in)));
        break;
    case 3:
        put(out, _mm512_cvtepi32_ps(_mm512_loadu_si512(in)));
        break;
    case 4:
        put(out, _mm512_maskz_loadu_ps((__mmask16)word, in));
        break;
    case 5:
        _mm_mask_storeu_ps(out, (__mmask8)(word & 15), _mm_loadu_ps((const void *)in));
        break;
    case 6:
        _mm256_storeu_ps((void *)out, _mm512_extractf32x8_ps(floats(in), 0));
        _mm256_storeu_ps((void *)(out + 32), _mm512_extractf32x8_ps(floats(in), 1));
        break;
    case 7:
        put(out, _mm512_permute_ps(floats(in), 0xb1));
        break;
    case 8:
        put(out, _mm512_permute_ps(floats(in), 0x4e));
        break;
    case 9:
        put(out, _mm512_shuffle_f32x4(floats(in), floats(in + 64), 0x88));
        break;
    case 10:
        put(out, _mm512_shuffle_f32x4(floats(in), floats(in + 64), 0xd1));
        break;
    case 11:
        put_float(out, _mm512_reduce_add_ps(floats(in)));
        break;
    case 12:
        put_float(out, _mm512_reduce_max_ps(floats(in)));
        break;
    case 13:
        word = _mm512_reduce_max_epu32(_mm512_loadu_si512(in));
        memcpy(out, &word, sizeof word);
        break;
    case 14: /* no NaN: which of them comes out is nobody's concern */
        put(out, _mm512_cvtph_ps(
                     _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)in),
                                      _mm256_set1_epi16((short)0xbfff))));
        break;
    }
}
