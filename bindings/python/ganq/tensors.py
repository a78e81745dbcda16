"""Looking into safetensors files: names, shapes, values, checksums."""
from __future__ import annotations

import dataclasses
import os
from typing import Iterator

import numpy as np

from . import _structs as s
from ._handle import Handle, c_string, create, matrix, path_bytes, text
from ._library import lib


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor as its file describes it; see ganq_tensor_info."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    has_crc: bool
    size_bytes: int


class Tensors(Handle):
    """A safetensors file, or all files of a checkpoint directory seen as one. Mapped, not read."""

    _free = "ganq_tensors_free"

    def __init__(self, path: str | os.PathLike):
        """NotFound, or FormatError when the header cannot be trusted."""
        super().__init__(create(lib.ganq_tensors_open, path_bytes(path)))

    def __len__(self) -> int:
        return lib.ganq_tensors_count(self.handle)

    def __contains__(self, name: str) -> bool:
        return lib.ganq_tensors_find(self.handle, c_string(name, "name")) >= 0

    def __iter__(self) -> Iterator[str]:
        return (self._info(i).name for i in range(len(self)))

    def _index(self, name: str) -> int:
        i = lib.ganq_tensors_find(self.handle, c_string(name, "name"))
        if i < 0:
            raise KeyError(name)
        return i

    def _info(self, i: int) -> TensorInfo:
        info = s.TensorInfo()
        lib.ganq_tensors_get(self.handle, i, info)
        return TensorInfo(text(info.name), text(info.dtype_name), tuple(info.shape[: info.rank]), text(info.file),
                          bool(info.has_crc), info.size_bytes)

    def info(self, name: str) -> TensorInfo:
        """KeyError when there is no such tensor."""
        return self._info(self._index(name))

    def metadata(self, key: str) -> str | None:
        """A value of __metadata__, or None."""
        value = lib.ganq_tensors_meta(self.handle, c_string(key, "key"))
        return None if value is None else text(value)

    def read(self, name: str, rows: slice = slice(None), dtype=np.float32) -> np.ndarray:
        """A float matrix [rows, cols], or a vector [cols], as float32 or float64; `rows` selects a run of a matrix's rows."""
        i = self._index(name)
        shape = self._info(i).shape
        if len(shape) not in (1, 2):
            raise ValueError(f"{name} has shape {shape}; a matrix or a vector can be read")
        count, cols = (1, shape[0]) if len(shape) == 1 else shape
        first, last, step = rows.indices(count)
        if step != 1 or last <= first:
            raise ValueError(f"rows {rows} of {count}: a non-empty run of rows can be read")
        out = np.empty((last - first, cols), dtype)
        reference, alive = matrix(out, "out", writable=True)
        lib.ganq_tensors_read(self.handle, i, first, reference)
        del alive
        return out[0] if len(shape) == 1 else out

    def verify(self, name: str) -> None:
        """FormatError when the bytes do not match the CRC-32 in the file."""
        lib.ganq_tensors_verify(self.handle, self._index(name))
