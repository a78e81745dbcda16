"""Running a model: logits, sampling, generation, perplexity."""
from __future__ import annotations

import ctypes
import dataclasses
from typing import Callable

import numpy as np

from . import _structs as s
from ._handle import Handle, expect, ids_array, integer
from ._library import lib
from .context import Context
from .model import Model
from .text import Corpus

_PROTOCOLS = {"gptq": 0, "document": 1}


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """See ganq_perplexity_result."""

    perplexity: float
    nll: float
    tokens: int
    sequences: int
    context: int
    protocol: str
    seconds: float


def perplexity(ctx: Context, model: Model, corpus: Corpus, protocol: str = "gptq", context: int = 0,
               max_tokens: int = 0) -> Perplexity:
    """Perplexity of a model over token sequences.

    protocol "gptq": sequences concatenated, non-overlapping windows of `context` tokens; "document": each sequence by itself,
    cut at `context`, until max_tokens predictions were made (0: all).
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(f'protocol "{protocol}": expected one of {", ".join(_PROTOCOLS)}')
    options = s.PerplexityOptions(protocol=_PROTOCOLS[protocol], context=context, max_tokens=max_tokens)
    result = s.PerplexityResult()
    ctx.call(lib.ganq_model_perplexity, ctx, expect(model, Model, "model"), expect(corpus, Corpus, "corpus"),
             options, result)
    return Perplexity(result.perplexity, result.nll, result.tokens, result.sequences, result.context, protocol,
                      result.seconds)


class Session(Handle):
    """One sequence: the tokens seen so far, as keys and values."""

    _free = "ganq_session_free"

    def __init__(self, ctx: Context, model: Model, max_context: int = 0):
        """max_context: tokens the cache holds; 0: the model's maximum, at most 4096."""
        super().__init__(ctx.create(lib.ganq_session_create, ctx, expect(model, Model, "model"),
                                    integer(max_context, "max_context")))
        self._ctx = ctx  # its callbacks
        self._vocab = model.info().vocab_size

    def prefill(self, ids) -> None:
        """Appends tokens at once. InvalidArgument for ids outside the vocabulary or a full cache."""
        array, pointer = ids_array(ids)
        self._ctx.call(lib.ganq_session_prefill, self, pointer, len(array))

    def prefill_logits(self, ids) -> np.ndarray:
        """The same, and the logits of every position: [count, vocab_size] float32."""
        array, pointer = ids_array(ids)
        logits = np.empty((len(array), self._vocab), np.float32)
        self._ctx.call(lib.ganq_session_prefill_logits, self, pointer, len(array),
                       logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        return logits

    def step(self, token: int) -> None:
        """Appends one token."""
        self._ctx.call(lib.ganq_session_step, self, integer(token, "token", ctypes.c_int32))

    @property
    def logits(self) -> np.ndarray:
        """A copy of the logits [vocab_size] after the last token; ValueError where there are none: before the first token,
        after truncating, and when a device has failed (sample() then raises what failed)."""
        pointer = lib.ganq_session_logits(self.handle)
        if not pointer:
            raise ValueError("there are no logits: no token has been appended yet, or they were dropped")
        return np.ctypeslib.as_array(pointer, (self._vocab,)).copy()

    def __len__(self) -> int:
        """Tokens in the cache."""
        return lib.ganq_session_length(self.handle)

    def truncate(self, length: int = 0) -> None:
        """Forgets all but the first `length` tokens."""
        lib.ganq_session_truncate(self.handle, integer(length, "length"))

    def sample(self, temperature: float = 0.0, top_k: int = 0, top_p: float = 0.0, min_p: float = 0.0,
               seed: int = 0) -> int:
        """Draws the next token from the logits (temperature 0: greedy); does not append it."""
        sampling = s.Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
        token = ctypes.c_int32()
        self._ctx.call(lib.ganq_session_sample, self, sampling, token)
        return token.value

    def generate(self, max_tokens: int = 128, temperature: float = 0.0, top_k: int = 0, top_p: float = 0.0,
                 min_p: float = 0.0, seed: int = 0, stop: list[int] | None = None,
                 on_token: Callable[[int], object] | None = None) -> list[int]:
        """Generates after what the session holds; the new tokens, without the stop token.

        stop: token ids that end it (default: the model's end of sequence; []: none). on_token is called with each token;
        a true result ends generation.
        """
        tokens: list[int] = []
        raised: list[BaseException] = []

        def take(token, _user):
            tokens.append(token)
            try:
                return 1 if on_token is not None and on_token(token) else 0
            except BaseException as error:  # must not travel through C
                raised.append(error)
                return 1

        options = s.GenerateOptions(max_tokens=max_tokens)
        options.sampling = s.Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
        if stop is not None:
            array, pointer = ids_array(stop)
            options.stop, options.stop_count = pointer, len(array) or -1
        generated = ctypes.c_int64()
        self._ctx.call(lib.ganq_session_generate, self, options, s.TOKEN_FN(take), None, generated)
        if raised:
            raise raised[0]
        return tokens
