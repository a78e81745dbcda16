"""Whole models: load, quantize, save, export."""
from __future__ import annotations

import ctypes
import dataclasses
import os

from . import _structs as s
from ._handle import BF16, F16, F32, Handle, c_string, expect, integer, path_bytes, switch, text
from ._library import lib
from .context import Context
from .layer import Layer, quantize_options
from .text import Corpus

_DTYPES = {"f32": F32, "f16": F16, "bf16": BF16}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Shape and size; see ganq_model_info."""

    layers: int
    architecture: str
    hidden_size: int
    vocab_size: int
    max_positions: int
    parameters: int
    linears: int
    linears_quantized: int
    stored_bytes: int
    linear_bytes: int
    bits_per_weight: float
    bos: int
    eos: list[int]


@dataclasses.dataclass(frozen=True)
class LinearInfo:
    """One linear inside a block; bits 0: dense. E = error / norm where the layer was made by this handle."""

    name: str
    bits: int
    N: int
    K: int
    bits_per_weight: float
    error: float
    norm: float
    seconds: float
    tokens: int


@dataclasses.dataclass(frozen=True)
class QuantizePlan:
    """What Model.quantize would do; see ganq_quantize_plan. `linear_bytes` has one number per linear of the blocks: its bytes
    afterwards, 0 where it stays dense."""

    linears: int
    skipped: int
    weights: int
    bytes_before: int
    bytes_after: int
    bits_per_weight: float
    memory_bytes: int
    activation_bytes: int
    linear_bytes: list[int]


def _model_quantize_options(propagate: bool | None, skip: str | None, target_bits: float, compensation: float | None,
                            options: dict) -> s.ModelQuantizeOptions:
    layer = quantize_options(**options)
    return s.ModelQuantizeOptions(propagate=switch(propagate), layer=ctypes.pointer(layer),
                                  skip=c_string(skip, "skip") if skip else None, target_bits=target_bits,
                                  compensation=0 if compensation is None else -1 if compensation <= 0 else compensation)


class Model(Handle):
    """Weights of a decoder-only language model, dense or quantized. Immutable."""

    _free = "ganq_model_free"

    def __init__(self, ctx: Context, pointer: int):
        """For the class's own constructors: use Model.load."""
        super().__init__(pointer)
        self._ctx = ctx

    @classmethod
    def load(cls, ctx: Context, path: str | os.PathLike, verify: bool | None = None) -> "Model":
        """A Hugging Face directory, dense or written by save(). verify: check the CRC of dense tensors, too."""
        options = s.ModelOptions(verify=switch(verify))
        return cls(ctx, ctx.create(lib.ganq_model_load, ctx, path_bytes(path), options))

    @classmethod
    def random(cls, ctx: Context, path: str | os.PathLike, bits: int = 4, seed: int = 0) -> "Model":
        """Random weights in the shape of path/config.json, made in memory: for measuring speed."""
        options = s.RandomOptions(bits=bits, seed=seed)
        return cls(ctx, ctx.create(lib.ganq_model_random, ctx, path_bytes(path), options))

    def quantize(self, calibration: Corpus | None = None, propagate: bool | None = None, skip: str | None = None,
                 target_bits: float = 0, compensation: float | None = None, **options) -> "Model":
        """A new model with the linears of its blocks quantized; this one is unchanged.

        propagate (default True): each block sees inputs that went through the quantized blocks before it. skip: regular
        expression of linears that stay dense. target_bits (2 to 4, in the place of `bits`): each linear gets the bits that
        serve the model best, in the bytes of target_bits everywhere; 0: no mixing. compensation: with propagate, the part, up
        to 1, of what a linear's inputs lost that its target makes up for; 0: none; None: the library's default. Other options
        as for Layer.quantize. calibration may be None for recipe "rtn".
        """
        chosen = _model_quantize_options(propagate, skip, target_bits, compensation, options)
        return Model(self._ctx, self._ctx.create(lib.ganq_model_quantize, self._ctx, self,
                                                 expect(calibration, Corpus, "calibration", optional=True), chosen))

    def plan(self, calibration: Corpus | None = None, propagate: bool | None = None, skip: str | None = None,
             target_bits: float = 0, compensation: float | None = None, **options) -> QuantizePlan:
        """What quantize would do with the same arguments, without doing it."""
        chosen = _model_quantize_options(propagate, skip, target_bits, compensation, options)
        plan = s.QuantizePlan()
        sizes = (ctypes.c_int64 * self.info().linears)()
        self._ctx.call(lib.ganq_model_plan, self._ctx, self, expect(calibration, Corpus, "calibration", optional=True),
                       chosen, plan, sizes)
        return QuantizePlan(plan.linears, plan.skipped, plan.weights, plan.bytes_before, plan.bytes_after,
                            plan.bits_per_weight, plan.memory_bytes, plan.activation_bytes, list(sizes))

    def save(self, path: str | os.PathLike, force: bool | None = None, shard_bytes: int = 0,
             calibration: str | None = None) -> None:
        """Writes the native directory. Exists if it is there, not empty, and force is not True (which replaces a model's
        directory, and nothing else)."""
        options = s.SaveOptions(force=switch(force), shard_bytes=shard_bytes,
                                calibration=c_string(calibration, "calibration") if calibration else None)
        self._ctx.call(lib.ganq_model_save, self._ctx, self, path_bytes(path), options)

    def export_dense(self, path: str | os.PathLike, dtype: str = "f16", force: bool | None = None,
                     shard_bytes: int = 0) -> None:
        """Writes a dense Hugging Face directory; dtype "f32", "f16" or "bf16"."""
        if dtype not in _DTYPES:
            raise ValueError(f'dtype "{dtype}": expected one of {", ".join(_DTYPES)}')
        options = s.SaveOptions(force=switch(force), shard_bytes=shard_bytes)
        self._ctx.call(lib.ganq_model_export_dense, self._ctx, self, path_bytes(path), _DTYPES[dtype], options)

    def info(self) -> ModelInfo:
        i = s.ModelInfo()
        lib.ganq_model_get_info(self.handle, i)
        return ModelInfo(i.layers, text(i.architecture), i.hidden_size, i.vocab_size, i.max_positions, i.parameters,
                         i.linears, i.linears_quantized, i.stored_bytes, i.linear_bytes, i.bits_per_weight, i.bos,
                         [i.eos[k] for k in range(i.eos_count)])

    def linear(self, i: int) -> LinearInfo:
        """Linear i, in order of execution."""
        info = s.LinearInfo()
        lib.ganq_model_get_linear(self.handle, integer(i, "i"), info)
        return LinearInfo(text(info.name), info.bits, info.rows, info.cols, info.bits_per_weight, info.error, info.norm,
                          info.seconds, info.tokens)

    def linears(self) -> list[LinearInfo]:
        return [self.linear(i) for i in range(self.info().linears)]

    def layer(self, i: int) -> Layer | None:
        """The quantized layer of linear i, or None while it is dense; usable until this Model is closed."""
        pointer = lib.ganq_model_layer(self.handle, integer(i, "i"))
        return Layer(self._ctx, pointer, owner=self) if pointer else None
