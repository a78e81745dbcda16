"""Handles, matrices and small conversions that every module uses."""
from __future__ import annotations

import ctypes
import os

import numpy as np

from . import _structs as s
from ._library import lib

F32, F16, BF16, F64, U8 = 1, 2, 3, 4, 5


class Handle:
    """Owns one opaque pointer of the library: closed by close(), by `with`, or when collected."""

    _free = ""  # name of the function that frees it

    def __init__(self, pointer: int | None):
        self._pointer = pointer

    @property
    def handle(self) -> int:
        """The pointer, for calls of the library; ValueError once closed."""
        if not self._pointer:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._pointer

    def close(self) -> None:
        """Gives the library's memory back. Closing twice is fine."""
        pointer, self._pointer = getattr(self, "_pointer", None), None
        if pointer:
            getattr(lib, self._free)(pointer)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        try:
            self.close()
        except Exception:  # the interpreter is going down
            pass


def create(function, *arguments) -> int:
    """Calls a function whose last parameter is `T **out`; the pointer."""
    out = ctypes.c_void_p()
    function(*arguments, ctypes.byref(out))
    return out.value


def element_type(array: np.ndarray) -> int:
    """ganq_dtype of a NumPy array."""
    name = array.dtype.name
    types = {"float32": F32, "float16": F16, "bfloat16": BF16, "uint16": BF16, "float64": F64, "uint8": U8}
    if name not in types:
        raise TypeError(f"arrays of {name} are not accepted: use float32, float16, bfloat16 (or its bits as uint16)")
    return types[name]


def matrix(array: np.ndarray | None, name: str, writable: bool = False):
    """(reference to ganq_matrix or None, what must stay alive). A vector counts as one row."""
    if array is None:
        return None, None
    array = np.asarray(array)
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise ValueError(f"{name} has {array.ndim} dimensions; a matrix has 2")
    size = array.dtype.itemsize
    fits = array.strides[1] == size and array.strides[0] >= array.shape[1] * size and array.strides[0] % size == 0
    if array.shape[0] == 1:
        fits = array.strides[1] == size
    if not fits:
        if writable:
            raise ValueError(f"{name} must have contiguous rows, since it is written in place")
        array = np.ascontiguousarray(array)
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} is read-only")
    stride = array.strides[0] // size if array.shape[0] > 1 else array.shape[1]
    m = s.Matrix(dtype=element_type(array), rows=array.shape[0], cols=array.shape[1], row_stride=stride,
                 data=array.ctypes.data)
    return ctypes.byref(m), (m, array)


def path_bytes(path: str | os.PathLike) -> bytes:
    return os.fsencode(path)


def ids_array(ids) -> tuple[np.ndarray, "ctypes._Pointer"]:
    """Token ids as int32, and the pointer to them."""
    array = np.ascontiguousarray(ids, dtype=np.int32)
    if array.ndim != 1:
        raise ValueError(f"token ids have {array.ndim} dimensions; expected 1")
    return array, array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def switch(value: bool | None) -> int:
    """ganq_switch: None default, False off, True on."""
    return 0 if value is None else 2 if value else 1


def text(value: bytes | None) -> str:
    return value.decode("utf-8", "replace") if value else ""
