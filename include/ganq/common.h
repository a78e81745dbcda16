/* ganq/common.h - status codes, errors, element types, matrices: what every other header uses. */
#ifndef GANQ_COMMON_H
#define GANQ_COMMON_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define GANQ_API
#elif defined(__GNUC__)
#define GANQ_API __attribute__((visibility("default")))
#else
#define GANQ_API
#endif
#if defined(__GNUC__)
#define GANQ_NODISCARD __attribute__((warn_unused_result))
#else
#define GANQ_NODISCARD
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define GANQ_VERSION_MAJOR 0
#define GANQ_VERSION_MINOR 1
#define GANQ_VERSION_PATCH 0
/* Grows by one when a released function or struct changes incompatibly; equals the SONAME's number. */
#define GANQ_ABI_VERSION 1

/* What the caller can do about it. The words are in ganq_last_error(). Numbers never change. */
typedef enum ganq_status {
    GANQ_OK = 0,
    GANQ_ERR_INVALID_ARG = 1, /* the call is wrong: fix the arguments                            */
    GANQ_ERR_NO_MEMORY = 2,   /* an allocation failed, or the memory budget is too small         */
    GANQ_ERR_IO = 3,          /* the system refused: open, read, write, disk full                */
    GANQ_ERR_FORMAT = 4,      /* a file's content is malformed, inconsistent or damaged          */
    GANQ_ERR_UNSUPPORTED = 5, /* well-formed, but not something this library can do              */
    GANQ_ERR_NUMERIC = 6,     /* NaN or infinity in the input, or a matrix that cannot be used   */
    GANQ_ERR_CANCELED = 7,    /* the progress callback asked to stop                             */
    GANQ_ERR_NO_DEVICE = 8,   /* the requested device, or its driver, is not there               */
    GANQ_ERR_DEVICE = 9,      /* the device failed while working                                 */
    GANQ_ERR_NOT_FOUND = 10,  /* no such file, tensor or name                                    */
    GANQ_ERR_EXISTS = 11,     /* the output is already there and was not to be replaced          */
    GANQ_ERR_INTERNAL = 12    /* a fault of the library: please report it                        */
} ganq_status;

/* Element types. 16-bit floats cross the API as their bits (uint16_t). */
typedef enum ganq_dtype {
    GANQ_DTYPE_F32 = 1,
    GANQ_DTYPE_F16 = 2,
    GANQ_DTYPE_BF16 = 3,
    GANQ_DTYPE_F64 = 4, /* accepted only where a comment says so */
    GANQ_DTYPE_U8 = 5   /* codes */
} ganq_dtype;

/* A switch in an options struct: 0 leaves the default. */
typedef enum ganq_switch { GANQ_SWITCH_DEFAULT = 0, GANQ_SWITCH_OFF = 1, GANQ_SWITCH_ON = 2 } ganq_switch;

/* A row-major matrix in the caller's memory; the library never keeps the pointer after a call. */
typedef struct ganq_matrix {
    uint32_t struct_size; /* sizeof(ganq_matrix)                                  */
    int32_t dtype;        /* ganq_dtype                                           */
    int64_t rows;         /* >= 1                                                 */
    int64_t cols;         /* >= 1                                                 */
    int64_t row_stride;   /* elements from row to row; 0 = cols, else >= cols     */
    int32_t device;       /* 0: host memory. Others are UNSUPPORTED for now       */
    int32_t reserved;     /* 0                                                    */
    void *data;           /* not written where the matrix is an input             */
} ganq_matrix;

/* Initializer for a dense host matrix. */
#define GANQ_MATRIX(dtype, rows, cols, data)                                                       \
    { (uint32_t)sizeof(ganq_matrix), (dtype), (rows), (cols), 0, 0, 0, (void *)(data) }

/* "0.1.0": of the library that was loaded, where GANQ_VERSION_* is of the header. */
GANQ_API const char *ganq_version(void);
/* GANQ_ABI_VERSION of the library that was loaded. */
GANQ_API int32_t ganq_abi_version(void);
/* A short static name ("invalid argument"); never NULL, for unknown values "unknown status". */
GANQ_API const char *ganq_status_string(ganq_status status);
/* The message of the last call that failed in this thread; "" if none did. Valid until the next
 * failing call in the same thread. Calls that succeed leave it alone. */
GANQ_API const char *ganq_last_error(void);
/* Frees memory that a call handed over as a plain pointer (token ids, text). NULL is fine. */
GANQ_API void ganq_free(void *memory);

#ifdef __cplusplus
}
#endif
#endif
