ganq_unit_test(test_planes FLOORS base io backend pack SOURCES pack/test_planes.c)
ganq_unit_test(test_layer FLOORS base io backend pack SOURCES pack/test_layer.c)
ganq_unit_test(test_layer_file FLOORS base io backend pack SOURCES pack/test_layer_file.c)
