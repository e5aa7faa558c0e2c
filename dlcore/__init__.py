"""dlcore: a small, readable GPU-accelerated array framework."""

from typing import TYPE_CHECKING, Any

from dlcore import autograd, dispatch, errors, ops
from dlcore.autograd import checkpoint, grad, gradients, no_grad, value_and_grad
from dlcore.creation import arange, asarray, eye, full, linspace, ones, ones_like, tensor, zeros, zeros_like
from dlcore.dispatch import default_backend, device, set_device
from dlcore.dtypes import (
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from dlcore.graph import capture
from dlcore.io import load, save
from dlcore.op import op
from dlcore.ops.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from dlcore.ops.attention import scaled_dot_product_attention
from dlcore.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from dlcore.ops.ctc import ctc_loss
from dlcore.ops.einsum import einsum
from dlcore.ops.elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clip,
    copysign,
    cos,
    cosh,
    divide,
    equal,
    erf,
    exp,
    expm1,
    floor,
    floor_divide,
    greater,
    greater_equal,
    hypot,
    isfinite,
    isinf,
    isnan,
    lerp,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    positive,
    pow,
    reciprocal,
    remainder,
    round,
    rsqrt,
    sign,
    signbit,
    sin,
    sinh,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    trunc,
)
from dlcore.ops.embed import embedding
from dlcore.ops.gather import index_add, scatter, scatter_add, take, take_along_axis
from dlcore.ops.gru import gru, gru_cell
from dlcore.ops.index import masked_fill, masked_select, nonzero, one_hot
from dlcore.ops.join import chunk, concat, diagonal, flip, pad, repeat, roll, split, stack, tile, tril, triu, unstack
from dlcore.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    gaussian_nll_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)
from dlcore.ops.lstm import lstm, lstm_cell
from dlcore.ops.margin_loss import (
    contrastive_loss,
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    hinge_loss,
    margin_ranking_loss,
    pairwise_distance,
    triplet_margin_loss,
)
from dlcore.ops.matmul import linear, matmul, outer, tensordot, vecdot
from dlcore.ops.norm import batch_norm, batch_norm_inference, group_norm, instance_norm, layer_norm, rms_norm
from dlcore.ops.pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from dlcore.ops.random import (
    bernoulli,
    categorical,
    dropout,
    multinomial,
    normal,
    rand,
    randint,
    randn,
    randperm,
    truncated_normal,
    uniform,
)
from dlcore.ops.reduce import all, any, argmax, argmin, count_nonzero, logsumexp, max, mean, min, norm, std, sum, var
from dlcore.ops.resize import (
    adaptive_avg_pool,
    adaptive_max_pool,
    global_avg_pool,
    global_max_pool,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
)
from dlcore.ops.rnn import rnn, rnn_cell
from dlcore.ops.scan import cumprod, cumsum, prod
from dlcore.ops.shape import (
    astype,
    broadcast_to,
    expand_dims,
    flatten,
    meshgrid,
    moveaxis,
    permute_dims,
    reshape,
    squeeze,
    swapaxes,
    unflatten,
    where,
)
from dlcore.ops.softmax import log_softmax, softmax
from dlcore.ops.sort import argsort, median, quantile, searchsorted, sort, topk, unique
from dlcore.ops.unfold import fold, unfold
from dlcore.random import manual_seed
from dlcore.tensor import Tensor

if TYPE_CHECKING:
    from dlcore import data, nn, optim, testing, train
    from dlcore.custom import cuda_kernel, elementwise

_LATER = ("data", "nn", "optim", "testing", "train")
_CUSTOM = ("cuda_kernel", "elementwise")


def __getattr__(name: str) -> Any:
    """Packages built on the ops, and bfloat16 with its package, are imported when they are first named."""
    if name == "bfloat16":
        from dlcore.dtypes import bfloat16_dtype

        return bfloat16_dtype()
    if name in _CUSTOM:
        from dlcore import custom

        return getattr(custom, name)
    if name in _LATER:
        import importlib

        return importlib.import_module(f"dlcore.{name}")
    raise AttributeError(f"module 'dlcore' has no attribute {name!r}")
