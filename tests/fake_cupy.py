"""A stand-in for CuPy over the emulator's driver library, as far as dlcore calls CuPy.

As with CuPy, NumPy cannot see into its arrays, its functions take no NumPy arrays, and sums are arrays too.
"""

import contextlib
import ctypes
import types

import numpy as np

from dlcore.sim import engine


class ndarray:  # noqa: N801
    """An array in the emulator's device memory."""

    def __init__(self, host):
        self._host = host

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._host.__array_interface__["data"][0])

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc, method, *inputs, **attrs):
        return Function(getattr(ufunc, method))(*inputs, **attrs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return on_device(getattr(self._host, name))


def operator(name):
    return lambda self, *operands: on_device(getattr(self._host, name)(*map(on_host, operands)))


TWO_SIDED = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "rshift", "lshift"]
COMPARED = ["lt", "le", "eq", "ne", "gt", "ge"]
OTHERS = ["getitem", "setitem", "len", "bool", "int", "float", "index", "neg", "pos", "abs", "invert", "iadd", "isub"]
for name in (f"__{n}__" for n in [*TWO_SIDED, *(f"r{n}" for n in TWO_SIDED), *COMPARED, *OTHERS]):
    setattr(ndarray, name, operator(name))


def on_host(value):
    """What NumPy takes for an operand."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (tuple, list)):
        return type(value)(map(on_host, value))
    return value._host if isinstance(value, ndarray) else value


def on_device(value):
    """What CuPy gives for a result of NumPy's."""
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(on_device, value))
    return Function(value) if callable(value) and not isinstance(value, type) else value


class Function:
    """A function of NumPy's on arrays of this module."""

    def __init__(self, run):
        self._run = run

    def __call__(self, *operands, **attrs):
        attrs = {name: on_host(value) for name, value in attrs.items()}
        return on_device(self._run(*map(on_host, operands), **attrs))

    def __getattr__(self, name):
        return on_device(getattr(self._run, name))


class Stream:
    current: list["Stream"]

    def __init__(self, *, non_blocking=False, null=False):
        handle = ctypes.c_void_p()
        if not null:
            engine.check(engine.library().cuStreamCreate(ctypes.byref(handle), int(non_blocking)))
        self.ptr = handle.value or 0

    def synchronize(self):
        engine.check(engine.library().cuStreamSynchronize(ctypes.c_void_p(self.ptr)))

    def __enter__(self):
        Stream.current.append(self)
        return self

    def __exit__(self, *_):
        Stream.current.remove(self)


class CUDARuntimeError(RuntimeError):
    pass


class MemoryPool:
    """Keeps the memory of all arrays made while it is in use, as a pool does with what was freed."""

    used: "MemoryPool | None" = None

    def __init__(self):
        self.kept = []

    def malloc(self, size):
        raise AssertionError("the emulator allocates elsewhere")


@contextlib.contextmanager
def using_allocator(malloc):
    MemoryPool.used = malloc.__self__
    try:
        yield
    finally:
        MemoryPool.used = None


def empty(shape, dtype=np.float64):
    host = engine.empty(shape, dtype)
    if MemoryPool.used:
        MemoryPool.used.kept.append(host)
    return ndarray(host)


def placed(values, dtype=None, *, copy=None):
    if isinstance(values, ndarray):
        return ndarray(np.asarray(values._host, dtype, copy=copy))
    host = np.asarray(values, dtype)
    device = empty(host.shape, host.dtype)
    device._host[...] = host
    return device


def full(shape, value, dtype=None):
    return placed(np.full(shape, value, dtype))


def module(version="14.2.0"):
    """The module `cupy`."""
    Stream.current = [Stream(null=True)]
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, CUDARuntimeError=CUDARuntimeError)
    cupy = types.ModuleType("cupy")
    cupy.__dict__.update(
        __version__=version,
        __getattr__=lambda name: on_device(getattr(np, name)),
        ndarray=ndarray,
        empty=empty,
        full=full,
        asarray=placed,
        asnumpy=lambda array: array._host.copy(),
        cuda=types.SimpleNamespace(
            runtime=runtime,
            get_current_stream=lambda: Stream.current[-1],
            Stream=Stream,
            MemoryPool=MemoryPool,
            using_allocator=using_allocator,
        ),
    )
    return cupy
