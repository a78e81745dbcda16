/* file.h - files: read-only maps, whole reads, atomic writes, directories. Messages name the path. */
#ifndef GANQ_BASE_FILE_H
#define GANQ_BASE_FILE_H

#include <stdio.h>

#include "status.h"

/* A read-only private map of a whole file; size 0 has data "" (not NULL). Shared by reference count. */
typedef struct ganq__map {
    const uint8_t *data;
    uint64_t size;
    char *path;
    int64_t references;
} ganq__map;
ganq_status ganq__map_open(const char *path, ganq__map **out);
ganq__map *ganq__map_retain(ganq__map *map);
void ganq__map_release(ganq__map *map); /* NULL is fine */

/* A whole file in memory with a closing NUL, freed with ganq__free; at most `limit` bytes, else FORMAT. */
ganq_status ganq__file_read(const char *path, uint64_t limit, char **data, size_t *size);

/* Writes under a temporary name beside `path`; commit = flush, fsync, rename. */
typedef struct ganq__writer {
    FILE *file;
    char *path, *temporary;
} ganq__writer;
ganq_status ganq__writer_open(ganq__writer *writer, const char *path);
ganq_status ganq__writer_write(ganq__writer *writer, const void *data, size_t size);
ganq_status ganq__writer_commit(ganq__writer *writer); /* on failure, too, the temporary file is gone */
void ganq__writer_abort(ganq__writer *writer);         /* removes the temporary file; fine after commit */
/* open + write + commit. */
ganq_status ganq__file_write(const char *path, const void *data, size_t size);

/* INVALID_ARG for an empty path, which would name the current directory, or the root with something joined to it. `what`
 * names it in the message. */
ganq_status ganq__path_check(const char *path, const char *what);
/* "dir/name", "name" in an empty dir; freed with ganq__free; NULL on lack of memory. */
char *ganq__path_join(const char *dir, const char *name);
int ganq__path_exists(const char *path);
int ganq__path_is_dir(const char *path);
/* 1 when the directory has no entries or does not exist. */
int ganq__dir_is_empty(const char *path);
ganq_status ganq__make_dir(const char *path);
/* Removes a directory and what is in it; no error when it is not there. */
ganq_status ganq__remove_tree(const char *path);
/* Puts directory `from` at `to`; an existing `to` is replaced as a whole (exchanged atomically where the system can,
 * then removed). Both on one file system. *in_place is set once `from` is there: an error is then the removal's, and
 * the message says where the old one lies. */
ganq_status ganq__replace_dir(const char *from, const char *to, int *in_place);
/* Byte copy, atomic. */
ganq_status ganq__copy_file(const char *from, const char *to);

#endif
