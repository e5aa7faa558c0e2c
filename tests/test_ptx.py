"""The PTX interpreter: each class of instructions against NumPy or exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from ptx_text import dtype, execute, program, size

from dlcore.errors import KernelError
from dlcore.sim.ptx import Module

N = 96


def integers(kind, seed=0):
    rng, info = np.random.default_rng(seed), np.iinfo(dtype(kind))
    special = np.array([0, 1, 2, 7, info.max, info.max - 1, info.min, info.min + 1, info.max // 2], dtype(kind))
    some = rng.integers(info.min, info.max, N - 18, dtype=dtype(kind), endpoint=True)
    return np.concatenate([special, rng.permutation(special), some])


def floats(kind, seed=0):
    """Special values, subnormals, equal magnitudes, and random numbers over the whole range of exponents."""
    rng, t = np.random.default_rng(seed), dtype(kind)
    special = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, np.finfo(t).max, np.finfo(t).tiny / 8], t)
    near = rng.uniform(-4, 4, N // 2).astype(t)
    bits = rng.integers(0, 1 << (8 * t.itemsize), N - 18 - N // 2, dtype=np.uint64).astype(f"u{t.itemsize}")
    return np.concatenate([special, rng.permutation(special), near, bits.view(t)])


def python_ints(function, kind):
    """A function on Python integers, its result wrapped to the type."""
    bits = 8 * size(kind)

    def run(*arrays):
        values = [function(*(int(x) for x in row)) & (1 << bits) - 1 for row in zip(*arrays, strict=True)]
        return np.array(values, f"u{bits // 8}").view(dtype(kind))

    return run


def quotient(a, b):
    return -1 if b == 0 else int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))


def bits(x, width):
    return x & (1 << width) - 1


INTEGER = [
    ("add.s32 {0}, {1}, {2}", "s32", "s32 s32", lambda a, b: a + b),
    ("sub.u64 {0}, {1}, {2}", "u64", "u64 u64", lambda a, b: a - b),
    ("add.sat.s32 {0}, {1}, {2}", "s32", "s32 s32", lambda a, b: min(max(a + b, -(2**31)), 2**31 - 1)),
    ("mul.lo.s32 {0}, {1}, {2}", "s32", "s32 s32", lambda a, b: a * b),
    ("mul.lo.u64 {0}, {1}, {2}", "u64", "u64 u64", lambda a, b: a * b),
    ("mul.hi.u32 {0}, {1}, {2}", "u32", "u32 u32", lambda a, b: a * b >> 32),
    ("mul.hi.s32 {0}, {1}, {2}", "s32", "s32 s32", lambda a, b: a * b >> 32),
    ("mul.hi.u64 {0}, {1}, {2}", "u64", "u64 u64", lambda a, b: a * b >> 64),
    ("mul.hi.s64 {0}, {1}, {2}", "s64", "s64 s64", lambda a, b: a * b >> 64),
    ("mul.wide.s32 {0}, {1}, {2}", "s64", "s32 s32", lambda a, b: a * b),
    ("mul.wide.u16 {0}, {1}, {2}", "u32", "u16 u16", lambda a, b: a * b),
    ("mul24.lo.u32 {0}, {1}, {2}", "u32", "u32 u32", lambda a, b: bits(a, 24) * bits(b, 24)),
    ("mad.lo.s32 {0}, {1}, {2}, {3}", "s32", "s32 s32 s32", lambda a, b, c: a * b + c),
    ("mad.hi.u32 {0}, {1}, {2}, {3}", "u32", "u32 u32 u32", lambda a, b, c: (a * b >> 32) + c),
    ("mad.wide.s32 {0}, {1}, {2}, {3}", "s64", "s32 s32 s64", lambda a, b, c: a * b + c),
    ("div.s32 {0}, {1}, {2}", "s32", "s32 s32", quotient),
    ("div.u64 {0}, {1}, {2}", "u64", "u64 u64", lambda a, b: a // b if b else -1),
    ("rem.s64 {0}, {1}, {2}", "s64", "s64 s64", lambda a, b: a - quotient(a, b) * b if b else a),
    ("min.s32 {0}, {1}, {2}", "s32", "s32 s32", min),
    ("max.u64 {0}, {1}, {2}", "u64", "u64 u64", max),
    ("abs.s32 {0}, {1}", "s32", "s32", abs),
    ("neg.s64 {0}, {1}", "s64", "s64", lambda a: -a),
    ("sad.s32 {0}, {1}, {2}, {3}", "s32", "s32 s32 s32", lambda a, b, c: abs(a - b) + c),
    ("and.b32 {0}, {1}, {2}", "u32", "u32 u32", lambda a, b: a & b),
    ("or.b64 {0}, {1}, -2", "u64", "u64", lambda a: a | bits(-2, 64)),
    ("xor.b32 {0}, {1}, {2}", "u32", "u32 u32", lambda a, b: a ^ b),
    ("not.b32 {0}, {1}", "u32", "u32", lambda a: ~a),
    ("shl.b32 {0}, {1}, {2}", "u32", "u32 u32", lambda a, n: a << n if n < 32 else 0),
    ("shr.u32 {0}, {1}, {2}", "u32", "u32 u32", lambda a, n: a >> min(n, 64)),
    ("shr.s64 {0}, {1}, {2}", "s64", "s64 u32", lambda a, n: a >> min(n, 64)),
    ("shf.l.wrap.b32 {0}, {1}, {2}, {3}", "u32", "u32 u32 u32", lambda a, b, n: (b << 32 | a) << n % 32 >> 32),
    ("shf.r.clamp.b32 {0}, {1}, {2}, {3}", "u32", "u32 u32 u32", lambda a, b, n: (b << 32 | a) >> min(n, 32)),
    ("bfe.u32 {0}, {1}, 5, 9", "u32", "u32", lambda a: bits(a >> 5, 9)),
    ("bfe.s32 {0}, {1}, 28, 9", "s32", "s32", lambda a: a >> 28),
    ("bfe.s64 {0}, {1}, 3, 4", "s64", "s64", lambda a: bits(a >> 3, 4) - (a >> 6 & 1) * 16),
    ("bfi.b32 {0}, {1}, {2}, 4, 8", "u32", "u32 u32", lambda a, b: b & ~0xFF0 | (a & 0xFF) << 4),
    ("bfind.u32 {0}, {1}", "u32", "u32", lambda a: a.bit_length() - 1),
    ("bfind.shiftamt.s32 {0}, {1}", "u32", "s32", lambda a: _below_sign(a)),
    ("popc.b64 {0}, {1}", "u32", "u64", int.bit_count),
    ("clz.b32 {0}, {1}", "u32", "u32", lambda a: 32 - a.bit_length()),
    ("brev.b32 {0}, {1}", "u32", "u32", lambda a: int(f"{a:032b}"[::-1], 2)),
    ("prmt.b32 {0}, {1}, {2}, 0x3715", "u32", "u32 u32", lambda a, b: _bytes(a, b, (5, 1, 7, 3))),
    ("lop3.b32 {0}, {1}, {2}, {3}, 0xCA", "u32", "u32 u32 u32", lambda a, b, c: a & b | ~a & c),
    ("dp4a.s32.s32 {0}, {1}, {2}, {3}", "s32", "s32 s32 s32", lambda a, b, c: _dot(a, b) + c),
    ("cvt.s64.s32 {0}, {1}", "s64", "s32", lambda a: a),
    ("cvt.u64.s32 {0}, {1}", "u64", "s32", lambda a: a),
    ("cvt.u32.u64 {0}, {1}", "u32", "u64", lambda a: a),
    ("cvt.s32.s8 {0}, {1}", "s32", "u32", lambda a: bits(a + 128, 8) - 128),
    ("cvt.sat.u8.s32 {0}, {1}", "u16", "s32", lambda a: min(max(a, 0), 255)),
    ("mov.b32 {0}, {{{1}, {2}}}", "u32", "u16 u16", lambda a, b: a | b << 16),
    ("selp.b32 {0}, {1}, {2}, {3}", "u32", "u32 u32 pred", lambda a, b, p: a if p else b),
    ("slct.s32.s32 {0}, {1}, {2}, {3}", "s32", "s32 s32 s32", lambda a, b, c: a if c >= 0 else b),
    ("setp.lt.s32 {0}, {1}, {2}", "pred", "s32 s32", lambda a, b: a < b),
    ("setp.hs.u32 {0}, {1}, {2}", "pred", "u32 u32", lambda a, b: a >= b),
    ("setp.ne.and.s32 {0}, {1}, {2}, {3}", "pred", "s32 s32 pred", lambda a, b, p: a != b and bool(p)),
    ("set.gt.u32.s32 {0}, {1}, {2}", "u32", "s32 s32", lambda a, b: -1 if a > b else 0),
    ("and.pred {0}, {1}, {2}", "pred", "pred pred", lambda a, b: a and b),
    ("not.pred {0}, {1}", "pred", "pred", lambda a: not a),
    ("add.u16x2 {0}, {1}, {2}", "u32", "u32 u32", lambda a, b: bits(a + b, 16) | bits((a >> 16) + (b >> 16), 16) << 16),
]  # fmt: skip


def _below_sign(a):
    bits = (a if a >= 0 else ~a).bit_length()
    return 32 - bits if bits else -1


def _bytes(a, b, picks):
    both = b << 32 | a
    return sum((both >> 8 * pick & 0xFF) << 8 * k for k, pick in enumerate(picks))


def _dot(a, b):
    signed = [[(x >> 8 * k & 0xFF ^ 0x80) - 0x80 for k in range(4)] for x in (a, b)]
    return sum(x * y for x, y in zip(*signed, strict=True))


@pytest.mark.parametrize(
    ("instruction", "result", "kinds", "truth"), INTEGER, ids=[row[0].split()[0] for row in INTEGER]
)
def test_integer_instructions(instruction, result, kinds, truth):
    values = [np.arange(N) % 2 if kind == "pred" else integers(kind, k) for k, kind in enumerate(kinds.split())]
    if any(op in instruction for op in ("shl", "shr", "shf")):
        values[-1] = np.arange(N, dtype=np.uint32) % 70
    found = execute(instruction, result, *zip(kinds.split(), values, strict=True))
    assert np.array_equal(found, python_ints(truth, "u8" if result == "pred" else result)(*values))


@pytest.mark.parametrize("op", ["add", "sub", "mad"])
def test_carries_make_a_64_bit_result(op):
    low, high = {"add": ("add.cc", "addc"), "sub": ("sub.cc", "subc"), "mad": ("mad.lo.cc", "madc.hi")}[op]
    a, b = integers("u64", 1), integers("u64", 2)
    take = ".reg .b32 %a<2>, %b<2>, %c<2>; mov.b64 {{%a0, %a1}}, {1}; mov.b64 {{%b0, %b1}}, {2}; "
    if op == "mad":  # 32 x 32 -> 64 bits plus b
        work = "mad.lo.cc.u32 %c0, %a0, %a1, %b0; madc.hi.u32 %c1, %a0, %a1, %b1"
        truth = python_ints(lambda a, b: bits(a, 32) * (a >> 32) + b, "u64")
    else:
        work = f"{low}.u32 %c0, %a0, %b0; {high}.u32 %c1, %a1, %b1"
        truth = python_ints((lambda a, b: a + b) if op == "add" else (lambda a, b: a - b), "u64")
    found = execute(take + work + "; mov.b64 {0}, {{%c0, %c1}}", "u64", ("u64", a), ("u64", b))
    assert np.array_equal(found, truth(a, b))


# ---- floats: rounded once, in all four directions

FORMAT = {"f16": (11, -24, 16), "bf16": (8, -133, 128), "f32": (24, -149, 128), "f64": (53, -1074, 1024)}


def rounded(exact, kind, mode="rn"):
    """An exact fraction rounded to a format: the definition, by integer arithmetic."""
    precision, least, top = FORMAT[kind]
    magnitude = abs(exact)
    if not magnitude:
        return 0.0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length() - precision
    exponent += magnitude >= Fraction(2) ** (exponent + precision)
    scale = Fraction(2) ** max(exponent, least)
    whole, rest = divmod(magnitude / scale, 1)
    up = {"rn": 2 * rest > 1 or (2 * rest == 1 and whole % 2), "rz": False, "rm": exact < 0, "rp": exact > 0}[mode]
    result = (whole + (1 if up and rest else 0)) * scale
    if result >= Fraction(2) ** top:
        outward = mode == "rn" or up
        result = math.inf if outward else Fraction(2) ** top - Fraction(2) ** (top - precision)
    return float(result) if exact > 0 else -float(result)


def exact_truth(function, kind, mode, *arrays):
    """What a rounded operation gives; NumPy's float64 where operands or the result are no numbers, or zero."""
    results = []
    for row in zip(*arrays, strict=True):
        row = [float(x) for x in row]
        if all(map(math.isfinite, row)) and (exact := function(*map(Fraction, row))):
            results.append(rounded(exact, kind, mode))
        else:
            with np.errstate(all="ignore"):
                results.append(float(function(*map(np.float64, row))))
    return np.array(results)


def decoded(kind, array):
    if kind == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def bf16s(seed):
    return (floats("f32", seed).view(np.uint32) >> 16).astype(np.uint16)


ROUNDINGS = [(kind, mode) for kind in ("f32", "f64") for mode in ("rn", "rz", "rm", "rp")] + [
    ("f16", "rn"),
    ("bf16", "rn"),
]


@pytest.mark.parametrize(("kind", "mode"), ROUNDINGS)
@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("add", lambda a, b: a + b),
        ("sub", lambda a, b: a - b),
        ("mul", lambda a, b: a * b),
        ("fma", lambda a, b, c: a * b + c),
    ],
)
def test_float_arithmetic_is_rounded_once(op, function, kind, mode):
    count = function.__code__.co_argcount
    values = [bf16s(k) if kind == "bf16" else floats(kind, k) for k in range(count)]
    instruction = f"{op}.{mode}.{kind} " + ", ".join(f"{{{k}}}" for k in range(count + 1))
    found = decoded(kind, execute(instruction, kind, *((kind, v) for v in values)))
    truth = exact_truth(function, kind, mode, *(decoded(kind, v) for v in values))
    same = np.isnan(truth) | (truth == 0)  # the sign of an exact zero depends on the direction
    np.testing.assert_array_equal(found.astype(float)[~same], truth[~same])
    assert np.array_equal(np.isnan(found), np.isnan(truth))
    assert not found[truth == 0].any()


def test_fma_rounds_cases_that_float64_rounds_twice():
    # a b lies just beside the middle of two float32, and c decides; float64 would forget c
    a = np.array([1 + 2**-12, 1 + 2**-12, 1 + 2**-23], np.float32)
    b = np.array([1 + 2**-12, 1 + 2**-12, 2**-126], np.float32)
    c = np.array([2**-60, -(2**-60), 2**-149], np.float32)
    found = execute("fma.rn.f32 {0}, {1}, {2}, {3}", "f32", ("f32", a), ("f32", b), ("f32", c))
    truth = exact_truth(lambda a, b, c: a * b + c, "f32", "rn", a, b, c)
    assert np.array_equal(found, truth.astype(np.float32))
    assert found[0] != found[1]


FLOAT = [
    ("div.rn.f32 {0}, {1}, {2}", "f32 f32", np.divide),
    ("div.rn.f64 {0}, {1}, {2}", "f64 f64", np.divide),
    ("sqrt.rn.f32 {0}, {1}", "f32", np.sqrt),
    ("rcp.rn.f32 {0}, {1}", "f32", np.reciprocal),
    ("neg.f32 {0}, {1}", "f32", np.negative),
    ("abs.f64 {0}, {1}", "f64", np.abs),
    ("copysign.f32 {0}, {1}, {2}", "f32 f32", lambda a, b: np.copysign(b, a)),
    ("cvt.rni.f32.f32 {0}, {1}", "f32", np.rint),
    ("cvt.rmi.f64.f64 {0}, {1}", "f64", np.floor),
    ("cvt.rpi.f32.f32 {0}, {1}", "f32", np.ceil),
    ("cvt.rzi.f32.f32 {0}, {1}", "f32", np.trunc),
    ("cvt.sat.f32.f32 {0}, {1}", "f32", lambda a: np.where(a > 0, np.minimum(a, 1), 0)),
    ("min.f32 {0}, {1}, {2}", "f32 f32", np.fmin),
    ("max.f64 {0}, {1}, {2}", "f64 f64", np.fmax),
    ("max.NaN.f32 {0}, {1}, {2}", "f32 f32", np.maximum),
    ("add.ftz.f32 {0}, {1}, 0f80000000", "f32", lambda a: np.where(np.abs(a) < 2.0**-126, np.copysign(0, a), a)),
]


@pytest.mark.parametrize(("instruction", "kinds", "truth"), FLOAT, ids=[row[0].split()[0] for row in FLOAT])
def test_float_instructions(instruction, kinds, truth):
    kinds = kinds.split()
    values = [floats(kind, k) for k, kind in enumerate(kinds)]
    with np.errstate(all="ignore"):
        expected = truth(*values).astype(dtype(kinds[0]))
    np.testing.assert_array_equal(execute(instruction, kinds[0], *zip(kinds, values, strict=True)), expected)


def test_min_and_max_order_zeros():
    zeros = ("f32", np.array([0.0, -0.0])), ("f32", np.array([-0.0, 0.0]))
    assert not np.signbit(execute("max.f32 {0}, {1}, {2}", "f32", *zeros)).any()
    assert np.signbit(execute("min.f32 {0}, {1}, {2}", "f32", *zeros)).all()


APPROXIMATE = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


@pytest.mark.parametrize("op", APPROXIMATE)
def test_approximations_are_the_nearest_float(op):
    x = np.random.default_rng(0).uniform(0.01, 6, N).astype(np.float32)
    found = execute(f"{op}.approx.f32 {{0}}, {{1}}", "f32", ("f32", x))
    assert np.array_equal(found, APPROXIMATE[op](x.astype(np.float64)).astype(np.float32))


def test_double_precision_seeds_keep_the_upper_half():
    found = execute("rcp.approx.ftz.f64 {0}, {1}", "f64", ("f64", np.arange(1.0, N + 1)))
    assert not (found.view(np.uint64) & 0xFFFFFFFF).any()
    np.testing.assert_allclose(found, 1 / np.arange(1.0, N + 1), rtol=2.0**-20)


@pytest.mark.parametrize(
    ("test", "truth"),
    [
        ("eq", lambda a, b, n: (a == b) & ~n), ("ne", lambda a, b, n: (a != b) & ~n), ("lt", lambda a, b, n: a < b),
        ("ge", lambda a, b, n: a >= b), ("equ", lambda a, b, n: (a == b) | n), ("neu", lambda a, b, n: (a != b) | n),
        ("ltu", lambda a, b, n: (a < b) | n), ("leu", lambda a, b, n: (a <= b) | n),
        ("gtu", lambda a, b, n: (a > b) | n),
        ("num", lambda a, b, n: ~n), ("nan", lambda a, b, n: n),
    ],
)  # fmt: skip
def test_comparisons_know_nan(test, truth):
    a, b = floats("f32", 0), np.roll(floats("f32", 0), 3)
    a[20:30] = b[20:30]
    found = execute(f"setp.{test}.f32 {{0}}, {{1}}, {{2}}", "pred", ("f32", a), ("f32", b))
    assert np.array_equal(found.astype(bool), truth(a, b, np.isnan(a) | np.isnan(b)))


# ---- conversions


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(("target", "source"), [("f32", "f64"), ("f32", "s32"), ("f16", "f32"), ("f32", "s64")])
def test_narrowing_conversions(target, source, mode):
    values = floats(source) if source[0] == "f" else integers(source)
    found = execute(f"cvt.{mode}.{target}.{source} {{0}}, {{1}}", target, (source, values))
    if source[0] == "s":
        truth = np.array([rounded(Fraction(int(v)), target, mode) for v in values])
    else:
        truth = exact_truth(lambda a: a, target, mode, values)
    np.testing.assert_array_equal(found.astype(float), truth)


def test_bfloat16_and_tf32_conversions():
    x = floats("f32")
    found = decoded("bf16", execute("cvt.rn.bf16.f32 {0}, {1}", "bf16", ("f32", x)))
    np.testing.assert_array_equal(found, exact_truth(lambda a: a, "bf16", "rn", x))
    tie = np.array([1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 - 2**-23], np.float32)
    found = execute("cvt.rna.tf32.f32 {0}, {1}", "u32", ("f32", tie)).view(np.float32)
    assert np.array_equal(found, np.array([1 + 2**-10, -1 - 2**-10, 1 + 2**-9, 1], np.float32))


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize(("target", "source"), [("s32", "f32"), ("u32", "f32"), ("s64", "f64"), ("u64", "f32")])
def test_floats_become_integers_and_saturate(target, source, mode):
    values = np.concatenate([floats(source)[:-1], [2.5]]).astype(dtype(source))
    found = execute(f"cvt.{mode}.{target}.{source} {{0}}, {{1}}", target, (source, values))
    whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](values.astype(float))
    info = np.iinfo(dtype(target))
    truth = [0 if math.isnan(v) else int(min(max(v, info.min), info.max)) if math.isfinite(v) else None for v in whole]
    truth = [t if t is not None else (info.max if v > 0 else info.min) for t, v in zip(truth, whole, strict=True)]
    assert found.tolist() == truth


def test_packed_conversion_and_arithmetic():
    a, b = np.linspace(-3, 3, N).astype(np.float32), np.linspace(0.1, 70000, N).astype(np.float32)
    with np.errstate(over="ignore"):
        halves = np.stack([b, a], 1).astype(np.float16)
    pairs = execute("cvt.rn.f16x2.f32 {0}, {1}, {2}", "f16x2", ("f32", a), ("f32", b))
    assert np.array_equal(pairs.view(np.float16).reshape(-1, 2), halves)  # the first operand is the upper half
    found = execute("fma.rn.f16x2 {0}, {1}, {1}, {1}", "f16x2", ("f16x2", pairs)).view(np.float16)
    exact = halves.astype(np.float64) ** 2 + halves
    with np.errstate(over="ignore"):
        assert np.array_equal(found.reshape(-1, 2), exact.astype(np.float16))


def test_an_unknown_instruction_names_its_line():
    text = program("fancy.f32 {0}, {1}", "f32", ["f32"])
    line = next(n for n, words in enumerate(text.splitlines(), 1) if "fancy" in words)
    with pytest.raises(KernelError, match=rf"kernel k: PTX line {line}: fancy.f32: unsupported"):
        Module(text).launch("k", 1, 1, [np.zeros(1, np.float32)] * 2)
