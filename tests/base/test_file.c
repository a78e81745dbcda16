/* test_file.c - maps, whole reads, atomic writes, directories. */
#include "check_util.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"
#include "file.h"

static char dir[256];

static void make_dir(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
}
static void remove_dir(void) {
    ck_ganq_ok(ganq__remove_tree(dir));
    ck_assert(!ganq__path_exists(dir));
}

static const char *in_dir(const char *name) {
    static char paths[4][1024];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", dir, name);
    return paths[turn];
}

static int entries(const char *path) {
    DIR *stream = opendir(path);
    int count = -2; /* . and .. */
    while (readdir(stream))
        count++;
    closedir(stream);
    return count;
}

static void check_content(const char *path, const char *expected) {
    char *text;
    size_t size;
    ck_ganq_ok(ganq__file_read(path, 1 << 20, &text, &size));
    ck_assert_uint_eq(size, strlen(expected));
    ck_assert_str_eq(text, expected);
    ganq__free(text);
}

START_TEST(write_read_map) {
    ganq__map *map;
    ck_ganq_ok(ganq__file_write(in_dir("a"), "hello", 5));
    check_content(in_dir("a"), "hello");
    ck_ganq_ok(ganq__map_open(in_dir("a"), &map));
    ck_assert_uint_eq(map->size, 5);
    ck_assert_str_eq(map->path, in_dir("a"));
    ck_ganq_ok(
        ganq__file_write(in_dir("a"), "new", 3)); /* replaces the name, not the mapped file */
    ck_assert_mem_eq(map->data, "hello", 5);
    ck_assert_ptr_eq(ganq__map_retain(map), map);
    ganq__map_release(map);
    ck_assert_mem_eq(map->data, "hello", 5);
    ganq__map_release(map);
    ganq__map_release(NULL);
    check_content(in_dir("a"), "new");
    ck_assert_int_eq(entries(dir), 1);

    ck_ganq_ok(ganq__file_write(in_dir("empty"), "", 0));
    ck_ganq_ok(ganq__map_open(in_dir("empty"), &map));
    ck_assert_uint_eq(map->size, 0);
    ck_assert_ptr_nonnull(map->data);
    ganq__map_release(map);
    check_content(in_dir("empty"), "");
}
END_TEST

START_TEST(mode_follows_the_umask) {
    struct stat info;
    mode_t old = umask(027);
    ck_ganq_ok(ganq__file_write(in_dir("m"), "x", 1));
    ck_assert_uint_eq(umask(old), 027);
    ck_assert_int_eq(stat(in_dir("m"), &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0640);
}
END_TEST

START_TEST(refused_reads) {
    ganq__map *map = (ganq__map *)1;
    char *text = (char *)1;
    size_t size;
    ck_ganq_fails(ganq__map_open(in_dir("none"), &map), GANQ_ERR_NOT_FOUND, "/none: cannot open");
    ck_ganq_fails(ganq__map_open(dir, &map), GANQ_ERR_IO, "is a directory");
    ck_ganq_fails(ganq__map_open("/dev/null", &map), GANQ_ERR_IO, "/dev/null: is a special file");
    ck_assert_int_eq(mkfifo(in_dir("pipe"), 0600), 0); /* nobody will ever write into it */
    ck_ganq_fails(ganq__map_open(in_dir("pipe"), &map), GANQ_ERR_IO, "pipe: is a special file");
    ck_ganq_fails(ganq__file_read(in_dir("none"), 10, &text, &size), GANQ_ERR_NOT_FOUND,
                  "/none: cannot open");
    ck_ganq_ok(ganq__file_write(in_dir("long"), "0123456789", 10));
    ck_ganq_fails(ganq__file_read(in_dir("long"), 9, &text, &size), GANQ_ERR_FORMAT,
                  "long: 10 bytes; at most 9");
    ck_ganq_fails(ganq__file_read(in_dir("long/x"), 9, &text, &size), GANQ_ERR_NOT_FOUND, "long/x");
    ck_assert_ptr_eq(map, (void *)1);
    ck_assert_ptr_eq(text, (char *)1);
}
END_TEST

START_TEST(abandoned_writes_leave_the_old_file) {
    ganq__writer writer;
    ck_ganq_ok(ganq__file_write(in_dir("a"), "old", 3));
    ck_ganq_ok(ganq__writer_open(&writer, in_dir("a")));
    ck_ganq_ok(ganq__writer_write(&writer, "new", 3));
    check_content(in_dir("a"), "old");
    ganq__writer_abort(&writer);
    ganq__writer_abort(&writer);
    check_content(in_dir("a"), "old");
    ck_assert_int_eq(entries(dir), 1);
    ck_ganq_ok(ganq__writer_open(&writer, in_dir("a")));
    ck_ganq_ok(ganq__writer_commit(&writer));
    ganq__writer_abort(&writer);
    check_content(in_dir("a"), "");
}
END_TEST

START_TEST(refused_writes) {
    ganq__writer writer;
    ck_ganq_fails(ganq__writer_open(&writer, in_dir("no/a")), GANQ_ERR_NOT_FOUND,
                  "no/a: cannot create");
    ck_ganq_fails(ganq__file_write("/proc/ganq", "x", 1), GANQ_ERR_NOT_FOUND, "/proc/ganq");
    ck_ganq_ok(ganq__writer_open(&writer, in_dir("d")));
    ck_ganq_ok(ganq__make_dir(in_dir("d")));
    ck_ganq_fails(ganq__writer_commit(&writer), GANQ_ERR_IO, "/d: cannot rename into place");
    ck_ganq_fails(ganq__file_write(in_dir("d"), "x", 1), GANQ_ERR_IO, "/d: is a directory");
    ck_assert_int_eq(entries(dir), 1);
    struct stat info;
    ck_assert_int_eq(mkfifo(in_dir("d/pipe"), 0600), 0);
    ck_ganq_fails(ganq__file_write(in_dir("d/pipe"), "x", 1), GANQ_ERR_IO,
                  "pipe: is a special file");
    ck_assert_int_eq(stat(in_dir("d/pipe"), &info), 0);
    ck_assert(S_ISFIFO(info.st_mode)); /* not replaced */
    ck_ganq_fails(ganq__make_dir(in_dir("d")), GANQ_ERR_EXISTS, "/d: cannot create the directory");
    ck_ganq_fails(ganq__make_dir(in_dir("no/d")), GANQ_ERR_NOT_FOUND, "no/d");
}
END_TEST

START_TEST(disk_full) {
    struct rlimit old;
    static char data[100000];
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit < sizeof data; limit += 33333) {
        const struct rlimit tiny = {limit, old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &tiny), 0);
        ganq_status status = ganq__file_write(in_dir("full"), data, sizeof data);
        ganq_status buffered =
            ganq__file_write(in_dir("small"), data, 100); /* fails at the flush, if at all */
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
        ck_assert_int_eq(status, GANQ_ERR_IO);
        ck_assert_int_eq(buffered, limit ? GANQ_OK : GANQ_ERR_IO);
        ck_assert(!ganq__path_exists(in_dir("full")));
        ck_assert_int_eq(entries(dir), limit ? 1 : 0);
    }
    signal(SIGXFSZ, handler);
}
END_TEST

START_TEST(names_and_kinds) {
    char *joined = ganq__path_join("a", "b"), *slash = ganq__path_join("a/", "b"),
         *here = ganq__path_join("", "b"), *root = ganq__path_join("/", "b");
    ck_assert_str_eq(joined, "a/b");
    ck_assert_str_eq(slash, "a/b");
    ck_assert_str_eq(here, "b"); /* and not a name in the root */
    ck_assert_str_eq(root, "/b");
    ck_ganq_ok(ganq__path_check("a", "dir"));
    ck_ganq_fails(ganq__path_check("", "dir"), GANQ_ERR_INVALID_ARG, "dir: the path is empty");
    ganq__free(here);
    ganq__free(joined);
    ganq__free(slash);
    ganq__free(root);
    ck_assert(ganq__path_is_dir(dir) && ganq__path_exists(dir) && ganq__dir_is_empty(dir));
    ck_ganq_ok(ganq__file_write(in_dir("f"), "x", 1));
    ck_assert(!ganq__path_is_dir(in_dir("f")) && ganq__path_exists(in_dir("f")));
    ck_assert(!ganq__dir_is_empty(dir) && !ganq__dir_is_empty(in_dir("f")));
    ck_assert(ganq__dir_is_empty(in_dir("none")) && !ganq__path_exists(in_dir("none")));
}
END_TEST

START_TEST(remove_tree) {
    ck_ganq_ok(ganq__make_dir(in_dir("t")));
    ck_ganq_ok(ganq__make_dir(in_dir("t/u")));
    ck_ganq_ok(ganq__make_dir(in_dir("kept")));
    ck_ganq_ok(ganq__file_write(in_dir("kept/f"), "x", 1));
    ck_ganq_ok(ganq__file_write(in_dir("t/u/f"), "x", 1));
    ck_ganq_ok(ganq__file_write(in_dir("t/.hidden"), "x", 1));
    ck_assert_int_eq(symlink(in_dir("kept"), in_dir("t/link")), 0); /* removed, not followed */
    ck_assert_int_eq(symlink("nowhere", in_dir("t/dangling")), 0);
    ck_ganq_ok(ganq__remove_tree(in_dir("t")));
    ck_assert(!ganq__path_exists(in_dir("t")));
    check_content(in_dir("kept/f"), "x");
    ck_ganq_ok(ganq__remove_tree(in_dir("t")));
    ck_ganq_ok(ganq__remove_tree(in_dir("kept/f"))); /* a file is a tree, too */
    ck_assert_int_eq(entries(in_dir("kept")), 0);
}
END_TEST

static void make_tree(const char *name, const char *content) {
    char file[300];
    ck_ganq_ok(ganq__make_dir(in_dir(name)));
    snprintf(file, sizeof file, "%s/%s", name, content);
    ck_ganq_ok(ganq__file_write(in_dir(file), content, strlen(content)));
}

START_TEST(replace_dir) {
    int in_place;
    make_tree("new", "one");
    ck_ganq_ok(ganq__replace_dir(in_dir("new"), in_dir("out"), &in_place)); /* not there */
    check_content(in_dir("out/one"), "one");
    make_tree("new", "two");
    ck_ganq_ok(ganq__replace_dir(in_dir("new"), in_dir("out"), &in_place)); /* full */
    check_content(in_dir("out/two"), "two");
    ck_assert(!ganq__path_exists(in_dir("out/one")));
    ck_ganq_ok(ganq__remove_tree(in_dir("out")));
    ck_ganq_ok(ganq__make_dir(in_dir("out")));
    make_tree("new", "three");
    ck_ganq_ok(ganq__replace_dir(in_dir("new"), in_dir("out"), &in_place)); /* empty */
    check_content(in_dir("out/three"), "three");
    ck_ganq_ok(ganq__remove_tree(in_dir("out")));
    ck_ganq_ok(ganq__file_write(in_dir("out"), "file", 4));
    make_tree("new", "four");
    ck_ganq_ok(ganq__replace_dir(in_dir("new"), in_dir("out"), &in_place)); /* a file */
    check_content(in_dir("out/four"), "four");
    ck_assert_int_eq(entries(dir), 1);
    ck_ganq_fails(ganq__replace_dir(in_dir("gone"), in_dir("out"), &in_place), GANQ_ERR_NOT_FOUND, "out");
    check_content(in_dir("out/four"), "four");
    make_tree("new", "five");
    ck_ganq_fails(ganq__replace_dir(in_dir("new"), in_dir("no/out"), &in_place), GANQ_ERR_NOT_FOUND, "no/out");
    ck_assert_int_eq(in_place, 0);
    check_content(in_dir("new/five"), "five");
}
END_TEST

/* Without descriptors the old directory cannot be listed, whoever asks: the new one is there all the same, and the message
 * does not say otherwise. */
START_TEST(replaced_and_left_over) {
    struct rlimit old;
    int in_place;
    make_tree("out", "before");
    make_tree("new", "after");
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    const struct rlimit none = {0, old.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    const ganq_status status = ganq__replace_dir(in_dir("new"), in_dir("out"), &in_place);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert_int_eq(in_place, 1);
    ck_assert_int_eq(status, GANQ_ERR_IO);
    ck_assert_int_eq(in_place, 1);
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "/out: the new directory is in place"));
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), in_dir("new")));
    check_content(in_dir("out/after"), "after");
    check_content(in_dir("new/before"), "before");
}
END_TEST

START_TEST(copies) {
    ck_ganq_ok(ganq__file_write(in_dir("a"), "hello", 5));
    ck_ganq_ok(ganq__copy_file(in_dir("a"), in_dir("b")));
    check_content(in_dir("b"), "hello");
    ck_ganq_fails(ganq__copy_file(in_dir("none"), in_dir("b")), GANQ_ERR_NOT_FOUND, "none");
    check_content(in_dir("b"), "hello");
}
END_TEST

static void *open_and_release(void *user) {
    for (int i = 0; i < 1000; i++) {
        ganq__map_retain(user);
        ganq__map_release(user);
    }
    return NULL;
}

START_TEST(maps_are_counted_across_threads) {
    ganq__map *map;
    pthread_t threads[3];
    ck_ganq_ok(ganq__file_write(in_dir("a"), "hello", 5));
    ck_ganq_ok(ganq__map_open(in_dir("a"), &map));
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, open_and_release, map), 0);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_int_eq(map->references, 1);
    ganq__map_release(map);
}
END_TEST

static ganq_status everything(void) {
    ganq__map *map;
    char *text;
    size_t size;
    GANQ_TRY(ganq__file_write(in_dir("a"), "hello", 5));
    GANQ_TRY(ganq__map_open(in_dir("a"), &map));
    ganq__map_release(map);
    GANQ_TRY(ganq__file_read(in_dir("a"), 10, &text, &size));
    ganq__free(text);
    GANQ_TRY(ganq__copy_file(in_dir("a"), in_dir("b")));
    if (!ganq__path_exists(in_dir("t")))
        GANQ_TRY(ganq__make_dir(in_dir("t")));
    GANQ_TRY(ganq__copy_file(in_dir("a"), in_dir("t/c")));
    return ganq__remove_tree(in_dir("t"));
}

START_TEST(every_allocation_may_fail) {
    for (int64_t n = 1, done = 0; !done; n++) {
        ganq__alloc_fail_after(n);
        ganq_status status = everything();
        done = ganq__alloc_count() < n;
        ganq__alloc_fail_after(0);
        if (status != GANQ_OK) /* the flush of a directory may fail silently */
            ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
        ck_assert(!done || status == GANQ_OK);
        ck_assert_int_ge(n, done ? 10 : 1);
        ck_assert_int_lt(n, 100);
    }
    ck_assert_int_eq(entries(dir), 2);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("file");
    TCase *tcase = tcase_create("file");
    tcase_add_checked_fixture(tcase, make_dir, remove_dir);
    tcase_add_test(tcase, write_read_map);
    tcase_add_test(tcase, mode_follows_the_umask);
    tcase_add_test(tcase, refused_reads);
    tcase_add_test(tcase, abandoned_writes_leave_the_old_file);
    tcase_add_test(tcase, refused_writes);
    tcase_add_test(tcase, disk_full);
    tcase_add_test(tcase, names_and_kinds);
    tcase_add_test(tcase, remove_tree);
    tcase_add_test(tcase, replace_dir);
    tcase_add_test(tcase, replaced_and_left_over);
    tcase_add_test(tcase, copies);
    tcase_add_test(tcase, maps_are_counted_across_threads);
    tcase_add_test(tcase, every_allocation_may_fail);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
