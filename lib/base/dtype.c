/* dtype.c - element types and the caller's matrices. */
#include "dtype.h"

#include <math.h>
#include <string.h>

#include "half.h"

size_t ganq__dtype_size(int32_t dtype) {
    switch (dtype) {
    case GANQ_DTYPE_F32:
        return 4;
    case GANQ_DTYPE_F16:
    case GANQ_DTYPE_BF16:
        return 2;
    case GANQ_DTYPE_F64:
        return 8;
    case GANQ_DTYPE_U8:
        return 1;
    }
    return 0;
}

const char *ganq__dtype_name(int32_t dtype) {
    switch (dtype) {
    case GANQ_DTYPE_F32:
        return "F32";
    case GANQ_DTYPE_F16:
        return "F16";
    case GANQ_DTYPE_BF16:
        return "BF16";
    case GANQ_DTYPE_F64:
        return "F64";
    case GANQ_DTYPE_U8:
        return "U8";
    }
    return "unknown";
}

ganq_status ganq__matrix_read(ganq_matrix *ours, const ganq_matrix *theirs, uint32_t dtypes, int64_t rows,
                              int64_t cols, const char *what) {
    ganq_matrix m;
    if (!theirs)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s is NULL", what);
    const ganq_status status = ganq__options_read(&m, sizeof m, theirs, "ganq_matrix");
    if (status != GANQ_OK) {
        ganq__fail_prefix("%s", what);
        return status;
    }
    const size_t element = ganq__dtype_size(m.dtype);
    if (!element || m.dtype > 31 || !(dtypes & GANQ__DTYPE_BIT(m.dtype)))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: element type %s (%d) is not accepted here", what,
                  ganq__dtype_name(m.dtype), (int)m.dtype);
    if (m.rows < 1 || m.cols < 1)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: shape [%lld,%lld]; both must be at least 1", what,
                  (long long)m.rows, (long long)m.cols);
    if ((rows >= 0 && m.rows != rows) || (cols >= 0 && m.cols != cols))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: shape [%lld,%lld], expected [%lld,%lld] (-1: any)", what,
                  (long long)m.rows, (long long)m.cols, (long long)rows, (long long)cols);
    if (m.row_stride == 0)
        m.row_stride = m.cols;
    if (m.row_stride < m.cols)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: row_stride %lld is less than %lld columns", what,
                  (long long)m.row_stride, (long long)m.cols);
    int64_t last;
    if (__builtin_mul_overflow(m.rows, m.row_stride, &last) || last > INT64_MAX / (int64_t)element)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: [%lld,%lld] overflows the address space", what,
                  (long long)m.rows, (long long)m.row_stride);
    if (m.device != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: device %d; only host memory (0) is supported", what,
                  (int)m.device);
    if (m.reserved != 0)
        GANQ_FAIL(GANQ_ERR_UNSUPPORTED, "%s: the reserved field must be 0", what);
    if (!m.data)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: data is NULL", what);
    *ours = m;
    return GANQ_OK;
}

void ganq__to_f32(float *dst, const void *src, int32_t dtype, int64_t count) {
    const unsigned char *bytes = src;
    if (dtype == GANQ_DTYPE_F32) {
        memcpy(dst, src, (size_t)count * sizeof *dst);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (dtype == GANQ_DTYPE_F64) {
            double value;
            memcpy(&value, bytes + 8 * i, sizeof value);
            dst[i] = (float)value;
        } else {
            uint16_t bits;
            memcpy(&bits, bytes + 2 * i, sizeof bits);
            dst[i] = dtype == GANQ_DTYPE_F16 ? ganq__f16_to_f32(bits) : ganq__bf16_to_f32(bits);
        }
    }
}

void ganq__from_f32(void *dst, const float *src, int32_t dtype, int64_t count) {
    unsigned char *bytes = dst;
    if (dtype == GANQ_DTYPE_F32) {
        memcpy(dst, src, (size_t)count * sizeof *src);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (dtype == GANQ_DTYPE_F64) {
            const double value = src[i];
            memcpy(bytes + 8 * i, &value, sizeof value);
        } else {
            const uint16_t bits =
                dtype == GANQ_DTYPE_F16 ? ganq__f32_to_f16(src[i]) : ganq__f32_to_bf16(src[i]);
            memcpy(bytes + 2 * i, &bits, sizeof bits);
        }
    }
}

int64_t ganq__find_nonfinite(const float *values, int64_t count) {
    /* Blocks first: the exponent of any NaN or infinity is all ones, and the loop without an exit vectorizes. */
    enum { BLOCK = 256 };
    int64_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        int bad = 0;
        for (int j = 0; j < BLOCK; j++)
            bad |= (ganq__f32_to_bits(values[i + j]) & 0x7f800000u) == 0x7f800000u;
        if (bad)
            break;
    }
    for (; i < count; i++)
        if (!isfinite(values[i]))
            return i;
    return -1;
}
