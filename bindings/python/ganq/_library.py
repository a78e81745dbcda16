"""Finding and loading libganq.so.1, prototypes of every function."""
from __future__ import annotations

import ctypes
import os
import pathlib
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p

from . import _structs as s
from ._errors import ERRORS, Error, Unsupported

ABI_VERSION = 1


def _load() -> ctypes.CDLL:
    tried = []
    candidates = []
    if os.environ.get("GANQ_LIBRARY"):
        candidates.append(os.environ["GANQ_LIBRARY"])  # asked for by name: nothing else will do
    else:
        candidates.append(str(pathlib.Path(__file__).resolve().parent / "libganq.so.1"))
        candidates.append("libganq.so.1")
    for name in candidates:
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            tried.append(f"{name}: {error}")
            continue
        try:
            library.ganq_abi_version.restype = c_int32
        except AttributeError:
            tried.append(f"{name}: not libganq, it has no ganq_abi_version")
            continue
        found = library.ganq_abi_version()
        if found == ABI_VERSION:
            return library
        tried.append(f"{name}: ABI version {found}, this binding needs {ABI_VERSION}")
    raise ImportError("libganq could not be loaded. Set GANQ_LIBRARY to the path of libganq.so.1. Tried:\n  "
                      + "\n  ".join(tried))


def _check(status: int, function, arguments):
    if status == 0:
        return status
    message = library.ganq_last_error()
    text = message.decode("utf-8", "replace") if message else ""
    error = ERRORS.get(status, Error)(text or f"status {status}")
    error.status = status
    raise error


class _Status(c_int32):
    """Marks functions that return ganq_status."""


_M = POINTER(s.Matrix)
_H = c_void_p  # handles
_OUT = POINTER(c_void_p)
_I32S = POINTER(c_int32)

# name: (result, arguments). Every function of the public headers; bound at first use, so that an older library still serves
# for what it has.
PROTOTYPES: dict[str, tuple] = {
    "ganq_version": (c_char_p, []),
    "ganq_abi_version": (c_int32, []),
    "ganq_status_string": (c_char_p, [c_int32]),
    "ganq_last_error": (c_char_p, []),
    "ganq_free": (None, [c_void_p]),
    "ganq_context_create": (_Status, [POINTER(s.ContextOptions), _OUT]),
    "ganq_context_free": (None, [_H]),
    "ganq_context_device_name": (c_char_p, [_H]),
    "ganq_context_threads": (c_int32, [_H]),
    "ganq_context_numerics": (c_int32, [_H]),
    "ganq_hessian_create": (_Status, [_H, c_int64, _OUT]),
    "ganq_hessian_add": (_Status, [_H, _H, _M]),
    "ganq_hessian_merge": (_Status, [_H, _H]),
    "ganq_hessian_import": (_Status, [_H, _M, c_int64, _OUT]),
    "ganq_hessian_export": (_Status, [_H, _M]),
    "ganq_hessian_dim": (c_int64, [_H]),
    "ganq_hessian_tokens": (c_int64, [_H]),
    "ganq_hessian_save": (_Status, [_H, c_char_p]),
    "ganq_hessian_load": (_Status, [_H, c_char_p, _OUT]),
    "ganq_hessian_free": (None, [_H]),
    "ganq_quantize_options_init": (None, [POINTER(s.QuantizeOptions), c_size_t]),
    "ganq_layer_quantize": (_Status, [_H, _M, _H, _M, POINTER(s.QuantizeOptions), _OUT]),
    "ganq_layer_get_report": (_Status, [_H, POINTER(s.LayerReport)]),
    "ganq_layer_get_info": (_Status, [_H, POINTER(s.LayerInfo)]),
    "ganq_layer_dequantize": (_Status, [_H, _H, _M]),
    "ganq_layer_export": (_Status, [_H, _M, _M]),
    "ganq_layer_objective": (_Status, [_H, _H, _M, _H, POINTER(c_double), POINTER(c_double)]),
    "ganq_layer_import": (_Status, [_H, c_int32, _M, _M, _M, _I32S, _I32S, POINTER(c_float), _OUT]),
    "ganq_layer_save": (_Status, [_H, c_char_p, c_char_p]),
    "ganq_layer_load": (_Status, [_H, c_char_p, c_char_p, _OUT]),
    "ganq_layer_free": (None, [_H]),
    "ganq_lut_gemm": (_Status, [_H, _H, _M, _M]),
    "ganq_layer_place": (_Status, [_H, _H]),
    "ganq_lut_gemm_device_workspace": (_Status, [_H, POINTER(s.DeviceProduct), POINTER(c_int64)]),
    "ganq_lut_gemm_device": (_Status, [_H, POINTER(s.DeviceProduct)]),
    "ganq_lut_gemm_tune": (_Status, [_H, _H, c_int64, c_int32, POINTER(c_double), POINTER(c_double)]),
    "ganq_dense_gemm": (_Status, [_H, _M, _M, _M]),
    "ganq_tensors_open": (_Status, [c_char_p, _OUT]),
    "ganq_tensors_free": (None, [_H]),
    "ganq_tensors_count": (c_int64, [_H]),
    "ganq_tensors_find": (c_int64, [_H, c_char_p]),
    "ganq_tensors_meta": (c_char_p, [_H, c_char_p]),
    "ganq_tensors_get": (_Status, [_H, c_int64, POINTER(s.TensorInfo)]),
    "ganq_tensors_read": (_Status, [_H, c_int64, c_int64, _M]),
    "ganq_tensors_verify": (_Status, [_H, c_int64]),
    "ganq_tokenizer_load": (_Status, [c_char_p, _OUT]),
    "ganq_tokenizer_free": (None, [_H]),
    "ganq_tokenizer_encode": (_Status, [_H, c_char_p, c_size_t, c_uint32, POINTER(_I32S), POINTER(c_size_t)]),
    "ganq_tokenizer_decode": (_Status, [_H, _I32S, c_size_t, c_uint32, POINTER(c_void_p), POINTER(c_size_t)]),
    "ganq_tokenizer_vocab_size": (c_int32, [_H]),
    "ganq_tokenizer_bos": (c_int32, [_H]),
    "ganq_tokenizer_eos": (c_int32, [_H]),
    "ganq_tokenizer_piece": (c_char_p, [_H, c_int32]),
    "ganq_tokenizer_id": (c_int32, [_H, c_char_p]),
    "ganq_decoder_create": (_Status, [_H, c_uint32, _OUT]),
    "ganq_decoder_push": (_Status, [_H, c_int32, POINTER(c_void_p), POINTER(c_size_t)]),
    "ganq_decoder_flush": (_Status, [_H, POINTER(c_void_p), POINTER(c_size_t)]),
    "ganq_decoder_free": (None, [_H]),
    "ganq_corpus_create": (_Status, [_OUT]),
    "ganq_corpus_add": (_Status, [_H, _I32S, c_size_t]),
    "ganq_corpus_load": (_Status, [_H, c_char_p, POINTER(s.CorpusOptions), _OUT]),
    "ganq_corpus_count": (c_int64, [_H]),
    "ganq_corpus_tokens": (c_int64, [_H]),
    "ganq_corpus_get": (_I32S, [_H, c_int64, POINTER(c_size_t)]),
    "ganq_corpus_free": (None, [_H]),
    "ganq_model_random": (_Status, [_H, c_char_p, POINTER(s.RandomOptions), _OUT]),
    "ganq_model_load": (_Status, [_H, c_char_p, POINTER(s.ModelOptions), _OUT]),
    "ganq_model_free": (None, [_H]),
    "ganq_model_get_info": (_Status, [_H, POINTER(s.ModelInfo)]),
    "ganq_model_get_linear": (_Status, [_H, c_int64, POINTER(s.LinearInfo)]),
    "ganq_model_layer": (c_void_p, [_H, c_int64]),
    "ganq_model_quantize": (_Status, [_H, _H, _H, POINTER(s.ModelQuantizeOptions), _OUT]),
    "ganq_model_plan": (_Status, [_H, _H, _H, POINTER(s.ModelQuantizeOptions), POINTER(s.QuantizePlan), POINTER(c_int64)]),
    "ganq_model_save": (_Status, [_H, _H, c_char_p, POINTER(s.SaveOptions)]),
    "ganq_model_export_dense": (_Status, [_H, _H, c_char_p, c_int32, POINTER(s.SaveOptions)]),
    "ganq_model_perplexity": (_Status, [_H, _H, _H, POINTER(s.PerplexityOptions), POINTER(s.PerplexityResult)]),
    "ganq_session_create": (_Status, [_H, _H, c_int64, _OUT]),
    "ganq_session_free": (None, [_H]),
    "ganq_session_prefill": (_Status, [_H, _I32S, c_size_t]),
    "ganq_session_prefill_logits": (_Status, [_H, _I32S, c_size_t, POINTER(c_float)]),
    "ganq_session_step": (_Status, [_H, c_int32]),
    "ganq_session_logits": (POINTER(c_float), [_H]),
    "ganq_session_length": (c_int64, [_H]),
    "ganq_session_truncate": (_Status, [_H, c_int64]),
    "ganq_session_sample": (_Status, [_H, POINTER(s.Sampling), _I32S]),
    "ganq_session_generate": (_Status, [_H, POINTER(s.GenerateOptions), s.TOKEN_FN, c_void_p, POINTER(c_int64)]),
}

library = _load()
library.ganq_last_error.restype = c_char_p


class _Functions:
    """Attribute access binds a function by its prototype."""

    def __getattr__(self, name: str):
        if name not in PROTOTYPES:
            raise AttributeError(name)
        result, arguments = PROTOTYPES[name]
        try:
            function = getattr(library, name)
        except AttributeError:
            raise Unsupported(f"{name} is not in the library that was loaded "
                              f"({library.ganq_version().decode()})") from None
        function.argtypes = arguments
        if result is _Status:
            function.restype = c_int32
            function.errcheck = lambda status, f, a: _check(status, f, a)
        else:
            function.restype = result
        setattr(self, name, function)
        return function


lib = _Functions()
library.ganq_version.restype = c_char_p
