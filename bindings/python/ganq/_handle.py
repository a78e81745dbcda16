"""Handles, matrices and small conversions that every module uses."""
from __future__ import annotations

import ctypes
import os
import threading

import numpy as np

from . import _structs as s
from ._errors import InvalidArgument
from ._library import lib
from ._structs import integer

F32, F16, BF16, F64, U8 = 1, 2, 3, 4, 5

_counting = threading.RLock()  # a collection while it is held may close handles


class Handle:
    """Owns one opaque pointer of the library: closed by close(), by `with`, or when collected."""

    _free = ""  # name of the function that frees it
    _pointer: int | None = None
    _owner: Handle | None = None  # what a borrowed pointer belongs to
    _calls = 0  # of call() that use it now

    def __init__(self, pointer: int | None):
        self._pointer = pointer

    @property
    def handle(self) -> int:
        """The pointer, for calls of the library; ValueError once closed."""
        if not self._pointer:
            raise ValueError(f"{type(self).__name__} is closed")
        if self._owner is not None and not self._owner._pointer:
            raise ValueError(f"{type(self).__name__} is closed: its {type(self._owner).__name__} is")
        return self._pointer

    def close(self) -> None:
        """Gives the library's memory back. Closing twice is fine; ValueError from a callback of a call that uses it."""
        with _counting:
            if self._calls:
                raise ValueError(f"{type(self).__name__} is in use: it cannot be closed before the call has returned")
            pointer, self._pointer = self._pointer, None
            owner, self._owner = self._owner, None
        if pointer and owner is None:
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

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled")


def call(function, *arguments):
    """Calls a function that may call back, with the pointers of Handles; none of them can be closed before it returns."""
    used = [h for a in arguments if isinstance(a, Handle) for h in (a, a._owner) if h is not None]
    with _counting:
        for handle in used:
            handle._calls += 1
    try:
        return function(*[a.handle if isinstance(a, Handle) else a for a in arguments])
    finally:
        with _counting:
            for handle in used:
                handle._calls -= 1


def expect(value, kind: type, name: str, optional: bool = False):
    """The Handle a caller gave, which another kind of handle, or a plain number, must not pass for."""
    if not (isinstance(value, kind) or optional and value is None):
        raise TypeError(f"{name} is a {type(value).__name__}; a {kind.__name__} is expected")
    return value


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
    if writable and not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; an array is expected, since it is written in place")
    array = np.asarray(array)
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise ValueError(f"{name} has {array.ndim} dimensions; a matrix has 2")
    if array.size == 0:
        raise InvalidArgument(f"{name} has no {'columns' if array.shape[0] else 'rows'}")
    size = array.dtype.itemsize
    fits = array.strides[1] == size and array.strides[0] >= array.shape[1] * size and array.strides[0] % size == 0
    if array.shape[0] == 1:
        fits = array.strides[1] == size
    if writable:
        if not array.dtype.isnative:
            raise ValueError(f"{name} must be in native byte order, since it is written in place")
        if not fits or not array.flags.aligned:
            raise ValueError(f"{name} must have contiguous, aligned rows, since it is written in place")
        if not array.flags.writeable:
            raise ValueError(f"{name} is read-only")
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    elif not fits or not array.flags.aligned:
        array = array.copy(order="C")
    stride = array.strides[0] // size if array.shape[0] > 1 else array.shape[1]
    m = s.Matrix(dtype=element_type(array), rows=array.shape[0], cols=array.shape[1], row_stride=stride,
                 data=array.ctypes.data)
    return ctypes.byref(m), (m, array)


def c_string(value: str | bytes, name: str) -> bytes:
    """UTF-8 for a parameter that ends at its first NUL, of which the value may have none."""
    data = value.encode() if isinstance(value, str) else value
    if b"\0" in data:
        raise ValueError(f"{name} {value!r} has an embedded NUL")
    return data


def path_bytes(path: str | os.PathLike) -> bytes:
    return c_string(os.fsencode(path), "path")


def integers(values, dtype, name: str) -> np.ndarray:
    """An array of whole numbers in the type. TypeError for others, InvalidArgument for those that do not fit it."""
    array = np.asarray(values)
    if array.dtype == object:
        for value in array.flat:
            integer(value, name)
    elif array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} are {array.dtype.name}; integers are expected")
    if array.size and not np.can_cast(array.dtype, dtype):
        low, high, limits = int(array.min()), int(array.max()), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise InvalidArgument(f"{name} go from {low} to {high}, expected {limits.min} to {limits.max}")
    return array.astype(dtype, copy=False)


def ids_array(ids) -> tuple[np.ndarray, "ctypes._Pointer"]:
    """Token ids as int32, and the pointer to them."""
    array = np.ascontiguousarray(integers(ids, np.int32, "token ids"))
    if array.ndim != 1:
        raise ValueError(f"token ids have {array.ndim} dimensions; expected 1")
    return array, array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def switch(value: bool | None) -> int:
    """ganq_switch: None default, False off, True on."""
    return 0 if value is None else 2 if value else 1


def text(value: bytes | None) -> str:
    return value.decode("utf-8", "replace") if value else ""
