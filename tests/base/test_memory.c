/* test_memory.c - allocation with its failures, and buffers. */
#include "check_util.h"

#include "buffer.h"

START_TEST(sizes_are_checked) {
    ck_assert_ptr_null(ganq__malloc(SIZE_MAX / 2, 3));
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "9223372036854775807 elements of 3 bytes"));
    ck_assert_ptr_null(ganq__malloc(SIZE_MAX - 10, 1));
    ck_assert_ptr_null(ganq__calloc(SIZE_MAX, SIZE_MAX));
    ck_assert_ptr_null(ganq__malloc_aligned(SIZE_MAX / 4, 4));
    void *kept = ganq__malloc(4, 1);
    memcpy(kept, "abc", 4);
    ck_assert_ptr_null(ganq__realloc(kept, SIZE_MAX, 2));
    ck_assert_str_eq(kept, "abc");
    ganq__free(kept);
    ganq__free(NULL);
}
END_TEST

START_TEST(empty_requests_give_a_pointer) {
    void *all[] = {ganq__malloc(0, 8),        ganq__calloc(0, 8), ganq__malloc_aligned(0, 8),
                   ganq__realloc(NULL, 0, 8), ganq__strdup(""),   ganq__strndup("abc", 0)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ck_assert_ptr_nonnull(all[i]);
        ganq__free(all[i]);
    }
}
END_TEST

START_TEST(contents) {
    for (size_t size = 1; size < 300; size += 7) {
        char *aligned = ganq__malloc_aligned(size, 1), *zeroed = ganq__calloc(size, 1);
        ck_assert_uint_eq((uintptr_t)aligned % 64, 0);
        memset(aligned, 1, size);
        for (size_t i = 0; i < size; i++)
            ck_assert_int_eq(zeroed[i], 0);
        ganq__free(aligned);
        ganq__free(zeroed);
    }
    char *text = ganq__format("%s/%03d", "dir", 7), *part = ganq__strndup("abcdef", 3);
    ck_assert_str_eq(text, "dir/007");
    ck_assert_str_eq(part, "abc");
    ganq__free(text);
    ganq__free(part);
}
END_TEST

START_TEST(failures_on_demand) {
    ganq__alloc_fail_after(3);
    void *a = ganq__malloc(1, 1), *b = ganq__strdup("b"), *c = ganq__malloc_aligned(1, 1),
         *d = ganq__calloc(1, 1);
    ck_assert(a && b && !c && d); /* once, and only the third */
    ck_assert_int_eq(ganq__alloc_count(), 4);
    ganq__alloc_fail_after(1);
    ck_assert_ptr_null(ganq__format("x"));
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "out of memory"));
    ganq__alloc_fail_after(1);
    ck_assert_ptr_null(ganq__realloc(a, 100, 1));
    ganq__alloc_fail_after(0);
    ck_assert_int_eq(ganq__alloc_count(), 0);
    ganq__free(a);
    ganq__free(b);
    ganq__free(d);
}
END_TEST

START_TEST(buffers) {
    ganq__buffer buffer = {0};
    ck_ganq_ok(ganq__buffer_append(&buffer, NULL, 0));
    ck_assert_str_eq(buffer.data, "");
    for (int i = 0; i < 1000; i++)
        ck_ganq_ok(ganq__buffer_printf(&buffer, "%d,", i));
    ck_assert_uint_eq(buffer.size, 10 * 2 + 90 * 3 + 900 * 4);
    ck_assert_int_eq(strncmp(buffer.data, "0,1,2,", 6), 0);
    ck_assert_str_eq(buffer.data + buffer.size - 8, "998,999,");
    ck_assert_uint_gt(buffer.capacity, buffer.size);
    ganq__buffer_free(&buffer);
    ck_assert_ptr_null(buffer.data);
    ck_ganq_ok(ganq__buffer_append(&buffer, "a\0b", 3));
    ck_assert_mem_eq(buffer.data, "a\0b", 4);
    size_t size = buffer.size;
    ganq__alloc_fail_after(1);
    char big[1000] = {0};
    ck_ganq_fails(ganq__buffer_append(&buffer, big, sizeof big), GANQ_ERR_NO_MEMORY,
                  "out of memory");
    ganq__alloc_fail_after(0);
    ck_assert_uint_eq(buffer.size, size); /* as it was */
    ck_assert_mem_eq(buffer.data, "a\0b", 4);
    ck_ganq_fails(ganq__buffer_append(&buffer, big, SIZE_MAX - 1), GANQ_ERR_NO_MEMORY, "grow");
    ganq__buffer_free(&buffer);
    ganq__buffer_free(&buffer);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("memory");
    TCase *tcase = tcase_create("memory");
    tcase_add_test(tcase, sizes_are_checked);
    tcase_add_test(tcase, empty_requests_give_a_pointer);
    tcase_add_test(tcase, contents);
    tcase_add_test(tcase, failures_on_demand);
    tcase_add_test(tcase, buffers);
    suite_add_tcase(suite, tcase);
    return test_run(suite, 0);
}
