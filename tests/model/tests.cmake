set(model_floors base io backend calib solver pack cpu gemm model)
ganq_unit_test(model_config FLOORS ${model_floors} SOURCES model/test_config.c model/tiny.c)
ganq_unit_test(model_ops FLOORS ${model_floors} SOURCES model/test_ops.c model/tiny.c)
ganq_unit_test(model_weights FLOORS ${model_floors} SOURCES model/test_model.c model/tiny.c)
