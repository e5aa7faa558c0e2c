"""Every error that dlcore raises on purpose. Each message is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class DlcoreError(Exception):
    """Base class. `module_path` is filled in by `nn.Module` while the error travels up."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.module_path = ""
        self.module: object = None  # the outermost module that the error has left so far

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{self.module_path}: {message}" if self.module_path else message


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put the name of an op or a function before the message of an error raised inside the block."""
    try:
        yield
    except DlcoreError as error:
        error.args = (f"{name}: {error.args[0]}",)
        raise


class ShapeError(DlcoreError, ValueError):
    """Operand shapes do not fit an op's signature."""


class DTypeError(DlcoreError, TypeError):
    """An operand has a dtype, or is an object, that the op does not take."""


class ArgumentError(DlcoreError, ValueError):
    """An attribute or a data value is not legal (a negative stride, a NaN target)."""


class IndexRangeError(DlcoreError, IndexError):
    """An index, axis or label lies outside its range."""


class DeviceError(DlcoreError, RuntimeError):
    """Operands live on different devices, or an array cannot go where it was sent."""


class BackendError(DlcoreError, RuntimeError):
    """A backend or one of its kernels is not available here."""


class KernelError(DlcoreError, RuntimeError):
    """A kernel failed while it was compiled, launched or run."""


class GraphError(DlcoreError, RuntimeError):
    """The autograd graph does not allow what was asked (freed, overwritten, not recorded)."""


class SettingError(DlcoreError, ValueError):
    """A `DLCORE_*` environment variable has an unknown name or a bad value."""


class DataError(DlcoreError, ValueError):
    """A data set or a file is missing, truncated or malformed."""


class TrainingError(DlcoreError, RuntimeError):
    """Training cannot go on (the loss is not finite)."""
