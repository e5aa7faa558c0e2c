"""dlcore: a small, readable GPU-accelerated array framework."""

from dlcore import autograd, dispatch, errors, ops
from dlcore.autograd import checkpoint, grad, gradients, no_grad, value_and_grad
from dlcore.creation import arange, asarray, eye, full, linspace, ones, ones_like, tensor, zeros, zeros_like
from dlcore.dispatch import default_backend, device, set_device
from dlcore.io import load, save
from dlcore.op import op
from dlcore.ops.matmul import linear, matmul, outer, tensordot, vecdot
from dlcore.random import manual_seed
from dlcore.tensor import Tensor
