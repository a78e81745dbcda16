/* check_util.h - what the Check suites share: running a suite, statuses with their message, the real test data. */
#ifndef GANQ_TESTS_CHECK_UTIL_H
#define GANQ_TESTS_CHECK_UTIL_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ganq/common.h"

enum { GANQ_TEST_SKIPPED = 77 };

#define ck_ganq_ok(expr)                                                                           \
    do {                                                                                           \
        ganq_status ck_status_ = (expr);                                                           \
        ck_assert_msg(ck_status_ == GANQ_OK, "%s: %s: %s", #expr, ganq_status_string(ck_status_),  \
                      ganq_last_error());                                                          \
    } while (0)
/* The status, and a word that the message must contain. */
#define ck_ganq_fails(expr, code, word)                                                            \
    do {                                                                                           \
        ganq_status ck_status_ = (expr);                                                           \
        ck_assert_msg(ck_status_ == (code), "%s: %s (%s), expected %s", #expr,                     \
                      ganq_status_string(ck_status_), ganq_last_error(),                           \
                      ganq_status_string(code));                                                   \
        ck_assert_msg(strstr(ganq_last_error(), (word)) != NULL, "message \"%s\" lacks \"%s\"",    \
                      ganq_last_error(), (word));                                                  \
    } while (0)

/* $GANQ_TEST_DATA/<name>, or NULL without test data or that file. Static buffer. */
static inline const char *test_data(const char *name) {
    static char path[4096];
    const char *dir = getenv("GANQ_TEST_DATA");
    if (!dir || !*dir)
        return NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fclose(file);
    return path;
}

/* main() of a suite: 0, 1, or 77 when `skipped` is set and nothing failed. Tests run in this process when CK_FORK=no. */
static inline int test_run(Suite *suite, int skipped) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : skipped ? GANQ_TEST_SKIPPED : 0;
}

/* A fresh directory under $TMPDIR or /tmp; static buffer. */
static inline const char *test_dir(void) {
    static char path[256];
    const char *root = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/ganq-test-XXXXXX", root && *root ? root : "/tmp");
    return mkdtemp(path);
}

#endif
