/* test_status.c - messages, status names, and structs of older and newer callers. */
#include "check_util.h"

#include <pthread.h>

#include "status.h"

START_TEST(messages) {
    ganq__fail("first %d", 1);
    ck_assert_str_eq(ganq_last_error(), "first 1");
    ganq__fail("again: %s", ganq_last_error()); /* from the old message */
    ck_assert_str_eq(ganq_last_error(), "again: first 1");
    ganq__fail_prefix("%s.json", "a");
    ck_assert_str_eq(ganq_last_error(), "a.json: again: first 1");
    char long_text[3000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    ganq__fail("%s", long_text);
    size_t length = strlen(ganq_last_error());
    ck_assert_uint_gt(length, 500);
    ck_assert_uint_lt(length, sizeof long_text);
    ganq__fail_prefix("file");
    ck_assert_int_eq(strncmp(ganq_last_error(), "file: xx", 8), 0);
    ganq__fail_prefix("%s", long_text); /* no room: the message stays */
    ck_assert_int_eq(strncmp(ganq_last_error(), "file: xx", 8), 0);
}
END_TEST

static void *other_thread(void *user) {
    (void)user;
    int empty = !*ganq_last_error();
    ganq__fail("from the other thread");
    return empty ? NULL : (void *)1;
}

START_TEST(messages_belong_to_their_thread) {
    pthread_t thread;
    void *result;
    ganq__fail("mine");
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
    ck_assert_str_eq(ganq_last_error(), "mine");
}
END_TEST

START_TEST(status_names) {
    for (int a = GANQ_OK; a <= GANQ_ERR_INTERNAL; a++) {
        ck_assert_str_ne(ganq_status_string((ganq_status)a), "unknown status");
        for (int b = GANQ_OK; b < a; b++)
            ck_assert_str_ne(ganq_status_string((ganq_status)a),
                             ganq_status_string((ganq_status)b));
    }
    ck_assert_str_eq(ganq_status_string((ganq_status)99), "unknown status");
    ck_assert_str_eq(ganq_status_string((ganq_status)-1), "unknown status");
}
END_TEST

/* A struct of this library, and the same struct as callers of other versions have it. */
typedef struct ours {
    uint32_t struct_size;
    int32_t a;
    int64_t b;
} ours;
typedef struct newer {
    ours known;
    int64_t c;
} newer;

START_TEST(options_of_every_age) {
    ours got;
    memset(&got, 255, sizeof got);
    ck_ganq_ok(ganq__options_read(&got, sizeof got, NULL, "opts"));
    ck_assert_uint_eq(got.struct_size, sizeof got);
    ck_assert(got.a == 0 && got.b == 0);

    ours same = {sizeof same, 1, 2};
    ck_ganq_ok(ganq__options_read(&got, sizeof got, &same, "opts"));
    ck_assert(got.a == 1 && got.b == 2);

    ours older = {offsetof(ours, b), 1, 2}; /* an older caller has no b */
    ck_ganq_ok(ganq__options_read(&got, sizeof got, &older, "opts"));
    ck_assert(got.a == 1 && got.b == 0);
    ck_assert_uint_eq(got.struct_size, sizeof got);
    older.struct_size = sizeof older.struct_size;
    ck_ganq_ok(ganq__options_read(&got, sizeof got, &older, "opts"));
    ck_assert(got.a == 0 && got.b == 0);

    newer tail = {{sizeof tail, 1, 2}, 0};
    ck_ganq_ok(ganq__options_read(&got, sizeof got, &tail, "opts"));
    ck_assert(got.a == 1 && got.b == 2);
    tail.c = INT64_MIN; /* only the last byte is set */
    ck_ganq_fails(ganq__options_read(&got, sizeof got, &tail, "opts"), GANQ_ERR_UNSUPPORTED,
                  "opts");

    for (uint32_t size = 0; size < 4; size++) {
        same.struct_size = size;
        ck_ganq_fails(ganq__options_read(&got, sizeof got, &same, "opts"), GANQ_ERR_INVALID_ARG,
                      "struct_size");
    }
}
END_TEST

START_TEST(results_of_every_age) {
    const ours result = {sizeof result, 7, 8};
    newer theirs = {{sizeof theirs, 1, 2}, 3};
    ck_ganq_ok(ganq__struct_write(&theirs, &result, sizeof result, "report"));
    ck_assert(theirs.known.a == 7 && theirs.known.b == 8 && theirs.c == 3);
    ck_assert_uint_eq(theirs.known.struct_size, sizeof theirs);
    ours older = {offsetof(ours, b), 1, 2};
    ck_ganq_ok(ganq__struct_write(&older, &result, sizeof result, "report"));
    ck_assert(older.a == 7 && older.b == 2);
    older.struct_size = 0;
    ck_ganq_fails(ganq__struct_write(&older, &result, sizeof result, "report"),
                  GANQ_ERR_INVALID_ARG, "report: struct_size is 0");
    ck_ganq_fails(ganq__struct_write(NULL, &result, sizeof result, "report"), GANQ_ERR_INVALID_ARG,
                  "report is NULL");
    ck_assert_int_eq(older.a, 7);
}
END_TEST

START_TEST(versions) {
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", GANQ_VERSION_MAJOR, GANQ_VERSION_MINOR,
             GANQ_VERSION_PATCH);
    ck_assert_str_eq(ganq_version(), expected);
    ck_assert_int_eq(ganq_abi_version(), GANQ_ABI_VERSION);
    ganq_free(NULL);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("status");
    TCase *tcase = tcase_create("status");
    tcase_add_test(tcase, messages);
    tcase_add_test(tcase, messages_belong_to_their_thread);
    tcase_add_test(tcase, status_names);
    tcase_add_test(tcase, options_of_every_age);
    tcase_add_test(tcase, results_of_every_age);
    tcase_add_test(tcase, versions);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
