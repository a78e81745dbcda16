/* file.c - maps, reads, atomic writes, directories. */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc.h"

static ganq_status errno_status(int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return GANQ_ERR_NOT_FOUND;
    case ENOMEM:
        return GANQ_ERR_NO_MEMORY;
    case EEXIST:
    case ENOTEMPTY:
        return GANQ_ERR_EXISTS;
    default:
        return GANQ_ERR_IO;
    }
}

#define FAIL_ERRNO(action, path)                                                                   \
    do {                                                                                           \
        const int error_ = errno;                                                                  \
        ganq__fail("%s: cannot %s: %s", (path), (action), strerror(error_));                       \
        return errno_status(error_);                                                               \
    } while (0)

/* An open descriptor of a regular file, and its size. O_NONBLOCK: opening a pipe without a writer must not wait. */
static ganq_status open_regular(const char *path, int *out_fd, uint64_t *size) {
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        FAIL_ERRNO("open", path);
    if (fstat(fd, &info) != 0) {
        const int error = errno;
        close(fd);
        GANQ_FAIL(GANQ_ERR_IO, "%s: cannot stat: %s", path, strerror(error));
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        GANQ_FAIL(GANQ_ERR_IO, "%s: is %s, not a file", path,
                  S_ISDIR(info.st_mode) ? "a directory" : "a special file");
    }
    *size = (uint64_t)info.st_size;
    *out_fd = fd;
    return GANQ_OK;
}

ganq_status ganq__map_open(const char *path, ganq__map **out) {
    int fd = -1;
    uint64_t size = 0;
    GANQ_TRY(open_regular(path, &fd, &size));
    ganq_status status = GANQ_ERR_NO_MEMORY;
    ganq__map *map = ganq__calloc(1, sizeof *map);
    if (!map)
        goto close_fd;
    map->path = ganq__strdup(path);
    if (!map->path)
        goto free_map;
    map->size = size;
    map->references = 1;
    map->data = (const uint8_t *)"";
    if (size) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            status = errno_status(errno);
            ganq__fail("%s: cannot map %llu bytes: %s", path, (unsigned long long)size, strerror(errno));
            goto free_path;
        }
        map->data = data;
    }
    close(fd);
    *out = map;
    return GANQ_OK;
free_path:
    ganq__free(map->path);
free_map:
    ganq__free(map);
close_fd:
    close(fd);
    return status;
}

ganq__map *ganq__map_retain(ganq__map *map) {
    __atomic_fetch_add(&map->references, 1, __ATOMIC_RELAXED);
    return map;
}

void ganq__map_release(ganq__map *map) {
    if (!map || __atomic_sub_fetch(&map->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (map->size)
        munmap((void *)(uintptr_t)map->data, map->size);
    ganq__free(map->path);
    ganq__free(map);
}

ganq_status ganq__file_read(const char *path, uint64_t limit, char **data, size_t *size) {
    int fd = -1;
    uint64_t expected = 0;
    GANQ_TRY(open_regular(path, &fd, &expected));
    if (expected > limit) {
        close(fd);
        GANQ_FAIL(GANQ_ERR_FORMAT, "%s: %llu bytes; at most %llu are possible here", path,
                  (unsigned long long)expected, (unsigned long long)limit);
    }
    char *bytes = ganq__malloc((size_t)expected + 1, 1);
    if (!bytes) {
        close(fd);
        return GANQ_ERR_NO_MEMORY;
    }
    size_t have = 0;
    while (have < expected) {
        const ssize_t n = read(fd, bytes + have, (size_t)expected - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            ganq__fail("%s: read %zu of %llu bytes: %s", path, have, (unsigned long long)expected,
                       n < 0 ? strerror(errno) : "the file became shorter");
            ganq__free(bytes);
            close(fd);
            return GANQ_ERR_IO;
        }
        have += (size_t)n;
    }
    close(fd);
    bytes[have] = 0;
    *data = bytes;
    *size = have;
    return GANQ_OK;
}

/* Creates a file beside `path` under a name that nobody has; its permissions are what the process's umask leaves. */
static int create_beside(const char *path, char **name) {
    static atomic_uint serial;
    for (int attempt = 0; attempt < 100; attempt++) {
        *name = ganq__format("%s.tmp-%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
        if (!*name) {
            errno = ENOMEM;
            return -1;
        }
        const int fd = open(*name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            return fd;
        const int error = errno;
        ganq__free(*name);
        *name = NULL;
        errno = error;
        if (error != EEXIST)
            return -1;
    }
    return -1;
}

ganq_status ganq__writer_open(ganq__writer *writer, const char *path) {
    struct stat info;
    *writer = (ganq__writer){0};
    /* The rename at the end would put a file in the place of a device. */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        GANQ_FAIL(GANQ_ERR_IO, "%s: is %s, not a file", path,
                  S_ISDIR(info.st_mode) ? "a directory" : "a special file");
    writer->path = ganq__strdup(path);
    if (!writer->path)
        return GANQ_ERR_NO_MEMORY;
    const int fd = create_beside(path, &writer->temporary);
    if (fd >= 0)
        writer->file = fdopen(fd, "w+b");
    if (!writer->file) {
        const int error = errno;
        ganq__fail("%s: cannot create: %s", path, strerror(error));
        if (fd >= 0)
            close(fd);
        ganq__writer_abort(writer);
        return errno_status(error);
    }
    return GANQ_OK;
}

ganq_status ganq__writer_write(ganq__writer *writer, const void *data, size_t size) {
    if (size && fwrite(data, 1, size, writer->file) != size)
        GANQ_FAIL(GANQ_ERR_IO, "%s: cannot write: %s", writer->path, strerror(errno));
    return GANQ_OK;
}

/* A rename is durable once its directory is. As good as it gets: no error where that cannot be done. */
static void sync_parent(const char *path) {
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof parent)
        return;
    memcpy(parent, path, length);
    parent[length] = 0;
    const int fd = open(!slash ? "." : length ? parent : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

ganq_status ganq__writer_commit(ganq__writer *writer) {
    const char *failed = NULL;
    if (fflush(writer->file) != 0 || fsync(fileno(writer->file)) != 0)
        failed = "write";
    int error = errno;
    if (fclose(writer->file) != 0 && !failed) {
        failed = "write";
        error = errno;
    }
    writer->file = NULL;
    if (!failed && rename(writer->temporary, writer->path) != 0) {
        failed = "rename into place";
        error = errno;
    }
    if (failed) {
        ganq__fail("%s: cannot %s: %s", writer->path, failed, strerror(error));
        ganq__writer_abort(writer);
        return GANQ_ERR_IO;
    }
    sync_parent(writer->path);
    ganq__free(writer->temporary);
    writer->temporary = NULL;
    ganq__writer_abort(writer);
    return GANQ_OK;
}

void ganq__writer_abort(ganq__writer *writer) {
    if (writer->file)
        fclose(writer->file);
    if (writer->temporary)
        unlink(writer->temporary);
    ganq__free(writer->temporary);
    ganq__free(writer->path);
    *writer = (ganq__writer){0};
}

ganq_status ganq__file_write(const char *path, const void *data, size_t size) {
    ganq__writer writer;
    GANQ_TRY(ganq__writer_open(&writer, path));
    const ganq_status status = ganq__writer_write(&writer, data, size);
    if (status != GANQ_OK) {
        ganq__writer_abort(&writer);
        return status;
    }
    return ganq__writer_commit(&writer);
}

ganq_status ganq__path_check(const char *path, const char *what) {
    if (!*path)
        GANQ_FAIL(GANQ_ERR_INVALID_ARG, "%s: the path is empty", what);
    return GANQ_OK;
}

char *ganq__path_join(const char *dir, const char *name) {
    const size_t length = strlen(dir);
    return ganq__format("%s%s%s", dir, length && dir[length - 1] != '/' ? "/" : "", name);
}

int ganq__path_exists(const char *path) { return access(path, F_OK) == 0; }

int ganq__path_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

int ganq__dir_is_empty(const char *path) {
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT;
    int empty = 1;
    for (struct dirent *entry; empty && (entry = readdir(dir));)
        empty = is_dot(entry->d_name);
    closedir(dir);
    return empty;
}

ganq_status ganq__make_dir(const char *path) {
    if (mkdir(path, 0777) != 0)
        FAIL_ERRNO("create the directory", path);
    return GANQ_OK;
}

ganq_status ganq__remove_tree(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) {
        if (errno == ENOENT)
            return GANQ_OK;
        FAIL_ERRNO("remove", path);
    }
    if (S_ISDIR(info.st_mode)) {
        DIR *dir = opendir(path);
        if (!dir)
            FAIL_ERRNO("remove", path);
        ganq_status status = GANQ_OK;
        for (struct dirent *entry; status == GANQ_OK && (entry = readdir(dir));) {
            if (is_dot(entry->d_name))
                continue;
            char *child = ganq__path_join(path, entry->d_name);
            status = child ? ganq__remove_tree(child) : GANQ_ERR_NO_MEMORY;
            ganq__free(child);
        }
        closedir(dir);
        GANQ_TRY(status);
    }
    if ((S_ISDIR(info.st_mode) ? rmdir(path) : unlink(path)) != 0)
        FAIL_ERRNO("remove", path);
    return GANQ_OK;
}

/* renameat2(RENAME_EXCHANGE): both names exist at every moment. -1 with errno where it is not supported. */
static int exchange(const char *a, const char *b) {
#ifdef SYS_renameat2
    return (int)syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2u);
#else
    (void)a, (void)b;
    errno = ENOSYS;
    return -1;
#endif
}

/* What was at `to` lies at `old` now and is not needed any more. */
static ganq_status remove_replaced(const char *old, const char *to) {
    const ganq_status status = ganq__remove_tree(old);
    if (status != GANQ_OK)
        ganq__fail_prefix("%s: the new directory is in place, but the old one is left over as %s", to, old);
    return status;
}

ganq_status ganq__replace_dir(const char *from, const char *to, int *in_place) {
    *in_place = 0;
    if (rename(from, to) == 0) { /* `to` was missing or an empty directory */
        *in_place = 1;
        sync_parent(to);
        return GANQ_OK;
    }
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
        FAIL_ERRNO("put the new directory in place", to);
    if (exchange(from, to) != 0) {
        /* No exchange on this file system: move the old one aside, so that it can come back. */
        char *aside = ganq__format("%s.old-%ld", to, (long)getpid());
        if (!aside)
            return GANQ_ERR_NO_MEMORY;
        int failed = rename(to, aside) != 0;
        if (!failed && rename(from, to) != 0) {
            failed = 1;
            const int error = errno;
            (void)!rename(aside, to);
            errno = error;
        }
        const int error = errno;
        *in_place = !failed;
        const ganq_status removed = failed ? GANQ_OK : remove_replaced(aside, to);
        ganq__free(aside);
        if (failed)
            GANQ_FAIL(errno_status(error), "%s: cannot replace: %s", to, strerror(error));
        sync_parent(to);
        return removed;
    }
    *in_place = 1;
    sync_parent(to);
    return remove_replaced(from, to); /* `from` is the old one now */
}

ganq_status ganq__copy_file(const char *from, const char *to) {
    ganq__map *map = NULL;
    GANQ_TRY(ganq__map_open(from, &map));
    const ganq_status status = ganq__file_write(to, map->data, (size_t)map->size);
    ganq__map_release(map);
    return status;
}
