set(runtime_floors base io backend calib solver pack cpu gemm model runtime)
ganq_unit_test(runtime_session FLOORS ${runtime_floors} SOURCES runtime/test_session.c model/tiny.c)
ganq_unit_test(runtime_sampling FLOORS ${runtime_floors} SOURCES runtime/test_sampling.c)
ganq_unit_test(runtime_perplexity FLOORS ${runtime_floors} SOURCES runtime/test_perplexity.c model/tiny.c)
ganq_api_test(runtime_session_api runtime/test_session_api.c)
ganq_api_test(runtime_stories runtime/test_stories.c)
ganq_unit_test(runtime_device FLOORS ${runtime_floors}
               SOURCES runtime/test_device.c backend/fake_device.c model/tiny.c)
ganq_api_test(runtime_numerics runtime/test_numerics.c)
