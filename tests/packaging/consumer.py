"""consumer.py - the same program as consumer.c, in plain ctypes, with the library found by the loader."""
import ctypes

lib = ctypes.CDLL("libganq.so.1")
lib.ganq_version.restype = lib.ganq_last_error.restype = ctypes.c_char_p


class Matrix(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("dtype", ctypes.c_int32), ("rows", ctypes.c_int64),
                ("cols", ctypes.c_int64), ("row_stride", ctypes.c_int64), ("device", ctypes.c_int32),
                ("reserved", ctypes.c_int32), ("data", ctypes.c_void_p)]


class QuantizeOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("bits", ctypes.c_int32), ("recipe", ctypes.c_int32),
                ("iterations", ctypes.c_int32), ("damping", ctypes.c_float), ("outlier_ratio", ctypes.c_float),
                ("lut_dtype", ctypes.c_int32), ("reserved", ctypes.c_int32)]


def matrix(rows, cols, data):
    return Matrix(ctypes.sizeof(Matrix), 1, rows, cols, 0, 0, 0, ctypes.cast(data, ctypes.c_void_p))


def check(status):
    if status:
        raise SystemExit(lib.ganq_last_error().decode())


N, K, M = 8, 32, 2
w = (ctypes.c_float * (N * K))(*[(i * 37) % 101 / 101 - 0.5 for i in range(N * K)])
x = (ctypes.c_float * (M * K))(*[(i * 53) % 17 / 17 for i in range(M * K)])
y = (ctypes.c_float * (M * N))()
options = QuantizeOptions()
lib.ganq_quantize_options_init(ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options)))
options.recipe = 1
ctx, layer = ctypes.c_void_p(), ctypes.c_void_p()
check(lib.ganq_context_create(None, ctypes.byref(ctx)))
weight, source, target = matrix(N, K, w), matrix(M, K, x), matrix(M, N, y)
check(lib.ganq_layer_quantize(ctx, ctypes.byref(weight), None, None, ctypes.byref(options), ctypes.byref(layer)))
check(lib.ganq_lut_gemm(ctx, layer, ctypes.byref(source), ctypes.byref(target)))
print(f"libganq {lib.ganq_version().decode()}, abi {lib.ganq_abi_version()}, sum of y {sum(y):.4f}")
lib.ganq_layer_free(layer)
lib.ganq_context_free(ctx)
