"""The choke point: every op passes `apply`, which checks it once, picks an implementation and records the tape.

What was found for one combination of op, shapes, dtypes and attributes is kept as a `Plan`, so that the second call
costs two dictionary look-ups.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dlcore import autograd, dtypes, recording, settings
from dlcore import tensor as tensor_module
from dlcore.autograd import mode, record
from dlcore.errors import BackendError, DeviceError, DlcoreError, DTypeError, KernelError, ShapeError
from dlcore.op import Op
from dlcore.signature import Dims, Shape
from dlcore.tensor import Meta, Tensor

Array = Any
MAX_PLANS = 20_000


class Backend:
    """What a device is to the rest of dlcore. One subclass per file in `dlcore/backends/`."""

    name: str
    kernels: str  # key of its implementations: `sim` runs those of `cuda`
    array_type: Any

    def __init__(self) -> None:
        self.plans: dict[Any, Plan] = {}

    def __repr__(self) -> str:
        return f"<dlcore backend {self.name}>"

    def asarray(self, data: Any, dtype: Any = None, copy: bool | None = None) -> Array:
        """Place host data on this device."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Bring an array to the host (no copy where it is there already)."""
        raise NotImplementedError

    def full(self, shape: Shape, value: Any, dtype: Any) -> Array:
        """A new array filled with one value."""
        raise NotImplementedError

    def cast(self, array: Array, dtype: Any) -> Array:
        """`array` (or a Python scalar) in `dtype`."""
        raise NotImplementedError

    def reference(self, op: Op) -> Callable[..., Any]:
        """`op.reference` bound to this device's array library."""
        raise NotImplementedError

    def fuse(self, lines: list[Any], values: list[Any], kept: list[int]) -> list[Any]:
        """The lines of a captured program (`dlcore.graph`) with fewer, faster ones in the place of some."""
        return lines

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""


@dataclass(frozen=True)
class Call:
    """What is known of a call before it runs; a variant's `refuse` decides on it."""

    op: Op
    shapes: tuple[Shape | None, ...]
    dtype: Any  # the promoted dtype of the operands
    dims: Dims
    attrs: Mapping[str, Any]
    backend: Backend


class Variant(NamedTuple):
    """One implementation of an op on one backend."""

    name: str
    fn: Callable[..., Any]
    refuse: Callable[[Call], str | None] | None = None
    numbers: bool = False  # takes Python floats as they are, beside an array of the promoted dtype
    checks: bool = False  # whether it reports the values that the op's record refuses


@dataclass(slots=True)
class Plan:
    """How calls of one kind run."""

    op: Op
    backend: Backend
    run: Callable[..., Any]
    variant: str
    casts: tuple[tuple[int, Any], ...]
    differentiable: tuple[bool, ...]
    operands: tuple[Meta | None, ...]
    outputs: tuple[Meta, ...]
    flows: tuple[bool, ...]  # per output: whether it can carry a gradient
    absent: tuple[None, ...]  # optional operands that were left out
    defaults: Mapping[str, Any]  # the op's attributes
    view: bool  # the outputs may share the memory of the first operand, a tensor
    dims: Dims
    unused: list[int]  # outputs that the vjp does not look at
    saves: dict[int, autograd.Saves]  # what the tape keeps, by which operands want a gradient


class Event(NamedTuple):
    """One executed op, as listeners see it."""

    op: Op
    backend: Backend
    plan: Plan
    operands: tuple[Any, ...]  # as the call gave them
    arrays: tuple[Array, ...]  # as the implementation got them
    attrs: Mapping[str, Any]
    outputs: tuple[Array, ...]
    seconds: float


_variants: dict[tuple[str, str], list[Variant]] = {}
_backends: dict[str, Backend] = {}
_listeners: list[Callable[[Event], None]] = []
_process_default: list[Backend] = []  # one entry once it is known


class _Blocks(threading.local):
    def __init__(self) -> None:
        self.stack: list[Backend] = []


_blocks = _Blocks()  # the `device` blocks that this thread is inside of


def implement(
    op: str,
    backend: str,
    variant: str = "native",
    refuse: Callable[[Call], str | None] | None = None,
    numbers: bool = False,
    checks: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: register `fn(*arrays, **attrs)` as an implementation; the latest registered is tried first.

    `refuse(call)` returns why this variant cannot take a call, or None. Operands arrive checked, on the device and in
    the promoted dtype, but with any strides; outputs must have the shapes and dtypes that the op's record says. With
    `numbers`, Python floats beside an array of that dtype arrive as they are, not as arrays. With `checks`, it reports
    values that the op's record refuses itself, perhaps later than it is called.
    """

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        _variants.setdefault((op, backend), []).insert(0, Variant(variant, fn, refuse, numbers, checks))
        return fn

    return register


def variants(op: str, backend: str) -> list[Variant]:
    """Implementations of an op on a backend, first choice first (the reference is not among them)."""
    return _variants.get((op, backend), [])


def get_backend(name: str) -> Backend:
    """The backend of that name, loaded at first use. Raises BackendError saying what is missing."""
    if name == "auto":
        return _best()
    if name not in _backends:
        if name not in settings.BACKENDS:
            raise BackendError(f"unknown backend {name!r}; expected one of {', '.join(settings.BACKENDS)}")
        _backends[name] = importlib.import_module(f"dlcore.backends.{name}").load()
        if name != "numpy":
            _take_shortcut()
        if settings.get("DEBUG"):
            _check_every_output()
    return _backends[name]


def _check_every_output() -> None:
    from dlcore.debug import check_outputs

    if check_outputs not in _listeners:
        _listeners.append(check_outputs)


def _best() -> Backend:
    for name in ("cuda", "cpu"):
        try:
            return get_backend(name)
        except BackendError:
            continue
    return get_backend("numpy")


def default_backend() -> Backend:
    """The backend of new tensors: the innermost `device` block, else `DLCORE_BACKEND`."""
    if _blocks.stack:
        return _blocks.stack[-1]
    if not _process_default:
        _process_default.append(get_backend(settings.get("BACKEND")))
    return _process_default[0]


@contextmanager
def device(name: str) -> Iterator[None]:
    """Create new tensors on another backend inside a `with` block (of this thread).

    >>> with device("numpy"):
    ...     x = dl.zeros((2, 3))
    """
    _blocks.stack.append(get_backend(name))
    try:
        yield
    finally:
        _blocks.stack.pop()


def set_device(name: str) -> None:
    """Make a backend the default of this process (outside `device` blocks)."""
    _process_default[:] = [get_backend(name)]


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Call `listener(event)` after every op that runs inside the `with` block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def apply(op: Op, *operands: Any, **attrs: Any) -> Any:
    """Run an op on tensors (or arrays and Python scalars) and record it for backward.

    Returns a Tensor, or a tuple of them for an op with several outputs.
    """
    backend: Backend | None = None
    arrays: list[Any] = []
    key: list[Any] = [op]
    wanted, bit = 0, 1  # which operands want a gradient, one bit each
    for x in operands:
        if isinstance(x, Tensor):
            if x._backend is not backend:
                if backend is not None:
                    raise _mixed_devices(op, operands)
                backend = x._backend
            arrays.append(x._array)
            key.append(x._meta or x._find_meta())
            if x.requires_grad:
                wanted |= bit
        elif x is None or type(x) in (float, int, bool):
            arrays.append(x)
            key.append(type(x))
        else:
            return apply(op, *_as_tensors(op, operands), **attrs)
        bit += bit
    if backend is None:
        backend = default_backend()
    if attrs:
        key += attrs
        key += attrs.values()
        key += map(type, attrs.values())  # 1, 1.0 and True are equal
    kind = tuple(key)
    try:
        plan = backend.plans.get(kind)
    except TypeError:
        return apply(op, *operands, **{name: _frozen(op, value) for name, value in attrs.items()})
    if plan is None:
        plan = backend.plans[kind] = _make_plan(op, backend, arrays, attrs)
    if plan.absent:
        operands += plan.absent
        arrays += plan.absent
    if len(attrs) != len(plan.defaults):
        attrs = {**plan.defaults, **attrs}
    for i, dtype in plan.casts:
        try:
            arrays[i] = backend.cast(arrays[i], dtype)
        except OverflowError:
            raise DTypeError(f"{op.name}: {arrays[i]} does not fit {dtype}") from None
    result = _observed(op, backend, plan, operands, arrays, attrs) if _listeners else plan.run(*arrays, **attrs)
    node = record(plan, operands, attrs, result, wanted) if wanted and mode.enabled else None
    results = result if type(result) is tuple else (result,)
    wrapped = tuple([_wrapped(array, i, plan, node) for i, array in enumerate(results)])
    if plan.view:
        for out in wrapped:
            out._share_version(operands[0])
    return wrapped if type(result) is tuple else wrapped[0]


def _wrapped(array: Array, index: int, plan: Plan, node: autograd.Node | None) -> Tensor:
    edge = (node, index) if node is not None and plan.flows[index] else None
    return Tensor._wrap(array, plan.backend, plan.outputs[index], edge)


def _observed(
    op: Op, backend: Backend, plan: Plan, operands: tuple[Any, ...], arrays: list[Any], attrs: Mapping[str, Any]
) -> Any:
    backend.synchronize()
    start = time.perf_counter()
    result = plan.run(*arrays, **attrs)
    backend.synchronize()
    seconds = time.perf_counter() - start
    outputs = result if type(result) is tuple else (result,)
    event = Event(op, backend, plan, operands, tuple(arrays), attrs, outputs, seconds)
    for listener in tuple(_listeners):
        listener(event)
    return result


def _make_plan(op: Op, backend: Backend, arrays: list[Any], attrs: Mapping[str, Any]) -> Plan:
    if len(backend.plans) >= MAX_PLANS:
        backend.plans.clear()
    attrs = {**op.attrs, **attrs}
    absent = (None,) * (op.arity - len(arrays))
    arrays = [*arrays, *absent]
    if len(arrays) > op.arity and not op.signature.variadic:
        raise ShapeError(f"{op.name}: expected {op.signature.expected()}; got {len(arrays)} operands")
    shapes: list[Shape | None] = [None if a is None else getattr(a, "shape", ()) for a in arrays]
    dims, output_shapes = op.resolve(shapes, attrs)
    promoted, casts = promotion(op, arrays)
    call = Call(op, tuple(shapes), promoted, dims, attrs, backend)
    variant = choose(call)
    run = variant.fn
    outputs = tuple(map(Meta, output_shapes, op.output_dtypes(promoted, attrs, len(output_shapes))))
    if variant.name == "reference":
        run = _checked(run, op, outputs, backend)
    if op.check and not variant.checks and not op.only_views(len(arrays)):
        run = _after_check(run, op, backend)
    if variant.numbers and any(hasattr(a, "dtype") and a.dtype == promoted for a in arrays):
        casts = tuple((i, dtype) for i, dtype in casts if type(arrays[i]) is not float)
    count = len(arrays)
    differentiable = op.differentiable + op.differentiable[-1:] * (count - len(op.differentiable))
    metas = [None if a is None else Meta(getattr(a, "shape", ()), getattr(a, "dtype", None)) for a in arrays]
    view = op.view and hasattr(arrays[0], "dtype")
    flows = tuple(dtypes.kind(meta.dtype) == "float" for meta in outputs)
    return Plan(
        op,
        backend,
        run,
        variant.name,
        casts,
        differentiable[:count],
        tuple(metas),
        outputs,
        flows,
        absent,
        op.attrs,
        view,
        dims,
        op.unused_outputs(attrs),
        {},
    )


def choose(call: Call) -> Variant:
    """The first variant that takes the call (a forced one from `DLCORE_VARIANT`), else the reference."""
    backend, forced = call.backend, settings.get("VARIANT").get(call.op.name)
    refused: list[str] = []
    for variant in variants(call.op.name, backend.kernels):
        if forced not in (None, variant.name):
            continue
        reason = variant.refuse(call) if variant.refuse else None
        if reason is None:
            return variant
        refused.append(f"{variant.name}: {reason}")
    if forced not in (None, "reference"):
        raise BackendError(f"{call.op.name}: variant {forced!r} {refused or 'does not exist'} on {backend.name}")
    moving = not call.op.only_views(len(call.shapes))
    if settings.get("STRICT") and backend.kernels != "numpy" and moving and not forced:
        why = "; ".join(refused) or "there is none"
        raise BackendError(f"{call.op.name}: no native kernel on {backend.name} ({why}) and DLCORE_STRICT=1")
    return Variant("reference", backend.reference(call.op))


def promotion(op: Op, arrays: list[Any]) -> tuple[Any, tuple[tuple[int, Any], ...]]:
    """The common dtype of the operands, and the casts that bring them there."""
    kinds = [op.signature.operand(i).kind for i in range(len(arrays))]
    joining = [i for i, a in enumerate(arrays) if a is not None and kinds[i] in ("", "float")]
    solid = [arrays[i].dtype for i in joining if hasattr(arrays[i], "dtype")]
    found = list(solid) + [dtypes.scalar_dtype(arrays[i], solid) for i in joining if not hasattr(arrays[i], "dtype")]
    if not found:
        found = [a.dtype for a in arrays if hasattr(a, "dtype")] or [dtypes.DEFAULT_FLOAT]
    promoted = dtypes.promote(frozenset(found))
    if any(kinds[i] == "float" for i in joining) and dtypes.kind(promoted) != "float":
        promoted = dtypes.DEFAULT_FLOAT
    casts = []
    for i, array in enumerate(arrays):
        target = promoted if i in joining else _own_dtype(op, i, kinds[i], array, promoted)
        if array is not None and (not hasattr(array, "dtype") or array.dtype != target):
            casts.append((i, target))
    return promoted, tuple(casts)


def _own_dtype(op: Op, index: int, kind: str, array: Any, promoted: Any) -> Any:
    """Dtype of an operand that takes no part in promotion; refuses one of the wrong kind."""
    if array is None:
        return None
    if kind == "wide":
        return dtypes.wide(promoted)
    dtype = getattr(array, "dtype", None) or dtypes.scalar_dtype(array, ())
    if kind in ("int", "bool") and dtypes.kind(dtype) != kind:
        name = op.signature.operand(index).name
        raise DTypeError(f"{op.name}: {name} must be of {kind} dtype; got {dtype}")
    return dtype


def _checked(run: Callable[..., Any], op: Op, outputs: tuple[Meta, ...], backend: Backend) -> Callable[..., Any]:
    """Give a reference's results the dtypes that the op's record says; refuse other shapes than it says."""

    def checked(result: Any, meta: Meta) -> Any:
        if type(result) is not backend.array_type or result.dtype is not meta.dtype:
            result = backend.cast(result, meta.dtype)
        if result.shape != meta.shape:
            raise ShapeError(f"{op.name}: its record says an output of shape {meta.shape}; it returned {result.shape}")
        return result

    def single(*arrays: Any, **attrs: Any) -> Any:
        return checked(run(*arrays, **attrs), outputs[0])

    def several(*arrays: Any, **attrs: Any) -> Any:
        return tuple(map(checked, run(*arrays, **attrs), outputs))

    return single if len(outputs) == 1 else several


def _after_check(run: Callable[..., Any], op: Op, backend: Backend) -> Callable[..., Any]:
    """Refuse operands by their values before an implementation that does not."""

    def checked(*arrays: Any, **attrs: Any) -> Any:
        op.check_values(backend.to_numpy, arrays, attrs)
        return run(*arrays, **attrs)

    return checked


def _as_tensors(op: Op, operands: tuple[Any, ...]) -> list[Any]:
    """Operands with arrays, lists and NumPy scalars turned into tensors on the device of the others."""
    backend = next((x._backend for x in operands if isinstance(x, Tensor)), None) or default_backend()
    converted = []
    for x in operands:
        if isinstance(x, np.generic):
            x = x.item() if x.dtype in (np.float64, np.int64, np.bool_) else np.asarray(x)
        if not (x is None or isinstance(x, Tensor) or type(x) in (float, int, bool)):
            x = Tensor._wrap(_placed(op, x, backend), backend)
        converted.append(x)
    return converted


def _placed(op: Op, x: Any, backend: Backend) -> Array:
    """A list or an array of another library's on the device."""
    if recording.now.recorder is not None:
        recording.now.recorder.data(x)
    if not isinstance(x, (np.ndarray, list, tuple)) and type(x) is not backend.array_type:
        raise DTypeError(f"{op.name}: cannot take a {type(x).__module__}.{type(x).__qualname__} as operand")
    try:
        return backend.asarray(x)
    except DlcoreError as error:
        error.args = (f"{op.name}: {error.args[0]}",)
        raise


def _mixed_devices(op: Op, operands: tuple[Any, ...]) -> DeviceError:
    places = ", ".join(x.device for x in operands if isinstance(x, Tensor))
    return DeviceError(f"{op.name}: operands live on different devices ({places}); move them with .to(device)")


def _frozen(op: Op, value: Any) -> Any:
    """An attribute with lists turned into tuples, so that it can be hashed."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(op, v) for v in value)
    try:
        hash(value)
    except TypeError:
        raise DTypeError(f"{op.name}: an attribute must be a plain value; got a {type(value).__name__}") from None
    return value


def _enter(function: Callable[..., Any]) -> None:
    """Make `function(op, *operands, **attrs)` what a call of an op and an operator of tensors run."""
    Op.__call__ = function  # type: ignore[method-assign]
    tensor_module.run = function


def _take_shortcut() -> None:
    """Let the extension, if it is there, run calls of known plans as `apply` would, backward passes and programs."""
    try:
        from dlcore import _C
    except ImportError:
        return
    try:
        _enter(_C.shortcut(Op, Tensor, Plan, autograd, _listeners, apply))
        autograd.engine = _C.walk
        recording.native = _C
    except AttributeError as error:
        raise KernelError(f"the C++ extension is an older build, make it anew ({error})") from None


_enter(apply)
