"""The structs of the public headers, field by field. Every one begins with struct_size."""
from __future__ import annotations

import ctypes
import operator
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p

from ._errors import InvalidArgument

_RANGES = {c_int32: (-2**31, 2**31 - 1), c_int64: (-2**63, 2**63 - 1), c_uint32: (0, 2**32 - 1), c_uint64: (0, 2**64 - 1)}


def integer(value, name: str, kind=c_int64) -> int:
    """A whole number that the C type holds: ctypes itself cuts off what does not fit."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; an integer is expected") from None
    low, high = _RANGES[kind]
    if not low <= number <= high:
        raise InvalidArgument(f"{name} is {number}, expected {low} to {high}")
    return number


class Sized(ctypes.Structure):
    """struct_size is filled in; integers must fit their fields."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)

    def __setattr__(self, name, value):
        kind = dict(self._fields_).get(name)
        super().__setattr__(name, integer(value, name, kind) if kind in _RANGES else value)


class Matrix(Sized):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("rows", c_int64), ("cols", c_int64),
                ("row_stride", c_int64), ("device", c_int32), ("reserved", c_int32), ("data", c_void_p)]


class Progress(Sized):
    _fields_ = [("struct_size", c_uint32), ("stage", c_int32), ("name", c_char_p), ("done", c_int64), ("total", c_int64),
                ("fraction", c_double), ("seconds", c_double), ("seconds_left", c_double), ("error", c_double)]


LOG_FN = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
PROGRESS_FN = CFUNCTYPE(c_int, POINTER(Progress), c_void_p)
TOKEN_FN = CFUNCTYPE(c_int, c_int32, c_void_p)


class ContextOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("device", c_int32), ("device_index", c_int32), ("threads", c_int32),
                ("numerics", c_int32), ("log_level", c_int32), ("memory_budget_bytes", c_int64), ("log", LOG_FN),
                ("log_user", c_void_p), ("progress", PROGRESS_FN), ("progress_user", c_void_p)]


class QuantizeOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("bits", c_int32), ("recipe", c_int32), ("iterations", c_int32),
                ("damping", c_float), ("outlier_ratio", c_float), ("lut_dtype", c_int32), ("reserved", c_int32),
                ("row_weights", POINTER(Matrix))]


class Step(ctypes.Structure):
    _fields_ = [("kind", c_int32), ("iteration", c_int32), ("error", c_double)]


class Cost(ctypes.Structure):
    _fields_ = [("stage", c_int32), ("reserved", c_int32), ("seconds", c_double), ("work", c_double)]


class LayerReport(Sized):
    _fields_ = [("struct_size", c_uint32), ("recipe", c_int32), ("error", c_double), ("norm", c_double),
                ("seconds", c_double), ("damping", c_double), ("tokens", c_int64), ("step_count", c_int64),
                ("steps", POINTER(Step)), ("note", c_char_p), ("cost_count", c_int64), ("costs", POINTER(Cost))]


class LayerInfo(Sized):
    _fields_ = [("struct_size", c_uint32), ("bits", c_int32), ("rows", c_int64), ("cols", c_int64), ("outliers", c_int64),
                ("lut_dtype", c_int32), ("has_bias", c_int32), ("stored_bytes", c_int64), ("resident_bytes", c_int64),
                ("bits_per_weight", c_double)]


class DeviceProduct(Sized):
    _fields_ = [("struct_size", c_uint32), ("count", c_int32), ("layers", c_void_p * 3), ("rows", c_int64),
                ("x", c_void_p), ("x_stride", c_int64), ("x_dtype", c_int32), ("y_dtype", c_int32), ("y", c_void_p * 3),
                ("y_strides", c_int64 * 3), ("workspace", c_void_p), ("workspace_bytes", c_int64), ("stream", c_void_p)]


class CorpusOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("mode", c_int32), ("samples", c_int64), ("length", c_int64),
                ("skip", c_int64), ("seed", c_uint64)]


class ModelOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("verify", c_int32)]


class RandomOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("bits", c_int32), ("seed", c_uint64)]


class ModelInfo(Sized):
    _fields_ = [("struct_size", c_uint32), ("layers", c_int32), ("architecture", c_char_p), ("hidden_size", c_int64),
                ("vocab_size", c_int64), ("max_positions", c_int64), ("parameters", c_int64), ("linears", c_int64),
                ("linears_quantized", c_int64), ("stored_bytes", c_int64), ("linear_bytes", c_int64),
                ("bits_per_weight", c_double), ("bos", c_int32), ("eos_count", c_int32), ("eos", POINTER(c_int32))]


class LinearInfo(Sized):
    _fields_ = [("struct_size", c_uint32), ("bits", c_int32), ("name", c_char_p), ("rows", c_int64), ("cols", c_int64),
                ("bits_per_weight", c_double), ("error", c_double), ("norm", c_double), ("seconds", c_double),
                ("tokens", c_int64)]


class ModelQuantizeOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("propagate", c_int32), ("layer", POINTER(QuantizeOptions)), ("skip", c_char_p),
                ("target_bits", c_float), ("compensation", c_float)]


class QuantizePlan(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_int32), ("linears", c_int64), ("skipped", c_int64),
                ("weights", c_int64), ("bytes_before", c_int64), ("bytes_after", c_int64), ("bits_per_weight", c_double),
                ("memory_bytes", c_int64), ("activation_bytes", c_int64)]


class SaveOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("force", c_int32), ("shard_bytes", c_int64), ("calibration", c_char_p)]


class Sampling(Sized):
    _fields_ = [("struct_size", c_uint32), ("temperature", c_float), ("top_k", c_int32), ("top_p", c_float),
                ("min_p", c_float), ("reserved", c_int32), ("seed", c_uint64)]


class GenerateOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_int32), ("max_tokens", c_int64), ("sampling", Sampling),
                ("stop", POINTER(c_int32)), ("stop_count", c_int64)]


class PerplexityOptions(Sized):
    _fields_ = [("struct_size", c_uint32), ("protocol", c_int32), ("context", c_int64), ("max_tokens", c_int64)]


class PerplexityResult(Sized):
    _fields_ = [("struct_size", c_uint32), ("protocol", c_int32), ("perplexity", c_double), ("nll", c_double),
                ("tokens", c_int64), ("sequences", c_int64), ("context", c_int64), ("seconds", c_double)]


class TensorInfo(Sized):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("name", c_char_p), ("dtype_name", c_char_p),
                ("file", c_char_p), ("rank", c_int32), ("has_crc", c_int32), ("shape", c_int64 * 8), ("size_bytes", c_int64)]
