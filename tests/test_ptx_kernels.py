"""The PTX interpreter on whole kernels: as checked in, as nvcc compiles them for two architectures, and NVRTC."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dlcore.backends.cuda import compiler
from dlcore.errors import KernelError
from dlcore.sim import engine
from dlcore.sim.ptx import Module

FOLDER = Path(__file__).parent / "ptx"
NVRTC = pytest.param("NVRTC", marks=pytest.mark.nvcc)
needs_nvcc = [pytest.mark.nvcc, pytest.mark.skipif(not shutil.which("nvcc"), reason="compiled with nvcc")]


def compile_ptx(source, arch, folder):
    """PTX text of a .cu file."""
    out = folder / f"{source.stem}.{arch}.ptx"
    command = ["nvcc", f"-arch={arch}", "-ptx", "-fmad=false", "-lineinfo", str(source), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out.read_text()


def compile_with_nvrtc(source):
    """PTX text of a .cu file from NVRTC, for sm_80; skips where there is none."""
    try:
        nvrtc = compiler._nvrtc()
    except KernelError as error:
        pytest.skip(str(error))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text, name = source.read_bytes(), source.name.encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None) == 0
    options = [b"--gpu-architecture=compute_80", b"--fmad=false", b"--generate-line-info"]
    assert nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0
    assert nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)) == 0
    ptx = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetPTX(program, ptx) == 0
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value.decode()


@pytest.fixture(
    scope="module",
    params=["checked in", *(pytest.param(c, marks=needs_nvcc) for c in ("sm_80", "sm_90")), NVRTC],
)
def text(request, tmp_path_factory):
    if request.param == "checked in":
        return (FOLDER / "basics.ptx").read_text()
    if request.param == "NVRTC":
        return compile_with_nvrtc(FOLDER / "basics.cu")
    return compile_ptx(FOLDER / "basics.cu", request.param, tmp_path_factory.mktemp("ptx"))


@pytest.fixture
def basics(text):
    return Module(text)


def device_array(shape, dtype):
    """Zeros at an address like cudaMalloc's."""
    array = engine.empty(shape, dtype)
    array[...] = 0
    return array


def device(values):
    """A copy at an address like cudaMalloc's."""
    values = np.asarray(values)
    array = engine.empty(values.shape, values.dtype)
    array[...] = values
    return array


def source_line(pattern):
    """Number of the first line of basics.cu that holds the pattern."""
    lines = (FOLDER / "basics.cu").read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if pattern in line)


# ---- results


@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (33, 18, 21), (5, 40, 1)])
def test_sgemm_has_the_bits_of_the_same_sums(basics, m, n, k):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    c = device_array((m, n), np.float32)
    result = basics.launch("sgemm", (-(-n // 16), -(-m // 16)), (16, 16), [device(a), device(b), c, m, n, k])
    truth = np.zeros((m, n), np.float32)
    for i in range(k):
        truth = fused(a[:, i, None], b[i], truth)
    assert np.array_equal(c, truth)
    padded = -(-m // 16) * 16 * -(-n // 16) * 16
    assert result.flops == {"fma.f32": 2 * padded * k}


def fused(a, b, c):
    """fmaf by extended precision: 64 bits hold the product, and the sum far beyond the middle of two float32."""
    return (a.astype(np.longdouble) * b.astype(np.longdouble) + c.astype(np.longdouble)).astype(np.float32)


def test_softmax_with_shuffles(basics):
    x = np.random.default_rng(1).uniform(-9, 9, (6, 75)).astype(np.float32)
    y = device_array(x.shape, np.float32)
    basics.launch("softmax2", 3, 64, [device(x), y, 75])
    truth = np.exp2((x - x.max(1, keepdims=True)).astype(float))  # the difference is float32, as in the kernel
    np.testing.assert_allclose(y, truth / truth.sum(1, keepdims=True), rtol=4e-7)


def bfloat(values):
    """float32 that bfloat16 holds exactly, and their bits."""
    bits = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32), bits


def run_mma(module, k=48):
    rng = np.random.default_rng(2)
    a, a_bits = bfloat(rng.standard_normal((16, k)))
    b, b_bits = bfloat(rng.standard_normal((8, k)))
    d = device_array((16, 8), np.float32)
    result = module.launch("mma_bf16", 1, 32, [device(a_bits), device(b_bits), d, k])
    return d, a.astype(float) @ b.T.astype(float), result


def test_mma_with_async_copies_and_ldmatrix(basics):
    d, truth, result = run_mma(basics)
    np.testing.assert_allclose(d, truth, atol=2e-6)
    assert result.flops == {"mma.bf16": 2 * 16 * 8 * 48}


def test_swapped_mma_operands_are_caught(text):
    swapped, count = re.subn(r"(mma\.sync\S+ .*?\}, \{.*?\}, )\{(%\w+), ?(%\w+)\}", r"\1{\3, \2}", text)
    assert count
    d, truth, _ = run_mma(Module(swapped))
    assert np.abs(d - truth).max() > 1


def test_a_missing_wait_is_caught(text):
    d, _, _ = run_mma(Module(re.sub(r"cp\.async\.wait_group \d;", "", text)))
    assert np.isnan(d).all()  # the copies never arrived: shared memory starts as NaN


def test_loops_that_threads_leave_one_by_one(basics):
    start = np.arange(1, 101)
    steps = device(np.full(128, -1, np.int32))
    basics.launch("collatz", 2, 64, [device(start), steps, 100])

    def length(x):
        return 0 if x == 1 else 1 + length(3 * x + 1 if x % 2 else x // 2)

    assert steps.tolist() == [length(x) for x in range(1, 101)] + [-1] * 28


@pytest.mark.parametrize("block", [64, 40, 1])
@pytest.mark.parametrize("batch", [32, 4096])
def test_barriers_dynamic_shared_memory_and_calls(basics, block, batch):
    x, y = device(np.arange(3 * block, dtype=np.int32)), device_array(3 * block, np.int32)
    basics.launch("reverse", 3, block, [x, y, -3], shared=4 * block, batch=batch)
    assert np.array_equal(y.reshape(3, block), x.reshape(3, block)[:, ::-1] * (-3) ** (np.arange(block) % 4))


def test_constant_global_and_local_memory(basics):
    pick, y = device(np.arange(64, dtype=np.uint8) * 7), device_array(64, np.int32)
    seen = device_array(1, np.uint32)
    for launches in (1, 2):  # the module's variable keeps its value
        basics.launch("spaces", 1, 64, [pick, y, seen])
        assert seen[0] == 64 * launches
    assert np.array_equal(y, pick % 8 * np.arange(64) + np.array([1, -2, 3, -4, 5])[pick % 5])


def test_threads_that_poll_let_others_run(basics):
    flag, y = device_array(1, np.int32), device_array(32, np.int32)
    basics.launch("handoff", 1, 32, [flag, y])
    assert np.all(y == 7)


# ---- errors


def failure(module, *args, **options):
    with pytest.raises(KernelError) as caught:
        module.launch(*args, **options)
    return str(caught.value)


def test_out_of_bounds_names_kernel_lines_block_and_thread(basics):
    x, y = device(np.arange(70, dtype=np.int32)), device_array(96, np.int32)
    message = failure(basics, "reverse", 3, 32, [x, y, 1], shared=128)
    assert re.search(
        r"kernel reverse: out-of-bounds read of 4 bytes .* argument 0 \(280 bytes\), 0 bytes past", message
    )
    assert f"(basics.cu:{source_line('held[threadIdx.x] = x[')}): ld.global" in message
    assert re.search(r"at PTX line \d+ ", message)
    assert message.endswith("block (2,0,0), thread (6,0,0)")


def test_out_of_bounds_shared_memory(basics):
    x, y = device(np.arange(64, dtype=np.int32)), device_array(64, np.int32)
    message = failure(basics, "reverse", 2, 32, [x, y, 1], shared=100)
    assert "out-of-bounds write of 4 bytes at 100 in shared memory of 100 bytes" in message
    assert message.endswith("thread (25,0,0)")


def test_misaligned_access(basics):
    x, y = device_array(33, np.int32).view(np.uint8)[2:-2].view(np.int32), device_array(32, np.int32)
    assert "misaligned read of 4 bytes" in failure(basics, "reverse", 1, 32, [x, y, 1], shared=128)


def test_read_only_arrays_stay_so(basics):
    x, y = device(np.arange(32, dtype=np.int32)), device_array(32, np.int32)
    y.flags.writeable = False
    assert "argument 1, which is read-only" in failure(basics, "reverse", 1, 32, [x, y, 1], shared=128)


def test_a_barrier_that_some_threads_never_reach(basics):
    message = failure(basics, "partial_barrier", 1, 64, [device_array(64, np.int32)])
    assert "barrier reached by 40 of 64 threads of the block; the others have exited" in message
    assert f"basics.cu:{source_line('return;') and source_line('threadIdx.x >= 40') + 1}" in message


def test_the_instruction_budget_ends_endless_loops(basics):
    message = failure(basics, "endless", 1, 32, [device_array(1, np.int32)], budget=1000)
    assert "more than 1000 instructions" in message
    assert "thread (0,0,0)" in message


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([np.zeros(4, np.int32)], "takes 3 arguments, got 1"),
        ([np.zeros(4, np.int32), 5.0, 1], "argument 1 should be u64, got float"),
        ([np.zeros(4, np.int32), np.zeros(4, np.int32), np.float32(1)], "argument 2 should be u32, got float32"),
        ([np.zeros(4, np.int32), np.zeros(4, np.int32), np.int64(1)], "argument 2 should be u32, got int64"),
        ([np.zeros(4, np.int32), np.zeros(4, np.int32), 2**32], "argument 2 should be u32, got int"),
        ([np.zeros((4, 4), np.int32)[:, ::2], np.zeros(4, np.int32), 1], "argument 0 should be u64"),
    ],
)
def test_arguments_are_checked(basics, args, reason):
    assert reason in failure(basics, "reverse", 1, 4, args)


def test_launches_are_checked(basics):
    a = np.zeros(256, np.float32)
    assert "cannot launch" in failure(basics, "sgemm", 1, (16, 17), [a, a, a, 1, 1, 1])  # __launch_bounds__(256)
    assert "bytes of shared memory" in failure(basics, "reverse", 1, 32, [a, a, 1], shared=300_000)
    assert "no kernel 'gemm'" in failure(basics, "gemm", 1, 1, [])


# ---- counters


def rows(result, operation):
    return {a.where: a for a in result.counters if a.operation == operation}


def test_counters_by_source_line(basics):
    a, b, c = (device_array((32, 32), np.float32) for _ in range(3))
    result = basics.launch("sgemm", (2, 2), (16, 16), [a, b, c, 32, 32, 32])
    store = rows(result, "st.global")[f"basics.cu:{source_line('c[row * n + column] = sum')}"]
    assert (store.requests, store.lanes, store.units, store.ideal) == (32, 1024, 128, 128)  # two half rows of 64 bytes
    load = rows(result, "ld.shared")[f"basics.cu:{source_line('sum = fmaf(')}"]
    assert (load.requests, load.units, load.ideal) == (2048, 2048, 2048)
    assert result.instructions == sum(result.opcodes.values())
    assert result.opcodes["bar.sync"] == 4 * 8 * 4  # blocks, warps, barriers


STRIDED = """.version 8.0
.target sm_80
.address_size 64
.visible .entry strided(.param .u64 x, .param .u32 stride)
{
  .reg .b32 %r<9>; .reg .b64 %d<9>; .shared .align 16 .b8 tile[16384];
  mov.u32 %r0, %tid.x; shr.u32 %r0, %r0, SHIFT;
  ld.param.u32 %r1, [stride]; mul.lo.u32 %r2, %r0, %r1; ld.param.u64 %d0, [x];
  cvt.u64.u32 %d1, %r2; add.u64 %d2, %d0, %d1; mov.u32 %r3, tile; add.u32 %r4, %r3, %r2;
  ld.global.WIDTH [%d2];
  st.shared.WIDTH [%r4];
  ret;
}
"""


@pytest.mark.parametrize(
    ("width", "shift", "stride", "sectors", "ideal_sectors", "wavefronts", "ideal_wavefronts"),
    [
        (4, 0, 4, 4, 4, 1, 1),
        (4, 0, 8, 8, 4, 2, 1),  # every other word: half of each sector, two words per bank
        (4, 0, 128, 32, 4, 32, 1),  # a column of a 32-wide tile
        (4, 0, 132, 32, 4, 1, 1),  # the same, rows padded by one word
        (4, 0, 0, 1, 1, 1, 1),  # broadcast
        (8, 0, 8, 8, 8, 2, 2),
        (16, 0, 16, 16, 16, 4, 4),
        (16, 0, 32, 32, 16, 8, 4),  # a quarter of a warp meets each bank twice
        (2, 0, 2, 2, 2, 1, 1),
        (16, 1, 16, 8, 8, 2, 2),  # neighbours want the same: half as many turns
        (16, 2, 16, 4, 4, 2, 2),
    ],
)
def test_sectors_and_wavefronts(width, shift, stride, sectors, ideal_sectors, wavefronts, ideal_wavefronts):
    form = {2: ("u16", "%r5"), 4: ("u32", "%r5"), 8: ("v2.u32", "{%r5, %r6}"), 16: ("v4.u32", "{%r5, %r6, %r7, %r8}")}
    kind, registers = form[width]
    text = STRIDED.replace("SHIFT", str(shift))
    text = text.replace("ld.global.WIDTH", f"ld.global.{kind} {registers},")
    text = re.sub(r"st.shared.WIDTH (\[%r4\])", rf"st.shared.{kind} \1, {registers}", text)
    result = Module(text).launch("strided", 1, 32, [device_array(8192, np.uint8), stride])
    counted = {a.operation: a for a in result.accesses}
    load, store = counted["ld.global"], counted["st.shared"]
    assert (load.requests, load.units, load.ideal) == (1, sectors, ideal_sectors)
    assert (store.requests, store.units, store.ideal) == (1, wavefronts, ideal_wavefronts)
