"""What each arithmetic instruction computes: a `Plan` of a NumPy function and the types of its operands.

Instructions that touch memory, other threads or the flow of control are in `ptx_machine`, `ptx_memory` and `ptx_warp`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim import ptx_float as fp
from dlcore.sim import ptx_integer as ints
from dlcore.sim.ptx_parse import Instruction, Literal, Vector
from dlcore.sim.ptx_types import BITS, TYPES, Array, Type

Compute = Callable[..., "Array | tuple[Array, ...]"]
U32, PRED = TYPES["u32"], TYPES["pred"]
NO_CARRY = np.zeros(1, np.bool_)
WINDOW = {"shared": 1 << 48, "local": 2 << 48, "param": 3 << 48}  # generic addresses; global ones are below


class Plan(NamedTuple):
    """`compute(*sources)` gives the results; the carry may be the last source and the last result."""

    compute: Compute
    sources: tuple[Type, ...]
    results: tuple[Type, ...]
    carry_in: bool = False
    carry_out: bool = False


def plan(instruction: Instruction) -> Plan:
    """Raises KernelError for an instruction that the interpreter does not know."""
    planner = PLANNERS.get(instruction.opcode)
    if planner is None:
        raise KernelError(f"unsupported instruction {instruction.name}")
    return planner(instruction)


def same(compute: Compute, kind: Type, sources: int) -> Plan:
    """A plan whose operands are all of one type."""
    return Plan(compute, (kind,) * sources, (kind,))


def mode(i: Instruction) -> str:
    """The rounding mode; to nearest even unless the instruction says otherwise."""
    return next((m for m in i.mods if m in fp.MODES), "rn")


def modified(i: Instruction, compute: Callable[..., Array]) -> Callable[..., Array]:
    """With the modifiers `.ftz`, `.sat` and `.relu`."""
    ftz, sat, relu = "ftz" in i.mods and i.type.name == "f32", "sat" in i.mods, "relu" in i.mods
    if not (ftz or sat or relu):
        return compute

    def run(*operands: Array) -> Array:
        value = compute(*map(fp.flush, operands)) if ftz else compute(*operands)
        value = fp.flush(value) if ftz else value
        value = fp.saturate(value) if sat else value
        return np.maximum(value, value.dtype.type(0)) if relu else value

    return run


def floating(i: Instruction, compute: Callable[..., Array], sources: int) -> Plan:
    """A plan for floats, with the modifiers."""
    return same(modified(i, compute), i.type, sources)


# ---- arithmetic


def addition(i: Instruction) -> Plan:
    """add, sub, and addc, subc with the carry."""
    kind, subtract = i.type, i.opcode.startswith("sub")
    if kind.kind == "f":
        rounding = mode(i)
        return floating(i, lambda a, b: fp.add(a, -b if subtract else b, kind, rounding), 2)
    if i.opcode[-1] == "c" or "cc" in i.mods:
        return carried(i, ints.subtract_borrow if subtract else ints.add_carry)
    if "sat" in i.mods:
        return same(lambda a, b: clamp(a.astype(np.int64) + (-b.astype(np.int64) if subtract else b), kind), kind, 2)
    return same(np.subtract if subtract else np.add, kind, 2)


def carried(i: Instruction, compute: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Plan:
    """A plan with the carry as an operand, a result, or both."""
    kind, carry_in, carry_out = i.type, i.opcode[-1] == "c", "cc" in i.mods

    def run(a: Array, b: Array, *carry: Array) -> Array | tuple[Array, ...]:
        value, out = compute(a, b, carry[0] if carry else NO_CARRY)
        return (value, out) if carry_out else value

    sources = (kind, kind, PRED) if carry_in else (kind, kind)
    return Plan(run, sources, (kind, PRED) if carry_out else (kind,), carry_in, carry_out)


def clamp(value: Array, kind: Type) -> Array:
    """Integers clamped to the range of a type."""
    limits = np.iinfo(kind.dtype)
    return np.clip(value, limits.min, limits.max).astype(kind.dtype)


def doubled(kind: Type) -> Type:
    """The integer type of twice the width."""
    return TYPES[f"{kind.kind}{kind.bits * 2}"]


def product(i: Instruction) -> tuple[Callable[[Array, Array], Array], Type]:
    """The integer multiplication that `mul`, `mad` and `mul24` ask for, and its type."""
    kind = i.type
    if i.opcode.endswith("24"):
        shift = 16 if "hi" in i.mods else 0
        return lambda a, b: (ints.wide_multiply(a << 8 >> 8, b << 8 >> 8) >> shift).astype(a.dtype), kind
    if "wide" in i.mods:
        return ints.wide_multiply, doubled(kind)
    return (ints.high_multiply, kind) if "hi" in i.mods else (np.multiply, kind)


def multiplication(i: Instruction) -> Plan:
    """mul, mul24."""
    kind = i.type
    if kind.kind == "f":
        rounding = mode(i)
        return floating(i, lambda a, b: fp.multiply(a, b, kind, rounding), 2)
    compute, result = product(i)
    return Plan(compute, (kind, kind), (result,))


def multiply_add(i: Instruction) -> Plan:
    """fma, mad, mad24, and madc with the carry."""
    kind = i.type
    if kind.kind == "f":
        rounding = mode(i)
        return floating(i, lambda a, b, c: fp.fma(a, b, c, kind, rounding), 3)
    compute, result = product(i)
    if i.opcode[-1] == "c" or "cc" in i.mods:
        with_carry = carried(i, lambda x, c, carry: ints.add_carry(x, c, carry))
        run = with_carry.compute
        return with_carry._replace(
            compute=lambda a, b, c, *carry: run(c, compute(a, b), *carry), sources=(kind, *with_carry.sources)
        )
    return Plan(lambda a, b, c: compute(a, b) + c, (kind, kind, result), (result,))


def division(i: Instruction) -> Plan:
    """div"""
    kind = i.type
    if kind.kind == "f":
        rounding = mode(i)
        return floating(i, lambda a, b: fp.divide(a, b, kind, rounding), 2)
    return same(ints.divide, kind, 2)


def extreme(i: Instruction) -> Plan:
    """min, max"""
    kind, largest = i.type, i.opcode == "max"
    if kind.kind != "f":
        return same(np.maximum if largest else np.minimum, kind, 2)
    if "NaN" in i.mods:
        return floating(i, np.maximum if largest else np.minimum, 2)
    return floating(i, fp.greatest if largest else fp.least, 2)


def negation(i: Instruction) -> Plan:
    """neg"""
    return floating(i, np.negative, 1) if i.type.kind == "f" else same(np.negative, i.type, 1)


def absolute(i: Instruction) -> Plan:
    """abs"""
    return floating(i, np.abs, 1) if i.type.kind == "f" else same(np.abs, i.type, 1)


def transcendental(compute: Callable[[Array], Array]) -> Callable[[Instruction], Plan]:
    """A function evaluated in float64; `.approx.ftz.f64` keeps the upper 32 bits, as the ISA says."""

    def planner(i: Instruction) -> Plan:
        kind, rounding = i.type, mode(i)
        if kind.name == "f64" and "ftz" in i.mods:
            return same(lambda a: (compute(a).view(np.uint64) >> 32 << 32).view(np.float64), kind, 1)
        return floating(i, lambda a: fp.narrow(compute(a.astype(np.float64)), kind, rounding), 1)

    return planner


def reciprocal(i: Instruction) -> Plan:
    """rcp"""
    kind, rounding = i.type, mode(i)
    if "approx" in i.mods:
        return transcendental(lambda a: 1 / a)(i)
    return floating(i, lambda a: fp.divide(np.ones(1, a.dtype), a, kind, rounding), 1)


def square_root(i: Instruction) -> Plan:
    """sqrt"""
    kind, rounding = i.type, mode(i)
    return floating(i, lambda a: fp.square_root(a, kind, rounding), 1)


def sum_of_bytes(i: Instruction) -> Plan:
    """dp4a"""
    a_kind, b_kind = (TYPES[m] for m in i.mods[-2:])
    result = TYPES["s32" if "s" in a_kind.kind + b_kind.kind else "u32"]

    def run(a: Array, b: Array, c: Array) -> Array:
        a, b, c = np.broadcast_arrays(a, b, c)
        dot = ints.dot_bytes(a.copy(), b.copy(), a_kind.kind == "s", b_kind.kind == "s")
        return dot.view(result.dtype) + c

    return Plan(run, (a_kind, b_kind, result), (result,))


def absolute_difference(i: Instruction) -> Plan:
    """sad"""
    return same(lambda a, b, c: np.where(a > b, a - b, b - a) + c, i.type, 3)


def sign_copy(i: Instruction) -> Plan:
    """copysign"""
    return same(lambda sign, size: np.copysign(size, sign), i.type, 2)


# ---- bits


def logic(compute: Callable[[Array, Array], Array]) -> Callable[[Instruction], Plan]:
    """and, or, xor"""
    return lambda i: same(compute, i.type, 2)


def shift(i: Instruction) -> Plan:
    """shl, shr"""
    kind = i.type
    return Plan(ints.shift_left if i.opcode == "shl" else ints.shift_right, (kind, U32), (kind,))


def funnel_shift(i: Instruction) -> Plan:
    """shf"""
    compute = ints.funnel_left if "l" in i.mods else ints.funnel_right
    if "wrap" in i.mods:
        return same(lambda a, b, count: compute(a, b, count & 31), U32, 3)
    return same(lambda a, b, count: compute(a, b, np.minimum(count, 32)), U32, 3)


def bit_field_extract(i: Instruction) -> Plan:
    """bfe"""
    return Plan(ints.extract, (i.type, U32, U32), (i.type,))


def bit_field_insert(i: Instruction) -> Plan:
    """bfi"""
    return Plan(ints.insert, (i.type, i.type, U32, U32), (i.type,))


def counting(compute: Callable[[Array], Array]) -> Callable[[Instruction], Plan]:
    """popc, clz"""
    return lambda i: Plan(compute, (i.type,), (U32,))


def bit_find(i: Instruction) -> Plan:
    """bfind"""
    from_top = "shiftamt" in i.mods
    return Plan(lambda a: ints.highest_bit(a, from_top=from_top), (i.type,), (U32,))


def permute(i: Instruction) -> Plan:
    """prmt"""
    if i.mods != ("b32",):
        raise KernelError(f"unsupported instruction {i.name}")
    return same(ints.permute_bytes, U32, 3)


def logic_of_three(i: Instruction) -> Plan:
    """lop3"""
    table = i.operands[4]
    if not isinstance(table, Literal):
        raise KernelError(f"the truth table of {i.name} is no constant")
    return same(lambda a, b, c: ints.lookup_bits(a, b, c, int(table.value)), TYPES["b32"], 3)


# ---- comparison and choice


def _ordered(a: Array, b: Array) -> Array:
    return ~(np.isnan(a) | np.isnan(b))


COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    "ne": lambda a, b: np.not_equal(a, b) & _ordered(a, b), "neu": np.not_equal,
    "equ": lambda a, b: np.equal(a, b) | ~_ordered(a, b), "ltu": lambda a, b: ~np.greater_equal(a, b),
    "leu": lambda a, b: ~np.greater(a, b), "gtu": lambda a, b: ~np.less_equal(a, b),
    "geu": lambda a, b: ~np.less(a, b), "num": _ordered, "nan": lambda a, b: ~_ordered(a, b),
}  # fmt: skip
BOOLEAN: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


def compare(i: Instruction) -> Callable[[Array, Array], Array]:
    """The comparison that `set` and `setp` name."""
    found = COMPARE[i.mods[0]]
    if i.mods[0] == "ne" and i.type.kind != "f":
        found = np.not_equal
    if "ftz" in i.mods:
        return lambda a, b: found(fp.flush(a), fp.flush(b))
    return found


def set_predicate(i: Instruction) -> Plan:
    """setp"""
    kind, test = i.type, compare(i)
    combine = BOOLEAN.get(i.mods[1])
    pair = isinstance(i.operands[0], Vector)

    def run(a: Array, b: Array, *other: Array) -> Array | tuple[Array, ...]:
        found = test(a, b)
        if kind.packed:
            return found[0], found[1]
        negative = ~found
        if combine:
            found, negative = combine(found, other[0]), combine(negative, other[0])
        return (found, negative) if pair else found

    return Plan(run, (kind, kind, PRED) if combine else (kind, kind), (PRED, PRED) if pair else (PRED,))


def set_value(i: Instruction) -> Plan:
    """set"""
    kind, result, test = i.type, TYPES[i.mods[-2]], compare(i)
    combine = BOOLEAN.get(i.mods[1])
    if kind.packed and not result.packed:
        result = TYPES["u16x2"]
    true, false = np.array([1, 0] if result.kind == "f" else [-1, 0]).astype(result.dtype)

    def run(a: Array, b: Array, *other: Array) -> Array:
        found: Array = combine(test(a, b), other[0]) if combine else test(a, b)
        return np.asarray(np.where(found, true, false))

    return Plan(run, (kind, kind, PRED) if combine else (kind, kind), (result,))


def select(i: Instruction) -> Plan:
    """selp"""
    return Plan(lambda a, b, p: np.where(p, a, b), (i.type, i.type, PRED), (i.type,))


def select_by_sign(i: Instruction) -> Plan:
    """slct"""
    kind = TYPES[i.mods[-2]]
    return Plan(lambda a, b, c: np.where(c >= 0, a, b), (kind, kind, i.type), (kind,))


def test_property(i: Instruction) -> Plan:
    """testp"""
    tiny = np.finfo(i.type.dtype).smallest_normal
    tests: dict[str, Callable[[Array], Array]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda a: ~np.isnan(a),
        "notanumber": np.isnan,
        "normal": lambda a: np.isfinite(a) & (np.abs(a) >= tiny),
        "subnormal": lambda a: (np.abs(a) < tiny) & (a != 0),
    }
    return Plan(tests[i.mods[0]], (i.type,), (PRED,))


# ---- moves and conversions


def move(i: Instruction) -> Plan:
    """mov, also between one register and a vector of narrower ones."""
    kind, (target, source) = i.type, i.operands
    if isinstance(target, Vector):
        parts = len(target.items)
        part = TYPES[f"b{kind.bits // parts}"]
        return Plan(lambda a: _cut(a, part, parts), (kind,), (part,) * parts)
    if isinstance(source, Vector):
        part = TYPES[f"b{kind.bits // len(source.items)}"]
        return Plan(lambda *parts: _join(parts, kind, part.bits), (part,) * len(source.items), (kind,))
    kind = TYPES[f"b{kind.bits}"] if kind.kind != "pred" else kind
    return same(lambda a: a, kind, 1)


def _cut(whole: Array, part: Type, parts: int) -> tuple[Array, ...]:
    words = whole.view(BITS[8 * whole.itemsize])
    return tuple((words >> words.dtype.type(part.bits * k)).astype(part.dtype) for k in range(parts))


def _join(parts: tuple[Array, ...], kind: Type, bits: int) -> Array:
    words = np.broadcast_arrays(*parts)
    whole = np.zeros(words[0].shape, BITS[kind.bits])
    for k, word in enumerate(words):
        whole |= word.astype(whole.dtype) << whole.dtype.type(bits * k)
    return whole


def change_address(i: Instruction) -> Plan:
    """cvta: between an address in a state space and the generic one."""
    space = next(m for m in i.mods if m in ("shared", "local", "param", "global", "const"))
    base = np.uint64(WINDOW.get(space, 0))
    kind = TYPES["u64"]
    return same((lambda a: a - base) if "to" in i.mods else (lambda a: a + base), kind, 1)


def is_in_space(i: Instruction) -> Plan:
    """isspacep"""
    tag = WINDOW.get(i.mods[0], 0) >> 48
    return Plan(lambda a: (a >> np.uint64(48)) == tag, (TYPES["u64"],), (PRED,))


def convert(i: Instruction) -> Plan:
    """cvt"""
    result, source = (TYPES[m] for m in i.mods[-2:])
    one = _converter(i, result, source)
    if result.packed:  # two sources, the upper half first
        return Plan(lambda a, b: one(np.stack(np.broadcast_arrays(b, a))), (source, source), (result,))
    return Plan(one, (source,), (result,))


def _converter(i: Instruction, result: Type, source: Type) -> Callable[[Array], Array]:
    whole = next((m for m in i.mods if m in ("rni", "rzi", "rmi", "rpi")), "")
    rounding = mode(i)
    if source.kind != "f":
        if result.kind == "f":
            return _finished(i, lambda a: fp.from_integer(a, result, rounding))
        return (lambda a: clamp(a, result)) if "sat" in i.mods else (lambda a: a.astype(result.dtype))
    if result.kind != "f":
        flushed = fp.flush if "ftz" in i.mods and source.name == "f32" else (lambda a: a)
        return lambda a: fp.to_integer(flushed(a), result, whole)
    if whole:
        return _finished(i, lambda a: fp.narrow(fp.integral(a, whole).astype(np.float64), result))
    return _finished(i, lambda a: fp.narrow(a.astype(np.float64), result, rounding))


def _finished(i: Instruction, run: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A conversion to a float type with its modifiers."""

    def finished(a: Array) -> Array:
        value = run(fp.flush(a) if "ftz" in i.mods and a.dtype == np.float32 else a)
        value = fp.saturate(value) if "sat" in i.mods else value
        value = np.maximum(value, value.dtype.type(0)) if "relu" in i.mods else value
        return fp.flush(value) if "ftz" in i.mods and value.dtype == np.float32 else value

    return finished


PLANNERS: dict[str, Callable[[Instruction], Plan]] = {
    "add": addition, "addc": addition, "sub": addition, "subc": addition,
    "mul": multiplication, "mul24": multiplication,
    "mad": multiply_add, "mad24": multiply_add, "madc": multiply_add, "fma": multiply_add,
    "div": division, "rem": lambda i: same(ints.remainder, i.type, 2),
    "min": extreme, "max": extreme, "neg": negation, "abs": absolute,
    "sad": absolute_difference, "dp4a": sum_of_bytes, "copysign": sign_copy,
    "rcp": reciprocal, "sqrt": square_root, "rsqrt": transcendental(lambda a: 1 / np.sqrt(a)),
    "ex2": transcendental(np.exp2), "lg2": transcendental(np.log2), "tanh": transcendental(np.tanh),
    "sin": transcendental(np.sin), "cos": transcendental(np.cos),
    "and": logic(np.bitwise_and), "or": logic(np.bitwise_or), "xor": logic(np.bitwise_xor),
    "not": lambda i: same(np.invert, i.type, 1), "cnot": lambda i: same(lambda a: (a == 0).astype(a.dtype), i.type, 1),
    "shl": shift, "shr": shift, "shf": funnel_shift, "bfe": bit_field_extract, "bfi": bit_field_insert,
    "bfind": bit_find, "brev": lambda i: same(ints.reverse_bits, i.type, 1), "popc": counting(ints.count_ones),
    "clz": counting(ints.leading_zeros), "prmt": permute, "lop3": logic_of_three,
    "setp": set_predicate, "set": set_value, "selp": select, "slct": select_by_sign, "testp": test_property,
    "mov": move, "cvta": change_address, "isspacep": is_in_space, "cvt": convert,
}  # fmt: skip
