"""What nvcc makes of every CUDA kernel gives the bits that g++ and the emulator give.

Small calls on `sim` reach every kernel of a file. The first launch of each is repeated by the PTX interpreter, from the
same memory at the same addresses.
"""

import re
from contextlib import contextmanager

import ml_dtypes
import numpy as np
import pytest
from test_cuda_gemm import LADDER
from test_cuda_optim import CASES, LAMB, steps

from benchmarks.static import cubin
from dlcore import dispatch, dtypes, testing
from dlcore.backends.cuda import (
    compiler,
    cost,
    launch,
    ops_conv,
    ops_copy,
    ops_elementwise,
    ops_functions,
    ops_matmul,
    ops_reduce,
    ops_softmax,
    ops_whole,
)
from dlcore.errors import BackendError
from dlcore.op import OPS, sample
from dlcore.sim import ptx

pytestmark = pytest.mark.nvcc
FLOATS = [dtypes.dtype(name) for name in ("float32", "float64", "float16", "bfloat16")]
ROUNDINGS = 16  # of the largest element
OF_WHOLE_NUMBERS = ("assign", "gather", "reduce", "scan", "select", "sort", "whole")
INEXACT = re.compile(
    r"^(softmax|cross_entropy|attention|gru|lstm|rnn|functions|multinomial_race)|logsumexp"
    r"|^elementwise_(exp|expm1|log|log1p|log2|sin|cos|tanh|erf|sigmoid|silu|mish|logsigmoid|pow|elu|softplus|gelu)"
)
"""Kernels that call `exp` and the like, whose last bits differ between libraries."""


class Twice:
    """A kernel as the backend launches it: on the emulator, then on the interpreter."""

    def __init__(self, emulated, interpreted, name, seen):
        self.emulated, self.interpreted, self.name, self.seen = emulated, interpreted, name, seen

    def launch(self, grid, block, shared, stream, cooperative, touched, *arguments):
        memory = [a for a in (*arguments, *(touched or ())) if isinstance(a, np.ndarray)]
        written = [a for a in memory if a.flags.writeable]
        before = [a.copy() for a in written]
        self.emulated.launch(grid, block, shared, stream, cooperative, touched, *arguments)
        expected = [a.copy() for a in written]
        for array, values in zip(written, before, strict=True):
            array[...] = values
        passed = [a.ctypes.data if isinstance(a, np.ndarray) else a or 0 for a in arguments]
        options = {"memory": memory, "cooperative": cooperative, "counting": False}
        self.interpreted.launch(self.name, grid, block, passed, shared, **options)
        triples = zip(written, expected, before, strict=True)
        compared = [t for t in triples if not (cooperative and is_barrier(t[0]))]
        self.seen[self.name] = max((difference(*t) for t in compared), default=0.0)


def is_barrier(array):
    """Whether an operand of a cooperative kernel is what `dl::grid_sync` counts in, which the emulator leaves alone."""
    if array.dtype != np.uint32:
        return False
    assert int(array[0]) & 0x7FFFFFFF == 0, "not ready for the next barrier"
    return True


def difference(got, expected, before):
    """0 for equal bits, else in roundings of the largest element written; infinite where whole numbers differ."""
    if got.tobytes() == expected.tobytes():
        return 0.0
    if dtypes.kind(got.dtype) != "float":
        return np.inf
    a, b, c = (x.view(f"u{x.itemsize}") for x in (got, expected, before))
    written = (a != c) | (b != c)
    return testing.error(got[written], expected[written]) / float(ml_dtypes.finfo(got.dtype).eps)


@pytest.fixture
def replayed(monkeypatch):
    """Function that makes calls, and gives the kernels of a module that they launched with the difference of each."""

    def replay(module, calls):
        driver, seen = dispatch.get_backend("sim").driver, {}
        interpreted, function = ptx.Module(cubin.ptx(module, 80).read_text()), driver.function

        def found(of, kernel, shared=0):
            emulated = function(of, kernel, shared)
            fresh = of == module and kernel not in seen
            return Twice(emulated, interpreted, kernel, seen) if fresh else emulated

        monkeypatch.setattr(driver, "function", found)
        for dtype in (*FLOATS, *ops_elementwise.WHOLE):
            if dtype in FLOATS or module in OF_WHOLE_NUMBERS:
                calls(dtype)
        return seen, set(interpreted.kernels)

    try:
        dispatch.get_backend("sim")
    except BackendError as error:
        pytest.skip(str(error))
    return replay


# ---- calls that reach every kernel of a file, with operands of a dtype


def rand(dtype, *shape):
    return np.random.default_rng(list(shape)).normal(size=shape).astype(dtype)


def samples(*names):
    """Calls of ops, and of their gradients, on the samples of their records."""

    def calls(dtype):
        for op in map(OPS.get, names):
            for s in testing.samples(op):
                once(op, s, dtype)

    return calls


def once(op, s, dtype):
    values = testing.arrays(op, s, dtype)
    if op.vjp is None or "gradient" in op.exempt or dtypes.kind(dtype) != "float":
        testing.call(op, values, s.attrs, "sim")
    else:
        testing.gradient(op, values, s.attrs, "sim")


def rows(*names, lengths=(3, 600, 4100), **attrs):
    """Calls of ops on rows that a warp or a block holds, and on longer ones."""

    def calls(dtype):
        for op in map(OPS.get, names):
            for n in lengths:
                once(op, sample((2, n), *[(n,)] * (len(op.signature.operands) - 1), **attrs), dtype)

    return calls


def softmaxes(dtype):
    rows("softmax", axis=-1)(dtype)
    once(OPS["softmax"], sample((2, 3, 5), axis=1), dtype)


def cross_entropies(dtype):
    """The gradient is called as well, since that of 16-bit logits is promoted."""
    for shape in ((2, 3), (2, 600), (2, 4100), (2, 3, 4), (ops_softmax.PART + 1, 1)):
        labels = np.zeros((*shape[:1], *shape[2:]), int)
        once(OPS["cross_entropy"], sample(shape, labels, (shape[1],)), dtype)
        values = testing.arrays(OPS["cross_entropy_grad"], sample(labels.shape, (), shape, labels.shape, labels), dtype)
        testing.call(OPS["cross_entropy_grad"], values, {}, "sim")


def attention(dtype):
    for width in (8, 100, 200):
        once(OPS["attention"], sample((1, 3, width), (1, 5, width), (1, 5, width), (1, 3, 5)), dtype)


def convolutions(*variants):
    """Calls of all passes by some variants of convolution, in every tile; with and without splits."""

    def calls(dtype):
        for tile, splits in (("128", 1), ("64", 2)):
            for name in variants:
                with tiles(tile, splits):
                    passes(ops_conv.VARIANTS[name], dtype)

    return calls


def passes(variant, dtype, out=(2, 2)):
    size = (out[0] + 2, out[1] + 2)
    x, w, dy = (rand(dtype, *shape) for shape in ((1, 8, 1, *size), (8, 8, 1, 3, 3), (1, 8, 1, *out)))
    g = ops_conv.geometry((1, 1), (0, 0), (1, 1), 1)
    variant.forward(x, w, rand(dtype, 8), g)
    if variant.dx:
        variant.dx(dy, w, x.shape[2:], g)
    if variant.dw:
        variant.dw(dy, x, (1, 3, 3), g)


def products_of_patches(dtype):
    convolutions("tensor" if dtypes.is_half(dtype) else "native")(dtype)


def tensor_convolutions(dtype):
    convolutions(*{4: ["tf32"], 2: ["tensor"]}.get(dtype.itemsize, []))(dtype)  # tf32: w is channels last


def convolutions_of_shared_pixels(dtype):
    convolutions(*{4: ["tf32"], 2: ["patch"]}.get(dtype.itemsize, []))(dtype)
    if dtypes.is_half(dtype):
        for tile, splits in (("128", 2), ("64", 1)):
            with tiles(tile, splits):
                passes(ops_conv.VARIANTS["patch"], dtype, (5, 8))


def direct_convolutions(dtype):
    convolutions("im2col")(dtype)
    few = ops_conv.geometry((1, 1), (0, 0), (1, 1), 1)
    ops_conv.few_forward(rand(dtype, 1, 2, 1, 4, 4), rand(dtype, 3, 2, 1, 3, 3), None, few)


def depthwise_convolutions(dtype):
    x, w, dy = (rand(dtype, *shape) for shape in ((140, 2, 1, 4, 4), (2, 1, 1, 3, 3), (140, 2, 1, 2, 2)))
    v, g = ops_conv.VARIANTS["depthwise"], ops_conv.geometry((1, 1), (0, 0), (1, 1), 2)
    v.forward(x, w, None, g), v.dx(dy, w, (1, 4, 4), g), v.dw(dy, x, (1, 3, 3), g)


def targets(dtype):
    samples("cross_entropy_targets")(dtype)
    for kind in ops_copy.CASTS:
        testing.call(OPS["one_hot"], [np.array([0, 2])], {"num_classes": 3, "dtype": kind}, "sim")


def sorts(dtype):
    for n in (5, 4100):
        x = (9 * rand(dtypes.float32, 1, n)).astype(dtype)
        testing.call(OPS["sort"], [x], {"axis": -1}, "sim")
    testing.call(OPS["permutation"], [np.array([1, 2])], {"size": 2050}, "sim")
    testing.call(OPS["searchsorted"], [np.sort(x[0, :3]), x[0, :7]], {}, "sim")
    samples("permutation", "multinomial")(dtype)


def copies(dtype):
    for other in ops_copy.CASTS:
        for source, target in ((dtype, other), (other, dtype), (np.dtype("i4"), other), (other, np.dtype("i4"))):
            testing.call(OPS["astype"], [np.arange(-3, 4).astype(source)], {"dtype": target}, "sim")
        testing.call(OPS["astype"], [np.arange(-3, 4).astype("i8")], {"dtype": other}, "sim")
        testing.call(OPS["astype"], [np.arange(-3, 4).astype(bool)], {"dtype": other}, "sim")
        testing.call(OPS["astype"], [np.arange(-3, 4).astype(other)], {"dtype": np.dtype(bool)}, "sim")
        ops_copy.contiguous(np.zeros((6, 8), other)[::2, ::2])
        ops_copy.contiguous(np.zeros((33, 40), other).T)


def gathers(dtype):
    samples("take", "embedding", "take_along_axis", "index_add", "scatter", "scatter_add", "getitem")(dtype)
    for x in (rand(dtype, 4, 16), rand(dtype, 4, 1), np.zeros((4, 3), bool)):
        testing.call(OPS["take"], [x, np.array([1, -2])], {"axis": 0}, "sim")
        testing.call(OPS["take_along_axis"], [x, np.zeros((2, x.shape[1]), int)], {"axis": 0}, "sim")
    if dtype in FLOATS:
        testing.call(OPS["index_add"], [rand(dtype, 3, 8), np.array([2, 0]), rand(dtype, 2, 8)], {"axis": 0}, "sim")


@contextmanager
def tiles(name, splits=1):
    """Inside, products and convolutions take this tile."""

    def choose(work, tiles, multiprocessors):
        found = next((t for t in tiles if t.name.startswith(name)), tiles[0])
        return cost.Choice(found, *cost.split(work.k, found.slab, splits))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "is_skinny", lambda *_: False)
        patch.setattr(cost, "choose", choose)
        yield


def products(dtype):
    for tile, splits in (("128", 1), ("256", 1), ("64", 2)):
        with tiles(tile, splits):
            for n in (64, 67):
                for layout in ("nn", "nt", "tn"):
                    product(dtype, layout, n, n, n)
            if dtype == dtypes.float32:
                product(dtype, "nt", 64, 64, 64, tf32=True)


def product(dtype, layout, m, n, k, **options):
    a = rand(dtype, m, k) if layout[0] == "n" else rand(dtype, k, m).T
    ops_matmul.product(a, rand(dtype, k, n) if layout[1] == "n" else rand(dtype, n, k).T, **options)


def skinny_products(dtype):
    for few in (1, 4, 16):
        for layout in ("nn", "nt"):
            product(dtype, layout, few, 24, 8)
            product(dtype, layout, few, 21, 7)


def ladder(dtype):
    a, b, c = rand("f4", 5, 9), rand("f4", 9, 8), np.zeros((5, 8), "f4")
    for name, (_, _, block) in LADDER.items():
        launch.launch(f"gemm_ladder.{name}", (1, 1), block, a, b, c, 5, 8, 9, like=c)


def recurrent(name, gates):
    """Calls of a recurrent op: all steps at once, then step by step in narrow, wide and large tiles."""

    def calls(dtype):
        states, biases = (2 if name == "lstm" else 1), (2 if name == "gru" else 1)
        for length, rows, multiprocessors in ((2, 20, 8), (1, 2, 8), (2, 40, 1), (2, 65, 1)):
            weights = (4 * gates, 3), (4 * gates, 4), *[(4 * gates,)] * biases
            operands = (length, rows, 3), *[(rows, 4)] * states, *weights
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dispatch.get_backend("sim").driver, "multiprocessors", multiprocessors)
                once(OPS[name], sample(*operands, None, reverse=False), dtype)

    return calls


OF_ALL = ("sum", "prod", "max", "min", "argmax", "argmin", "any", "all")
OF_FLOATS = ("var", "logsumexp")


def reductions(dtype):
    floating = dtype in FLOATS
    for name in OF_ALL + OF_FLOATS * floating:
        for shape, axis in (((5, 33), 1), ((2, 1500), 1), ((5, 33), 0)):
            x = rand(dtype, *shape)
            testing.call(OPS[name], [x > 0 if name in ("any", "all") else x], {"axis": axis}, "sim")
    if floating:
        partial_sums(dtype)


def partial_sums(dtype):
    for n in (33, 1500):
        x, partial, y = rand(dtype, 2, n), np.zeros((2, n), ops_matmul.WIDE[dtype]), np.zeros(2, dtype)
        finish = {"divisor": 1.0, "correction": 0.0, "count": n, "root": 0}
        ops_reduce.rows(x, partial[:, 0].copy(), "sum", 2, n, finish)
        ops_reduce.rows(partial[:, :33].copy(), y, "sum", 2, 33, finish)


def draws(dtype):
    samples("dropout", "bernoulli", "randint", "permutation")(dtype)
    for name in ("uniform", "normal"):
        testing.call(OPS[name], [np.array([1, 2])], {"shape": (7,), "dtype": dtype}, "sim")


def updates(dtype):
    if dtypes.is_half(dtype):
        return
    for name, settings in (*CASES, ("lamb", LAMB)):
        steps("cuda", name, settings, dtype, [(3, 5), ()])


OF_INTS = (*ops_whole.ARITHMETIC, *ops_elementwise.COMPARISONS)


def whole_numbers(dtype):
    if dtype in FLOATS:
        return
    for op in map(OPS.get, ops_whole.OF_BOOLS if dtypes.kind(dtype) == "bool" else OF_INTS):
        for s in testing.samples(op):
            values = [v.astype(dtype) if isinstance(v, np.ndarray) else v for v in testing.arrays(op, s, dtype)]
            testing.call(op, values, s.attrs, "sim")


def selections(dtype):
    for x in (rand(dtype, 3, 4), rand(dtype, 3, 4) > 0):
        testing.call(OPS["where"], [x > 0, x, x[::-1]], {}, "sim")
        testing.call(OPS["tril"], [x], {"k": 1}, "sim")


ELEMENTWISE = (*ops_elementwise.PLAIN, *ops_elementwise.COMPARISONS, "clip", "leaky_relu", "elu", "softplus", "gelu")
PREDICATES = ("isnan", "isinf", "isfinite", "signbit")

CALLS = {
    "assign": samples("concat", "pad", "getitem"),
    "attention": attention,
    "attention_grad": attention,
    "attention_grad_kv": attention,
    "attention_tensor": attention,
    "batch_norm": samples("batch_norm", "batch_norm_inference", "group_norm"),
    "conv": products_of_patches,
    "conv_depthwise": depthwise_convolutions,
    "conv_direct": direct_convolutions,
    "conv_patch": convolutions_of_shared_pixels,
    "conv_patch_dw": convolutions_of_shared_pixels,
    "conv_tensor": tensor_convolutions,
    "copy": copies,
    "cross_entropy": cross_entropies,
    "elementwise": samples(*ELEMENTWISE),
    "functions": samples(*ops_functions.PLAIN, *PREDICATES, "celu", "hardshrink", "softshrink", "threshold"),
    "gather": gathers,
    "gemm": products,
    "gemm_ladder": ladder,
    "gemm_skinny": skinny_products,
    "gemm_skinny_tensor": skinny_products,
    "gemm_tensor": products,
    "gru": recurrent("gru", 3),
    "lstm": recurrent("lstm", 4),
    "multinomial": samples("multinomial", "permutation"),
    "norm": rows("layer_norm", "rms_norm"),
    "optim": updates,
    "pool": samples("max_pool2d", "avg_pool2d"),
    "random": draws,
    "reduce": reductions,
    "rnn": recurrent("rnn", 1),
    "scan": samples("cumsum", "cumprod", "linear_scan"),
    "select": selections,
    "softmax": softmaxes,
    "sort": sorts,
    "targets": targets,
    "whole": whole_numbers,
}


@pytest.mark.parametrize("module", compiler.modules())
def test_every_kernel_gives_the_emulators_bits(module, replayed):
    seen, kernels = replayed(module, CALLS[module])
    assert " ".join(sorted(kernels - seen.keys())) == "", "launched by no call"
    assert {name: d for name, d in seen.items() if d > (ROUNDINGS if INEXACT.search(name) else 0)} == {}
