/* test_documents.c - text files as documents, plain and gzipped, and how damaged ones are refused.
 */
#include "check_util.h"

#include <zlib.h>

#include "buffer.h"
#include "documents.h"
#include "file.h"

static char dir[256];

static void make_dir(void) {
    snprintf(dir, sizeof dir, "%s", test_dir());
}
static void remove_dir(void) {
    ck_ganq_ok(ganq__remove_tree(dir));
}

static const char *in_dir(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Writes the file, through gzip where the name says so. */
static const char *write_file(const char *name, const char *data, size_t size) {
    const char *path = in_dir(name);
    if (strstr(name, ".gz")) {
        gzFile file = gzopen(path, "wb");
        ck_assert_uint_eq(size ? (size_t)gzwrite(file, data, (unsigned)size) : 0, size);
        ck_assert_int_eq(gzclose(file), Z_OK);
    } else {
        ck_ganq_ok(ganq__file_write(path, data, size));
    }
    return path;
}

/* Documents as one text: "<doc>|<doc>|", ids as "1 2 3 |"; stops after `most`. */
typedef struct collected {
    ganq__buffer text;
    int count, most;
} collected;

static ganq_status collect(void *user, const ganq__document *document, int *stop) {
    collected *all = user;
    for (size_t i = 0; i < document->id_count; i++)
        GANQ_TRY(ganq__buffer_printf(&all->text, "%d ", (int)document->ids[i]));
    GANQ_TRY(
        ganq__buffer_append(&all->text, document->text ? document->text : "", document->length));
    *stop = ++all->count == all->most;
    return ganq__buffer_append(&all->text, "|", 1);
}

static const struct {
    const char *name, *data, *expected;
} good[] = {
    {"a.txt", "one\n\ntwo\n", "one\n\ntwo\n|"},
    {"bytes.utf8", "\xff\xfe\x80", "\xff\xfe\x80|"},
    {"empty.txt", "", ""},
    {"noname", "x", "x|"},
    {"a.jsonl", "\"one\"\n\n  \t\n{\"id\":1,\"text\":\"two\\n\"}\r\n\"\"\n\"last\"",
     "one|two\n||last|"},
    {"A.JSONL", "\"x\"", "x|"},
    {"bom.jsonl", "\xef\xbb\xbf\"x\"\n", "x|"},
    {"blank.jsonl", "\n \n", ""},
    {"nothing.json", "", ""},
    {"a.json", " \n[\"one\", {\"text\": \"two\"},\n\"\"]", "one|two||"},
    {"none.json", "[]", ""},
    {"c4.json", "{\"text\":\"one\",\"url\":\"u\"}\n{\"text\":\"two\"}\n", "one|two|"},
    {"a.ids", "1 2\t3\n\n 0,2147483647 ,\n7", "1 2 3 |0 2147483647 |7 |"},
    {"crlf.ids", "1 2\r\n3\r\n", "1 2 |3 |"},
};

START_TEST(every_format) {
    for (int gzip = 0; gzip < 2; gzip++)
        for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
            char name[64];
            collected all = {0};
            snprintf(name, sizeof name, "%s%s", good[i].name, gzip ? ".gz" : "");
            ck_ganq_ok(ganq__documents_read(write_file(name, good[i].data, strlen(good[i].data)),
                                            collect, &all));
            ck_assert_msg(!strcmp(all.text.data ? all.text.data : "", good[i].expected),
                          "%s: found %s", name, all.text.data);
            ganq__buffer_free(&all.text);
        }
}
END_TEST

START_TEST(text_with_nul) {
    collected all = {0};
    ck_ganq_ok(ganq__documents_read(write_file("n.jsonl", "\"a\\u0000b\"", 10), collect, &all));
    ck_assert_uint_eq(all.text.size, 4);
    ck_assert_mem_eq(all.text.data, "a\0b|", 4);
    ganq__buffer_free(&all.text);
    all = (collected){0};
    ck_ganq_ok(ganq__documents_read(write_file("n.txt", "a\0b", 3), collect, &all));
    ck_assert_mem_eq(all.text.data, "a\0b|", 4);
    ganq__buffer_free(&all.text);
}
END_TEST

START_TEST(stops_when_told) {
    collected all = {.most = 2};
    /* the broken third line is never reached */
    ck_ganq_ok(ganq__documents_read(write_file("s.jsonl", "\"a\"\n\"b\"\n{", 9), collect, &all));
    ck_assert_str_eq(all.text.data, "a|b|");
    ganq__buffer_free(&all.text);
}
END_TEST

static ganq_status refuse(void *user, const ganq__document *document, int *stop) {
    (void)user, (void)document, (void)stop;
    GANQ_FAIL(GANQ_ERR_CANCELED, "refused");
}

START_TEST(passes_on_the_reader_s_failure) {
    static const char *const names[] = {"r.txt", "r.json", "r.jsonl", "r.ids"};
    static const char *const data[] = {"x", "[\"x\"]", "\"x\"", "1"};
    for (int i = 0; i < 4; i++)
        ck_ganq_fails(
            ganq__documents_read(write_file(names[i], data[i], strlen(data[i])), refuse, NULL),
            GANQ_ERR_CANCELED, "refused");
}
END_TEST

/* Lines and files longer than the chunks in which they are read. */
START_TEST(long_lines) {
    ganq__buffer file = {0};
    enum { LENGTH = 300000 };
    for (int i = 0; i < 3; i++) {
        ck_ganq_ok(ganq__buffer_append(&file, "\"", 1));
        for (int k = 0; k < LENGTH / 10; k++)
            ck_ganq_ok(ganq__buffer_append(&file, "0123456789", 10));
        ck_ganq_ok(ganq__buffer_append(&file, "\"\n", 2));
    }
    for (int gzip = 0; gzip < 2; gzip++) {
        collected all = {0};
        ck_ganq_ok(ganq__documents_read(
            write_file(gzip ? "l.jsonl.gz" : "l.jsonl", file.data, file.size), collect, &all));
        ck_assert_int_eq(all.count, 3);
        ck_assert_uint_eq(all.text.size, 3 * (LENGTH + 1));
        ganq__buffer_free(&all.text);
    }
    ganq__buffer_free(&file);
}
END_TEST

static const struct {
    const char *name, *data, *words;
} bad[] = {
    {"a.jsonl", "\"one\"\n\n{\"text\": 3}\n",
     "a.jsonl: line 3: expected a string or an object with a string \"text\""},
    {"b.jsonl", "\"one\"\n[1]\n", "b.jsonl: line 2: expected"},
    {"c.jsonl", "\"one\"\n\"\xff\"\n", "c.jsonl: line 2, column"},
    {"d.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"\n", "d.jsonl: line 2, column"},
    {"e.json", "[\"one\",\n\"two\"", "e.json: line 2, column"},
    {"f.json", "[\"one\", 2]", "f.json: entry 1: expected"},
    {"g.json", "[\"\xff\"]", "g.json: line 1, column"},
    {"h.json", "7", "h.json: line 1: expected"},
    {"i.ids", "1 2\n3 x4\n", "i.ids: line 2, column 3: expected a token id, found \"x4\""},
    {"j.ids", "2147483648", "j.ids: line 1, column 1: expected a token id"},
    {"k.ids", "1 -2", "k.ids: line 1, column 3: expected a token id, found \"-2\""},
    {"l.ids", "1.5", "l.ids: line 1, column 1: expected a token id, found \"1.5\""},
    {"m.ids", "99999999999999999999999999999999999999999",
     "m.ids: line 1, column 1: expected a token id"},
};

START_TEST(damaged_content) {
    for (int gzip = 0; gzip < 2; gzip++)
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            char name[64];
            collected all = {0};
            snprintf(name, sizeof name, "%s%s", bad[i].name, gzip ? ".gz" : "");
            const char *path = write_file(name, bad[i].data, strlen(bad[i].data));
            ck_ganq_fails(ganq__documents_read(path, collect, &all), GANQ_ERR_FORMAT, name);
            const char *words =
                strchr(bad[i].words, ':'); /* behind the name, which may end in .gz */
            ck_assert_msg(strstr(ganq_last_error(), words) != NULL, "%s", ganq_last_error());
            ganq__buffer_free(&all.text);
        }
}
END_TEST

START_TEST(damaged_gzip) {
    ganq__buffer text = {0};
    collected all = {0};
    char *bytes;
    size_t size;
    for (int i = 0; i < 20000; i++)
        ck_ganq_ok(ganq__buffer_printf(&text, "%d ", i * 7919 % 10007));
    const char *path = write_file("t.txt.gz", text.data, text.size);
    ck_ganq_ok(ganq__file_read(path, 1 << 20, &bytes, &size));
    /* cut anywhere: in the header, in the data, in the checksum */
    const size_t cuts[] = {1, 2, 5, 9, 10, 11, size / 2, size - 9, size - 8, size - 4, size - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        ck_ganq_ok(ganq__file_write(path, bytes, cuts[i]));
        ck_ganq_fails(ganq__documents_read(path, collect, &all), GANQ_ERR_FORMAT, "t.txt.gz: ");
        ck_assert_int_eq(all.count, 0);
    }
    bytes[size / 2] ^= 0x10;
    ck_ganq_ok(ganq__file_write(path, bytes, size));
    ck_ganq_fails(ganq__documents_read(path, collect, &all), GANQ_ERR_FORMAT,
                  "t.txt.gz: damaged gzip data");
    bytes[size / 2] ^= 0x10;
    bytes[size - 6] ^= 1; /* the checksum */
    ck_ganq_ok(ganq__file_write(path, bytes, size));
    ck_ganq_fails(ganq__documents_read(path, collect, &all), GANQ_ERR_FORMAT,
                  "t.txt.gz: damaged gzip data");
    ck_ganq_ok(ganq__file_write(path, "no gzip at all", 14));
    ck_ganq_fails(ganq__documents_read(path, collect, &all), GANQ_ERR_FORMAT,
                  "t.txt.gz: expected gzip data, found something else");
    ck_ganq_ok(ganq__file_write(path, "", 0));
    ck_ganq_fails(ganq__documents_read(path, collect, &all), GANQ_ERR_FORMAT, "t.txt.gz: ");
    ck_assert_int_eq(all.count, 0);
    ganq__free(bytes);
    ganq__buffer_free(&text);
    ganq__buffer_free(&all.text);
}
END_TEST

START_TEST(not_a_file) {
    collected all = {0};
    ck_ganq_fails(ganq__documents_read(in_dir("none.txt"), collect, &all), GANQ_ERR_NOT_FOUND,
                  "none.txt: cannot open");
    ck_ganq_fails(ganq__documents_read(in_dir("none.txt.gz"), collect, &all), GANQ_ERR_NOT_FOUND,
                  "none.txt.gz");
    ck_ganq_fails(ganq__documents_read(dir, collect, &all), GANQ_ERR_IO, "is a directory");
}
END_TEST

START_TEST(every_allocation_may_fail) {
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const char *path = write_file(good[i].name, good[i].data, strlen(good[i].data));
        for (int64_t n = 1, done = 0; !done; n++) {
            collected all = {0};
            ganq__alloc_fail_after(n);
            ganq_status status = ganq__documents_read(path, collect, &all);
            ganq__alloc_fail_after(0);
            done = status == GANQ_OK;
            if (!done)
                ck_assert_int_eq(status, GANQ_ERR_NO_MEMORY);
            ck_assert_int_lt(n, 1000);
            ganq__buffer_free(&all.text);
        }
    }
}
END_TEST

START_TEST(real_files) {
    static const struct {
        const char *name;
        int count;
    } files[] = {
        {"text/tinystories_1000.json", 1000}, {"text/frankenstein.txt", 1}, {"text/wiki.utf8", 1}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        collected all = {0};
        const char *path = test_data(files[i].name);
        if (!path)
            continue;
        ck_ganq_ok(ganq__documents_read(path, collect, &all));
        ck_assert_int_eq(all.count, files[i].count);
        ck_assert_uint_gt(all.text.size, 100000);
        ganq__buffer_free(&all.text);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("documents");
    TCase *tcase = tcase_create("documents");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, make_dir, remove_dir);
    tcase_add_test(tcase, every_format);
    tcase_add_test(tcase, text_with_nul);
    tcase_add_test(tcase, stops_when_told);
    tcase_add_test(tcase, passes_on_the_reader_s_failure);
    tcase_add_test(tcase, long_lines);
    tcase_add_test(tcase, damaged_content);
    tcase_add_test(tcase, damaged_gzip);
    tcase_add_test(tcase, not_a_file);
    tcase_add_test(tcase, every_allocation_may_fail);
    tcase_add_test(tcase, real_files);
    suite_add_tcase(suite, tcase);
    return test_run(suite, !test_data("text/tinystories_1000.json"));
}
