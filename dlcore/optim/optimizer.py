"""The base of every optimizer: parameter groups, state, the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcore import dtypes, recording
from dlcore.creation import tensor
from dlcore.errors import ArgumentError, GraphError
from dlcore.optim import kernels
from dlcore.tensor import Tensor

if TYPE_CHECKING:
    from dlcore.dispatch import Backend

Array = Any
Group = dict[str, Any]
Closure = Callable[[], Tensor]
Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]
BELOW_ONE = {"betas", "alpha", "rho"}


class Slot:
    """What an optimizer knows of one parameter.

    count: updates so far. state: arrays by name, on `backend` and for a parameter of `dtype`; it has `names`.
    half: whether the updates are made on a float32 copy of a 16-bit parameter, `master`; `version` tells whether
    somebody else wrote the parameter since.
    """

    def __init__(self, param: Tensor) -> None:
        self.param = param
        self.count = 0
        self.version = -1
        self._hold({}, None)

    def _hold(self, state: dict[str, Array], dtype: Any) -> None:
        self.state, self.backend, self.dtype = state, self.param._backend, dtype
        self.names: tuple[str, ...] | None = None
        self.half = dtypes.is_half(self.param.dtype)

    def follow(self) -> None:
        """Bring the state to the parameter's device and dtype, after it was moved or cast."""
        backend, dtype = self.param._backend, self.param._array.dtype
        if backend is self.backend and dtype == self.dtype:
            return
        half = dtypes.is_half(dtype)
        state = {name: array for name, array in self.state.items() if name != "master" or half}
        if backend is not self.backend:
            state = {name: backend.asarray(self.backend.to_numpy(a), copy=True) for name, a in state.items()}
        kept = dtypes.float32 if half else dtype
        self._hold({name: backend.cast(array, kept) for name, array in state.items()}, dtype)

    def load(self, count: int, state: dict[str, Array]) -> None:
        """Take over a saved state, of arrays on the parameter's device and of any dtype."""
        self.count = count
        self.version = self.param.version if "master" in state else -1
        self._hold(state, None)

    @property
    def values(self) -> Array:
        """The array that the kernel updates."""
        if not self.half:
            return self.param.storage()
        if self.version != self.param.version:
            self.state["master"] = self.param._backend.cast(self.param._array, dtypes.float32)
        return self.state["master"]

    def write_back(self) -> None:
        """Round a 16-bit parameter from its master copy."""
        self.param.assign(self.state["master"])
        self.version = self.param.version


class Optimizer:
    """Base class. A subclass names its `kernel` (see `dlcore.optim.kernels`) and its state arrays.

    params: tensors, or groups `{"params": [...], "lr": ...}` with settings of their own.
    settings: defaults of all groups. on_nonfinite: what to do when a gradient holds NaN or infinity: "allow" it, "skip"
    the whole step (counted in `skipped`), or "raise".
    Parameters without a gradient are left alone. 16-bit parameters are updated through a float32 copy. The state of a
    parameter that is moved or cast (`model.to`, `model.astype`) follows it at the next step.
    Raises ArgumentError for settings out of range and for parameters that are no leaves or occur twice.

    Gradient accumulation is calling `backward` several times between steps:

    >>> for i, (x, y) in enumerate(loader):
    ...     (loss(model(x), y) / 4).backward()
    ...     if i % 4 == 3:
    ...         opt.step(); opt.zero_grad()
    """

    kernel: str

    def __init__(self, params: Params, settings: Mapping[str, Any], on_nonfinite: str = "allow") -> None:
        if on_nonfinite not in ("allow", "skip", "raise"):
            raise ArgumentError(f"on_nonfinite: expected 'allow', 'skip' or 'raise'; got {on_nonfinite!r}")
        self.defaults = dict(settings)
        self.on_nonfinite = on_nonfinite
        self.skipped = 0
        self.groups: list[Group] = []
        self._slots: list[list[Slot]] = []
        for group in _as_groups(params):
            self.add_group(group)

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Names of the state arrays; each starts as zeros of the parameter's shape."""
        return ()

    def new_state(self, slot: Slot, group: Group) -> None:
        """Add what `slot.state` lacks before an update."""
        values = slot.values
        for name in self.state_names(group):
            if name not in slot.state:
                slot.state[name] = slot.param._backend.full(values.shape, 0, values.dtype)

    def add_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with their own settings, for example layers that were just unfrozen."""
        if "params" not in group:
            raise ArgumentError(f"{type(self).__name__}: a group has no 'params'; got {', '.join(group)}")
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        settings = {**self.defaults, **{k: v for k, v in group.items() if k != "params"}}
        self._check_settings(settings)
        self._check_params(params)
        self.groups.append({"params": params, **settings})
        self._slots.append([Slot(p) for p in params])

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        name = type(self).__name__
        for key, value in settings.items():
            if key not in self.defaults and key != "initial_lr":
                import difflib

                near = difflib.get_close_matches(key, self.defaults, 1)
                raise ArgumentError(f"{name}: unknown setting {key!r}{f'; did you mean {near[0]!r}?' if near else ''}")
            limit = 1.0 if key in BELOW_ONE else math.inf
            numbers = value if isinstance(value, (tuple, list)) else (value,)
            if not all(isinstance(v, (int, float)) and 0 <= v < limit for v in numbers):
                raise ArgumentError(f"{name}: {key} must lie in [0, {limit:g}); got {value!r}")

    def _check_params(self, params: list[Any]) -> None:
        known = {id(s.param) for slots in self._slots for s in slots}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor) or dtypes.kind(p.dtype) != "float":
                raise ArgumentError(f"{type(self).__name__}: parameter {i} is no floating-point tensor; got {p!r}")
            if not p.is_leaf:
                raise GraphError(f"{type(self).__name__}: parameter {i} was computed by an op; pass leaf tensors")
            if id(p) in known:
                raise ArgumentError(f"{type(self).__name__}: parameter {i} of shape {p.shape} occurs twice")
            known.add(id(p))
        if not params:
            raise ArgumentError(f"{type(self).__name__}: there are no parameters to optimize")

    # ---- the step

    @property
    def lr(self) -> float:
        """Learning rate of the first group."""
        return float(self.groups[0]["lr"])

    def params(self) -> Iterator[Tensor]:
        """All parameters, in order."""
        return (s.param for slots in self._slots for s in slots)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        recording.cleared(self.params())
        for p in self.params():
            p.grad = None

    def step(self, closure: Closure | None = None) -> Tensor | None:
        """Update every parameter that has a gradient.

        closure: computes the loss and calls `backward`; its loss is returned. Only L-BFGS needs one.
        """
        loss = closure() if closure else None
        self._step_on(*recording.grads(self.params()))
        return loss

    @recording.host
    def _step_on(self, *grads: Tensor | None) -> None:
        for p, grad in zip(self.params(), grads, strict=True):
            p.grad = grad
        if self._may_step():
            self._step_groups()

    def _step_groups(self) -> None:
        for group, slots in zip(self.groups, self._slots, strict=True):
            buckets: dict[Any, list[Slot]] = {}
            names = self.state_names(group)
            for slot in slots:
                if slot.param.grad is not None:
                    slot.follow()
                    if slot.names != names:
                        if slot.count == 0 or not slot.state.keys() >= {*names}:
                            self.new_state(slot, group)
                        slot.names = names
                    slot.count += 1
                    buckets.setdefault((slot.backend, slot.dtype, slot.count), []).append(slot)
            for (backend, _, count), bucket in buckets.items():
                self._update(backend, count, bucket, group)

    def _update(self, backend: Backend, count: int, slots: list[Slot], group: Group) -> None:
        hyper = {k: v for k, v in group.items() if k in self.defaults}
        names = [name for name in slots[0].state if name != "master"]
        values, grads = [s.values for s in slots], [s.param.grad._array for s in slots if s.param.grad is not None]
        half = slots[0].half
        if half:
            grads = [backend.cast(g, dtypes.float32) for g in grads]
        run = kernels.find(self.kernel, backend.kernels, values)
        run(values, grads, {name: [s.state[name] for s in slots] for name in names}, step=count, **hyper)
        if half:
            for slot in slots:
                slot.write_back()

    def _may_step(self) -> bool:
        for i, p in enumerate(self.params()):
            if p.grad is not None and (p._meta or p._find_meta()) is not (p.grad._meta or p.grad._find_meta()):
                raise ArgumentError(
                    f"{type(self).__name__}: parameter {i} is {p.dtype}{list(p.shape)}, its gradient "
                    f"{p.grad.dtype}{list(p.grad.shape)}"
                )
        if self.on_nonfinite == "allow" or all(_finite(p.grad) for p in self.params()):
            return True
        if self.on_nonfinite == "raise":
            raise ArgumentError(f"{type(self).__name__}: a gradient holds NaN or infinity; nothing was updated")
        self.skipped += 1
        return False

    # ---- state

    def state_dict(self) -> dict[str, Tensor]:
        """Settings and state as a flat dict of tensors, ready for `dl.save`.

        Names: `group.<g>.<setting>`, `param.<i>.count` and `param.<i>.<state array>`.
        """
        state: dict[str, Tensor] = {}
        for g, group in enumerate(self.groups):
            state |= {f"group.{g}.{k}": tensor(v, "float64", "numpy") for k, v in group.items() if k != "params"}
        for i, slot in enumerate(self._all_slots()):
            if slot.count:
                slot.follow()
                state[f"param.{i}.count"] = tensor(slot.count, device="numpy")
                state |= {f"param.{i}.{name}": tensor(a, device=slot.param.device) for name, a in slot.state.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned. Raises ArgumentError, and changes nothing, when it does not fit."""
        found = [self._read_slot(i, slot, state) for i, slot in enumerate(self._all_slots())]
        settings = [self._read_group(g, group, state) for g, group in enumerate(self.groups)]
        known = {f"group.{g}.{k}" for g, new in enumerate(settings) for k in new}
        known |= {f"param.{i}.{k}" for i, (_, arrays) in enumerate(found) for k in (*arrays, "count")}
        unexpected = [name for name in state if name not in known]
        if unexpected:
            raise ArgumentError(f"{type(self).__name__}: unexpected {', '.join(unexpected[:5])}; nothing was loaded")
        for group, new in zip(self.groups, settings, strict=True):
            group.update(new)
        for slot, (count, arrays) in zip(self._all_slots(), found, strict=True):
            slot.load(count, arrays)

    def _all_slots(self) -> Iterator[Slot]:
        return (slot for slots in self._slots for slot in slots)

    def _read_group(self, g: int, group: Group, state: Mapping[str, Tensor]) -> dict[str, Any]:
        missing = [k for k in self.defaults if f"group.{g}.{k}" not in state]
        if missing:
            raise ArgumentError(f"{type(self).__name__}: group {g} lacks {', '.join(missing)}; nothing was loaded")
        prefix = f"group.{g}."
        new = {k.removeprefix(prefix): _plain(x) for k, x in state.items() if k.startswith(prefix)}
        new = {k: type(self.defaults.get(k, 0.0))(v) for k, v in new.items()}
        self._check_settings(new)
        return new

    def _read_slot(self, i: int, slot: Slot, state: Mapping[str, Tensor]) -> tuple[int, dict[str, Array]]:
        prefix = f"param.{i}."
        mine = {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}
        count = int(mine.pop("count", tensor(0)))
        for name, x in mine.items():
            if x.shape not in ((), slot.param.shape):
                raise ArgumentError(
                    f"{type(self).__name__}: {prefix}{name} has shape {x.shape}, expected {slot.param.shape}; "
                    "nothing was loaded"
                )
        backend = slot.param._backend
        return count, {name: backend.asarray(x.numpy(), copy=True) for name, x in mine.items()}


def _as_groups(params: Params) -> list[Mapping[str, Any]]:
    if isinstance(params, Tensor):
        raise ArgumentError("an optimizer takes a list of parameters or groups; got one tensor")
    listed: list[Any] = list(params)
    return listed if listed and isinstance(listed[0], Mapping) else [{"params": listed}]


def _finite(grad: Tensor | None) -> bool:
    return grad is None or bool(np.isfinite(grad.numpy()).all())


def _plain(x: Tensor) -> Any:
    value = x.tolist()
    return tuple(value) if isinstance(value, list) else value
