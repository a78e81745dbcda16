/* walk.h - what every walk over a model's blocks needs: the hidden states of all calibration
 * sequences, the Hessians of a block's inputs, progress. */
#ifndef GANQ_PIPELINE_WALK_H
#define GANQ_PIPELINE_WALK_H

#include "block.h"
#include "compensate.h"
#include "corpus.h"
#include "plan.h"

typedef struct ganq__walk {
    ganq_context *ctx;
    const ganq_model *model;
    const ganq_corpus *corpus;
    ganq__walk_plan plan;
    ganq_layer **layers;             /* [linear_count] what was made */
    float *hidden;                   /* [tokens, hidden], sequence after sequence */
    float *dense_hidden;             /* the same in the dense model; NULL: no compensation */
    float *dense_inputs;             /* [longest, K] of one sequence's linear input there */
    int64_t dense_rows;              /* of them filled, and then read */
    int diverged;                    /* something was quantized, so that the two differ */
    ganq__compensation compensation; /* of the group at hand; K 0: none */
    ganq__rope rope;
    ganq__kv kv; /* of one sequence */
    ganq__workspace workspace;
    ganq_hessian *hessians[GANQ__INPUT_COUNT];
    const char *readers[GANQ__INPUT_COUNT]; /* the first linear of the block that reads each input,
                                               for messages */
    int64_t done;                           /* finished linears */
    double work_done, work_total;           /* estimated multiply-adds */
    char block_name[32];
    int64_t pass_tokens; /* seen by the pass so far */
} ganq__walk;

/* Memory and the first block's inputs; plan, model and corpus are set. */
ganq_status ganq__walk_open(ganq__walk *w);
/* The hidden states are the embeddings again. */
ganq_status ganq__walk_rewind(ganq__walk *w);
void ganq__walk_close(ganq__walk *w);

/* Announces a piece of that much work. */
ganq_status ganq__walk_piece(ganq__walk *w, ganq_stage stage, const char *name, double work);
double ganq__walk_solve_work(int32_t recipe, const ganq__linear *linear);
/* One pass over all sequences, and the Hessian of one input of K columns (0: none). */
double ganq__walk_pass_work(const ganq__walk *w, const ganq__block *block, int64_t K);

int ganq__walk_is_chosen(const ganq__walk *w, const ganq__block *block, ganq__role role);
/* Whether a linear that reads the input is to be quantized. */
int ganq__walk_group_is_chosen(const ganq__walk *w, const ganq__block *block, ganq__input input);
int64_t ganq__walk_input_width(const ganq__block *block, ganq__input input);

/* Runs every sequence through the block, adding to the open Hessians; last < 0: to its end, so that
 * the hidden states move on. `dense`: the block as it was, through which the dense model's hidden
 * states go first; NULL: they stay. */
ganq_status ganq__walk_run(ganq__walk *w, const ganq__block *block, const ganq__block *dense,
                           int last, double work);
/* All groups of the block in one pass, which moves the hidden states on but for the last block. */
ganq_status ganq__walk_run_dense(ganq__walk *w, const ganq__block *block);
double ganq__walk_dense_work(const ganq__walk *w, const ganq__block *block);
ganq_status ganq__walk_open_hessian(ganq__walk *w, const ganq__block *block, ganq__input input);
void ganq__walk_close_hessian(ganq__walk *w, ganq__input input);

#endif
