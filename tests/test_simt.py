"""The CUDA emulator: each part of the execution model, and the fake driver."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlcore.errors import ArgumentError, BackendError, KernelError
from dlcore.sim import build, engine

KERNELS = Path(__file__).parent / "kernels"
pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="the emulator is built with g++")


@pytest.fixture(scope="module", params=build.MODES)
def basic(request):
    image = engine.Image(build.kernel(KERNELS / "basic.cu", request.param))
    yield image
    image.close()


@pytest.fixture(scope="module")
def faults():
    image = engine.Image(build.kernel(KERNELS / "stops.cu"))
    yield image
    image.close()


@pytest.fixture(params=[("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)], ids=lambda p: f"{p[0]}{p[1]}")
def order(request):
    with engine.schedule(*request.param):
        yield request.param


def marked(file, kernel):
    """Numbers of the lines of a kernel that are marked "fault"."""
    lines = (KERNELS / file).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if re.search(rf"__global__ .*\b{kernel}\(", line))
    last = lines.index(f"DL_EXPORT({kernel})")
    return [str(i + 1) for i in range(first, last) if lines[i].endswith("// fault")]


# ---- threads, blocks, shared memory


def test_every_thread_of_a_ragged_grid_runs(basic):
    x, y = np.arange(1000, dtype=np.float32), np.ones(1000, np.float32)
    z = np.zeros_like(x)
    basic.launch("add", 4, 256, x, y, z, 1000)
    assert np.array_equal(z, x + 1)


def test_built_in_variables_in_three_dimensions(basic, order):
    grid, block = (2, 3, 2), (5, 2, 3)
    out = np.zeros((2, 3, 2, 3, 2, 5), np.int32)
    basic.launch("coordinates", grid, block, out)
    bz, by, bx, tz, ty, tx = np.indices(out.shape)
    assert np.array_equal(out, bx + 10 * by + 100 * bz + 1000 * tx + 10000 * ty + 100000 * tz)


def test_static_and_dynamic_shared_memory(basic, order):
    x, y = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    basic.launch("reverse_static", 1, 64, x, y)
    assert np.array_equal(y, x[::-1])
    x, y = np.arange(1000, dtype=np.int32), np.zeros(1000, np.int32)
    basic.launch("reverse_dynamic", 1, 96, x, y, 1000, shared=4000)
    assert np.array_equal(y, x[::-1])


def test_shared_memory_starts_as_nan():
    basic, out = engine.Image(build.kernel(KERNELS / "basic.cu")), np.zeros(32, np.uint32)
    for _ in range(2):
        basic.launch("unwritten", 3, 32, out, shared=128)
        assert np.all(out == 0xFFFFFFFF)


def test_templates_have_shared_arrays_of_their_own(basic, order):
    x, k = np.arange(96, dtype=np.float32), np.full(96, 2, np.int32)
    total, count = np.zeros(1, np.float32), np.zeros(1, np.int32)
    basic.launch("sums", 1, 96, x, k, total, count)
    assert (total[0], count[0]) == (x.sum(), 192)


# ---- warps, atomics, asynchronous copies, tensor cores


def test_votes(basic, order):
    out = np.zeros(6, np.int32)
    basic.launch("votes", 1, 64, out)
    assert out.tolist() == [1, 1, np.uint32(0xAAAAAAAA).view(np.int32), 40, 0, 1]


def test_shuffles(basic, order):
    out = np.full(384, -1, np.int32)
    basic.launch("shuffles", 1, 64, out)
    t = np.arange(64)
    lane, warp = t % 32, t // 32 * 32
    up = np.where(lane >= 3, t - 3, t)
    down = np.where(lane % 16 < 13, t + 3, t)
    expected = [5 + warp, up, down, t ^ 9, 2 * (t ^ 1) + 1, np.where(lane < 8, t ^ 7, -1)]
    assert np.array_equal(out.reshape(6, 64), expected)


def test_atomics(basic, order):
    i, u = np.zeros(4, np.int32), np.array([0, 0, 100, 0], np.uint32)
    wide, seen = np.zeros(2, np.uint64), np.full(128, -1, np.int32)
    basic.launch("atomics", 2, 64, i, u, wide, seen)
    assert i.tolist() == [128 * 127 // 2, -127, 127, 128]
    assert u.tolist() == [128, 0x80000000 + 127, 7, 9]
    assert wide.tolist() == [128 << 40, 5]
    assert sorted(seen) == list(range(128))
    assert engine.ORDERS[0] != order[0] or seen.tolist() == list(range(128))


def test_asynchronous_copies_land_by_group(basic, order):
    x, y = np.arange(256, dtype=np.float32).reshape(64, 4), np.zeros((64, 4), np.float32)
    basic.launch("copy_async", 1, 32, x, y, 30, shared=1024)
    first = np.where(np.arange(32)[:, None] < 30, x[:32], 0)
    assert np.array_equal(y, np.concatenate([first[::-1], x[32:][::-1]]))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_matrix_product_of_16_bit_tiles(basic, dtype, order):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = np.float16 if dtype == "f16" else ml_dtypes.bfloat16
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (16, 16)).astype(kind), rng.integers(-9, 9, (8, 16)).astype(kind)
    d = np.zeros((16, 8), np.float32)
    basic.launch(f"tile_{dtype}", 1, 32, a.view(np.uint16), b.view(np.uint16), d)
    row, column = np.indices(d.shape)
    c = 1 + row // 8 * 2 + column % 2
    assert np.array_equal(d, a.astype(np.float32) @ b.astype(np.float32).T + c)


def test_matrix_product_of_tf32_tiles(basic):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (16, 8)).astype(np.float32), rng.integers(-9, 9, (8, 8)).astype(np.float32)
    d = np.zeros((16, 8), np.float32)
    basic.launch("tile_tf32", 1, 32, a, b, d)
    assert np.array_equal(d, a @ b.T)


def test_ldmatrix_transposed(basic):
    x, out = np.arange(64, dtype=np.uint16).reshape(8, 8), np.zeros(32, np.uint32)
    basic.launch("transposed_matrix", 1, 32, x, out)
    assert np.array_equal(out.view(np.uint16).reshape(8, 8), x.T)


def test_16_bit_floats_round_to_nearest_even(basic):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([0, 1, 1 + 2**-9, 1 + 3 * 2**-11, 1 + 2**-8, 65519, 65520, 1e-7, 1e-40, -3.1, np.inf], np.float32)
    packed, back = np.zeros(2 * len(x), np.uint32), np.zeros(2 * len(x), np.float32)
    basic.launch("halves", 1, 32, x, packed, back, len(x))
    with np.errstate(over="ignore"):
        half, brain = x.astype(np.float16), x.astype(ml_dtypes.bfloat16)
    assert np.array_equal(packed[::2] & 0xFFFF, half.view(np.uint16))
    assert np.array_equal(packed[1::2] & 0xFFFF, brain.view(np.uint16))
    assert np.array_equal(back[::2], -half.astype(np.float32))
    assert np.array_equal(back[1::2], -brain.astype(np.float32))


def test_all_blocks_of_a_cooperative_launch_meet(basic, order):
    blocks = 5
    counter, parts, out = np.zeros(1, np.uint32), np.zeros(blocks, np.int32), np.zeros((2, blocks), np.int32)
    basic.launch("through_the_grid", blocks, 64, counter, parts, out, cooperative=True)
    own = np.arange(1, blocks + 1)
    assert np.array_equal(out, np.array([[1500], [2000]]) + np.stack([own, own + 1]))


# ---- what is wrong stops with one clear error, and the next launch works


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("divergent_barrier", r"divergent __syncthreads: thread \(\d+,0,0\) waits at {at}"),
        ("exit_before_barrier", "__syncthreads reached by 40 of 64 threads; the others have exited"),
        ("shuffle_of_half_a_warp", "lane 16 exited while lanes 0000ffff wait for it in a shuffle"),
        ("lane_not_in_mask", "lane 8 is not in the mask 000000ff of its __syncwarp"),
        (
            "vote_and_shuffle",
            "divergent warp: a (vote|shuffle), while lanes [0-9a-f]+ wait in a (shuffle|vote) at {at}",
        ),
        ("reads_absent_lane", "shuffle: lane 1 reads lane 17, which takes no part"),
        ("deadlock", "deadlock: no thread can go on; .* threads wait at __syncthreads at .*__syncwarp at {at}"),
        ("no_wait", "cp.async without a wait"),
        ("wild_pointer", "out-of-bounds access"),
        ("divides_by_zero", "integer division by zero"),
        ("deep_recursion", "stack overflow"),
        ("trap", "__trap"),
        ("misaligned_copy", "cp.async of 16 bytes: .* misaligned"),
        ("grid_sync_alone", "grid_sync in a launch that is not cooperative"),
    ],
)
def test_a_kernel_that_cannot_go_on(faults, kernel, expected):
    out, lines = np.zeros(256, np.int32), marked("stops.cu", kernel)
    at = f"stops.cu:({'|'.join(lines)})"
    with pytest.raises(KernelError, match=expected.format(at=at)) as caught:
        faults.launch(kernel, 1, 64, out, 0, shared=4096)
    thread = r"grid \(1,1,1\) block \(64,1,1\): block \(0,0,0\) thread \(\d+,0,0\)"
    assert re.match(rf"{kernel} {thread}{f' at {at}' if lines else '.*'}: ", str(caught.value))
    faults.launch("fine", 1, 64, out, 7)
    assert np.all(out[:64] == 7)


@pytest.mark.parametrize("kernel", ["never_ends", "never_ends_in_barriers"])
def test_a_kernel_that_never_ends_is_ended(faults, kernel):
    out = np.zeros(64, np.int32)
    with (
        engine.time_limit(1),
        pytest.raises(KernelError, match="takes more than 1 seconds of processor time") as caught,
    ):
        faults.launch(kernel, 1, 64, out, 0)
    assert any(f"stops.cu:{line}" in str(caught.value) for line in marked("stops.cu", kernel))
    faults.launch("fine", 1, 64, out, 7)
    assert np.all(out == 7)


# ---- the driver


def test_wrong_arguments(basic):
    x = np.zeros(8, np.float32)
    assert basic.signature("add") == "PPPi"
    with pytest.raises(ArgumentError, match=r"add takes 4 arguments \(PPPi\); got 3"):
        basic.launch("add", 1, 8, x, x, 8)
    with pytest.raises(ArgumentError, match="add: expected an array, got 8"):
        basic.launch("add", 1, 8, x, x, 8, x)


def test_launches_that_no_device_takes(basic):
    x = np.zeros(8, np.float32)
    with pytest.raises(KernelError, match="add: a block of 1025 threads; at most 1024"):
        basic.launch("add", 1, 1025, x, x, x, 8)
    with pytest.raises(KernelError, match="a dimension of grid or block is 0"):
        basic.launch("add", 0, 32, x, x, x, 8)
    with pytest.raises(KernelError, match="the grid exceeds"):
        basic.launch("add", (1, 65536), 32, x, x, x, 8)
    with pytest.raises(KernelError, match="add: 200000 bytes of dynamic shared memory; the device has 166912"):
        basic.launch("add", 1, 32, x, x, x, 8, shared=200000)
    with pytest.raises(KernelError, match="20000 blocks, but only 256 fit on the device"):
        basic.launch("add", 20000, 32, x, x, x, 8, cooperative=True)
    with pytest.raises(KernelError, match="no kernel nothing in the image"):
        basic.launch("nothing", 1, 32)


def test_dynamic_shared_memory_above_48_kb_needs_the_attribute(basic):
    function, x = basic._function("reverse_dynamic"), np.zeros(8, np.int32)
    code = engine.library().cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 50000, None, (ctypes.c_void_p * 3)(), None)
    with pytest.raises(KernelError, match="50000 bytes of dynamic shared memory; at most 49152"):
        engine.check(code)
    basic.launch("reverse_dynamic", 1, 32, x, x, 8, shared=50000)


def test_an_error_stays_until_it_is_cleared(faults):
    library, pointer = engine.library(), ctypes.c_void_p()
    out = np.zeros(64, np.int32)
    arguments = [ctypes.c_void_p(out.ctypes.data), ctypes.c_int(0)]
    pointers = (ctypes.c_void_p * 2)(*map(ctypes.addressof, arguments))
    shape = (1, 1, 1, 64, 1, 1, 0)
    assert library.cuLaunchKernel(faults._function("trap"), *shape, None, pointers, None) == 719
    assert library.cuLaunchKernel(faults._function("fine"), *shape, None, pointers, None) == 719
    assert library.cuCtxSynchronize() == 719
    assert library.cuGetErrorName(719, ctypes.byref(pointer)) == 0
    assert ctypes.string_at(pointer) == b"CUDA_ERROR_LAUNCH_FAILED"
    library.dlsim_clear_error()
    assert library.cuCtxSynchronize() == 0
    assert library.cuLaunchKernel(faults._function("fine"), *shape, None, pointers, None) == 0


def test_memory_is_guarded_and_counted(basic):
    library, pointer, before = engine.library(), ctypes.c_uint64(), engine.live()
    data = np.arange(10, dtype=np.float32)
    back = np.zeros_like(data)
    assert library.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(40)) == 0
    assert engine.live() == before + 1
    assert library.cuMemcpyHtoD_v2(pointer, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(40)) == 0
    assert library.cuMemcpyDtoH_v2(back.ctypes.data_as(ctypes.c_void_p), pointer, ctypes.c_size_t(40)) == 0
    assert np.array_equal(back, data)
    with pytest.raises(KernelError, match=r"cuMemcpyHtoD: 41 bytes at .* are not within an allocation"):
        engine.check(library.cuMemcpyHtoD_v2(pointer, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(41)))
    ctypes.c_float.from_address(pointer.value + 40).value = 1.0
    with pytest.raises(KernelError, match="cuMemFree: somebody wrote before or after the 40 bytes"):
        engine.check(library.cuMemFree_v2(pointer))
    assert engine.live() == before
    with pytest.raises(KernelError, match="cuMemFree: not the start of an allocation"):
        engine.check(library.cuMemFree_v2(pointer))


def test_parameters_are_known_to_the_driver(basic):
    library, offset, size = engine.library(), ctypes.c_size_t(), ctypes.c_size_t()
    function, found = basic._function("add"), []
    while library.cuFuncGetParamInfo(function, len(found), ctypes.byref(offset), ctypes.byref(size)) == 0:
        found.append((offset.value, size.value))
    assert found == [(0, 8), (8, 8), (16, 8), (24, 4)]
    value = ctypes.c_int()
    assert library.cuFuncGetAttribute(ctypes.byref(value), 1, basic._function("unwritten")) == 0
    assert value.value == 128


def test_arguments_in_one_buffer(basic):
    x, z = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    buffer = np.array([x.ctypes.data, x.ctypes.data, z.ctypes.data, 8], np.uint64)

    def launch(size):
        size = ctypes.c_size_t(size)
        extra = (ctypes.c_void_p * 5)(1, buffer.ctypes.data, 2, ctypes.addressof(size), None)
        with engine.registered({"x": x, "z": z}):
            engine.check(
                engine.library().cuLaunchKernel(basic._function("add"), 1, 1, 1, 8, 1, 1, 0, None, None, extra)
            )

    launch(28)
    assert np.array_equal(z, 2 * x)
    with pytest.raises(KernelError, match="add: 24 bytes of arguments, expected 28"):
        launch(24)


# ---- building


def test_a_compiler_error_is_one_line(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('#include "dl.cuh"\nextern "C" __global__ void k(int* x) { *x = y; }\n')
    with pytest.raises(
        KernelError, match=r"^broken.cu does not compile for the emulator: .*broken.cu:2:\d+: error: .*y"
    ):
        build.kernel(source)


def test_a_kernel_with_too_many_local_variables_does_not_compile(tmp_path):
    source = tmp_path / "large.cu"
    source.write_text(
        '#include "dl.cuh"\nextern "C" __global__ void k(int* x) { volatile int y[9999]; y[*x] = 1; *x = y[0]; }\n'
    )
    with pytest.raises(KernelError, match="frame size"):
        build.kernel(source)


def test_without_a_compiler_the_error_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.compiler.cache_clear()
    with pytest.raises(BackendError, match="needs a C\\+\\+ compiler: no-such-compiler not found"):
        build.compiler()
    build.compiler.cache_clear()


def test_two_processes_that_need_an_image_build_it_once(tmp_path):
    source = tmp_path / "shared.cu"
    source.write_text('#include "dl.cuh"\nextern "C" __global__ void k(int* x) { *x = 1; }\nDL_EXPORT(k)\n')
    code = (
        "import sys, pathlib; from dlcore.sim import build; calls = []; own = build.place_shared_arrays\n"
        "build.place_shared_arrays = lambda text: calls.append(1) or own(text)\n"
        "print(build.kernel(pathlib.Path(sys.argv[1])), len(calls))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(source)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    (first, one), (second, other) = (process.communicate()[0].split() for process in both)
    assert first == second
    assert int(one) + int(other) == 1
    Path(first).unlink()


def test_an_image_is_built_once_and_again_when_its_source_changes(tmp_path):
    source = tmp_path / "own.cu"
    text = '#include "dl.cuh"\nextern "C" __global__ void k(int* x) { *x = VALUE; }\nDL_EXPORT(k)\n'
    source.write_text(text)
    first = build.kernel(source, defines=["VALUE=1"])
    stamp = first.stat().st_mtime_ns
    assert build.kernel(source, defines=["VALUE=1"]) == first
    assert first.stat().st_mtime_ns == stamp
    second = build.kernel(source, defines=["VALUE=2"])
    source.write_text(text + "\n")
    third = build.kernel(source, defines=["VALUE=2"])
    assert len({first, second, third}) == 3
    x = np.zeros(1, np.int32)
    for path, expected in ((first, 1), (second, 2)):
        engine.Image(path).launch("k", 1, 1, x)
        assert x[0] == expected
    for path in (first, second, third):
        path.unlink()


def test_a_kernel_is_built_again_for_a_header_that_it_includes_and_for_no_other(tmp_path):
    source, near, far = (tmp_path / name for name in ("kernel.cu", "near.cuh", "far.cuh"))
    source.write_text('#include "near.cuh"\nextern "C" __global__ void k(int* x) { *x = 1; }\nDL_EXPORT(k)\n')
    near.write_text('#include "dl.cuh"\n')
    first = build.kernel(source)
    far.write_text("#define FAR")
    assert build.kernel(source) == first
    near.write_text('#include "dl.cuh"\n#define NEAR\n')
    assert build.kernel(source) != first


def test_equal_files_in_two_folders_share_an_image(tmp_path):
    text = '#include "dl.cuh"\nextern "C" __global__ void shared_by_two(int* x) { *x = 1; }\nDL_EXPORT(shared_by_two)\n'
    paths = [tmp_path / folder / "kernel.cu" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(text)
    assert len({build.kernel(path) for path in paths}) == 1
