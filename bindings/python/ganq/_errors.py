"""Status codes as exceptions."""


class Error(Exception):
    """A call of the library failed; str() is its message, `status` its code (ganq_status)."""

    status = 0


class InvalidArgument(Error, ValueError):
    status = 1


class OutOfMemory(Error, MemoryError):
    status = 2


class IOFailure(Error, OSError):
    status = 3


class FormatError(Error, ValueError):
    status = 4


class Unsupported(Error, NotImplementedError):
    status = 5


class NumericError(Error, ArithmeticError):
    status = 6


class Canceled(Error):
    status = 7


class NoDevice(Error):
    status = 8


class DeviceError(Error):
    status = 9


class NotFound(Error, FileNotFoundError):
    status = 10


class Exists(Error, FileExistsError):
    status = 11


class InternalError(Error):
    status = 12


ERRORS = {e.status: e for e in (InvalidArgument, OutOfMemory, IOFailure, FormatError, Unsupported, NumericError, Canceled,
                                NoDevice, DeviceError, NotFound, Exists, InternalError)}
