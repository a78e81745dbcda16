foreach(part properties edges kernels paper fixture figures)
  ganq_unit_test(solver_${part} FLOORS base io backend pack cpu solver SOURCES solver/test_${part}.c)
endforeach()
