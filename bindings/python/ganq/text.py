"""Text to token ids and back; token sequences for calibration and evaluation."""
from __future__ import annotations

import ctypes
import operator
import os
from typing import Iterable, Iterator

import numpy as np

from . import _structs as s
from ._handle import Handle, c_string, create, expect, ids_array, integer, path_bytes
from ._library import lib

_BOS, _SPECIAL, _SKIP_SPECIAL = 1, 2, 1
_MODES = {"windows": 0, "documents": 1, "joined": 2}


class Tokenizer(Handle):
    """A tokenizer from a model directory, tokenizer.json, tokenizer.model, or vocab.json beside merges.txt."""

    _free = "ganq_tokenizer_free"

    def __init__(self, path: str | os.PathLike):
        super().__init__(create(lib.ganq_tokenizer_load, path_bytes(path)))

    def encode(self, text: str | bytes, bos: bool = False, special: bool = False) -> np.ndarray:
        """Token ids (int32). bos: begin as the tokenizer begins a text, which may be
        with BOS; special: names of special tokens in the text count as such."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(memoryview(text))
        ids, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        flags = (_BOS if bos else 0) | (_SPECIAL if special else 0)
        lib.ganq_tokenizer_encode(self.handle, data, len(data), flags, ctypes.byref(ids), ctypes.byref(count))
        try:
            return np.ctypeslib.as_array(ids, (count.value,)).copy() if count.value else np.empty(0, np.int32)
        finally:
            lib.ganq_free(ctypes.cast(ids, ctypes.c_void_p))

    def decode_bytes(self, ids, skip_special: bool = False) -> bytes:
        """The bytes that the ids stand for. InvalidArgument for an id outside the vocabulary."""
        array, pointer = ids_array(ids)
        data, length = ctypes.c_void_p(), ctypes.c_size_t()
        lib.ganq_tokenizer_decode(self.handle, pointer, len(array), _SKIP_SPECIAL if skip_special else 0,
                                  ctypes.byref(data), ctypes.byref(length))
        try:
            return ctypes.string_at(data, length.value)
        finally:
            lib.ganq_free(data)

    def decode(self, ids, skip_special: bool = False) -> str:
        """decode_bytes as text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special).decode("utf-8", "replace")

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary spells it, or None."""
        piece = lib.ganq_tokenizer_piece(self.handle, integer(token, "token", ctypes.c_int32))
        return None if piece is None else piece.decode("utf-8", "replace")

    def id(self, piece: str) -> int | None:
        """The id of a piece, or None."""
        token = lib.ganq_tokenizer_id(self.handle, c_string(piece, "piece"))
        return None if token < 0 else token

    @property
    def vocab_size(self) -> int:
        return lib.ganq_tokenizer_vocab_size(self.handle)

    @property
    def bos(self) -> int | None:
        token = lib.ganq_tokenizer_bos(self.handle)
        return None if token < 0 else token

    @property
    def eos(self) -> int | None:
        token = lib.ganq_tokenizer_eos(self.handle)
        return None if token < 0 else token


class Decoder(Handle):
    """Decodes token by token, handing out only complete characters."""

    _free = "ganq_decoder_free"

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True):
        super().__init__(create(lib.ganq_decoder_create, expect(tokenizer, Tokenizer, "tokenizer").handle,
                                _SKIP_SPECIAL if skip_special else 0))
        self._tokenizer = tokenizer

    def _text(self, function, *arguments) -> str:
        data, length = ctypes.c_void_p(), ctypes.c_size_t()
        function(self.handle, *arguments, ctypes.byref(data), ctypes.byref(length))
        return ctypes.string_at(data, length.value).decode("utf-8", "replace") if length.value else ""

    def push(self, token: int) -> str:
        """The text that became complete with this token; may be empty."""
        return self._text(lib.ganq_decoder_push, integer(token, "token", ctypes.c_int32))

    def flush(self) -> str:
        """What is left of an incomplete character."""
        return self._text(lib.ganq_decoder_flush)


class Corpus(Handle):
    """Sequences of token ids."""

    _free = "ganq_corpus_free"

    def __init__(self, sequences: Iterable = ()):
        """From sequences of token ids."""
        super().__init__(create(lib.ganq_corpus_create))
        for sequence in sequences:
            self.add(sequence)

    @classmethod
    def load(cls, tokenizer: Tokenizer | None, path: str | os.PathLike, mode: str = "windows", samples: int = 0,
             length: int = 0, skip: int = 0, seed: int = 0) -> "Corpus":
        """From a text file (plain, .jsonl, .json list, .ids, .gz of each).

        mode: "windows" (`samples` random windows of `length` tokens), "documents" (the first `samples`, each with BOS, cut at
        `length`; negative: all) or "joined" (one sequence). Defaults: 128 samples, 2048 tokens. `skip` drops documents at the
        beginning. InvalidArgument if the text is too short.
        """
        if mode not in _MODES:
            raise ValueError(f'mode "{mode}": expected one of {", ".join(_MODES)}')
        options = s.CorpusOptions(mode=_MODES[mode], samples=samples, length=length, skip=skip, seed=seed)
        used = expect(tokenizer, Tokenizer, "tokenizer", optional=True)
        self = cls.__new__(cls)
        Handle.__init__(self, create(lib.ganq_corpus_load, None if used is None else used.handle, path_bytes(path), options))
        return self

    def add(self, ids) -> None:
        array, pointer = ids_array(ids)
        lib.ganq_corpus_add(self.handle, pointer, len(array))

    @property
    def tokens(self) -> int:
        """Tokens in all sequences."""
        return lib.ganq_corpus_tokens(self.handle)

    def __len__(self) -> int:
        return lib.ganq_corpus_count(self.handle)

    def __getitem__(self, i: int) -> np.ndarray:
        """A copy of sequence i."""
        index = operator.index(i) + (len(self) if i < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {i} of {len(self)}")
        count = ctypes.c_size_t()
        ids = lib.ganq_corpus_get(self.handle, index, ctypes.byref(count))
        return np.ctypeslib.as_array(ids, (count.value,)).copy()

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))
