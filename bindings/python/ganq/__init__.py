"""ganq - large language models in 2, 3 and 4 bits with one lookup table per row.

A thin binding of libganq. N: output features, K: input features, M: tokens, L = 2**bits table entries per row;
W~[n,k] = lut[n, code[n,k]] (+ a sparse outlier), Y[M,N] = X[M,K] @ W~[N,K].T (+ bias). The public headers
(include/ganq) are the manual; docstrings here repeat shapes and errors.

Matrices are two-dimensional NumPy arrays of float32, float16 or bfloat16 (a dtype named "bfloat16", as ml_dtypes has it, or
uint16 holding the bits). They are passed without a copy when the last axis is contiguous and
the byte order native.
"""
from ._errors import (Canceled, DeviceError, Error, Exists, FormatError, InternalError, InvalidArgument, IOFailure, NoDevice,
                      NotFound, NumericError, OutOfMemory, Unsupported)
from ._library import ABI_VERSION
from .context import Context, Progress, abi_version, version
from .layer import Hessian, Layer, LayerInfo, LayerReport, Step
from .model import LinearInfo, Model, ModelInfo, QuantizePlan
from .session import Perplexity, Session, perplexity
from .tensors import TensorInfo, Tensors
from .text import Corpus, Decoder, Tokenizer

__version__ = "0.1.0"
__all__ = [
    "ABI_VERSION", "Canceled", "Context", "Corpus", "Decoder", "DeviceError", "Error", "Exists", "FormatError", "Hessian",
    "IOFailure", "InternalError", "InvalidArgument", "Layer", "LayerInfo", "LayerReport", "LinearInfo", "Model", "ModelInfo",
    "NoDevice", "NotFound", "NumericError", "OutOfMemory", "Perplexity", "Progress", "QuantizePlan", "Session", "Step",
    "TensorInfo", "Tensors", "Tokenizer", "Unsupported", "abi_version", "perplexity", "version",
]
