/* cpu.h - the tables of operations on CPUs: one per family of operations and instruction set.
 *
 * A family (dense, lut, solver, model) is a struct of functions in lib/backend/<family>_ops.h. For
 * each instruction set that it is written for there is one file <name>_<isa>.c here, which ends in
 * one constant table ganq__<family>_ops_<isa>. To add one: declare the table below, put it into its
 * row of the list in cpu.c, and the file into CMakeLists.txt (the list of the instruction set there
 * gives it the compiler flags). A family without a table for an instruction set uses that of the
 * row before, so the reference alone is enough to begin with. */
#ifndef GANQ_CPU_CPU_H
#define GANQ_CPU_CPU_H

#include "context.h"

extern const ganq__backend ganq__cpu_backend;

extern const struct ganq__dense_ops ganq__dense_ops_ref;
extern const struct ganq__lut_ops ganq__lut_ops_ref;
extern const struct ganq__solver_ops ganq__solver_ops_ref;
extern const struct ganq__model_ops ganq__model_ops_ref;

#if defined(__x86_64__)
extern const struct ganq__dense_ops ganq__dense_ops_avx2;
extern const struct ganq__lut_ops ganq__lut_ops_avx2;
extern const struct ganq__solver_ops ganq__solver_ops_avx2;
extern const struct ganq__model_ops ganq__model_ops_avx2;

extern const struct ganq__lut_ops ganq__lut_ops_avx512;
#elif defined(__aarch64__)
extern const struct ganq__dense_ops ganq__dense_ops_neon;
extern const struct ganq__lut_ops ganq__lut_ops_neon;
#endif

#endif
