"""What each arithmetic instruction computes: a `Plan` of a NumPy function and the types of its operands.

Comparisons, moves and conversions are in `ptx_moves`; what touches memory or other threads in `ptx_access`,
`ptx_tensor` and `ptx_warp`; the flow of control in `ptx_machine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim import ptx_float as fp
from dlcore.sim import ptx_integer as ints
from dlcore.sim.ptx_syntax import Instruction, Literal
from dlcore.sim.ptx_types import TYPES, Array, Type

Compute = Callable[..., "Array | tuple[Array, ...]"]
U32, PRED = TYPES["u32"], TYPES["pred"]
NO_CARRY = np.zeros(1, np.bool_)


class Plan(NamedTuple):
    """`compute(*sources)` gives the results; the carry may be the last source and the last result."""

    compute: Compute
    sources: tuple[Type, ...]
    results: tuple[Type, ...]
    carry_in: bool = False
    carry_out: bool = False


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


ARITHMETIC: dict[str, Callable[[Instruction], Plan]] = {
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
}  # fmt: skip
