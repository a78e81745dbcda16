"""Where work runs: device, threads, messages, progress and cancellation."""
from __future__ import annotations

import ctypes
import dataclasses
from typing import Callable

from . import _structs as s
from ._errors import Error
from ._handle import Handle, call, text
from ._library import lib

_DEVICES = {"auto": 0, "cpu": 1, "cuda": 2}
_NUMERICS = {"default": 0, "fast": 1, "exact": 2}
_STAGES = {1: "load", 2: "calibrate", 3: "quantize", 4: "save", 5: "evaluate"}
_LEVELS = {1: "error", 2: "warning", 3: "info", 4: "debug"}


def version() -> str:
    """Version of the library that was loaded, e.g. "0.1.0"."""
    return text(lib.ganq_version())


def abi_version() -> int:
    """ABI version of the library that was loaded."""
    return lib.ganq_abi_version()


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is being done: see ganq_progress. `error` is a layer's relative error E when it has just been finished, else -1;
    `seconds_left` is negative while unknown."""

    stage: str
    name: str
    done: int
    total: int
    fraction: float
    seconds: float
    seconds_left: float
    error: float


class Context(Handle):
    """A device, a thread pool and callbacks; used by one thread at a time.

    device    "auto", "cpu", "cuda" or "cuda:1"
    threads   CPU threads, caller included; 0: the CPUs this process may use. Results do not depend on it
    numerics  "fast" or "exact" arithmetic of products with quantized layers; "default": what $GANQ_NUMERICS says, else fast
    log       called with (level, message), level one of "error", "warning", "info", "debug"
    progress  called with a Progress; returning a true value, or raising, cancels the call
    """

    _free = "ganq_context_free"

    def __init__(self, device: str = "auto", threads: int = 0, numerics: str = "default", log_level: str = "warning",
                 memory_budget_bytes: int = 0, log: Callable[[str, str], None] | None = None,
                 progress: Callable[[Progress], object] | None = None):
        super().__init__(None)
        kind, _, index = device.partition(":")
        if kind not in _DEVICES:
            raise ValueError(f'device "{device}": expected auto, cpu, cuda or cuda:I')
        if numerics not in _NUMERICS:
            raise ValueError(f'numerics "{numerics}": expected default, fast or exact')
        levels = {name: level for level, name in _LEVELS.items()}
        if log_level not in levels:
            raise ValueError(f'log_level "{log_level}": expected one of {", ".join(levels)}')
        self._raised: BaseException | None = None
        options = s.ContextOptions(device=_DEVICES[kind], device_index=int(index or 0), threads=threads,
                                   numerics=_NUMERICS[numerics], log_level=levels[log_level],
                                   memory_budget_bytes=memory_budget_bytes)
        if log is not None:
            def on_log(level, message, _user):
                try:
                    log(_LEVELS.get(level, str(level)), text(message))
                except BaseException as error:  # must not travel through C
                    self._raised = self._raised or error
            self._log = options.log = s.LOG_FN(on_log)
        if progress is not None:
            def on_progress(told, _user):
                p = told.contents
                try:
                    return 1 if progress(Progress(_STAGES.get(p.stage, str(p.stage)), text(p.name), p.done, p.total,
                                                  p.fraction, p.seconds, p.seconds_left, p.error)) else 0
                except BaseException as error:
                    self._raised = self._raised or error
                    return 1
            self._progress = options.progress = s.PROGRESS_FN(on_progress)
        self._pointer = self.create(lib.ganq_context_create, options)

    def call(self, function, *arguments):
        """Calls a function of the library, Handles given for their pointers; raises what a callback raised on the way."""
        outer, self._raised = self._raised, None  # not None: called from a callback
        try:
            result = call(function, *arguments)
        except Error:
            if self._raised is not None:
                raise self._raised
            raise
        finally:
            raised, self._raised = self._raised, outer
        if raised is not None:
            raise raised
        return result

    def create(self, function, *arguments) -> int:
        """The same for functions ganq_<noun>_<verb> whose last parameter is `T **out`; the pointer."""
        out = ctypes.c_void_p()
        try:
            self.call(function, *arguments, ctypes.byref(out))
        except BaseException:
            if out:
                getattr(lib, function.__name__.rpartition("_")[0] + "_free")(out)
            raise
        return out.value

    @property
    def device_name(self) -> str:
        """For example "cpu (avx2, 2 threads)"."""
        return text(lib.ganq_context_device_name(self.handle))

    @property
    def threads(self) -> int:
        return lib.ganq_context_threads(self.handle)

    @property
    def numerics(self) -> str:
        """ "fast" or "exact": what the products are computed in."""
        return {number: name for name, number in _NUMERICS.items()}[lib.ganq_context_numerics(self.handle)]
