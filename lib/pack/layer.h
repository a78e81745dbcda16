/* layer.h - the quantized layer: codes, tables, outliers, bias; in memory and on disk. */
#ifndef GANQ_PACK_LAYER_H
#define GANQ_PACK_LAYER_H

#include <pthread.h>
#include <stdatomic.h>

#include "attachment.h"
#include "ganq/layer.h"
#include "file.h"
#include "safetensors.h"

enum { GANQ__FIXED_TABLE = 16383 }; /* see wide */

/* Immutable after creation except for the reference count and the codes' way from the file into
 * memory.
 *
 * Codes are held once. A layer made in this process has them as `lanes` (lanes.h) from the start.
 * One that was read has them as bit planes in the mapped file, untouched, until ganq__layer_prepare
 * checks them, makes the lanes and lets the pages of the map go. The map stays valid, so readers
 * that began before are safe. */
struct ganq_layer {
    atomic_int references;
    int bits;
    int64_t N, K, L;
    int64_t row_bytes; /* ceil(K/32)*bits*4: a row of codes, in either form                  */
    _Atomic(uint8_t *) lanes; /* [N, row_bytes], owned; NULL until ganq__layer_prepare */
    /* [N], made with the lanes; NULL: all 0. 1: a table of integers up to GANQ__FIXED_TABLE would
     * lose more than 2e-4 of the row's norm. */
    uint8_t *wide;
    ganq__tensor planes; /* of the file; its map is retained and its name owned; data NULL: none */
    pthread_mutex_t guard; /* of the two below and of making lanes                               */
    int checked;           /* CRC and padding of `planes` were found right                       */
    void *lut;             /* [N,L] of lut_dtype, ascending in each row                          */
    int32_t lut_dtype;     /* F16 or F32 */
    int32_t *outlier_rowptr, *outlier_cols; /* NULL: none */
    float *outlier_vals;
    int32_t outlier_dtype; /* F16 where that is exact, else F32 */
    float *bias;           /* [N] or NULL */
    int32_t bias_dtype;
    /* how it was made; zero for loaded and imported ones */
    ganq_layer_report report; /* steps, note and costs point to those below */
    ganq_step *steps;
    char *note;
    ganq_cost costs[GANQ_COST_FINISH]; /* at most one of each stage */
    ganq__attachments attachments; /* what devices made of it: see lut_ops.h, place */
};

ganq_layer *ganq__layer_retain(const ganq_layer *layer);
void ganq__layer_release(ganq_layer *layer); /* NULL is fine */

/* From codes [N,K] and tables [N,L] (need not be sorted; codes follow). Copies everything. bias
 * NULL: none. INVALID_ARG names row and column of a code >= L, a table entry or bias that is not
 * finite, or outliers out of order. lut_dtype F16 rounds to F16 unless a row has a value that F16
 * cannot hold to 2^-10 of the row's largest: then it becomes F32. Bias values are representable in
 * bias_dtype. */
ganq_status ganq__layer_create(int bits, int64_t N, int64_t K, const uint8_t *codes,
                               const float *lut, int32_t lut_dtype, const int32_t *rowptr,
                               const int32_t *cols, const float *vals, const float *bias,
                               int32_t bias_dtype, ganq_layer **out);
/* Takes a report (its steps are copied, its note may be NULL) into a layer that nobody else holds
 * yet. */
ganq_status ganq__layer_set_report(ganq_layer *layer, const ganq_layer_report *report);

/* <name>.qweight/.lut/... of an open file or checkpoint. The codes stay in the map, unread. N, K,
 * bits are those the configuration states; all 0: those of the metadata key "ganq.<name>". Shapes,
 * element types, tables (and their CRC), outliers are checked here; CRC and padding bits of the
 * codes by ganq__layer_prepare. */
ganq_status ganq__layer_read(const ganq__tensors *tensors, const char *name, int64_t N, int64_t K,
                             int bits, ganq_layer **out);
/* Declares the layer's tensors and its metadata in a writer, then streams them, in the same order.
 * Damaged codes of a mapped file are FORMAT, not passed on. */
ganq_status ganq__layer_declare(const ganq_layer *layer, const char *name, ganq__st_writer *writer);
ganq_status ganq__layer_write(const ganq_layer *layer, ganq__st_writer *writer);
/* One layer in a file of its own. name NULL when loading: the only layer there. Codes are checked
 * at once. */
ganq_status ganq__layer_save(const ganq_layer *layer, const char *path, const char *name);
ganq_status ganq__layer_load(const char *path, const char *name, ganq_layer **out);
int64_t ganq__layer_stored_bytes(const ganq_layer *layer);
int64_t ganq__layer_resident_bytes(const ganq_layer *layer);

/* Checks the codes of a mapped file (FORMAT names file, tensor, expected and found), once, and leaves
 * them there: for readers of codes that need no lanes. */
ganq_status ganq__layer_check(const ganq_layer *layer);
/* First use: checks the codes of a mapped file (FORMAT names file, tensor, expected and found) and
 * makes the lanes. Cheap when that is done. Any number of threads may call it at once. */
ganq_status ganq__layer_prepare(const ganq_layer *layer);
/* The lanes of row n; the layer was prepared. */
static inline const uint8_t *ganq__layer_lanes(const ganq_layer *layer, int64_t n) {
    return atomic_load_explicit(&((ganq_layer *)layer)->lanes, memory_order_acquire) +
           n * layer->row_bytes;
}

/* Row n's table [L] in f32. */
void ganq__layer_table(const ganq_layer *layer, int64_t n, float *t);
/* Codes of row n [K], and W~ rows [first, first+count) x [K] in f32, outliers included. They work
 * on a layer that was not prepared, too, but then nobody has checked the bytes. */
void ganq__layer_codes_row(const ganq_layer *layer, int64_t n, uint8_t *codes);
void ganq__layer_dequantize_rows(const ganq_layer *layer, int64_t first, int64_t count, float *out,
                                 int64_t stride);

#endif
