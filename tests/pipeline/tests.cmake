set(ganq_pipeline_floors base io backend calib solver pack cpu gemm model runtime pipeline api)
ganq_unit_test(test_pipeline FLOORS ${ganq_pipeline_floors} SOURCES pipeline/test_pipeline.c pipeline/tiny_model.c)
ganq_unit_test(test_compensate FLOORS ${ganq_pipeline_floors} SOURCES pipeline/test_compensate.c)
ganq_api_test(test_tensors pipeline/test_tensors.c pipeline/tiny_model.c)
