"""What is in the table: for each family of kernels one line with its bars and a representative call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import dlcore as dl
from benchmarks.static.sample import Arrays
from dlcore import dtypes
from dlcore.dispatch import get_backend
from dlcore.op import OPS


class Bars(NamedTuple):
    """Limits of the ten metrics for a class of kernels; None where one does not apply. `docs/kernels.md` explains."""

    name: str
    math_share: float | None  # at least
    per_stall: float | None  # at least: math's cycles over the sum of stalls
    math_per_load: float | None  # at least, per load of shared memory
    shared_cycles: float  # at most, over those of math, or of DRAM where there is none
    wide: float  # at least: share of bytes moved 16 at a time
    dram: float  # at most, over compulsory bytes
    warps: int  # at least resident, if there are not two blocks
    two_blocks: bool  # whether these are enough
    modelled: float  # at most, over the roofline


F32_GEMM = Bars("f32 GEMM", 0.90, 0.84, 21, 0.5, 0.95, 1.1, 8, True, 1.15)
F32_SMALL = F32_GEMM._replace(name="f32 GEMM, 64x64 tile", math_share=0.73, math_per_load=14)
F64_GEMM = F32_GEMM._replace(name="f64 GEMM", math_share=0.73, per_stall=None, math_per_load=7)
TENSOR_GEMM = Bars("tensor-core GEMM", 0.49, 0.95, 3.5, 0.5, 1.0, 1.1, 8, True, 1.25)
F32_CONV = F32_GEMM._replace(name="f32 convolution", math_share=0.76, wide=0.0, dram=1.2, modelled=1.4)
F32_SMALL_CONV = F32_CONV._replace(name="f32 convolution, 64x64 tile", math_share=0.73, math_per_load=14)
TENSOR_CONV = TENSOR_GEMM._replace(name="tensor-core convolution", math_share=0.32, dram=1.2, modelled=1.4)
TENSOR_WGRAD = TENSOR_CONV._replace(name="tensor-core convolution, gradient of w", math_share=0.19, per_stall=0.86)
TENSOR_ATTENTION = TENSOR_CONV._replace(name="tensor-core attention", dram=1.1)
F32_ATTENTION = F32_SMALL._replace(name="f32 attention", modelled=1.4)
DIRECT_CONV = F32_CONV._replace(name="direct convolution", math_share=0.6, per_stall=None, math_per_load=12)
STEP = F32_SMALL._replace(name="fused step of a recurrent network")
ALL_STEPS = F32_SMALL._replace(name="all steps of a recurrent network")
MEMORY = Bars("memory-bound", None, None, None, 0.5, 1.0, 1.0, 48, False, 1.1)


class Family(NamedTuple):
    """A kernel and the call that stands for it: `call(new, size)`, its operands made by `new(*shape)`."""

    kernel: str
    bars: Bars
    call: Callable[[Arrays, int], Any]
    small: int  # run by the emulator
    full: int  # modelled, and measured on a GPU
    fma: Callable[[int], float] | None = None  # multiply-adds, for kernels that math bounds
    exact: Callable[[Arrays, int], Any] | None = None  # the same in ops that every backend has, where `call` is not
    multiprocessors: int = 1  # of the device that the emulator is, for the small call

    @property
    def math(self) -> tuple[str, int]:
        """Instruction that multiplies and adds, and how many multiply-adds one does in a warp."""
        if "tensor" in self.bars.name:
            return "HMMA", 1024 if "_tf32" in self.kernel else 2048
        return "DFMA" if "_f64" in self.kernel else "FFMA", 32


K = 2048  # inner size of matrix products: their blocks do the same whatever the number of rows and columns


def product(kernel: str, bars: Bars, layout: str, dtype: Any, small: int, full: int = 4096, on: int = 1) -> Family:
    """A matrix product of `layout` (see kernels/gemm.cu); on: multiprocessors for which the small one is cut."""

    def call(new: Arrays, n: int) -> Any:
        a = new(K, n, dtype=dtype).mT if layout[0] == "t" else new(n, K, dtype=dtype)
        b = new(n, K, dtype=dtype).mT if layout[1] == "t" else new(K, n, dtype=dtype)
        return a @ b

    return Family(kernel, bars, call, small, full, lambda n: float(n * n * K), multiprocessors=on)


def summed_up(whole: Family, kernel: str) -> Family:
    """Of a product or convolution that is split: the kernel that adds up the splits. Both sizes are the same."""
    return whole._replace(kernel=kernel, bars=MEMORY, full=whole.small, fma=None, multiprocessors=108)


def tf32(kernel: str) -> Family:
    """A matrix product in tf32, as `DLCORE_VARIANT=matmul=tf32` asks for it."""
    from dlcore.backends.cuda.ops_matmul import product as run

    def call(new: Arrays, n: int) -> Any:
        return run(new(n, K)._array, new(n, K).mT._array, tf32=True)

    exact = product(kernel, TENSOR_GEMM, "nt", dtypes.float32, 256).call
    return Family(kernel, TENSOR_GEMM, call, 512, 4096, lambda n: float(n * n * K), exact)


def skinny(kernel: str, layout: str, count: int, dtype: Any) -> Family:
    """A product of a few rows with a matrix of n lines (layout t) or of n columns (layout n)."""

    def call(new: Arrays, n: int) -> Any:
        x = new(count, K, dtype=dtype)
        return x @ (new(n, K, dtype=dtype).mT if layout == "t" else new(K, n, dtype=dtype))

    return Family(kernel, MEMORY, call, 256, 32768)


def attention(kernel: str, bars: Bars, width: int, dtype: Any = dtypes.float32) -> Family:
    """Attention of n heads of that width: 512 queries and keys."""
    t = 512

    def call(new: Arrays, n: int) -> Any:
        q, k, v = (new(n, t, width, dtype=dtype) for _ in range(3))
        return OPS["attention"](q, k, v, None, causal=False, scale=None)

    return Family(kernel, bars, call, 1, 512, lambda n: float(n * t * t * 2 * width))


def attention_grad(kernel: str, products: int, dtype: Any = dtypes.float32, op: str = "attention_grad") -> Family:
    """The gradient of such attention, of heads of 64; products: of 512 x 512 x 64 numbers in the kernel."""
    t, width = 512, 64
    biases = [(t, t)] if op == "attention_bias_grad" else []

    def call(new: Arrays, n: int) -> Any:
        dy, q, k, v, y = (new(n, t, width, dtype=dtype) for _ in range(5))
        bias: list[Any] = [new(n, *shape, dtype=dtype) for shape in biases] or [None]
        return OPS[op](dy, None, q, k, v, *bias, y, new(n, t, dtype=dtype), causal=False, scale=None)

    fma = (lambda n: float(n * t * t * products * width)) if products else None
    return Family(kernel, F32_ATTENTION if products else MEMORY, call, 1, 512, fma)


SIDE = 16  # of images: whole tiles of pixels
PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def convolution(
    kernel: str, bars: Bars, op: str, c: int, o: int, small: int, dtype: Any = dtypes.float32, full: int = 512,
    on: int = 1, taps: int = 3,
) -> Family:  # fmt: skip
    """A convolution of c channels to o, or its gradient of w; sizes that whole tiles cover. on: as of `product`."""
    attrs = PLAIN | {"padding": (taps // 2, taps // 2)} | ({"kernel": (taps, taps)} if op == "conv2d_dw" else {})

    def call(new: Arrays, n: int) -> Any:
        x, y, w = (n, c, SIDE, SIDE), (n, o, SIDE, SIDE), (o, c, taps, taps)
        first, second = (y, x) if op == "conv2d_dw" else (x, w)
        return OPS[op](new(*first, dtype=dtype), new(*second, dtype=dtype), **attrs)

    return Family(kernel, bars, call, small, full, lambda n: float(n * SIDE**2 * c * o * taps**2), multiprocessors=on)


def tf32_convolution(kernel: str) -> Family:
    """A 3x3 convolution in tf32, as `DLCORE_VARIANT=conv2d=tf32` asks for it."""
    from dlcore.backends.cuda.ops_conv import TF32, forward, geometry

    def call(new: Arrays, n: int) -> Any:
        x, w = (new(*shape)._array[:, :, None] for shape in ((n, 128, SIDE, SIDE), (256, 128, 3, 3)))
        return forward(TF32, x, w, None, geometry(**PLAIN))

    exact = convolution(kernel, TENSOR_CONV, "conv2d", 128, 256, 48)
    return exact._replace(call=call, exact=exact.call)


def depthwise(kernel: str, op: str) -> Family:
    """A depthwise 3x3 convolution of 64 channels, or a gradient of it."""
    attrs: dict[str, Any] = PLAIN | {"groups": 64}
    attrs |= {"conv2d_dx": {"size": (SIDE, SIDE)}, "conv2d_dw": {"kernel": (3, 3)}}.get(op, {})

    def call(new: Arrays, n: int) -> Any:
        first, second = new(n, 64, SIDE, SIDE), (n, 64, SIDE, SIDE) if op == "conv2d_dw" else (64, 1, 3, 3)
        return OPS[op](first, new(*second), **attrs)

    return Family(kernel, MEMORY, call, 16, 4096)


def channels_last(new: Arrays, n: int) -> Any:
    """16 n images of 128 channels in the order of memory that tensor cores take."""
    from dlcore.backends.cuda import ops_conv

    return ops_conv.channels_last(new(n, 16, 128, 1, SIDE, SIDE, dtype=dtypes.float16)._array)


def last_axis(new: Arrays, n: int) -> Any:
    """The same by a view."""
    return new(n, 16, 128, 1, SIDE, SIDE, dtype=dtypes.float16)._array.transpose(0, 1, 3, 4, 5, 2)


def textbook(kernel: str, op: str) -> Family:
    """Patches of 3x3 pixels as columns of a matrix, or their sum: a convolution whose filters are an identity."""
    from dlcore.backends.cuda import ops_conv

    rows, space, taps, g = 16 * 9, (1, SIDE, SIDE), (1, 3, 3), ops_conv.geometry(**PLAIN)

    def call(new: Arrays, n: int) -> Any:
        if op == "conv2d":
            return ops_conv.im2col(new(n, 16, *space)._array, taps, space, g)
        return ops_conv.col2im(new(n, 1, rows, SIDE**2)._array, (n, 16, *space), taps, space, g)

    def exact(new: Arrays, n: int) -> Any:
        x = new(n, 16 if op == "conv2d" else rows, SIDE, SIDE)
        filters = dl.eye(rows, device=x.device).reshape(rows, 16, 3, 3)
        more = {} if op == "conv2d" else {"size": (SIDE, SIDE)}
        return OPS[op](x, filters, **PLAIN, **more).reshape(n, *((1, rows, -1) if op == "conv2d" else (16, *space)))

    return Family(kernel, MEMORY, call, 16, 4096, exact=exact)


UNITS, GATES = 512, {"lstm": 4, "gru": 3, "rnn": 1}  # of recurrent networks


def recurrent(kernel: str, small: int, full: int) -> Family:
    """One step of n rows in a network of 512 units; or n steps of 16 rows in one launch, the first states given."""
    name, all_steps, inputs = kernel.partition("_")[0], "_all_" in kernel, 32
    attrs = {"reverse": False} | ({"activation": "tanh"} if name == "rnn" else {})
    gates, biases = GATES[name] * UNITS, [None] * (2 if name == "gru" else 1)

    def call(new: Arrays, n: int) -> Any:
        t, rows = (n, 16) if all_steps else (1, n)
        states = [new(rows, UNITS) for _ in range(2 if name == "lstm" else 1)]
        return OPS[name](new(t, rows, inputs), *states, new(gates, inputs), new(gates, UNITS), *biases, None, **attrs)

    def fma(n: int) -> float:
        return float((16 * n if all_steps else n) * gates * UNITS)

    return _of_steps(kernel, call, small, full, fma)


def recurrent_grad(kernel: str, small: int, full: int) -> Family:
    """The gradient of such a network over two steps, or n, of which the first multiplies nothing."""
    name, all_steps = kernel.partition("_")[0], "_all_" in kernel
    attrs = {"reverse": False, "initial": False} | ({"activation": "tanh"} if name == "rnn" else {})
    gates = GATES[name] * UNITS

    def call(new: Arrays, n: int) -> Any:
        t, rows = (n, 16) if all_steps else (2, n)
        first, weights, h = new(rows, UNITS), new(gates, UNITS), new(t, rows, UNITS)
        saved = {"lstm": (None, None, first, weights, h), "gru": (None, first, weights, h), "rnn": (weights, h)}[name]
        all_gates = [] if name == "rnn" else [new(t, rows, 4 * UNITS)]
        return OPS[f"{name}_grad"](new(t, rows, UNITS), *saved, *all_gates, None, **attrs)

    def fma(n: int) -> float:
        return float((16 * (n - 1) if all_steps else n) * gates * UNITS)

    return _of_steps(kernel, call, small, full, fma)


def _of_steps(
    kernel: str, call: Callable[[Arrays, int], Any], small: int, full: int, fma: Callable[[int], float]
) -> Family:
    """A kernel for one step, or for all on as many multiprocessors as there are blocks of units."""
    bars, on = (ALL_STEPS, UNITS // 8) if "_all_" in kernel else (STEP, 1)
    return Family(kernel, bars, call, small, full, fma, multiprocessors=on)


LOSS: dict[str, Any] = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "none"}


def places(new: Arrays, *shape: int, below: int) -> Any:
    """Whole numbers below a limit."""
    return new(*shape, dtype=dtypes.int64, below=below)


def cross_entropy(
    kernel: str, classes: int, dtype: Any = dtypes.float32, inner: tuple[int, ...] = (), **attrs: Any
) -> Family:
    """Losses of rows of that many classes, or of positions after the classes; or the gradient for the logits."""
    wide, attrs = dtypes.float32, LOSS | attrs

    def call(new: Arrays, n: int) -> Any:
        shape = n, *inner
        if "grad" not in kernel:
            return OPS["cross_entropy"](
                new(n, classes, *inner, dtype=dtype), places(new, *shape, below=classes), None, **attrs
            )
        labels = places(new, *shape, below=classes)
        operands = new(*shape, dtype=wide), new(n, classes, *inner, dtype=dtype), new(*shape, dtype=wide), labels, None
        return OPS["cross_entropy_grad"](None, *operands, **attrs)

    count = classes
    for size in inner:
        count *= size
    return Family(kernel, MEMORY, call, max(1, 2**15 // count), 2**26 // count)


def embedding(new: Arrays, n: int) -> Any:
    """n rows of a table of 1000 rows of 512 numbers."""
    return OPS["embedding"](places(new, n, below=1000), new(1000, 512), padding_idx=None)


def embedding_grad(new: Arrays, n: int) -> Any:
    """Gradient of a table of 1000 rows of 512 numbers, of which n rows were taken."""
    return OPS["embedding_grad"](places(new, n, below=1000), new(n, 512), rows=1000, padding_idx=None)


def scattered(kernel: str, op: str, axis: int) -> Family:
    """An element from or to each place of rows of 512, or of 512 rows, at random positions of an axis."""

    def call(new: Arrays, n: int) -> Any:
        shape = (n, 512) if axis else (512, n)
        x, positions = new(*shape), places(new, *shape, below=512)
        return OPS[op](x, positions, *([] if op == "take_along_axis" else [new(*shape)]), axis=axis)

    return Family(kernel, MEMORY, call, 64, 2**16)


def flattened(new: Arrays, n: int) -> Any:
    """n elements of a matrix at row and column positions."""
    return new(512, 512)[places(new, n, below=512), places(new, n, below=512)]


def dropout(new: Arrays, n: int) -> Any:
    """Half of n numbers."""
    return OPS["dropout"](new(n), places(new, 2, below=9), p=0.5)


def drawn(kernel: str, op: str, **attrs: Any) -> Family:
    """n random numbers of a key."""
    return Family(kernel, MEMORY, lambda new, n: OPS[op](places(new, 2, below=9), shape=(n,), **attrs), 2**18, 2**26)


def multinomial(kernel: str, replacement: bool) -> Family:
    """16 of 128 classes, for n rows."""

    def call(new: Arrays, n: int, exactly: bool = False) -> Any:
        p = new(n, 128)
        p = p.astype(dtypes.float32) if exactly else p
        return OPS["multinomial"](p, places(new, 2, below=9), count=16, replacement=replacement)

    return Family(kernel, MEMORY, call, 1024, 2**18, exact=lambda new, n: call(new, n, True))


def batch_norm(kernel: str) -> Family:
    """Batch norm of 64 channels of 16x16 pixels, or its gradient; statistics and result are kernels of their own."""

    def call(new: Arrays, n: int) -> Any:
        x, per_channel = (n, 64, 16, 16), [new(64) for _ in range(3)]
        if kernel in ("batch_norm_moments_f32", "batch_norm_apply_f32"):
            return OPS["batch_norm"](new(*x), *per_channel[:2], eps=1e-5)
        grads = new(*x), new(64), new(64)
        return OPS["batch_norm_grad"](*grads, new(*x), *per_channel, eps=1e-5)

    return Family(kernel, MEMORY, call, 64, 4096)


def group_norm(kernel: str, op: str) -> Family:
    """Group norm of 8 groups of 64 channels of 16x16 pixels, or its gradient."""

    def call(new: Arrays, n: int) -> Any:
        images = [new(n, 64, 16, 16) for _ in range(2 if op.endswith("grad") else 1)]
        return OPS[op](*images, new(64), groups=8, eps=1e-5)

    return Family(kernel, MEMORY, call, 16, 4096)


def norm(kernel: str, op: str, n: int, dtype: Any, extra: int = 1) -> Family:
    """Layer norm or RMS norm of rows of n elements, or a gradient; `extra` numbers for each place in a row."""

    def call(new: Arrays, m: int) -> Any:
        full = [new(m, n, dtype=dtype) for _ in range(2 if op.endswith("grad") else 1)]
        return OPS[op](*full, *[new(n, dtype=dtype) for _ in range(extra)], eps=1e-5)

    return Family(kernel, MEMORY, call, 64, 2**26 // n)


def pooling(kernel: str) -> Family:
    """2x2 windows side by side in images of 32x32, or the gradient."""
    kind, gradient = kernel.split("_")[1], "grad" in kernel
    attrs: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    attrs |= {"dilation": (1, 1)} if kind == "max" else {}

    def call(new: Arrays, n: int) -> Any:
        if not gradient:
            return OPS[f"{kind}_pool2d"](new(n, 64, 32, 32), **attrs)
        positions = [new(n, 64, 16, 16, dtype=dtypes.int64, below=1024)] if kind == "max" else []
        return OPS[f"{kind}_pool2d_grad"](new(n, 64, 16, 16), *positions, size=(32, 32), **attrs)

    return Family(kernel, MEMORY, call, 1, 1024)


def update(rule: str, *states: str, kernel: str = "", **settings: Any) -> Family:
    """A step of an optimizer for one parameter of n numbers, in place."""
    from dlcore.optim import kernels

    def call(new: Arrays, n: int) -> Any:
        tensors = [new(*(() if name == "mu_product" else (n,))) for name in ("param", "grad", *states)]
        param, grad, *own = [x._array for x in tensors]
        run = kernels.find(rule, get_backend(tensors[0].device).kernels, [param])
        named = {name: [array] for name, array in zip(states, own, strict=True)}
        run([param], [grad], named, lr=1e-3, weight_decay=0.0, step=1, **settings)
        return param, *own

    return Family(f"optim_{kernel or rule}_f32", MEMORY, call, 32768, 2**25)


def where(new: Arrays, n: int) -> Any:
    """One of two numbers, n times."""
    return dl.where(new(n, dtype=dtypes.bool_, below=2), new(n), new(n))


def searched(new: Arrays, n: int) -> Any:
    """Places of n numbers among 1024 that rise."""
    return OPS["searchsorted"](dl.cumsum(new(1024)), new(n), side="left")


def bernoulli(new: Arrays, n: int) -> Any:
    """Ones with n probabilities."""
    return OPS["bernoulli"](new(n), places(new, 2, below=9))


def one_hot(new: Arrays, n: int) -> Any:
    """Vectors of n labels of 512 classes."""
    return OPS["one_hot"](places(new, n, below=512), num_classes=512, dtype=dtypes.float32)


def rows(kernel: str, op: Callable[..., Any], n: int, dtype: Any = dtypes.float32, count: int = 1) -> Family:
    """An op on `count` arrays of rows of n elements."""

    def call(new: Arrays, m: int) -> Any:
        return op(*[new(m, n, dtype=dtype) for _ in range(count)])

    return Family(kernel, MEMORY, call, 64, 2**26 // n)


def copy(kernel: str, view: Callable[[Any], Any]) -> Family:
    """A contiguous copy of a view of rows of 512 elements."""
    from dlcore.backends.cuda.ops_copy import contiguous

    def call(new: Arrays, m: int) -> Any:
        return contiguous(view(new(m, 512)._array))

    return Family(kernel, MEMORY, call, 64, 2**17, exact=lambda new, m: view(new(m, 512)._array))


def flat(kernel: str, op: Callable[..., Any], dtype: Any = dtypes.float32, count: int = 1) -> Family:
    """An element-wise op on `count` arrays."""

    def call(new: Arrays, n: int) -> Any:
        return op(*[new(n, dtype=dtype) for _ in range(count)])

    return Family(kernel, MEMORY, call, 32768, 2**26)


def families() -> list[Family]:
    """Every line of the table."""
    f32, f16, bf16, f64 = dtypes.float32, dtypes.float16, dtypes.bfloat16, dtypes.float64
    adam: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}
    lamb = "exp_avg", "exp_avg_sq"
    return [
        # products
        product("gemm_nn_f32_128", F32_GEMM, "nn", f32, 256),
        product("gemm_nt_f32_128_any", F32_GEMM, "nt", f32, 256),
        product("gemm_tn_f32_128", F32_GEMM, "tn", f32, 256),
        product("gemm_nn_f32_64", F32_SMALL, "nn", f32, 128, 1536),
        product("gemm_nn_f64_64_any", F64_GEMM, "nn", f64, 128),
        product("gemm_nn_f16_256", TENSOR_GEMM, "nn", f16, 512),
        product("gemm_nt_f16_256", TENSOR_GEMM, "nt", f16, 512),
        product("gemm_tn_bf16_256", TENSOR_GEMM, "tn", bf16, 512),
        product("gemm_nn_f16_128", TENSOR_GEMM, "nn", f16, 256, 1536),
        product("gemm_nn_f16_64", TENSOR_GEMM, "nn", f16, 640, 1024, on=108),
        product("gemm_nn_f16_64_any", TENSOR_GEMM, "nn", f16, 127, 1023),
        tf32("gemm_nt_tf32_256"),
        summed_up(product("", F32_GEMM, "nn", f32, 512), "gemm_reduce_f32"),
        skinny("gemm_skinny_k_f32_1", "t", 1, f32),
        skinny("gemm_skinny_k_f16_8", "t", 4, f16),
        skinny("gemm_skinny_n_f32_1", "n", 1, f32),
        skinny("gemm_skinny_n_f32_16", "n", 16, f32),
        skinny("gemm_skinny_n_bf16_16", "n", 16, bf16),
        # attention
        attention("attention_tensor_64_f16", TENSOR_ATTENTION, 64, f16),
        attention("attention_tensor_128_bf16", TENSOR_ATTENTION, 128, bf16),
        attention("attention_forward_64_f32", F32_ATTENTION, 64),
        attention("attention_forward_128_f32", F32_ATTENTION, 128),
        attention_grad("attention_grad_q_64_f32", 3),
        attention_grad("attention_grad_kv_64_f32", 4),
        attention_grad("attention_grad_kv_64_bf16", 4, bf16),
        attention_grad("attention_grad_bias_f32", 2, op="attention_bias_grad"),
        attention_grad("attention_delta_f32", 0),
        # convolutions
        convolution("conv_forward_f32_128", F32_CONV, "conv2d", 128, 256, 1),
        convolution("conv_forward_f32_64", F32_SMALL_CONV, "conv2d", 64, 64, 1),
        convolution("conv_dw_f32_128", F32_CONV, "conv2d_dw", 128, 128, 4),
        convolution("conv_dw_f32_64", F32_SMALL_CONV, "conv2d_dw", 64, 64, 4),
        convolution("conv_patch_forward_f16_128", TENSOR_CONV, "conv2d", 128, 256, 48, f16),
        convolution("conv_patch_forward_f16_64", TENSOR_CONV, "conv2d", 64, 64, 16, f16, 64, on=108),
        convolution("conv_patch_dw_bf16_128_8", TENSOR_WGRAD, "conv2d_dw", 256, 256, 48, bf16),
        convolution("conv_patch_dw_f16_64_8", TENSOR_WGRAD, "conv2d_dw", 64, 64, 512, f16, on=108),
        tf32_convolution("conv_patch_forward_tf32_128"),
        convolution("conv_dw_bf16_128", TENSOR_WGRAD, "conv2d_dw", 1024, 256, 8, bf16, taps=1),
        summed_up(convolution("", F32_CONV, "conv2d", 64, 64, 16), "conv_reduce_f32"),
        convolution("conv_few_forward_f32", DIRECT_CONV, "conv2d", 1, 32, 8),
        depthwise("conv_depthwise_forward_f32", "conv2d"),
        depthwise("conv_depthwise_dx_f32", "conv2d_dx"),
        depthwise("conv_depthwise_dw_f32", "conv2d_dw"),
        Family("conv_channels_last_b2", MEMORY, channels_last, 2, 512, exact=last_axis),
        textbook("conv_im2col_b4", "conv2d"),
        textbook("conv_col2im_f32", "conv2d_dx"),
        # recurrent networks
        recurrent("lstm_step_narrow_f32", 16, 16),
        recurrent("lstm_step_wide_f32", 64, 512),
        recurrent("lstm_step_large_f32", 128, 4096),
        recurrent("gru_step_large_f32", 128, 4096),
        recurrent("rnn_step_large_f32", 128, 16384),
        recurrent_grad("lstm_step_grad_narrow_f32", 16, 256),
        recurrent_grad("lstm_step_grad_wide_f32", 64, 1152),
        recurrent_grad("lstm_step_grad_large_f32", 128, 16384),
        recurrent_grad("gru_step_grad_large_f32", 128, 16384),
        recurrent_grad("rnn_step_grad_large_f32", 128, 16384),
        *[recurrent(f"{name}_all_f32", 2, 128) for name in GATES],
        *[recurrent_grad(f"{name}_all_grad_f32", 3, 128) for name in GATES],
        # element by element
        flat("elementwise_add_f32", dl.add, count=2),
        flat("elementwise_multiply_f16", dl.multiply, f16, 2),
        flat("elementwise_gelu_f32", dl.gelu),
        flat("elementwise_sin_f32", dl.sin),
        Family("elementwise_subtract_f32", MEMORY, lambda new, n: new(n, 512) - new(512), 64, 2**17),
        flat("functions_atan2_f32", dl.atan2, count=2),
        flat("whole_add_i64", dl.add, dtypes.int64, 2),
        Family("select_where_b4", MEMORY, where, 32768, 2**26),
        rows("select_triangle_b4", dl.tril, 512),
        Family("targets_f32", MEMORY, one_hot, 64, 2**17),
        flat("copy_cast_f32_bf16", lambda x: x.astype(bf16)),
        copy("copy_strided_b4", lambda x: x.reshape(-1, 8, 512).swapaxes(0, 1)),
        copy("copy_transpose_b4", lambda x: x.T),
        rows("assign_b4", lambda x, y: dl.concat([x, y], axis=1), 512, count=2),
        # rows and columns
        rows("reduce_warp_sum_f32_f32", lambda x: x.sum(axis=1), 512),
        rows("reduce_block_sum_f32_f32", lambda x: x.sum(axis=1), 4096),
        rows("reduce_warp_argmax_bf16_i64", lambda x: x.argmax(axis=1), 512, bf16),
        rows("reduce_block_argmax_f32_i64", lambda x: x.argmax(axis=1), 4096),
        rows("reduce_warp_var_f16_f16", lambda x: dl.var(x, axis=1), 512, f16),
        rows("reduce_block_var_f32_f32", lambda x: dl.var(x, axis=1), 4096),
        Family("reduce_columns_sum_f32_f32", MEMORY, lambda new, n: new(n, 4096).sum(axis=0), 512, 2**14),
        Family(
            "reduce_columns_var_f16_f16", MEMORY, lambda new, n: dl.var(new(n, 4096, dtype=f16), axis=0), 512, 2**14
        ),
        Family(
            "reduce_columns_logsumexp_f32_f32", MEMORY, lambda new, n: dl.logsumexp(new(n, 4096), axis=0), 512, 2**14
        ),
        rows("softmax_warp_f32", lambda x: dl.softmax(x, axis=-1), 512),
        rows("softmax_block_f16", lambda x: dl.softmax(x, axis=-1), 4096, f16),
        rows("softmax_long_f32", lambda x: dl.softmax(x, axis=-1), 16384),
        rows("softmax_columns_f32", lambda x: dl.softmax(x.reshape(-1, 32, 64), axis=1), 2048),
        rows("softmax_grad_warp_f32", lambda dy, y: OPS["softmax_grad"](dy, y, axis=-1), 512, count=2),
        rows("softmax_grad_block_f16", lambda dy, y: OPS["softmax_grad"](dy, y, axis=-1), 4096, f16, 2),
        rows("softmax_grad_long_f32", lambda dy, y: OPS["softmax_grad"](dy, y, axis=-1), 16384, count=2),
        cross_entropy("cross_entropy_warp_f32", 512),
        cross_entropy("cross_entropy_block_f32", 4096),
        cross_entropy("cross_entropy_long_f32", 32768),
        cross_entropy("cross_entropy_columns_f32", 32, inner=(64,)),
        cross_entropy("cross_entropy_part_f32", 16, reduction="mean"),
        cross_entropy("cross_entropy_grad_warp_f16", 512, f16),
        cross_entropy("cross_entropy_grad_block_f32", 4096),
        cross_entropy("cross_entropy_grad_columns_f32", 32, inner=(64,)),
        norm("norm_warp_f32", "layer_norm", 512, f32, 2),
        norm("norm_grad_warp_f32", "layer_norm_grad", 512, f32),
        norm("norm_block_bf16", "rms_norm", 4096, bf16),
        norm("norm_grad_block_bf16", "rms_norm_grad", 4096, bf16),
        group_norm("norm_long_f32", "group_norm"),
        group_norm("norm_grad_long_f32", "group_norm_grad"),
        *map(
            batch_norm, ("batch_norm_moments_f32", "batch_norm_apply_f32", "batch_norm_sums_f32", "batch_norm_dx_f32")
        ),
        *map(pooling, ("pool_max_f32", "pool_max_grad_f32", "pool_avg_f32", "pool_avg_grad_f32")),
        rows("scan_sum_f32", lambda x: dl.cumsum(x, axis=1), 4096),
        rows("scan_product_f32", lambda x: dl.cumprod(x, axis=1), 4096),
        rows("scan_linear_f32", lambda a, b: OPS["linear_scan"](a, b, axis=-1, reverse=False), 1024, count=2),
        rows("sort_tiles_f32", lambda x: OPS["sort"](x, axis=-1, descending=False), 1024),
        rows("sort_merge_f32", lambda x: OPS["sort"](x, axis=-1, descending=False), 8192),
        Family("sort_search_f32", MEMORY, searched, 32768, 2**25),
        # places
        Family("gather_rows_b16", MEMORY, embedding, 1024, 2**17),
        scattered("gather_elements_b4", "take_along_axis", 1),
        Family("gather_flatten", MEMORY, flattened, 32768, 2**25),
        Family("gather_add_vectors_f32", MEMORY, embedding_grad, 1024, 2**17),
        scattered("gather_add_rows_f32", "scatter_add", 1),
        scattered("gather_add_elements_f32", "scatter_add", 0),
        scattered("gather_last", "scatter", 1),
        scattered("gather_replace_b4", "scatter", 1),
        # random numbers
        drawn("random_uniform_f32", "uniform", dtype=f32),
        drawn("random_normal_f32", "normal", dtype=f32, low=-float("inf"), high=float("inf")),
        drawn("random_integers", "randint", low=0, high=1000),
        Family("random_dropout_f32", MEMORY, dropout, 2**20, 2**26),
        Family("random_bernoulli_f32", MEMORY, bernoulli, 2**18, 2**26),
        multinomial("multinomial_sums_f32", True),
        multinomial("multinomial_draw_f32", True),
        multinomial("multinomial_race_f32", False),
        # optimizers
        update("sgd", "momentum_buffer", momentum=0.9, dampening=0.0, nesterov=False),
        update("adam", "exp_avg", "exp_avg_sq", amsgrad=False, **adam),
        update("adamax", "exp_avg", "exp_inf", **adam),
        update("nadam", "exp_avg", "exp_avg_sq", "mu_product", momentum_decay=4e-3, **adam),
        update("rmsprop", "square_avg", "momentum_buffer", alpha=0.9, eps=1e-8, momentum=0.9, centered=False),
        update("adagrad", "square_sum", lr_decay=0.0, eps=1e-10, initial_accumulator_value=0.0),
        update("adadelta", "square_avg", "delta_avg", rho=0.9, eps=1e-6),
        update("lion", "exp_avg", betas=(0.9, 0.99)),
        update("lamb", *lamb, **adam),
        update("lamb", *lamb, kernel="norms", **adam),
    ]
