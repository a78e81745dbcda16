ganq_unit_test(test_pipeline FLOORS base io backend calib solver pack cpu gemm model runtime pipeline api
               SOURCES pipeline/test_pipeline.c pipeline/tiny_model.c)
ganq_api_test(test_tensors pipeline/test_tensors.c pipeline/tiny_model.c)
