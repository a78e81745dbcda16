ganq_api_test(api_lifetimes api/test_lifetimes.c pipeline/tiny_model.c)
target_link_libraries(api_lifetimes PRIVATE Threads::Threads)
