/* staging.c - temporary directory, companion files, rename. */
#include "staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"
#include "file.h"

/* The target's own path: links are followed, so that the directory is replaced and not a link to
 * it. */
static char *resolve(const char *target) {
    char *real = realpath(target, NULL);
    char *copy = ganq__strdup(real ? real : target);
    free(real);
    if (!copy)
        return NULL;
    size_t length = strlen(copy);
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = 0;
    return copy;
}

/* Whether `path`, resolved, is the directory or lies in it. */
static int lies_in(const char *path, const char *dir) {
    const size_t length = strcmp(dir, "/") ? strlen(dir) : 0;
    return !strncmp(path, dir, length) && (path[length] == '/' || !path[length]);
}

/* What is replaced is gone, an empty directory, too: so not from under the caller, and of others only a model. */
static ganq_status check_replaced(const char *target) {
    char *here = realpath(".", NULL), *config = ganq__path_join(target, "config.json");
    ganq_status status = config ? GANQ_OK : GANQ_ERR_NO_MEMORY;
    if (config && here && lies_in(here, target))
        GANQ_FAIL_GOTO(free_paths, GANQ_ERR_INVALID_ARG,
                       "%s: cannot be replaced, the current directory is %s", target,
                       strcmp(here, target) ? "inside it" : "the same");
    if (config && !ganq__dir_is_empty(target) && !ganq__path_exists(config))
        GANQ_FAIL_GOTO(free_paths, GANQ_ERR_EXISTS,
                       "%s: is not empty and holds no config.json: only a model's directory is "
                       "replaced",
                       target);
free_paths:
    ganq__free(config);
    free(here);
    return status;
}

/* Replacing a directory must not take the source of the copy with it, unless it is the source
 * itself. */
static ganq_status check_source(const char *target, const char *source) {
    char *real = realpath(source, NULL);
    if (!real)
        GANQ_FAIL(errno == ENOMEM ? GANQ_ERR_NO_MEMORY : GANQ_ERR_NOT_FOUND,
                  "%s: the model's source directory is gone: %s", source, strerror(errno));
    const int inside = strcmp(real, target) && lies_in(real, target);
    free(real);
    if (inside && !ganq__dir_is_empty(target))
        GANQ_FAIL(GANQ_ERR_INVALID_ARG,
                  "%s: cannot be replaced, the model's source %s is inside it", target, source);
    return GANQ_OK;
}

ganq_status ganq__staging_open(const char *target, int force, const char *source,
                               ganq__staging *out) {
    ganq_status status;
    ganq__staging s = {.force = force};
    if (!*target)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "the output directory's name is empty");
    s.target = resolve(target);
    if (!s.target)
        return GANQ_ERR_NO_MEMORY;
    if (ganq__path_exists(s.target) && !ganq__path_is_dir(s.target))
        GANQ_FAIL_GOTO(abort_staging, GANQ_ERR_EXISTS, "%s: exists and is not a directory", target);
    if (!force && !ganq__dir_is_empty(s.target))
        GANQ_FAIL_GOTO(abort_staging, GANQ_ERR_EXISTS, "%s: exists and is not empty", target);
    GANQ_TRY_GOTO(abort_staging, check_source(s.target, source));
    GANQ_TRY_GOTO(abort_staging, check_replaced(s.target));
    char *template = ganq__format("%s.partial-XXXXXX", s.target);
    if (!template) {
        status = GANQ_ERR_NO_MEMORY;
        goto abort_staging;
    }
    if (!mkdtemp(template)) {
        const int error = errno;
        ganq__free(template);
        GANQ_FAIL_GOTO(abort_staging,
                       error == ENOENT || error == ENOTDIR ? GANQ_ERR_NOT_FOUND : GANQ_ERR_IO,
                       "%s: cannot create a directory beside it: %s", target, strerror(error));
    }
    s.dir = template;
    const mode_t mask =
        umask(0); /* mkdtemp gives 0700; the result is to be as mkdir would make it */
    umask(mask);
    if (chmod(s.dir, 0777 & ~mask) != 0)
        GANQ_FAIL_GOTO(abort_staging, GANQ_ERR_IO, "%s: cannot set its mode: %s", s.dir,
                       strerror(errno));
    *out = s;
    return GANQ_OK;
abort_staging:
    ganq__staging_abort(&s);
    return status;
}

static int is_companion(const char *name) {
    static const char *const names[] = {
        "tokenizer.json", "tokenizer_config.json",   "tokenizer.model",   "vocab.json",
        "merges.txt",     "special_tokens_map.json", "added_tokens.json", "generation_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return !strncmp(name, "chat_template", 13) || !strncmp(name, "LICENSE", 7);
}

/* A companion that is a directory (chat templates of some models) is left behind. */
static ganq_status copy_one(const char *source, const char *dir, const char *name) {
    struct stat info;
    ganq_status status = GANQ_ERR_NO_MEMORY;
    char *from = ganq__path_join(source, name), *to = ganq__path_join(dir, name);
    if (from && to)
        status =
            stat(from, &info) == 0 && S_ISDIR(info.st_mode) ? GANQ_OK : ganq__copy_file(from, to);
    ganq__free(from);
    ganq__free(to);
    return status;
}

ganq_status ganq__staging_copy_companions(const ganq__staging *staging, const char *source) {
    DIR *dir = opendir(source);
    if (!dir)
        GANQ_FAIL(GANQ_ERR_NOT_FOUND, "%s: the model's source directory cannot be read: %s", source,
                  strerror(errno));
    ganq_status status = GANQ_OK;
    for (struct dirent *entry; status == GANQ_OK && (entry = readdir(dir));)
        if (is_companion(entry->d_name))
            status = copy_one(source, staging->dir, entry->d_name);
    closedir(dir);
    return status;
}

/* The entries of the directory are durable before its new name is. */
static void sync_dir(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

ganq_status ganq__staging_commit(ganq__staging *staging, int *in_place) {
    ganq_status status = GANQ_OK;
    *in_place = 0;
    sync_dir(staging->dir);
    if (staging->force) {
        status = ganq__replace_dir(staging->dir, staging->target, in_place);
    } else if (rename(staging->dir, staging->target) != 0) {
        const int error = errno;
        status = error == EEXIST || error == ENOTEMPTY || error == ENOTDIR ? GANQ_ERR_EXISTS
                                                                           : GANQ_ERR_IO;
        ganq__fail("%s: cannot put the new directory in place: %s", staging->target,
                   strerror(error));
    }
    ganq__staging_abort(staging); /* after success there is nothing left at the temporary name */
    return status;
}

void ganq__staging_abort(ganq__staging *staging) {
    ganq__message before;
    ganq__message_keep(&before);
    if (staging->dir && ganq__remove_tree(staging->dir) != GANQ_OK)
        ganq__message_restore(&before);
    ganq__free(staging->dir);
    ganq__free(staging->target);
    *staging = (ganq__staging){0};
}
