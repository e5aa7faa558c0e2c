"""Instructions in which the threads of a warp exchange values (PTX ISA 9.0, section 9.7.13)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_access import Step
from dlcore.sim.ptx_memory import ThreadError
from dlcore.sim.ptx_state import WARP, Lanes, State, reader, writer
from dlcore.sim.ptx_syntax import Instruction, Vector
from dlcore.sim.ptx_types import TYPES, Array

LANE = np.arange(WARP)
U32, PRED = TYPES["u32"], TYPES["pred"]


def warps(state: State, values: Array) -> Array:
    """[warps, 32]"""
    rows: Array = state.spread(values).reshape(-1, WARP)
    return rows


def ballots(votes: Array) -> Array:
    """One 32-bit mask per warp from [warps, 32] booleans."""
    bits = np.where(votes, np.uint32(1) << LANE.astype(np.uint32), np.uint32(0))
    return np.asarray(np.bitwise_or.reduce(bits, axis=1))


def per_lane(state: State, values: Array) -> Array:
    """One value per warp, repeated for its threads."""
    return np.repeat(values, WARP)


def shuffle(i: Instruction) -> Step:
    """shfl.sync: `c` holds the segment mask in bits 8 to 12 and the clamp in bits 0 to 4."""
    target, *sources = i.operands
    result, valid = target.items if isinstance(target, Vector) else (target, None)
    a, b, c = (reader(source, U32) for source in sources[:3])
    write = writer(result, U32)
    write_valid = writer(valid, PRED) if valid is not None else None
    pick = SHUFFLES[i.mods[1]]

    def step(state: State, lanes: Lanes) -> None:
        values, offset, control = warps(state, a(state)), warps(state, b(state)), warps(state, c(state))
        segment = (control >> 8 & 31).astype(np.int64)
        limit = (LANE & segment) | (control & 31 & ~segment)
        source, inside = pick(offset.astype(np.int64) & 31, limit, LANE & segment, segment)
        source = np.where(inside, source, LANE) & 31
        active = lanes.mask.reshape(-1, WARP)
        stray = active & ~np.take_along_axis(active, source, 1)
        if stray.any():
            thread = int(np.flatnonzero(stray)[0])
            raise ThreadError(f"shfl.sync reads lane {source.reshape(-1)[thread]}, which does not take part", thread)
        write(state, lanes, np.take_along_axis(values, source, 1).reshape(-1))
        if write_valid is not None:
            write_valid(state, lanes, inside.reshape(-1))

    return step


Pick = Callable[[Array, Array, Array, Array], tuple[Array, Array]]  # offset, limit, first lane, segment -> lane, valid
SHUFFLES: dict[str, Pick] = {
    "up": lambda b, limit, first, segment: (LANE - b, LANE - b >= limit),
    "down": lambda b, limit, first, segment: (LANE + b, LANE + b <= limit),
    "bfly": lambda b, limit, first, segment: (LANE ^ b, (LANE ^ b) <= limit),
    "idx": lambda b, limit, first, segment: (first | b & ~segment, (first | b & ~segment) <= limit),
}


def vote(i: Instruction) -> Step:
    """vote.sync: any, all or the ballot of the lanes' predicates."""
    operation = i.mods[1]
    ballot = operation == "ballot"
    read, write = reader(i.operands[1], PRED), writer(i.operands[0], U32 if ballot else PRED)
    choose: dict[str, Callable[[Array, Array], Array]] = {
        "any": lambda votes, active: np.logical_or.reduce(votes & active, axis=1),
        "all": lambda votes, active: np.logical_and.reduce(votes | ~active, axis=1),
        "ballot": lambda votes, active: ballots(votes & active),
    }

    def step(state: State, lanes: Lanes) -> None:
        found = choose[operation](warps(state, read(state)), lanes.mask.reshape(-1, WARP))
        write(state, lanes, per_lane(state, found))

    return step


def active_mask(i: Instruction) -> Step:
    """activemask: the lanes that execute it together."""
    write = writer(i.operands[0], U32)

    def step(state: State, lanes: Lanes) -> None:
        write(state, lanes, per_lane(state, ballots(lanes.mask.reshape(-1, WARP))))

    return step


def match(i: Instruction) -> Step:
    """match.any: the lanes with an equal value; match.all: all lanes if all are equal, else none."""
    target = i.operands[0]
    result, equal = target.items if isinstance(target, Vector) else (target, None)
    read, write = reader(i.operands[1], i.type), writer(result, U32)
    write_equal = writer(equal, PRED) if equal is not None else None

    def step(state: State, lanes: Lanes) -> None:
        values, active = warps(state, read(state)), lanes.mask.reshape(-1, WARP)
        same = (values[:, :, None] == values[:, None, :]) & active[:, None, :]
        if "all" in i.mods:
            whole = (same | ~active[:, None, :]).all(2, keepdims=True)
            same = same & whole
            if write_equal is not None:
                write_equal(state, lanes, whole.reshape(-1))
        write(state, lanes, ballots(same.reshape(-1, WARP)))

    return step


def reduce(i: Instruction) -> Step:
    """redux.sync: the reduction of the values of all lanes that take part."""
    kind, operation = i.type, i.mods[1]
    read, write = reader(i.operands[1], kind), writer(i.operands[0], kind)
    if operation not in REDUCTIONS:
        raise KernelError(f"unsupported instruction {i.name}")
    function, neutral = REDUCTIONS[operation]
    limits = np.iinfo(kind.dtype)
    start = {"zero": 0, "ones": -1, "most": limits.max, "least": limits.min}[neutral]

    def step(state: State, lanes: Lanes) -> None:
        values = warps(state, read(state)).copy()
        values[~lanes.mask.reshape(-1, WARP)] = np.array(start).astype(kind.dtype)
        write(state, lanes, per_lane(state, function.reduce(values, axis=1, dtype=kind.dtype)))

    return step


REDUCTIONS: dict[str, tuple[np.ufunc, str]] = {  # and what lanes that take no part contribute
    "add": (np.add, "zero"),
    "min": (np.minimum, "most"),
    "max": (np.maximum, "least"),
    "and": (np.bitwise_and, "ones"),
    "or": (np.bitwise_or, "zero"),
    "xor": (np.bitwise_xor, "zero"),
}

WARP_WIDE: dict[str, Callable[[Instruction], Step]] = {
    "shfl": shuffle,
    "vote": vote,
    "activemask": active_mask,
    "match": match,
    "redux": reduce,
}
