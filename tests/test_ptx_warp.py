"""The PTX interpreter: what threads of a warp or block do together, atomics, asynchronous copies."""

import numpy as np
import pytest
from ptx_text import HEADER, execute

from dlcore.errors import KernelError
from dlcore.sim.ptx import Module

T = np.arange(64, dtype=np.uint32)
LANE = T % 32
X = (T * 2654435761 % 97).astype(np.uint32)


def by_warp(function, values=X, warps=2):
    """function(values of a warp) for every warp, repeated for its lanes."""
    return np.concatenate([np.broadcast_to(function(part), 32) for part in values.reshape(warps, 32)])


@pytest.mark.parametrize(
    ("mode", "b", "c", "source", "inside"),
    [
        ("up", 3, 0, T - 3, LANE >= 3),
        ("up", 1, 0x1800, T - 1, LANE % 8 >= 1),  # segments of 8
        ("down", 5, 31, T + 5, LANE < 27),
        ("down", 2, 0x1C03, T + 2, LANE % 4 < 2),  # segments of 4
        ("bfly", 9, 31, T ^ 9, LANE >= 0),
        ("idx", 6, 31, T - LANE + 6, LANE >= 0),
        ("idx", 10, 0x1807, T - LANE % 8 + 2, LANE >= 0),  # segments of 8: lane 10 % 8
    ],
)
def test_shuffles(mode, b, c, source, inside):
    source = np.where(inside, source, T)
    found = execute(f"shfl.sync.{mode}.b32 {{0}}, {{1}}, {b}, {c}, -1", "u32", ("u32", X))
    assert np.array_equal(found, X[source])
    text = f".reg .b32 %dead; shfl.sync.{mode}.b32 %dead|{{0}}, {{1}}, {b}, {c}, -1"
    assert np.array_equal(execute(text, "pred", ("u32", X)), inside)


@pytest.mark.parametrize(
    ("operation", "function"),
    [("add", np.sum), ("min", np.min), ("max", np.max), ("and", np.bitwise_and.reduce), ("xor", np.bitwise_xor.reduce)],
)
def test_reductions_of_a_warp(operation, function):
    found = execute(f"redux.sync.{operation}.u32 {{0}}, {{1}}, -1", "u32", ("u32", X))
    assert np.array_equal(found, by_warp(function))


def test_votes_and_matches():
    even = (X % 2 == 0).astype(np.uint8)
    bits = np.uint64(1) << LANE.astype(np.uint64)
    ballot = by_warp(lambda part: (part * bits[:32]).sum(), even)
    assert np.array_equal(execute("vote.sync.ballot.b32 {0}, {1}, -1", "u32", ("pred", even)), ballot)
    assert np.array_equal(execute("vote.sync.any.pred {0}, !{1}, -1", "pred", ("pred", even)), np.ones(64))
    assert not execute("vote.sync.all.pred {0}, {1}, -1", "pred", ("pred", even)).any()
    same = (X[:, None] == X[None]) & (T[:, None] // 32 == T[None] // 32)
    found = execute("match.any.sync.b32 {0}, {1}, -1", "u32", ("u32", X))
    assert np.array_equal(found, (same * bits).sum(1))
    one = np.full(64, 5)
    assert np.all(execute("match.all.sync.b32 {0}, {1}, -1", "u32", ("u32", one)) == 0xFFFFFFFF)
    assert not execute("match.all.sync.b32 {0}, {1}, -1", "u32", ("u32", X)).any()


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("%laneid", LANE),
        ("%lanemask_lt", (1 << LANE.astype(np.int64)) - 1),
        ("%lanemask_ge", 0xFFFFFFFF - ((1 << LANE.astype(np.int64)) - 1)),
        ("%warpid", T // 32),
        ("%ntid.x", np.full(64, 64)),
    ],
)
def test_special_registers(name, truth):
    assert np.array_equal(execute(f"add.u32 {{0}}, {{1}}, {name}", "u32", ("u32", np.zeros(64))), truth)


BODY = """.visible .entry k(.param .u64 x, .param .u64 y)
{
  .reg .b32 %r<20>; .reg .b64 %d<9>; .reg .pred %p<9>; .shared .align 16 .b8 tile[1024];
  ld.param.u64 %d0, [x]; ld.param.u64 %d1, [y]; mov.u32 %r0, %tid.x; and.b32 %r1, %r0, 31;
  mul.wide.u32 %d2, %r0, 4; add.u64 %d3, %d0, %d2; add.u64 %d4, %d1, %d2; mov.u32 %r2, tile;
  CODE
  ret;
}
"""


def run(code, x, y, threads=64, **options):
    return Module(HEADER + BODY.replace("CODE", code)).launch("k", 1, threads, [x, y], **options)


def test_lanes_that_come_later_are_waited_for():
    """Half of the warp arrives at the shuffle from a place behind it in the text."""
    y = np.zeros(32, np.uint32)
    run(
        """
  setp.lt.u32 %p0, %r1, 16; @!%p0 bra LATE;
MEET:
  shfl.sync.bfly.b32 %r3, %r4, 16, 31, -1; st.global.u32 [%d4], %r3; bra END;
LATE:
  mul.lo.u32 %r4, %r1, 100; bra MEET;
END:
""".replace("MEET:", "mov.u32 %r4, %r1;\nMEET:"),
        y,
        y,
        threads=32,
    )
    lane = np.arange(32)
    assert np.array_equal(y, np.where(lane < 16, (lane ^ 16) * 100, lane ^ 16))


def test_a_barrier_counts_and_votes():
    y = np.zeros(64, np.uint32)
    run("setp.lt.u32 %p0, %r0, 40; bar.red.popc.u32 %r3, 0, %p0; st.global.u32 [%d4], %r3;", y, y)
    assert np.all(y == 40)
    run(
        "setp.lt.u32 %p0, %r0, 40; bar.red.and.pred %p1, 0, %p0; selp.u32 %r3, 7, 8, %p1; st.global.u32 [%d4], %r3;",
        y,
        y,
    )
    assert np.all(y == 8)


@pytest.mark.parametrize(
    ("operation", "start", "operand", "after"),
    [
        ("add.u32", 5, "3", 5 + 3 * 64),
        ("add.u64", 1 << 40, "3", (1 << 40) + 3 * 64),
        ("add.f32", 0.5, "0f3F800000", 64.5),
        ("min.s32", 5, "-3", -3),
        ("max.u32", 5, "%r0", 63),
        ("or.b32", 1, "%r0", 63),
        ("xor.b32", 9, "1", 9),
        ("exch.b32", 9, "%r0", 63),
        ("inc.u32", 0, "9", 64 % 10),
        ("dec.u32", 3, "3", 3),
    ],
)
def test_atomics_in_the_order_of_threads(operation, start, operand, after):
    kind = {"u32": "u4", "b32": "u4", "s32": "i4", "u64": "u8", "f32": "f4"}[operation.split(".")[1]]
    x, y = np.array([start]).astype(kind), np.zeros(64, kind)
    width = 8 if kind == "u8" else 4
    register = "%d5" if width == 8 else "%r3"
    run(
        f"atom.global.{operation} {register}, [%d0], {operand}; mul.wide.u32 %d2, %r0, {width}; add.u64 %d4, %d1, %d2;"
        f"st.global.b{8 * width} [%d4], {register};",
        x,
        y,
    )
    assert x[0] == after
    assert y[0] == start  # the value before, of the first thread


def test_compare_and_swap_lets_one_thread_win():
    x, y = np.zeros(1, np.uint32), np.zeros(64, np.uint32)
    run("add.u32 %r3, %r0, 1; atom.global.cas.b32 %r4, [%d0], 0, %r3; st.global.u32 [%d4], %r4;", x, y)
    assert x[0] == 1
    assert y.tolist() == [0] + [1] * 63


COPY = """
  shl.b32 %r3, %r1, 4; add.u32 %r4, %r2, %r3; mul.wide.u32 %d2, %r1, 16; add.u64 %d5, %d0, %d2; add.u64 %d6, %d1, %d2;
  cp.async.cg.shared.global [%r4], [%d5], 16, SIZE;
  cp.async.commit_group;
  WAIT
  ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%r4]; st.global.v4.u32 [%d6], {%r5, %r6, %r7, %r8};
"""


@pytest.mark.parametrize("size", [0, 4, 12, 16])
def test_asynchronous_copies_fill_up_with_zeros(size):
    x, y = np.arange(1, 513, dtype=np.uint8).reshape(32, 16), np.full((32, 16), 9, np.uint8)
    x = np.tile(np.arange(1, 17, dtype=np.uint8), (32, 1)) + np.arange(32, dtype=np.uint8)[:, None]
    run(COPY.replace("SIZE", str(size)).replace("WAIT", "cp.async.wait_group 0;"), x, y, threads=32)
    assert np.array_equal(y[:, :size], x[:, :size])
    assert not y[:, size:].any()


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;"])
def test_asynchronous_copies_come_no_sooner_than_their_wait(wait):
    x, y = np.ones((32, 16), np.uint8), np.zeros((32, 16), np.uint8)
    run(COPY.replace("SIZE", "16").replace("WAIT", wait), x, y, threads=32)
    assert np.all(y == 0xFF)  # shared memory that nobody wrote


def test_asynchronous_copies_are_checked_when_they_start():
    x, y = np.ones((31, 16), np.uint8), np.zeros((32, 16), np.uint8)
    with pytest.raises(KernelError, match=r"out-of-bounds read of 16 bytes .*cp\.async.*thread \(31,0,0\)"):
        run(COPY.replace("SIZE", "16").replace("WAIT", ""), x, y, threads=32)
    run(COPY.replace("SIZE", "0").replace("WAIT", ""), x, y, threads=32)  # reads nothing, so any address will do


def test_a_table_of_branches():
    y = np.zeros(64, np.uint32)
    run(
        """
  and.b32 %r3, %r0, 3;
TABLE: .branchtargets A, B, A, C;
  brx.idx %r3, TABLE;
A: mov.u32 %r4, 10; bra END;
B: mov.u32 %r4, 20; bra END;
C: mov.u32 %r4, 30;
END: st.global.u32 [%d4], %r4;
""",
        y,
        y,
    )
    assert np.array_equal(y, np.array([10, 20, 10, 30])[T % 4])


def test_a_deadlock_is_an_error():
    code = "setp.lt.u32 %p0, %r0, 8; @%p0 bra WAIT; bar.sync 0; WAIT: bar.warp.sync -1;"
    with pytest.raises(KernelError, match=r"deadlock: threads wait for others that do not come \(8 at PTX line \d+\)"):
        run(code, np.zeros(1), np.zeros(1))


def test_generic_addresses_reach_every_space():
    y = np.zeros(64, np.uint32)
    run(
        """
  .local .align 4 .b8 own[4]; mov.u64 %d5, own; cvta.local.u64 %d6, %d5; st.u32 [%d6], %r0;
  cvt.u64.u32 %d7, %r2; cvta.shared.u64 %d7, %d7; add.u64 %d7, %d7, %d2; ld.local.u32 %r3, [own]; st.u32 [%d7], %r3;
  bar.sync 0; ld.shared.u32 %r4, [tile+4]; ld.u32 %r5, [%d6]; add.u32 %r5, %r5, %r4; st.u32 [%d4], %r5;
""",
        y,
        y,
    )
    assert np.array_equal(y, T + 1)
