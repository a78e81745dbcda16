/* read_floor.h - the yardstick of what is bound by memory: threads that sum a buffer. */
#ifndef GANQ_CLI_READ_FLOOR_H
#define GANQ_CLI_READ_FLOOR_H

#include <stddef.h>

typedef struct read_floor read_floor;

/* NULL, after a message, when memory or threads are short. Fewer threads than asked for is an
 * error. */
read_floor *read_floor_open(int threads);
void read_floor_close(read_floor *floor); /* NULL is fine */
/* Memory for the buffer, in huge pages where the system has them, as the library's own weights.
 * Freed with free; NULL after a message. */
void *read_floor_allocate(size_t bytes);
/* Seconds for one read of the buffer by all threads. */
double read_floor_time(read_floor *floor, const void *data, size_t bytes);

/* Bytes per second of all threads, each reading `bytes` of its own again and again: the speed of the
 * cache that holds as much. 0 after a message. */
double read_floor_cache_rate(int threads, size_t bytes);

#endif
