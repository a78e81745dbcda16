ganq_unit_test(calib_hessian FLOORS base io backend pack cpu calib SOURCES calib/test_hessian.c)
ganq_api_test(calib_hessian_api calib/test_hessian_api.c)
