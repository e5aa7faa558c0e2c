"""Normalisation layers. `weight` starts as ones, `bias` as zeros; both are None where not wanted."""

from __future__ import annotations

from collections.abc import Sequence

from dlcore import autograd, recording
from dlcore.creation import ones, tensor, zeros
from dlcore.errors import ArgumentError, ShapeError
from dlcore.nn.module import Module
from dlcore.nn.parameter import Parameter
from dlcore.ops import norm
from dlcore.tensor import Tensor


def _affine(shape: int | tuple[int, ...], weight: bool, bias: bool) -> tuple[Parameter | None, Parameter | None]:
    return Parameter(ones(shape)) if weight else None, Parameter(zeros(shape)) if bias else None


class BatchNorm(Module):
    """Base of the batch norms: each channel to mean 0 and variance 1.

    Statistics are the batch's own in training, running ones in evaluation.

    momentum: weight of the newest batch in the running statistics; None averages all batches alike. The running
    variance is unbiased. Batches seen while a checkpoint recomputes are not counted twice.
    Ioffe & Szegedy, "Batch normalization" (2015). Raises ShapeError for other ranks, ArgumentError for a batch with one
    value per channel in training.
    """

    ranks: tuple[int, ...]
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:  # fmt: skip
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.track_running_stats = track_running_stats
        self.weight, self.bias = _affine(num_features, affine, affine)
        if track_running_stats:
            self.register_buffer("running_mean", zeros(num_features))
            self.register_buffer("running_var", ones(num_features))
            self.register_buffer("num_batches_tracked", tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """`x[N, C, ...]`, of the same shape."""
        _check(self, "batch_norm", x)
        if not self.training and self.track_running_stats:
            y: Tensor = norm.batch_norm_inference(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return y
        count = x.size // max(x.shape[1], 1)
        if count == 1:
            raise ArgumentError(f"batch_norm: x{list(x.shape)} has one value per channel; training needs more")
        y, mean, var = norm.batch_norm(x, self.weight, self.bias, eps=self.eps)
        if self.track_running_stats and not autograd.is_recomputing():
            self._track(mean, var, count)
        return y

    @recording.host
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        batches = self.num_batches_tracked.storage()
        batches += 1
        rate = 1.0 / int(batches) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean._array), (self.running_var, var._array * (count / (count - 1)))):
            values = running.storage()
            values += rate * (new - values)

    def extra_repr(self) -> str:
        """Channels and options."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"


class BatchNorm1d(BatchNorm):
    """Batch normalisation of `x[N, C]` or `x[N, C, L]`; see `BatchNorm`."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of `x[N, C, H, W]`; see `BatchNorm`."""

    ranks = (4,)


class BatchNorm3d(BatchNorm):
    """Batch normalisation of `x[N, C, D, H, W]`; see `BatchNorm`."""

    ranks = (5,)


class LayerNorm(Module):
    """Normalise over the last axes, whose sizes are `normalized_shape`; weight and bias have that shape.

    Ba et al., "Layer normalization" (2016).

    >>> LayerNorm(8)(dl.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, affine: bool = True, bias: bool = True
    ) -> None:
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight, self.bias = _affine(self.normalized_shape, affine, affine and bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return norm.layer_norm(x, self.weight, self.bias, normalized_shape=self.normalized_shape, eps=self.eps)

    def extra_repr(self) -> str:
        """Shape and options."""
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.weight is not None}"


class RMSNorm(Module):
    """Divide by the root mean square over the last axes; weight has the shape `normalized_shape`.

    Zhang & Sennrich, "Root mean square layer normalization" (2019).
    """

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, affine: bool = True) -> None:
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight, _ = _affine(self.normalized_shape, affine, False)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return norm.rms_norm(x, self.weight, normalized_shape=self.normalized_shape, eps=self.eps)

    def extra_repr(self) -> str:
        """Shape and options."""
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.weight is not None}"


class GroupNorm(Module):
    """Normalise groups of channels of each example of `x[N, C, ...]`. Wu & He, "Group normalization" (2018).

    >>> GroupNorm(2, 6)(dl.ones((1, 6, 4, 4))).shape
    (1, 6, 4, 4)
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: {num_channels} channels do not split into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = _affine(num_channels, affine, affine)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        y: Tensor = norm.group_norm(x, self.weight, self.bias, groups=self.num_groups, eps=self.eps)
        return y

    def extra_repr(self) -> str:
        """Groups, channels and options."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.weight is not None}"


class InstanceNorm(Module):
    """Base of the instance norms: each channel of each example to mean 0 and variance 1. Ulyanov et al. (2016).

    affine: learn a weight and a bias per channel.
    """

    ranks: tuple[int, ...]

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = False) -> None:
        self.num_features, self.eps = num_features, eps
        self.weight, self.bias = _affine(num_features, affine, affine)

    def forward(self, x: Tensor) -> Tensor:
        """`x[N, C, ...]`, of the same shape."""
        _check(self, "instance_norm", x)
        return norm.instance_norm(x, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Channels and options."""
        return f"{self.num_features}, eps={self.eps}, affine={self.weight is not None}"


class InstanceNorm1d(InstanceNorm):
    """Instance normalisation of `x[N, C, L]`."""

    ranks = (3,)


class InstanceNorm2d(InstanceNorm):
    """Instance normalisation of `x[N, C, H, W]`."""

    ranks = (4,)


class InstanceNorm3d(InstanceNorm):
    """Instance normalisation of `x[N, C, D, H, W]`."""

    ranks = (5,)


def _shape(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _check(layer: BatchNorm | InstanceNorm, op: str, x: Tensor) -> None:
    if x.ndim not in layer.ranks or x.shape[1] != layer.num_features:
        ranks = " or ".join(map(str, layer.ranks))
        raise ShapeError(
            f"{op}: {type(layer).__name__} takes {ranks} dimensions and {layer.num_features} channels; "
            f"got x{list(x.shape)}"
        )
