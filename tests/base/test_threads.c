/* test_threads.c - the pool: every item once, nested loops, many loops, fork. */
#include "check_util.h"

#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

enum { ITEMS = 1000 };

typedef struct work {
    ganq__pool *pool;
    atomic_int done[ITEMS];
    atomic_int bad_worker;
    int threads;
} work;

static void count_item(void *user, int64_t item, int worker) {
    work *w = user;
    atomic_fetch_add(&w->done[item], 1);
    if (worker < 0 || worker >= w->threads)
        atomic_store(&w->bad_worker, 1);
}

static int all_done(const work *w, int64_t items, int times) {
    for (int64_t i = 0; i < ITEMS; i++)
        if (atomic_load(&w->done[i]) != (i < items ? times : 0))
            return 0;
    return !atomic_load(&w->bad_worker);
}

START_TEST(every_item_once) {
    for (int threads = 0; threads <= 5; threads++) {
        ganq__pool *pool;
        ck_ganq_ok(ganq__pool_create(threads, &pool));
        ck_assert_int_eq(ganq__pool_threads(pool), threads ? threads : ganq__cpu_count());
        const int64_t items[] = {0, 1, 2, 3, 7, ITEMS};
        for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
            work w = {.threads = ganq__pool_threads(pool)};
            ganq__parallel_for(pool, items[i], count_item, &w);
            ck_assert(all_done(&w, items[i], 1));
        }
        ganq__pool_free(pool);
    }
}
END_TEST

START_TEST(no_pool_is_serial) {
    work w = {.threads = 1};
    ganq__parallel_for(NULL, ITEMS, count_item, &w);
    ck_assert(all_done(&w, ITEMS, 1));
    ck_assert_int_eq(ganq__pool_threads(NULL), 1);
    ganq__pool_free(NULL);
}
END_TEST

START_TEST(refusals) {
    ganq__pool *pool = (ganq__pool *)1;
    ck_ganq_fails(ganq__pool_create(-1, &pool), GANQ_ERR_INVALID_ARG, "threads is -1");
    ck_ganq_fails(ganq__pool_create(1000000, &pool), GANQ_ERR_INVALID_ARG, "threads is 1000000");
    ck_assert_ptr_eq(pool, (void *)1);
    ck_assert_int_ge(ganq__cpu_count(), 1);
}
END_TEST

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Workers that have nothing to do sleep soon: of a quarter of a second with three of them idle,
 * spinning would burn up to three quarters. */
START_TEST(idle_workers_sleep) {
    ganq__pool *pool;
    work w = {.threads = 4};
    ck_ganq_ok(ganq__pool_create(4, &pool));
    ganq__parallel_for(pool, 8, count_item, &w);
    usleep(20000);
    const double before = cpu_seconds();
    usleep(250000);
    const double burnt = cpu_seconds() - before;
    ck_assert_msg(burnt < 0.05, "idle workers took %g s of CPU in 0.25 s", burnt);
    ganq__parallel_for(pool, 8, count_item, &w); /* and wake up again */
    ck_assert(all_done(&w, 8, 2));
    ganq__pool_free(pool);
}
END_TEST

/* Thousands of short loops, with pauses that let the workers fall asleep now and then. */
START_TEST(many_loops) {
    ganq__pool *pool;
    enum { LOOPS = 3000 };
    static work w;
    ck_ganq_ok(ganq__pool_create(3, &pool));
    w.threads = 3;
    for (int i = 0; i < LOOPS; i++) {
        ganq__parallel_for(pool, 4, count_item, &w);
        if (i % 500 == 0)
            usleep(2000);
    }
    ck_assert(all_done(&w, 4, LOOPS));
    ganq__pool_free(pool);
}
END_TEST

static void nested_item(void *user, int64_t item, int worker) {
    work *w = user;
    (void)worker;
    (void)item;
    ganq__parallel_for(w->pool, 10, count_item, w);
}

START_TEST(loop_inside_a_loop) {
    work w = {.threads = 3};
    ck_ganq_ok(ganq__pool_create(3, &w.pool));
    ganq__parallel_for(w.pool, 20, nested_item, &w);
    ck_assert(all_done(&w, 10, 20));
    ganq__parallel_for(w.pool, ITEMS, count_item, &w); /* and the pool still works */
    ck_assert_int_eq(atomic_load(&w.done[ITEMS - 1]), 1);
    ganq__pool_free(w.pool);
}
END_TEST

static double numbers[ITEMS];

static void fill_item(void *user, int64_t item, int worker) {
    (void)user;
    (void)worker;
    double sum = 0;
    for (int k = 1; k <= 100; k++)
        sum += 1.0 / (double)(item * k + 1);
    numbers[item] = sum;
}

/* What the items wrote is seen by the caller, whoever wrote it. */
START_TEST(results_are_visible) {
    double expected[ITEMS];
    ganq__parallel_for(NULL, ITEMS, fill_item, NULL);
    memcpy(expected, numbers, sizeof expected);
    ganq__pool *pool;
    ck_ganq_ok(ganq__pool_create(4, &pool));
    for (int i = 0; i < 20; i++) {
        memset(numbers, 0, sizeof numbers);
        ganq__parallel_for(pool, ITEMS, fill_item, NULL);
        ck_assert_mem_eq(numbers, expected, sizeof expected);
    }
    ganq__pool_free(pool);
}
END_TEST

/* A child has the pool's memory and none of its threads: it starts its own. ThreadSanitizer cannot
 * follow that (it ends the child: its own list still has the parent's threads), so its build leaves
 * this test out. */
#ifndef __SANITIZE_THREAD__
START_TEST(fork_with_a_running_pool) {
    ganq__pool *pool;
    work before = {.threads = 3}, after = {.threads = 3};
    ck_ganq_ok(ganq__pool_create(3, &pool));
    ganq__parallel_for(pool, ITEMS, count_item, &before);
    ck_assert(all_done(&before, ITEMS, 1));
    for (int asleep = 0; asleep < 2; asleep++) {
        if (asleep)
            usleep(5000);
        pid_t child = fork();
        if (!child) {
            work w = {.threads = 3};
            alarm(60);
            for (int i = 0; i < 5; i++)
                ganq__parallel_for(pool, ITEMS, count_item, &w);
            int good = all_done(&w, ITEMS, 5);
            if (asleep)
                ganq__pool_free(pool);
            _exit(good ? 0 : 1);
        }
        int status = -1;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    pid_t idle = fork(); /* a child that only frees */
    if (!idle) {
        alarm(60);
        ganq__pool_free(pool);
        _exit(0);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(idle, &status, 0), idle);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ganq__parallel_for(pool, ITEMS, count_item, &after);
    ck_assert(all_done(&after, ITEMS, 1));
    ganq__pool_free(pool);
}
END_TEST
#endif

START_TEST(clock_goes_forward) {
    double a = ganq__now(), b = ganq__now();
    ck_assert(a > 0 && b >= a);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("threads");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, every_item_once);
    tcase_add_test(tcase, no_pool_is_serial);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, idle_workers_sleep);
    tcase_add_test(tcase, many_loops);
    tcase_add_test(tcase, loop_inside_a_loop);
    tcase_add_test(tcase, results_are_visible);
#ifndef __SANITIZE_THREAD__
    tcase_add_test(tcase, fork_with_a_running_pool);
#endif
    tcase_add_test(tcase, clock_goes_forward);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
