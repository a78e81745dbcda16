"""One quantized linear layer: Hessian, solver, storage, product."""
from __future__ import annotations

import ctypes
import dataclasses
import os

import numpy as np

from . import _structs as s
from ._errors import InvalidArgument
from ._handle import F16, F32, Handle, c_string, expect, integer, integers, matrix, path_bytes, text
from ._library import lib
from .context import Context

RECIPES = {"default": 0, "rtn": 1, "paper": 2, "fast": 3, "best": 4}
_STEPS = {1: "start", 2: "assign", 3: "tables", 4: "descent", 5: "round", 6: "outliers"}
_COSTS = {1: "prepare", 2: "starts", 3: "assign", 4: "tables", 5: "descent", 6: "finish"}
_LUT_DTYPES = {None: 0, "f16": F16, "f32": F32}


class Hessian(Handle):
    """H = X^T X [K,K] over calibration activations X [tokens, K]."""

    _free = "ganq_hessian_free"

    def __init__(self, ctx: Context, K: int):
        """H = 0, no tokens."""
        super().__init__(ctx.create(lib.ganq_hessian_create, ctx, integer(K, "K")))
        self._ctx = ctx

    @classmethod
    def _wrap(cls, ctx: Context, pointer: int) -> "Hessian":
        self = cls.__new__(cls)
        Handle.__init__(self, pointer)
        self._ctx = ctx
        return self

    @classmethod
    def from_matrix(cls, ctx: Context, H: np.ndarray, tokens: int = 0) -> "Hessian":
        """A caller's own symmetric H [K,K], float32 or float64. NumericError for NaN, InvalidArgument if not symmetric."""
        reference, alive = matrix(H, "H")
        pointer = ctx.create(lib.ganq_hessian_import, ctx, reference, integer(tokens, "tokens"))
        del alive
        return cls._wrap(ctx, pointer)

    @classmethod
    def load(cls, ctx: Context, path: str | os.PathLike) -> "Hessian":
        return cls._wrap(ctx, ctx.create(lib.ganq_hessian_load, ctx, path_bytes(path)))

    def add(self, x: np.ndarray) -> None:
        """H += x^T x for x [M,K]. NumericError, H unchanged, if x has a NaN or infinity."""
        reference, alive = matrix(x, "x")
        self._ctx.call(lib.ganq_hessian_add, self._ctx, self, reference)
        del alive

    def merge(self, other: "Hessian") -> None:
        """H += other's H, tokens too."""
        lib.ganq_hessian_merge(self.handle, expect(other, Hessian, "other").handle)

    def save(self, path: str | os.PathLike) -> None:
        """A safetensors file, written atomically."""
        lib.ganq_hessian_save(self.handle, path_bytes(path))

    def to_numpy(self, dtype=np.float32) -> np.ndarray:
        """A copy of H [K,K] in float32 or float64."""
        out = np.empty((self.dim, self.dim), dtype)
        reference, alive = matrix(out, "H", writable=True)
        lib.ganq_hessian_export(self.handle, reference)
        del alive
        return out

    @property
    def dim(self) -> int:
        """K."""
        return lib.ganq_hessian_dim(self.handle)

    @property
    def tokens(self) -> int:
        return lib.ganq_hessian_tokens(self.handle)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the solver; `error` is the sum over rows of (w-w~) H (w-w~)^T after it."""

    kind: str
    iteration: int
    error: float


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """How a layer was made; see ganq_layer_report."""

    recipe: str
    error: float
    norm: float
    seconds: float
    damping: float
    tokens: int
    steps: list[Step]
    note: str
    seconds_by_stage: dict[str, float]  # of all threads together

    @property
    def E(self) -> float:
        """Relative error: error / norm."""
        return self.error / self.norm if self.norm else 0.0


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """Shape and size; see ganq_layer_info."""

    bits: int
    N: int
    K: int
    outliers: int
    lut_dtype: str
    has_bias: bool
    stored_bytes: int
    resident_bytes: int
    bits_per_weight: float


def quantize_options(bits: int = 4, recipe: str = "default", iterations: int = 0, damping: float = 0.0,
                     outlier_ratio: float = 0.0, lut_dtype: str | None = None) -> s.QuantizeOptions:
    """ganq_quantize_options; see Layer.quantize for the arguments."""
    if recipe not in RECIPES:
        raise ValueError(f'recipe "{recipe}": expected one of {", ".join(RECIPES)}')
    if lut_dtype not in _LUT_DTYPES:
        raise ValueError(f'lut_dtype "{lut_dtype}": expected f16 or f32')
    options = s.QuantizeOptions()
    lib.ganq_quantize_options_init(options, ctypes.sizeof(options))
    options.bits, options.recipe, options.iterations = bits, RECIPES[recipe], iterations
    options.damping, options.outlier_ratio, options.lut_dtype = damping, outlier_ratio, _LUT_DTYPES[lut_dtype]
    return options


def _outlier_pointers(outliers, N: int) -> list["ctypes._Pointer"]:
    """rowptr, cols and vals for N rows, checked as far as to stay inside the arrays."""
    if len(outliers) != 3:
        raise ValueError(f"outliers: {len(outliers)} arrays, expected rowptr, cols and vals")
    rowptr = np.ascontiguousarray(integers(outliers[0], np.int32, "outliers: rowptr"))
    cols = np.ascontiguousarray(integers(outliers[1], np.int32, "outliers: cols"))
    vals = np.ascontiguousarray(np.asarray(outliers[2]).astype(np.float32, casting="same_kind", copy=False))
    if rowptr.shape != (N + 1,):
        raise ValueError(f"outliers: rowptr has shape {rowptr.shape}, expected ({N + 1},)")
    if rowptr[0] != 0 or (rowptr[1:] < rowptr[:-1]).any():
        raise InvalidArgument("outliers: rowptr must begin with 0 and not fall")
    if not cols.shape == vals.shape == (rowptr[-1],):
        raise ValueError(f"outliers: rowptr ends with {rowptr[-1]}, cols and vals have shapes {cols.shape} and {vals.shape}")
    kinds = (ctypes.c_int32, ctypes.c_int32, ctypes.c_float)
    return [a.ctypes.data_as(ctypes.POINTER(k)) for a, k in zip((rowptr, cols, vals), kinds)]


class Layer(Handle):
    """W~[n,k] = lut[n, code[n,k]] (+ outliers). Immutable; made by quantize, from_codes, load, or borrowed from a Model."""

    _free = "ganq_layer_free"

    def __init__(self, ctx: Context, pointer: int, owner=None):
        """For the class's own constructors; `owner` has a borrowed pointer, and is kept alive."""
        super().__init__(pointer)
        self._ctx, self._owner = ctx, owner

    @classmethod
    def quantize(cls, ctx: Context, weight: np.ndarray, hessian: Hessian | None = None, bias: np.ndarray | None = None,
                 row_weights: np.ndarray | None = None, **options) -> "Layer":
        """Codes and tables for weight [N,K] that minimize (w-w~) H (w-w~)^T per row.

        hessian None means H = I; bias [N] is kept with the layer. Options: bits (2, 3, 4), recipe ("default", "rtn", "paper",
        "fast", "best"), iterations, damping (fraction of the mean diagonal; negative: none; default: the recipe's, and
        more for an H of few tokens), outlier_ratio (0..0.1),
        lut_dtype ("f16", "f32"). row_weights [N] >= 0: how much each row counts in the report's error and norm (and in the
        choice of the paper's best iterate); other codes do not depend on it. NumericError names row and column of a NaN;
        InvalidArgument for another K.
        """
        chosen = quantize_options(**options)
        w, w_alive = matrix(weight, "weight")
        b, b_alive = matrix(bias, "bias")
        _, r_alive = matrix(row_weights, "row_weights")
        if r_alive:
            chosen.row_weights = ctypes.pointer(r_alive[0])
        pointer = ctx.create(lib.ganq_layer_quantize, ctx, w, expect(hessian, Hessian, "hessian", optional=True), b, chosen)
        del w_alive, b_alive, r_alive
        return cls(ctx, pointer)

    @classmethod
    def from_codes(cls, ctx: Context, bits: int, codes: np.ndarray, lut: np.ndarray, bias: np.ndarray | None = None,
                   outliers: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None) -> "Layer":
        """A layer from codes [N,K] uint8 (each < 2**bits), lut [N,2**bits] and CSR outliers (rowptr [N+1], cols, vals)."""
        c, c_alive = matrix(integers(codes, np.uint8, "codes"), "codes")
        t, t_alive = matrix(lut, "lut")
        b, b_alive = matrix(bias, "bias")
        sparse = [None, None, None]
        if outliers is not None:
            sparse = _outlier_pointers(outliers, c_alive[1].shape[0])
        pointer = ctx.create(lib.ganq_layer_import, ctx, integer(bits, "bits", ctypes.c_int32), c, t, b, *sparse)
        del c_alive, t_alive, b_alive
        return cls(ctx, pointer)

    @classmethod
    def load(cls, ctx: Context, path: str | os.PathLike, name: str | None = None) -> "Layer":
        """A layer from a safetensors file; name None: the only one in it."""
        return cls(ctx, ctx.create(lib.ganq_layer_load, ctx, path_bytes(path), c_string(name, "name") if name else None))

    def save(self, path: str | os.PathLike, name: str) -> None:
        """Writes <name>.qweight, .lut, ... atomically."""
        lib.ganq_layer_save(self.handle, path_bytes(path), c_string(name, "name"))

    def matmul(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Y [M,N] = x [M,K] @ W~.T (+ bias). out: where to write (float32, float16 or bfloat16); default: as x's type."""
        vector = np.ndim(x) == 1
        a, a_alive = matrix(x, "x")
        if out is None:
            array = a_alive[1]
            out = np.empty((array.shape[0], self.info().N), array.dtype)
        y, y_alive = matrix(out, "out", writable=True)
        self._ctx.call(lib.ganq_lut_gemm, self._ctx, self, a, y)
        del a_alive, y_alive
        return out[0] if vector and out.ndim == 2 else out

    def dequantize(self, dtype=np.float32) -> np.ndarray:
        """W~ [N,K] in float32 or float16."""
        info = self.info()
        out = np.empty((info.N, info.K), dtype)
        reference, alive = matrix(out, "out", writable=True)
        self._ctx.call(lib.ganq_layer_dequantize, self._ctx, self, reference)
        del alive
        return out

    def codes_and_lut(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the codes [N,K] uint8 and the tables [N,2**bits] float32."""
        info = self.info()
        codes = np.empty((info.N, info.K), np.uint8)
        lut = np.empty((info.N, 1 << info.bits), np.float32)
        c, c_alive = matrix(codes, "codes", writable=True)
        t, t_alive = matrix(lut, "lut", writable=True)
        lib.ganq_layer_export(self.handle, c, t)
        del c_alive, t_alive
        return codes, lut

    def objective(self, weight: np.ndarray, hessian: Hessian | None = None) -> tuple[float, float]:
        """(error, norm) in float64 for the layer as stored; E = error / norm."""
        w, alive = matrix(weight, "weight")
        error, norm = ctypes.c_double(), ctypes.c_double()
        self._ctx.call(lib.ganq_layer_objective, self._ctx, self, w, expect(hessian, Hessian, "hessian", optional=True),
                       error, norm)
        del alive
        return error.value, norm.value

    def report(self) -> LayerReport:
        r = s.LayerReport()
        lib.ganq_layer_get_report(self.handle, r)
        names = {number: name for name, number in RECIPES.items()}
        steps = [Step(_STEPS.get(r.steps[i].kind, str(r.steps[i].kind)), r.steps[i].iteration, r.steps[i].error)
                 for i in range(r.step_count)]
        return LayerReport(names.get(r.recipe, str(r.recipe)), r.error, r.norm, r.seconds, r.damping, r.tokens, steps,
                           text(r.note), {_COSTS.get(c.stage, str(c.stage)): c.seconds for c in r.costs[:r.cost_count]})

    def info(self) -> LayerInfo:
        i = s.LayerInfo()
        lib.ganq_layer_get_info(self.handle, i)
        return LayerInfo(i.bits, i.rows, i.cols, i.outliers, {F16: "f16", F32: "f32"}.get(i.lut_dtype, str(i.lut_dtype)),
                         bool(i.has_bias), i.stored_bytes, i.resident_bytes, i.bits_per_weight)
