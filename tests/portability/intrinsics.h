/* intrinsics.h - see intrinsics.c. */
#ifndef GANQ_TESTS_INTRINSICS_H
#define GANQ_TESTS_INTRINSICS_H

enum { INTRINSICS = 15 };

void call_simde(int number, const unsigned char *in, unsigned char *out);
void call_native(int number, const unsigned char *in, unsigned char *out);

#endif
