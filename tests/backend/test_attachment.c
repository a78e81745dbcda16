/* test_attachment.c - attachments go with the object or with the context, whichever is first, from
 * any thread. */
#include <pthread.h>
#include <stdatomic.h>

#include "alloc.h"
#include "attachment.h"
#include "check_util.h"
#include "context.h"

static atomic_int detached;

static void count_detach(ganq_context *ctx, void *data) {
    ck_assert_ptr_nonnull(ctx);
    atomic_fetch_add(&detached, *(int *)data);
}

static ganq_context *open_context(void) {
    ganq_context *ctx = ganq__calloc(1, sizeof *ctx);
    atomic_init(&ctx->references, 1);
    return ctx;
}

START_TEST(goes_with_the_first) {
    ganq__attachments object = {0}, other = {0};
    ganq_context *a = open_context(), *b = open_context();
    int one = 1, ten = 10, hundred = 100;
    atomic_store(&detached, 0);
    ck_assert_ptr_null(ganq__attachment_find(&object, a));
    ck_ganq_ok(ganq__attach(&object, a, &one, count_detach));
    ck_ganq_ok(ganq__attach(&object, b, &ten, count_detach));
    ck_ganq_ok(ganq__attach(&other, a, &hundred, count_detach));
    ck_assert_ptr_eq(ganq__attachment_find(&object, a), &one);
    ck_assert_ptr_eq(ganq__attachment_find(&object, b), &ten);
    ck_assert_ptr_eq(ganq__attachment_find(&other, a), &hundred);
    ck_assert_ptr_null(ganq__attachment_find(&other, b));

    ganq__detach(&other, b); /* nothing there */
    ck_assert_int_eq(atomic_load(&detached), 0);
    ganq__context_release(a); /* the context first: it takes its own of both objects */
    ck_assert_int_eq(atomic_load(&detached), 101);
    ck_assert_ptr_null(other.first);
    ck_assert_ptr_eq(ganq__attachment_find(&object, b), &ten);
    ganq__detach_all(&object); /* the object first */
    ck_assert_int_eq(atomic_load(&detached), 111);
    ck_assert_ptr_null(ganq__attachment_find(&object, b));
    ck_ganq_ok(ganq__attach(&object, b, &one, count_detach));
    ganq__detach(&object, b);
    ck_assert_int_eq(atomic_load(&detached), 112);
    ganq__context_release(b);
    ck_assert_int_eq(atomic_load(&detached), 112);
}
END_TEST

START_TEST(no_memory_leaves_it_with_the_caller) {
    ganq__attachments object = {0};
    ganq_context *ctx = open_context();
    int one = 1;
    atomic_store(&detached, 0);
    ganq__alloc_fail_after(1);
    ck_ganq_fails(ganq__attach(&object, ctx, &one, count_detach), GANQ_ERR_NO_MEMORY, "memory");
    ganq__alloc_fail_after(0);
    ck_assert_ptr_null(object.first);
    ganq__context_release(ctx);
    ck_assert_int_eq(atomic_load(&detached), 0);
}
END_TEST

enum { THREADS = 4, OBJECTS = 50, ROUNDS = 40 };
static ganq__attachments objects[OBJECTS];

/* Each thread with contexts of its own on objects of all. */
static void *attach_in_rounds(void *user) {
    for (int round = 0; round < ROUNDS; round++) {
        ganq_context *ctx = open_context();
        for (int i = 0; i < OBJECTS; i++) {
            if (ganq__attach(&objects[i], ctx, user, count_detach) != GANQ_OK)
                return NULL;
            if (ganq__attachment_find(&objects[i], ctx) != user)
                return NULL;
        }
        if (round % 2)
            ganq__detach(&objects[round % OBJECTS], ctx);
        ganq__context_release(ctx);
    }
    return user;
}

START_TEST(many_threads) {
    pthread_t threads[THREADS];
    int one = 1;
    atomic_store(&detached, 0);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, attach_in_rounds, &one), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_ptr_eq(result, &one);
    }
    ck_assert_int_eq(atomic_load(&detached), THREADS * OBJECTS * ROUNDS);
    for (int i = 0; i < OBJECTS; i++)
        ck_assert_ptr_null(objects[i].first);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attachment");
    TCase *tests = tcase_create("attachment");
    tcase_add_test(tests, goes_with_the_first);
    tcase_add_test(tests, no_memory_leaves_it_with_the_caller);
    tcase_add_test(tests, many_threads);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
