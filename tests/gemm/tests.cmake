ganq_unit_test(test_lut_gemm FLOORS base io backend solver pack cpu gemm SOURCES gemm/test_lut_gemm.c)
ganq_api_test(test_layer_api gemm/test_layer_api.c)
