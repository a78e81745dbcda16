# The files of the CUDA backend; tests/cuda builds the same ones for its emulated device.
set(ganq_cuda_sources
    device.c
    driver.c
    code.cu
    library.c
    memory.c
    cublaslt.c
    lut_engine.c
    lut_gemm.c
    lut_plan.c
    lut_tune.c
    lut_prepare.cu
    lut_simt.cu
    lut_mma2.cu
    lut_mma3.cu
    lut_mma4.cu
    dense.c
    dense.cu
    model.c
    model.cu
    attention.cu
    cusolver.c
    solver.c
    solver.cu)
set(ganq_cuda_90a_sources # with GANQ_HAS_WGMMA
    lut_wgmma2.cu
    lut_wgmma3.cu
    lut_wgmma4.cu)
list(TRANSFORM ganq_cuda_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM ganq_cuda_90a_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
