"""The tensor: an array on a device, with the node that computed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias
from weakref import WeakValueDictionary

import numpy as np

from dlcore import dtypes, indexing, recording
from dlcore.errors import ArgumentError, DTypeError, GraphError, ShapeError
from dlcore.op import OPS, Op
from dlcore.signature import broadcast_shapes

if TYPE_CHECKING:
    from dlcore.dispatch import Backend
    from dlcore.signature import Shape

    Axis = int | Sequence[int] | None
    Operand: TypeAlias = "Tensor | float | np.ndarray[Any, Any]"


def _call(op: Op, *operands: Any) -> Any:
    return op(*operands)


run = _call
"""`dispatch.apply`, once it is there: operators call it without the detour through `Op.__call__`."""
differentiate: Callable[..., None] = _call
"""`autograd.backward`, once it is there."""


def _operator(op: str) -> Callable[[Tensor, Operand], Tensor]:
    return lambda self, other: run(OPS[op], self, other)


def _reflected(op: str) -> Callable[[Tensor, Operand], Tensor]:
    return lambda self, other: run(OPS[op], other, self)


class Meta:
    """Shape and dtype of an operand or output: one object for each pair, so that it is compared by identity."""

    __slots__ = ("__weakref__", "dtype", "shape")

    shape: Shape
    dtype: Any  # None: a Python scalar

    def __new__(cls, shape: Shape, dtype: Any) -> Self:
        """The object that stands for this pair."""
        self = _metas.get((shape, dtype))
        if self is None:
            self = _metas[shape, dtype] = super().__new__(cls)
            self.shape, self.dtype = shape, dtype
        return self


_metas: WeakValueDictionary[tuple[Shape, Any], Any] = WeakValueDictionary()
_new = object.__new__
clock = itertools.count(1)
"""Orders recorded ops and overwrites of this process."""
overwritten = [0]
"""When a tensor last was, on that clock: nodes recorded later need not look at their operands' versions."""


class Tensor:
    """An n-dimensional array on a device. Make one with `dl.tensor`, `dl.zeros`, `dl.randn` and the like.

    requires_grad: whether gradients flow to it. grad: what `backward` accumulated (leaves only).
    """

    __array_priority__ = 1000
    __array_ufunc__ = None  # NumPy arrays leave mixed arithmetic to the tensor
    __hash__ = object.__hash__

    __slots__ = (
        "__weakref__",
        "_array",
        "_backend",
        "_base",
        "_edge",
        "_meta",
        "_of_computed",
        "_version",
        "grad",
        "requires_grad",
    )

    _array: Any
    _backend: Backend
    _meta: Meta | None  # of the array, once it was asked for
    _edge: tuple[Any, int] | None  # the node that computed it and which of its outputs it is; None for a leaf
    _base: Tensor | None  # the leaf whose memory it shares
    _version: int
    _of_computed: bool  # shares the memory of a tensor that a recorded op computed, and perhaps saved
    requires_grad: bool
    grad: Tensor | None

    def __init__(self) -> None:
        raise DTypeError("make tensors with dl.tensor(data), dl.asarray(array) or dl.zeros(shape)")

    @classmethod
    def _wrap(cls, array: Any, backend: Backend, meta: Meta | None = None, edge: tuple[Any, int] | None = None) -> Self:
        self: Self = _new(cls)
        self._fill(array, backend, meta, edge)
        return self

    def _fill(self, array: Any, backend: Backend, meta: Meta | None, edge: tuple[Any, int] | None) -> None:
        self._array = array
        self._backend = backend
        self._meta = meta
        self._edge = edge
        self._base = self.grad = None
        self._version = 0
        self._of_computed = False
        self.requires_grad = edge is not None

    def _find_meta(self) -> Meta:
        found = self._meta = Meta(self._array.shape, self._array.dtype)
        return found

    # ---- what it is

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        shape: Shape = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the elements."""
        found: np.dtype[Any] = self._array.dtype
        return found

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._array.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(self._array.nbytes)

    @property
    def device(self) -> str:
        """Name of the backend that holds it: cuda, cpu, numpy or sim."""
        return self._backend.name

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than by a recorded op."""
        return self._edge is None

    @property
    def version(self) -> int:
        """When its storage was last overwritten in place, on the clock that also numbers recorded ops; 0: never."""
        return self._version if self._base is None else self._base._version

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=200)
        notes = f", shape={self.shape}" if self.size == 0 and self.ndim > 1 else ""
        notes += "" if self.dtype in (dtypes.float32, dtypes.int64, dtypes.bool_) else f", dtype={self.dtype.name}"
        notes += f", device={self.device}" if self._backend.kernels == "cuda" else ""
        notes += ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}{notes})"

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if dtypes.kind(self.dtype) == "float":
            raise DTypeError(f"a {self.dtype} tensor is no index")
        return int(self.item())

    def __reduce__(self) -> NoReturn:
        raise DTypeError("tensors cannot be pickled; use dl.save(path, {name: tensor}) and dl.load(path)")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise GraphError("deepcopy of a tensor with a graph; call .detach() first")
        twin = self.detach(requires_grad=self.requires_grad)
        twin._array = self._backend.asarray(self._array, copy=True)
        twin._base = None
        memo[id(self)] = twin
        return twin

    # ---- to and from other libraries and devices

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array (shared memory on a host device)."""
        recording.refuse("reads a tensor on the host")
        array = self._backend.to_numpy(self._array).view()
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        wanted = array.dtype if dtype is None else np.dtype(dtype)
        if copy is False and array.dtype != wanted:
            raise ValueError(f"a {array.dtype} tensor cannot become {wanted} without a copy")
        return array.astype(wanted, copy=bool(copy))

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python scalar."""
        if self.size != 1:
            raise ShapeError(f"item() needs one element; got shape {self.shape}")
        return self.numpy().reshape(()).astype(self._host_dtype()).item()

    def _host_dtype(self) -> Any:
        return dtypes.float32 if self.dtype.name == "bfloat16" else self.dtype

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return self.numpy().astype(self._host_dtype(), copy=False).tolist()

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise GraphError("DLPack export of a tensor that requires a gradient; call .detach() first")
        recording.refuse("hands a tensor to another library")
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def to(self, device: str) -> Tensor:
        """This tensor on another device (itself when it is there); no gradient flows across devices."""
        from dlcore.dispatch import get_backend

        target = get_backend(device)
        if target is self._backend:
            return self
        recording.refuse(f"moves a tensor to {device}")
        moved = Tensor._wrap(target.asarray(self._backend.to_numpy(self._array), copy=True), target)
        moved.requires_grad = self.is_leaf and self.requires_grad
        return moved

    def astype(self, dtype: Any) -> Tensor:
        """This tensor in another dtype; the gradient is cast back."""
        out: Tensor = OPS["astype"](self, dtype=dtypes.dtype(dtype))
        return out

    # ---- autograd

    def backward(self, grad: Tensor | None = None, *, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Accumulate gradients in the leaves; see `dlcore.autograd.backward`."""
        differentiate(self, grad, retain_graph=retain_graph, create_graph=create_graph)

    def detach(self, requires_grad: bool = False) -> Tensor:
        """A leaf that shares these values, cut from the graph."""
        if requires_grad and dtypes.kind(self.dtype) != "float":
            raise DTypeError(f"only floating-point tensors require gradients; got {self.dtype}")
        out = Tensor._wrap(self._array, self._backend)
        out._share_version(self)
        out.requires_grad = requires_grad
        return out

    def assign(self, value: Any) -> None:
        """Overwrite the values of a leaf in place, at the same address.

        value: tensor, array or scalar that broadcasts to the shape. A graph that saved the old values raises in
        backward. Raises GraphError for a tensor with a graph, ShapeError for a value that does not fit, DTypeError for
        floats into whole numbers, ArgumentError where the memory is read-only.
        """
        if recording.now.recorder is not None and not isinstance(value, Tensor):
            recording.now.recorder.data(value)
        self._write(value)

    @recording.host
    def _write(self, value: Any) -> None:
        source = value.to(self.device)._array if isinstance(value, Tensor) else self._backend.asarray(value)
        if broadcast_shapes(source.shape, self.shape) != self.shape:
            raise ShapeError(f"assign: cannot write shape {source.shape} into {self.shape}")
        if dtypes.kind(source.dtype) == "float" and dtypes.kind(self.dtype) != "float":
            raise DTypeError(f"assign: cannot write {source.dtype} into {self.dtype}; use astype")
        if not getattr(self._array.flags, "writeable", True):
            raise ArgumentError("assign: the memory is read-only; make the tensor with dl.tensor, which copies")
        self.storage()[...] = source

    def storage(self) -> Any:
        """The raw array, for writing: counts as an overwrite. Optimizers and running statistics use it."""
        recording.refuse("writes a tensor in place, other than by assign")
        if self._edge is not None or self._of_computed:
            how = "was" if self._edge is not None else "shares the memory of one that was"
            raise GraphError(
                f"only leaf tensors can be overwritten; this one {how} computed by a recorded op, copy it (dl.tensor)"
            )
        root = self if self._base is None else self._base
        root._version = overwritten[0] = next(clock)
        return self._array

    def _share_version(self, source: Tensor) -> None:
        """Count overwrites of `source` as overwrites of this tensor, unless it is a copy."""
        if self._array is not source._array and not isinstance(self._array.base, type(self._array)):
            return  # the memory is its own, whoever gave it
        self._of_computed = source._of_computed or source._edge is not None
        if source._edge is None:
            self._base = source if source._base is None else source._base

    # ---- arithmetic

    __add__ = _operator("add")
    __radd__ = _reflected("add")
    __sub__ = _operator("subtract")
    __rsub__ = _reflected("subtract")
    __mul__ = _operator("multiply")
    __rmul__ = _reflected("multiply")
    __truediv__ = _operator("divide")
    __rtruediv__ = _reflected("divide")
    __floordiv__ = _operator("floor_divide")
    __rfloordiv__ = _reflected("floor_divide")
    __mod__ = _operator("remainder")
    __rmod__ = _reflected("remainder")

    if TYPE_CHECKING:  # the functions pow and matmul of dlcore.ops take these places

        def __pow__(self, other: Operand) -> Tensor: ...

        def __rpow__(self, other: Operand) -> Tensor: ...

        def __matmul__(self, other: Operand) -> Tensor: ...

        def __rmatmul__(self, other: Operand) -> Tensor: ...

    def __neg__(self) -> Tensor:
        return _unary("negative", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return _unary("abs", self)

    def __invert__(self) -> Tensor:
        return _unary("logical_not" if dtypes.kind(self.dtype) == "bool" else "bitwise_invert", self)

    __and__ = _operator("bitwise_and")
    __rand__ = _reflected("bitwise_and")
    __or__ = _operator("bitwise_or")
    __ror__ = _reflected("bitwise_or")
    __xor__ = _operator("bitwise_xor")
    __rxor__ = _reflected("bitwise_xor")
    __eq__ = _operator("equal")  # type: ignore[assignment]
    __ne__ = _operator("not_equal")  # type: ignore[assignment]
    __lt__ = _operator("less")
    __le__ = _operator("less_equal")
    __gt__ = _operator("greater")
    __ge__ = _operator("greater_equal")

    def __getitem__(self, index: Any) -> Tensor:
        key, arrays = indexing.encode(index, self.shape)
        out: Tensor = OPS["getitem"](self, *arrays, index=key)
        return out

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise GraphError("tensors are not written by index; use dl.where, dl.scatter or t.assign(values)")

    # ---- the methods most used; every op is also a function `dl.<name>`

    def exp(self) -> Tensor:
        """Element-wise e**x."""
        return _unary("exp", self)

    def log(self) -> Tensor:
        """Element-wise natural logarithm."""
        return _unary("log", self)

    def sqrt(self) -> Tensor:
        """Element-wise square root."""
        return _unary("sqrt", self)

    def tanh(self) -> Tensor:
        """Element-wise hyperbolic tangent."""
        return _unary("tanh", self)

    def sigmoid(self) -> Tensor:
        """Element-wise 1 / (1 + e**-x)."""
        return _unary("sigmoid", self)

    def relu(self) -> Tensor:
        """Element-wise max(x, 0)."""
        return _unary("relu", self)

    def abs(self) -> Tensor:
        """Element-wise absolute value."""
        return _unary("abs", self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Sum over axes (all when None)."""
        return _reduce("sum", self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Mean over axes (all when None)."""
        return _reduce("mean", self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Largest element over axes."""
        return _reduce("max", self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Smallest element over axes."""
        return _reduce("min", self, axis, keepdims)

    def var(self, axis: Axis = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        """Variance over axes; divides by n - correction."""
        out: Tensor = OPS["var"](self, axis=axis, keepdims=keepdims, correction=correction)
        return out

    def std(self, axis: Axis = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        """Standard deviation over axes; see `var`."""
        out: Tensor = OPS["std"](self, axis=axis, keepdims=keepdims, correction=correction)
        return out

    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Whether every element over axes is true."""
        return _reduce("all", self, axis, keepdims)

    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Whether an element over axes is true."""
        return _reduce("any", self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Index of the first largest element."""
        return _reduce("argmax", self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Index of the first smallest element."""
        return _reduce("argmin", self, axis, keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        out: Tensor = OPS["reshape"](self, shape=tuple(sizes))
        return out

    def permute(self, *axes: int) -> Tensor:
        """Axes in another order."""
        out: Tensor = OPS["permute_dims"](self, axes=axes)
        return out

    @property
    def mT(self) -> Tensor:
        """Last two axes swapped. Raises ShapeError for fewer."""
        if self.ndim < 2:
            raise ShapeError(f"mT needs two axes; got shape {self.shape}")
        return self.permute(*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)

    @property
    def T(self) -> Tensor:
        """Axes of a matrix swapped. Raises ShapeError for other ranks."""
        if self.ndim != 2:
            raise ShapeError(f"T is for matrices; got shape {self.shape}, use mT or permute")
        return self.permute(1, 0)


def _unary(name: str, x: Any) -> Tensor:
    out: Tensor = OPS[name](x)
    return out


def _reduce(name: str, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    out: Tensor = OPS[name](x, axis=axis, keepdims=keepdims)
    return out
