"""Random numbers: known answers, distributions, independence of keys, reproducibility."""

import math

import numpy as np
import pytest

import dlcore as dl
from dlcore import random
from dlcore.errors import ArgumentError, DTypeError
from dlcore.op import OPS
from dlcore.ops.philox import normal_quantile, philox, words_64

N = 100_000

# Random123 1.x, tests/kat_vectors, lines "philox4x32 10": counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.fixture(autouse=True)
def _seeded():
    dl.manual_seed(5)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter, key, expected):
    counter, key, expected = ([np.uint64(int(w, 16)) for w in text.split()] for text in (counter, key, expected))
    assert philox(np, counter, key) == expected


def draw(name, seed=1, stream=0, **attrs):
    return np.asarray(OPS[name](np.asarray([seed, stream]), **attrs))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_an_element_depends_on_its_index_alone(name, dtype):
    whole = draw(name, shape=(37,), dtype=np.dtype(dtype))
    np.testing.assert_array_equal(draw(name, shape=(2, 5), dtype=np.dtype(dtype)).ravel(), whole[:10])


def test_block_numbers_beyond_32_bits_reach_the_second_counter_word():
    word = philox(np, [np.uint64(0), np.uint64(1), np.uint64(0), np.uint64(0)], [np.uint64(0)] * 2)
    assert word != philox(np, [np.uint64(0)] * 4, [np.uint64(0)] * 2)


@pytest.mark.parametrize("other", [(2, 0), (1 + 2**32, 0), (1, 1), (1, 2**32)], ids=str)
def test_keys_give_independent_numbers(other):
    a, b = draw("normal", shape=(N,)), draw("normal", *other, shape=(N,))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(N)


@pytest.mark.parametrize("lag", [1, 2, 4, 7])
def test_neighbours_are_uncorrelated(lag):
    x = draw("normal", shape=(N,)).astype(np.float64)
    assert abs((x[lag:] * x[:-lag]).mean()) < 4 / math.sqrt(N)


def kolmogorov(x, cdf):
    x = np.sort(x.astype(np.float64).ravel())
    p, n = cdf(x), x.size
    return max((p - np.arange(n) / n).max(), (np.arange(1, n + 1) / n - p).max()) * math.sqrt(n)


def normal_cdf(x):
    return np.asarray([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "cdf"), [("uniform", lambda x: x), ("normal", normal_cdf)])
def test_kolmogorov_smirnov(name, cdf, dtype):
    assert kolmogorov(draw(name, shape=(N,), dtype=np.dtype(dtype)), cdf) < 1.95  # p = 0.001


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_moments_of_normal_numbers(dtype):
    x = draw("normal", shape=(N,), dtype=np.dtype(dtype)).astype(np.float64)
    for power, moment, spread in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((x**power).mean() - moment) < 4 * math.sqrt(spread / N)


@pytest.mark.parametrize(("width", "limit"), [(32, 3e-6), (64, 3e-14)])
def test_normal_quantile_inverts_the_distribution(width, limit):
    """Relative to the tail probability, down to the smallest tail; erfc is the independent side."""
    word = [2**k for k in range(width - 1)] + [2 ** (width - 1) - 1 - 2**k for k in range(width - 1)]
    word += np.linspace(0, 2 ** (width - 1) - 1, 1000).astype(np.uint64).tolist()
    x = normal_quantile(np, np.asarray(word, np.uint64), width).astype(np.float64)
    tail = [0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    for w, p, v in zip(word, tail, x, strict=True):
        expected = (w + 0.5) / 2**width
        assert abs(p - expected) <= limit * expected * max(1, v * v / 3)


@pytest.mark.parametrize("width", [32, 64])
def test_normal_quantile_is_symmetric(width):
    word = np.asarray([0, 1, 12345, 2**31 - 1], np.uint64)
    mirrored = np.uint64(2**width - 1) - word
    np.testing.assert_array_equal(normal_quantile(np, word, width), -normal_quantile(np, mirrored, width))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform_numbers_stay_below_one(dtype):
    x = np.asarray(dl.uniform(N, dtype=dtype), np.float64)
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() < 1


def test_scaled_numbers():
    u, z = np.asarray(dl.uniform(N, -3.0, 5.0)), np.asarray(dl.normal(N, 2.0, 0.5))
    assert u.min() >= -3
    assert u.max() <= 5
    assert abs(u.mean() - 1) < 0.05
    assert abs(z.mean() - 2) < 0.01
    assert abs(z.std() - 0.5) < 0.01


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (-1.0, math.inf), (1.0, 1.5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truncated_normal(low, high, dtype):
    x = np.asarray(dl.truncated_normal(20_000, low=low, high=high, dtype=dtype), np.float64)
    assert low - 1e-5 <= x.min()
    assert x.max() <= high + 1e-5
    a, b = normal_cdf([low, high])
    assert kolmogorov(x, lambda v: (normal_cdf(v) - a) / (b - a)) < 1.95


def test_randint_is_uniform_over_its_range():
    counts = np.bincount(np.asarray(dl.randint(-2, 5, N)) + 2, minlength=7)
    assert counts.size == 7
    assert ((counts - N / 7) ** 2 / (N / 7)).sum() < 22.5  # chi-square with 6 degrees of freedom, p = 0.001


def test_randperm():
    x = np.asarray(dl.randperm(1000))
    np.testing.assert_array_equal(np.sort(x), np.arange(1000))
    assert abs(np.corrcoef(x, np.arange(1000))[0, 1]) < 0.13
    assert (x != np.asarray(dl.randperm(1000))).any()


def test_seed_and_state_reproduce(device):
    with dl.device(device):
        first, state, second = np.asarray(dl.randn(5)), random.state(), np.asarray(dl.randn(5))
        dl.manual_seed(5)
        np.testing.assert_array_equal(np.asarray(dl.randn(5)), first)
        random.set_state(state)
        np.testing.assert_array_equal(np.asarray(dl.randn(5)), second)
    assert (first != second).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_bernoulli_rate(p):
    assert abs(np.asarray(dl.bernoulli(dl.full(N, p))).mean() - p) < 4 * math.sqrt(p * (1 - p) / N)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dropout_scales_and_its_gradient_has_the_same_mask(dtype):
    x = dl.ones(1000, dtype).detach(requires_grad=True)
    y = dl.dropout(x, 0.25)
    kept = np.asarray(y) != 0
    assert abs(kept.mean() - 0.75) < 0.06
    np.testing.assert_allclose(np.asarray(y, np.float64)[kept], 1 / 0.75, rtol=1e-3)
    y.sum().backward()
    np.testing.assert_array_equal(np.asarray(x.grad), np.asarray(y))
    dl.manual_seed(5)
    np.testing.assert_array_equal(np.asarray(dl.dropout(dl.ones(1000), 0.25)) != 0, kept)


def test_dropout_off():
    x = dl.ones(4)
    assert dl.dropout(x, 0.5, training=False) is x
    assert np.asarray(dl.dropout(x, 1.0)).tolist() == [0, 0, 0, 0]


def test_checkpoint_draws_the_same_mask_again():
    x = dl.ones(100).detach(requires_grad=True)
    y = dl.checkpoint(dl.dropout, x)
    y.sum().backward()
    np.testing.assert_array_equal(np.asarray(x.grad), np.asarray(y))


WEIGHTS = [0.0, 1.0, 3.0, 0.0, 6.0, 0.0]


def test_multinomial_frequencies():
    drawn = np.asarray(dl.multinomial(dl.tensor(WEIGHTS), N))
    rates = np.bincount(drawn, minlength=6) / N
    np.testing.assert_allclose(rates, np.asarray(WEIGHTS) / 10, atol=4 * math.sqrt(0.25 / N))
    assert (rates[[0, 3, 5]] == 0).all()


def test_multinomial_without_replacement():
    rows = dl.broadcast_to(dl.tensor(WEIGHTS), shape=(5000, 6))
    drawn = np.asarray(dl.multinomial(rows, 3, replacement=False))
    np.testing.assert_array_equal(np.sort(drawn), np.broadcast_to([1, 2, 4], (5000, 3)))
    assert abs((drawn[:, 0] == 4).mean() - 0.6) < 0.03


def test_categorical_takes_logits():
    drawn = np.asarray(dl.categorical(dl.tensor([[0.0, math.log(3.0)], [1000.0, 0.0]]), 20_000))
    assert abs(drawn[0].mean() - 0.75) < 0.02
    assert (drawn[1] == 0).all()


MISTAKES = {
    "range": (lambda: dl.randint(3, 3, 2), ArgumentError, "randint: no integer"),
    "size": (lambda: dl.rand(2, -1), ArgumentError, "uniform: sizes"),
    "dtype": (lambda: dl.randn(2, dtype=int), DTypeError, "normal: .*int64"),
    "std": (lambda: dl.normal(2, std=-1.0), ArgumentError, "std -1"),
    "bounds": (lambda: dl.truncated_normal(2, low=1.0, high=0.0), ArgumentError, "low < high"),
    "probability": (lambda: dl.dropout(dl.ones(2), 1.5), ArgumentError, "dropout: .*[0, 1]"),
    "nan": (lambda: dl.bernoulli(dl.tensor([math.nan])), ArgumentError, "bernoulli: .*[0, 1]"),
    "weights": (lambda: dl.multinomial(dl.tensor([1.0, -1.0])), ArgumentError, "multinomial: each row"),
    "all zero": (lambda: dl.multinomial(dl.zeros((2, 3))), ArgumentError, "multinomial: each row"),
    "too many": (lambda: dl.multinomial(dl.tensor(WEIGHTS), 4, False), ArgumentError, "4 draws"),
    "seed": (lambda: dl.manual_seed(-1), ArgumentError, "manual_seed"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_one_line(name):
    call, error, text = MISTAKES[name]
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_words_of_64_bits_are_pairs_of_32():
    words = words_64(np, np.asarray([0, 0]), 2)
    assert [hex(int(w)) for w in words] == ["0xe169c58d6627e8d5", "0x9b00dbd8bc57ac4c"]
