"""Ops of one's own: `dl.elementwise` from Python functions of numbers, `dl.cuda_kernel` from CUDA C."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore import dispatch, testing
from dlcore.errors import ArgumentError, BackendError, DTypeError, ShapeError
from dlcore.op import OPS, sample

SLOPE = 0.25


def leak(x):
    return x if x > 0 else SLOPE * x


def bent(x, y):
    """Branches, assignments, another function, min and max."""
    z = x * y
    if z > 0.5 and not y < -1:
        z += leak(y)
        return math.tanh(z) / 2
    if x < y <= 2.0:
        return min(x, -y, 0.3)
    return abs(z) ** 1.5 + max(x, y)


def smooth(x, y, w):
    s = 1 / (1 + math.exp(-x))
    return s * math.sin(y) + math.log1p(w * w) * math.sqrt(1 + x * x) - w**3 + (x > y) * math.pi


def quotient_of(x, y):
    return x / y


FUNCTIONS = {f.__name__: f for f in (leak, bent, smooth)}


@pytest.fixture(scope="module")
def ops():
    return {name: dl.elementwise(f) for name, f in FUNCTIONS.items()}


def operands(count, seed=0, size=(40, 30)):
    rng = np.random.default_rng(seed)
    shapes = [size, size[1:], (size[0], 1)][:count]
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


# ---- elementwise


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_the_function(ops, name, device):
    f, op = FUNCTIONS[name], ops[name]
    values = operands(f.__code__.co_argcount)
    expected = np.vectorize(f, otypes=[np.float64])(*[v.astype(np.float64) for v in values])
    found = op(*[dl.tensor(v, device=device) for v in values])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_gradients_are_those_of_differences(ops, name):
    shapes = [(3, 4), (4,), (3, 1)][: FUNCTIONS[name].__code__.co_argcount]
    testing.check_gradient(ops[name], sample(*shapes))
    testing.check_second_gradient(ops[name], sample(*shapes))


@pytest.mark.sim
def test_gradients_on_the_emulator(ops):
    x, y = operands(2, size=(4, 5))
    grads = []
    for device in ("numpy", "sim"):
        a, b = (dl.tensor(v, device=device, requires_grad=True) for v in (x, y))
        ops["bent"](a, b).sum().backward()
        grads.append((a.grad.numpy(), b.grad.numpy()))
    for found, expected in zip(*grads, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(ops, dtype, device):
    x = dl.tensor(operands(1)[0], dtype, device)
    found = ops["leak"](x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found.astype("float64").numpy(), np.where(
        x.numpy().astype(np.float64) > 0, x.numpy(), SLOPE * x.numpy().astype(np.float64)), rtol=8e-3)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("size", [(4, 3), (400, 300)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_numba_runs_it_on_cpu_where_it_is_installed(ops, name, size):
    pytest.importorskip("numba")
    tensors = [dl.tensor(v, device="cpu") for v in operands(FUNCTIONS[name].__code__.co_argcount, size=size)]
    backend, shapes = tensors[0]._backend, tuple(t.shape for t in tensors)
    assert dispatch.choose(dispatch.Call(ops[name], shapes, tensors[0].dtype, {}, {}, backend)).name == "numba"
    expected = ops[name](*[t.astype("float64").to("numpy") for t in tensors])
    np.testing.assert_allclose(ops[name](*tensors).numpy(), expected.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_division_by_zero_in_numba_is_as_everywhere():
    pytest.importorskip("numba")
    quotient = dl.elementwise(quotient_of)
    x, y = dl.tensor([1.0, 0.0, -1.0], device="cpu"), dl.zeros((3,), device="cpu")
    np.testing.assert_array_equal(quotient(x, y).numpy(), [np.inf, np.nan, -np.inf])


def test_a_new_function_of_the_same_name_takes_the_place():
    def same(x):
        return x + 1

    first = dl.elementwise(same)

    def same(x):
        return x + 2

    second = dl.elementwise(same)
    x = dl.tensor([1.0])
    assert [first(x).item(), second(x).item()] == [2, 3]
    assert second.scalar(1.0) == 3


def test_a_constant_has_a_gradient_of_zero():
    flat = dl.elementwise(lambda x: 2.0)
    x = dl.tensor([1.0, 5.0], requires_grad=True)
    y = flat(x)
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist()) == ([2, 2], [0, 0])


def loop(x):
    for _ in range(3):
        x = x * x
    return x


def word(x):
    return x + len("word")


def forgets(x):
    if x > 0:
        return x
    x += 1
    return None


def unknown(x):
    return x + nowhere  # noqa: F821


def gamma(x):
    return math.gamma(x)


def g_named(g):
    return g


MISTAKES = {
    loop: r"loop, line \d+: For has no element-wise form",
    word: r"word, line \d+: Constant has no element-wise form",
    forgets: "forgets, line .*does not return a number on every path",
    unknown: "unknown, line .*nowhere is not known here",
    gamma: r"gamma, line .*math\.gamma of 1 numbers has no element-wise form",
    g_named: "a parameter must not be called 'g'",
}


@pytest.mark.parametrize("f", MISTAKES, ids=lambda f: f.__name__)
def test_what_has_no_elementwise_form_is_named_with_its_line(f):
    with pytest.raises(ArgumentError, match=MISTAKES[f]):
        dl.elementwise(f)
    assert f.__name__ not in OPS


def test_the_name_of_an_op_of_the_library_is_refused():
    def tanh(x):
        return x

    with pytest.raises(ArgumentError, match="there is an op 'tanh' already"):
        dl.elementwise(tanh)


# ---- cuda_kernel

SAXPY = """
extern "C" __global__ void saxpy(const float* x, const float* __restrict__ y, float* z, float a, int N) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N) z[i] = a * x[i] + y[i];
}
"""
ROWS = """
#include "dl.cuh"
// sums and largest elements of rows, a block each
extern "C" __global__ void row_extent(const double *x, double *total, long long *place, long long M, unsigned N) {
  DL_SHARED(double, row);
  for (unsigned j = threadIdx.x; j < N; j += blockDim.x) row[j] = x[blockIdx.x * N + j];
  __syncthreads();
  if (threadIdx.x != 0) return;
  double sum = 0;
  long long best = 0;
  for (unsigned j = 0; j < N; ++j) {
    sum += row[j];
    if (row[j] > row[best]) best = j;
  }
  total[blockIdx.x] = sum, place[blockIdx.x] = best;
}
"""


@pytest.fixture
def saxpy():
    return dl.cuda_kernel(
        SAXPY,
        "x[N] y[N] -> z[N]",
        cpu=lambda xp, x, y, *, a: a * x + y,
        vjp={"x": lambda g, a: g * a, "y": lambda g: g},
    )


def test_a_kernel_is_an_op_with_a_gradient(saxpy, device):
    x, y = (dl.tensor(v, device=device, requires_grad=True) for v in np.float32([[1, 2, 3], [5, 5, 5]]))
    z = saxpy(x, y, a=2.0)
    z.sum().backward()
    assert (z.tolist(), x.grad.tolist(), y.grad.tolist()) == ([7, 9, 11], [2, 2, 2], [1, 1, 1])


@pytest.mark.sim
def test_strided_operands_arrive_contiguous(saxpy, launches):
    x = dl.tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="sim")
    assert saxpy(x[:, 1], x[0, ::-1][:3], a=10.0).tolist() == [13, 52, 91]
    assert launches[-1] == "saxpy"


@pytest.mark.sim
def test_several_outputs_grid_and_shared_memory():
    extent = dl.cuda_kernel(ROWS, "x[M,N] -> total[M] place[M]", grid=lambda d: d.M, block=32, shared=lambda d: 8 * d.N)
    x = np.random.default_rng(0).normal(size=(5, 70))
    total, place = extent(dl.tensor(x, "float64", "sim"))
    np.testing.assert_allclose(total.numpy(), x.sum(1))
    np.testing.assert_array_equal(place.numpy(), x.argmax(1))


@pytest.mark.sim
def test_wrong_shapes_dtypes_and_numbers_are_refused(saxpy):
    x, y = (dl.ones((3,), device="sim") for _ in range(2))
    with pytest.raises(ShapeError, match=r"saxpy: expected x\[N\] y\[N\]; got .*N: 3 vs 2"):
        saxpy(x, y[:2], a=1.0)
    with pytest.raises(DTypeError, match="saxpy: the kernel takes x of float32; got float64"):
        saxpy(x.astype("float64"), y.astype("float64"), a=1.0)
    with pytest.raises(ArgumentError, match="attribute 'a' is missing"):
        saxpy(x, y)


@pytest.mark.sim
def test_a_number_that_does_not_fit_the_kernel_is_refused():
    repeat = dl.cuda_kernel(
        'extern "C" __global__ void repeated(const float* x, float* y, int N, int times) {}', "x[N] -> y[N]"
    )
    with pytest.raises(ArgumentError, match="repeated: times = 4294967296 does not fit int"):
        repeat(dl.ones((2,), device="sim"), times=2**32)


def test_without_a_body_for_the_cpu_it_says_so():
    bare = dl.cuda_kernel('extern "C" __global__ void bare(const float* x, float* y, int N) {}', "x[N] -> y[N]")
    with pytest.raises(BackendError, match="bare: a CUDA kernel without a body for the CPU"):
        bare(dl.ones((3,), device="numpy"))


@pytest.mark.parametrize(
    ("source", "signature", "message"),
    [
        ("void f() {}", "x[N] -> y[N]", "expected one extern"),
        (SAXPY + SAXPY, "x[N] y[N] -> z[N]", "the source has 2"),
        (SAXPY, "x[N] q[N] -> z[N]", r"the signature has no operand 'y' for float\* y"),
        (SAXPY, "x[N] y[N] -> z[N] more[N]", "no pointer is called 'more'"),
        (SAXPY.replace("float a", "complex a"), "x[N] y[N] -> z[N]", "'complex a' is of no known type"),
    ],
)
def test_a_source_that_does_not_fit_its_signature_is_refused(source, signature, message):
    with pytest.raises(ArgumentError, match=message):
        dl.cuda_kernel(source, signature)
