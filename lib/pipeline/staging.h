/* staging.h - a directory that appears whole or not at all: built beside its place, put there at
 * the end. */
#ifndef GANQ_PIPELINE_STAGING_H
#define GANQ_PIPELINE_STAGING_H

#include "status.h"

typedef struct ganq__staging {
    char *target; /* resolved, without a slash at the end */
    char *dir;    /* where files are written meanwhile */
    int force;
} ganq__staging;

/* EXISTS when target is a file, or a directory that is not empty and not to be replaced or no
 * model's (without config.json); INVALID_ARG when `source` or the current directory lies inside a
 * target that would be replaced. */
ganq_status ganq__staging_open(const char *target, int force, const char *source,
                               ganq__staging *out);
/* Copies what a model directory holds beside config and weights: tokenizer, generation settings,
 * chat template, licence. */
ganq_status ganq__staging_copy_companions(const ganq__staging *staging, const char *source);
/* Puts the directory in its place; on failure, too, the temporary one is gone. *in_place: it is there, and what failed is
 * removing the one that it replaced. */
ganq_status ganq__staging_commit(ganq__staging *staging, int *in_place);
void ganq__staging_abort(ganq__staging *staging); /* keeps this thread's message */

#endif
