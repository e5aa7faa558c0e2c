"""The native matrix product, allocator, thread team and vector functions, directly against NumPy float64."""

import os
import threading
import time

import numpy as np
import pytest

_C = pytest.importorskip("dlcore._C", reason="the native extension is not built")

TOLERANCE = {np.float32: 2e-6, np.float64: 4e-15}  # of the largest |a| @ |b|, for K <= 1000
SIZES = [
    (1, 1, 1),
    (3, 5, 2),
    (8, 300, 20),
    (14, 32, 16),
    (33, 97, 65),
    (120, 10, 257),
    (300, 513, 530),
    (32, 512, 784),
    (50, 700, 800),  # B is large enough to pack A
]


@pytest.fixture(params=_C.available_isas())
def isa(request):
    before = _C.isa()
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(before)


@pytest.fixture
def threads():
    before = _C.num_threads()
    yield _C.set_num_threads
    _C.set_num_threads(before)


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def rand(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def layouts(x):
    """The same matrix in memory orders: by rows, by columns, padded, backwards, and with neither stride 1."""
    rows, cols = x.shape[-2:]
    wide = np.zeros((*x.shape[:-2], 2 * rows + 1, 3 * cols + 2), x.dtype)
    padded = wide[..., :rows, :cols]
    sparse = wide.copy()[..., ::2, ::3][..., :rows, :cols]
    padded[...], sparse[...] = x, x
    flipped = np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]
    return [x, np.ascontiguousarray(x.mT).mT, padded, flipped, sparse]


def error(got, a, b, want=None):
    a, b = a.astype(np.float64), b.astype(np.float64)
    want = a @ b if want is None else want
    scale = max(1e-30, (np.abs(a) @ np.abs(b)).max(initial=0), np.abs(want).max(initial=0))
    return np.abs(got - want).max(initial=0) / scale


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_layout(size, dtype, isa):
    m, n, k = size
    for a in layouts(rand(m, k, dtype=dtype)):
        for b in layouts(rand(k, n, dtype=dtype)):
            out = np.full((m, n), np.nan, dtype)
            _C.matmul(a, b, out)
            assert error(out, a, b) < TOLERANCE[dtype]


def test_all_small_sizes(isa):
    for m in range(1, 36):
        for n in (1, 2, 7, 16, 17, 31, 33, 66):
            a, b = rand(m, 19), rand(19, n)
            for left, right in ((a, b), (layouts(a)[1], b), (a, layouts(b)[1])):
                out = np.full((m, n), np.nan, np.float32)
                _C.matmul(left, right, out)
                assert error(out, a, b) < 2e-6, (m, n)


@pytest.mark.parametrize("size", [(0, 3, 2), (3, 0, 2), (3, 2, 0)], ids=str)
def test_empty(size, isa):
    m, n, k = size
    out = np.full((m, n), np.nan, np.float32)
    _C.matmul(rand(m, k), rand(k, n), out, rand(n), "relu")
    np.testing.assert_array_equal(out, np.maximum(np.broadcast_to(rand(n), (m, n)), 0))


def erf(x):
    import math

    return np.vectorize(math.erf)(x)


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(5, 40, 33), (2, 9, 300), (60, 70, 600)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogue(activation, size, dtype, isa):
    m, n, k = size
    a, b, start = rand(m, k, dtype=dtype), rand(k, n, dtype=dtype), rand(m, n, dtype=dtype, seed=1)
    for right in layouts(b)[:2]:
        for bias in (None, rand(n, dtype=dtype), rand(m, 1, dtype=dtype)):
            for accumulate in (False, True):
                out = start.copy()
                _C.matmul(a, right, out, bias=bias, activation=activation, accumulate=accumulate)
                linear = a.astype(float) @ b.astype(float) + accumulate * start.astype(float)
                want = ACTIVATIONS[activation](linear + (0 if bias is None else bias.astype(float)))
                assert error(out, a, b, want) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "size", [(1, 4, 6, 8), (2, 33, 40, 65), (7, 20, 50, 30), (50, 9, 17, 64), (2, 100, 90, 80)], ids=str
)
def test_batched(size, isa):
    batch, m, n, k = size
    a, b = rand(batch, m, k), rand(batch, k, n)
    for left in (*layouts(a), a[:1]):
        for right in (*layouts(b), b[:1]):
            out = np.full((batch, m, n), np.nan, np.float32)
            _C.matmul(left, right, out)
            assert error(out, left, right) < 2e-6


def test_writes_only_its_part_of_out(isa):
    whole = np.full((40, 90), 7, np.float32)
    _C.matmul(rand(21, 10), rand(10, 37), whole[5:26, 11:48])
    whole[5:26, 11:48] = 7
    assert (whole == 7).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_non_finite_values_pass(activation, value, isa):
    a, b = rand(20, 30), np.ones((30, 40), np.float32)
    a[3, 7] = value
    out = np.empty((20, 40), np.float32)
    _C.matmul(a, b, out, activation=activation)
    np.testing.assert_array_equal(out[3], np.full(40, value, np.float32))
    assert np.isfinite(np.delete(out, 3, axis=0)).all()


@pytest.mark.parametrize("size", [*SIZES, (700, 300, 600), (20, 3000, 300), (400, 90, 2500), (300, 4500, 20)], ids=str)
def test_bits_do_not_depend_on_threads(size, isa, threads):
    m, n, k = size
    for a in layouts(rand(m, k))[:2]:
        for b in layouts(rand(k, n))[:2]:
            outs = []
            for count in (1, 2, 3, 9):
                threads(count)
                out = np.empty((m, n), np.float32)
                _C.matmul(a, b, out, rand(n), "tanh")
                outs.append(out)
            for out in outs[1:]:
                np.testing.assert_array_equal(out, outs[0])


def f32(*shape):
    return np.zeros(shape, np.float32)


READ_ONLY = f32(2, 4)
READ_ONLY.flags.writeable = False
SHARED = f32(4, 4)
MISTAKES = {
    "inner sizes": (f32(2, 3), f32(4, 4), f32(2, 4)),
    "rows of out": (f32(2, 3), f32(3, 4), f32(3, 4)),
    "columns of out": (f32(2, 3), f32(3, 4), f32(2, 5)),
    "dtypes": (f32(2, 3), np.zeros((3, 4)), f32(2, 4)),
    "integers": tuple(np.zeros(s, np.int32) for s in ((2, 3), (3, 4), (2, 4))),
    "one dimension": (f32(3), f32(3), f32(1)),
    "four dimensions": (f32(1, 1, 2, 3), f32(1, 1, 3, 4), f32(1, 1, 2, 4)),
    "dimensions differ": (f32(1, 2, 3), f32(3, 4), f32(1, 2, 4)),
    "batches": (f32(2, 2, 3), f32(3, 3, 4), f32(3, 2, 4)),
    "byte order": (f32(2, 3).astype(">f4"), f32(3, 4), f32(2, 4)),
    "read-only": (f32(2, 3), f32(3, 4), READ_ONLY),
    "columns of out apart": (f32(2, 3), f32(3, 4), f32(2, 8)[:, ::2]),
    "out broadcast": (f32(2, 3), f32(3, 4), np.lib.stride_tricks.as_strided(f32(4), (2, 4), (0, 4))),
    "out is an operand": (SHARED, f32(4, 4), SHARED),
    "bias length": (f32(2, 3), f32(3, 4), f32(2, 4), f32(2)),
    "bias dtype": (f32(2, 3), f32(3, 4), f32(2, 4), np.zeros(4)),
    "bias strides": (f32(2, 3), f32(3, 4), f32(2, 4), f32(8)[::2]),
    "activation": (f32(2, 3), f32(3, 4), f32(2, 4), None, "rleu"),
    "misaligned": (np.zeros(25, np.uint8)[1:].view(np.float32).reshape(2, 3), f32(3, 4), f32(2, 4)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_raise(mistake):
    with pytest.raises(ValueError, match=r"^matmul"):
        _C.matmul(*MISTAKES[mistake])


@pytest.mark.parametrize("args", [(), ([[1.0]], f32(1, 1), f32(1, 1)), (f32(1, 1),) * 7], ids=["none", "list", "seven"])
def test_wrong_arguments_raise(args):
    with pytest.raises(TypeError, match=r"^matmul"):
        _C.matmul(*args)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((5, 2, 3), (1, 3, 4)), ((1, 2, 3), (5, 3, 4))], ids=str)
def test_without_out_a_new_array_is_returned(shapes):
    a, b = (rand(*shape) for shape in shapes)
    out = _C.matmul(a, b, None, rand(4), "tanh")
    np.testing.assert_array_equal(out, _C.matmul(a, b, np.empty_like(out), rand(4), "tanh"))
    assert out.shape == (a @ b).shape
    with pytest.raises(ValueError, match="no out"):
        _C.matmul(a, b, accumulate=True)


def test_wrong_keyword_raises():
    with pytest.raises(TypeError, match="keyword"):
        _C.matmul(f32(1, 1), f32(1, 1), f32(1, 1), baise=None)


# ---- allocator


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7), (1000, 1000), (2,) * 20], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.dtype("f8"), "int8", np.bool_, np.complex128])
def test_allocated_arrays(shape, dtype):
    x = _C.empty(shape, dtype)
    assert (x.shape, x.dtype) == (shape, np.dtype(dtype))
    assert x.flags.c_contiguous
    assert x.flags.writeable
    assert x.ctypes.data % 64 == 0
    x[...] = 1
    assert x.sum() == x.size


def test_bfloat16_arrays():
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    x = _C.empty((3, 4), dtype)
    x[...] = 1.5
    assert x.dtype == dtype
    assert (x == 1.5).all()


def test_memory_is_used_again():
    _C.empty_cache()
    start = _C.memory_stats()["in_use"]
    x = _C.empty((1000, 1000), np.float32)
    address, view = x.ctypes.data, x[5:]
    assert _C.memory_stats()["in_use"] - start >= x.nbytes
    del x
    assert _C.memory_stats()["in_use"] > start  # the view keeps it
    del view
    assert _C.memory_stats()["in_use"] == start
    assert _C.memory_stats()["cached"] >= 4_000_000
    assert _C.empty((999, 1000), np.float32).ctypes.data == address
    _C.empty_cache()
    assert _C.memory_stats()["cached"] == 0


def held():
    stats = _C.memory_stats()
    return stats["in_use"] + stats["cached"]


def test_freed_neighbours_serve_a_larger_array():
    _C.empty_cache()
    _C.empty((64 << 20,), np.int8)
    before = held()
    parts = [_C.empty((20 << 20,), np.int8) for _ in range(3)]
    for i in (1, 0, 2):
        parts[i] = None
    _C.empty((60 << 20,), np.int8)
    assert held() == before


def test_a_part_of_a_freed_array_leaves_the_rest():
    _C.empty_cache()
    _C.empty((64 << 20,), np.int8)
    first, second = _C.empty((1 << 20,), np.int8), _C.empty((63 << 20,), np.int8)
    assert second.ctypes.data - first.ctypes.data == 1 << 20


def test_peak():
    _C.reset_peak()
    start = _C.memory_stats()["peak"]
    for _ in range(3):
        _C.empty((1 << 20,), np.int8)
    assert 1 << 20 <= _C.memory_stats()["peak"] - start < 1.2 * (1 << 20)
    _C.reset_peak()
    assert _C.memory_stats()["peak"] == start


def test_cache_limit():
    limit = _C.memory_stats()["limit"]
    try:
        _C.set_cache_limit(1000)
        _C.empty((10_000,), np.int8)
        assert _C.memory_stats()["cached"] <= 1000
    finally:
        _C.set_cache_limit(limit)


def test_waste_is_at_most_an_eighth():
    start = _C.memory_stats()["in_use"]
    for n in [*range(513, 5000, 61), 10**6, 2**20, 2**20 + 1, 10**7]:
        x = _C.empty((n,), np.int8)
        assert n <= _C.memory_stats()["in_use"] - start <= n * 9 / 8 + 64
        del x


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((-1,), "f4", ValueError),
        ([2], "f4", TypeError),
        ((2.5,), "f4", TypeError),
        ((2,), "no such", TypeError),
        ((2,), object, TypeError),
        ((1 << 62, 8), "f4", MemoryError),
        ((1 << 45,), "f4", MemoryError),
        ((1,) * 65, "f4", ValueError),
        ((1 << 70,), "f4", OverflowError),
    ],
)
def test_impossible_arrays(shape, dtype, error):
    with pytest.raises(error):
        _C.empty(shape, dtype)
    assert _C.empty((2,), np.float32).shape == (2,)


# ---- thread team


def test_thread_count(threads):
    threads(3)
    assert _C.num_threads() == 3
    for bad in (0, -1, 10**6):
        with pytest.raises(ValueError, match="1 to 1024"):
            threads(bad)
    assert _C.num_threads() == 3


def test_unknown_isa():
    with pytest.raises(ValueError, match="mmx"):
        _C.set_isa("mmx")


def test_concurrent_callers(threads):
    threads(2)
    a, b = rand(100, 200), rand(200, 300)
    want = np.empty((100, 300), np.float32)
    _C.matmul(a, b, want)
    wrong = []

    def work():
        for _ in range(50):
            out = _C.empty((100, 300), np.float32)
            _C.matmul(a, b, out)
            if not np.array_equal(out, want):
                wrong.append(out)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for i in range(20):
        threads(1 + i % 3)
    for caller in callers:
        caller.join()
    assert not wrong


def masks():
    """Of each thread: the cores that it may run on."""
    return [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]


@pytest.mark.skipif(usable_cores() < 2, reason="one core, or nobody can tell")
def test_a_woken_worker_keeps_off_its_callers_core(threads):
    threads(1)
    threads(2)
    a = rand(300, 300)
    _C.matmul(a, a, np.empty_like(a))
    time.sleep(0.1)  # until it sleeps
    _C.matmul(a, a, np.empty_like(a))
    usable = os.sched_getaffinity(0)
    assert [len(usable - mask) for mask in masks() if mask < usable] == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork(threads):
    threads(2)
    a, out, again = rand(300, 300), np.empty((300, 300), np.float32), np.empty((300, 300), np.float32)
    _C.matmul(a, a, out)
    child = os.fork()
    if child == 0:
        _C.matmul(a, a, again)
        os._exit(0 if np.array_equal(out, again) else 1)
    assert os.waitpid(child, 0)[1] == 0
    _C.matmul(a, a, again)
    np.testing.assert_array_equal(out, again)


# ---- vector functions

INF = np.inf
EDGES = np.array(
    [0.0, -0.0, INF, -INF, np.nan, 1e-45, -1e-45, 1e-40, 1.1754944e-38, 3.4e38, -3.4e38, 88.7, 89, -104], "f4"
)


def every_magnitude():
    """All exponents and both signs, 2000 values each, and the edges."""
    bits = np.random.default_rng(0).integers(0, 1 << 23, (512, 2000)) | (np.arange(512)[:, None] << 23)
    return np.concatenate([bits.astype(np.uint32).view(np.float32).ravel(), EDGES])


def functions():
    def sigmoid(x):
        return np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x)))

    return {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": sigmoid, "erf": erf}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", functions())
def test_vector_functions_within_4_ulp(name, isa):
    x = every_magnitude()
    near = np.random.default_rng(1).uniform(-20, 20, 200_000).astype(np.float32)
    x = np.concatenate([x, near])
    got = getattr(_C, name)(x)
    exact = functions()[name](x.astype(np.float64))
    want = exact.astype(np.float32)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    ulp = np.spacing(np.abs(want[finite])).astype(np.float64)
    worst = np.abs(got[finite] - exact[finite]) / ulp
    assert worst.max() <= 4, x[finite][worst.argmax()]
