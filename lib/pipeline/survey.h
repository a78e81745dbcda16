/* survey.h - mixed bits: what each width would cost each linear, measured, and the choice of bits
 * that costs least within the budget.
 *
 * On the dense model, block by block, every chosen linear is solved at 2, 3 and 4 bits (by FAST
 * where the recipe would take longer), which gives its errors e H e^T. With it alone quantized to 3
 * bits, a sample of the calibration runs through the rest of the model; the divergence of the
 * predictions from the dense model's, sum p log(p / q), is what that error costs. Loss grows in
 * proportion to a linear's error, so that
 *   cost(bits) = divergence(3) * error(bits) / error(3),
 * and what different linears cost adds up. Evidence: docs/solver.md. */
#ifndef GANQ_PIPELINE_SURVEY_H
#define GANQ_PIPELINE_SURVEY_H

#include "walk.h"

/* Sets plan.bits of the chosen linears. The hidden states stand before the first block, before and
 * after. */
ganq_status ganq__survey(ganq__walk *w);
/* Estimated multiply-adds, for progress. */
double ganq__survey_work(const ganq__walk *w);
/* Bytes held at the peak beside the walk's own states and Hessians. */
int64_t ganq__survey_bytes(const ganq_model *model, const ganq_corpus *corpus, int64_t sequences);

#endif
