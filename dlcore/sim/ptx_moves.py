"""What comparisons, choices, moves and conversions compute (PTX ISA 9.0, sections 9.7.6 and 9.7.9)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlcore.sim import ptx_float as fp
from dlcore.sim.ptx_ops import PRED, Plan, clamp, mode, same
from dlcore.sim.ptx_syntax import Instruction, Vector
from dlcore.sim.ptx_types import BITS, TYPES, WINDOW, Array, Type

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


CHOICES: dict[str, Callable[[Instruction], Plan]] = {
    "setp": set_predicate, "set": set_value, "selp": select, "slct": select_by_sign, "testp": test_property,
    "mov": move, "cvta": change_address, "isspacep": is_in_space, "cvt": convert,
}  # fmt: skip
