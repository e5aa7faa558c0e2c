"""The static benchmarks: machine code is read right, the model follows its formulas, kernels keep their budgets."""

import shutil
from pathlib import Path

import pytest

from benchmarks.static import cubin, devices, metrics, ptx, report, sass
from benchmarks.static.families import families
from benchmarks.static.sample import noted
from dlcore import dispatch
from dlcore.backends.cuda import compiler
from dlcore.errors import BackendError

DOCUMENTATION = Path(__file__).parents[1] / "docs" / "kernels.md"

# A loop over vectors with a slow path; nested in it a loop with local memory; stalls 1, 2, 4 and 5.
LISTING = """
	.section	.text.scale,"ax",@progbits
scale:
.text.scale:
        /*0000*/                   MOV R1, c[0x0][0x28] ;            /* 0x00000a0000017a02 */
                                                                     /* 0x000fc40000000f00 */
.L_x_1:
        /*0010*/              @!P0 BRA `(.L_x_2) ;                   /* 0x0000000000017a02 */
                                                                     /* 0x000fca0000000f00 */
        /*0020*/                   LDG.E.128 R4, [R2.64] ;           /* 0x0000000402047981 */
                                                                     /* 0x000fe2000c1e1d00 */
        /*0030*/                   FFMA R4, R4, R8, R9 ;             /* 0x0000000804047223 */
                                                                     /* 0x000fe40000000009 */
        /*0040*/                   STG.E.128 [R6.64], R4 ;           /* 0x0000000406007986 */
                                                                     /* 0x000fe2000c101d04 */
        /*0050*/                   BRA `(.L_x_3) ;                   /* 0x0000000000017a02 */
                                                                     /* 0x000fca0000000f00 */
.L_x_2:
        /*0060*/                   LDL.64 R4, [R1] ;                 /* 0x0000000001047983 */
                                                                     /* 0x000fe20000100a00 */
        /*0070*/               @P1 BRA `(.L_x_2) ;                   /* 0x0000000000017a02 */
                                                                     /* 0x000fca0000000f00 */
.L_x_3:
        /*0080*/               @P0 BRA `(.L_x_1) ;                   /* 0x0000000000017a02 */
                                                                     /* 0x000fca0000000f00 */
        /*0090*/                   EXIT ;                            /* 0x000000000000794d */
                                                                     /* 0x000fea0003800000 */
.L_x_4:
        /*00a0*/                   BRA `(.L_x_4) ;                   /* 0xfffffff000007947 */
                                                                     /* 0x000fc0000383ffff */
"""


def test_the_path_of_wide_accesses_is_taken_through_the_loop():
    kernel = sass.summary(sass.parse(LISTING.splitlines())["scale"])
    assert kernel.memory.kinds == {"BRA": 3, "LDG": 1, "FFMA": 1, "STG": 1}
    assert (kernel.memory.global_requests, kernel.memory.loaded) == (2, 16)
    assert kernel.memory.stall == 5 + 1 + 2 + 1 + 5 + 5
    assert kernel.local == 1


def test_math_share_and_multiply_adds_of_a_loop():
    loop = sass.summary(sass.parse(LISTING.splitlines())["scale"]).compute
    assert (loop.kind, loop.math, loop.fma, loop.instructions) == ("FFMA", 1, 32, 6)
    metric = metrics.math_share({80: loop}, 0.9)
    assert metric.value == pytest.approx(1 / 6)
    assert not metric.held
    assert "sm_80, 6 instructions: 3 BRA" in metric.why


@pytest.mark.parametrize(
    ("opcode", "moved"),
    [
        ("LDG.E", 4),
        ("LDG.E.128.CONSTANT", 16),
        ("STG.E.U16", 2),
        ("LDS.64", 8),
        ("LDSM.16.MT88.4", 16),
        ("LDG.E.U8", 1),
    ],
)
def test_bytes_of_an_access(opcode, moved):
    assert sass.Instruction(opcode, "", False).bytes == moved


@pytest.mark.parametrize(
    ("opcode", "count"), [("HMMA.16816.F32.BF16", 2048), ("HMMA.1688.F32.TF32", 1024), ("FFMA", 32)]
)
def test_multiply_adds_of_a_warp(opcode, count):
    assert sass.fma(sass.Instruction(opcode, "", False)) == count


def test_ptxas_says_what_a_kernel_needs():
    text = (
        "ptxas info    : Function properties for k\n"
        "    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 8192 bytes smem, 480 bytes cmem[0]\n"
        "ptxas info    : Function properties for plain\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 16 registers, 360 bytes cmem[0]\n"
    )
    assert cubin.parse_log(text) == {"k": (40, 8192, 28), "plain": (16, 0, 0)}


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "expected"),
    [  # as cuda_occupancy.h gives them
        (80, 256, 32, 0, (8, 64, "registers")),
        (80, 256, 33, 0, (6, 48, "registers")),
        (80, 128, 226, 25344, (2, 8, "registers")),
        (86, 256, 24, 0, (6, 48, "warps")),
        (89, 128, 168, 49152, (2, 8, "shared memory")),
        (90, 32, 16, 0, (32, 32, "blocks")),
        (120, 1024, 64, 0, (1, 32, "registers")),
    ],
)
def test_residency(arch, threads, registers, shared, expected):
    assert devices.residency(arch, threads, registers, shared) == expected


def wide_loop():
    """Of a kernel that does a multiply-add in every second instruction."""
    return sass.Loop(instructions=2048, stall=2048, kinds={"FFMA": 1024, "LDS": 1024}, fma=32 * 1024)


def test_one_block_more_than_a_wave_takes_a_wave_more():
    device = devices.DEVICES["A100"]
    seconds = []
    for blocks in (216, 217, 432):
        work = devices.Work(blocks, 4, blocks * 2.0**24, 0, 0, 0, 0, 0)
        seconds.append(devices.modelled(device, work, wide_loop(), 2).seconds)
    assert seconds[2] == pytest.approx(2 * seconds[0])
    assert seconds[1] == pytest.approx(1.5 * seconds[0])  # the last wave: one block on one multiprocessor


def test_the_scarcest_resource_decides():
    work = devices.Work(264, 4, 264 * 2.0**24, 0, 0, 0, 0, 0)
    found = devices.modelled(devices.DEVICES["H100"], work, wide_loop(), 2)
    assert (found.bound, found.ratio) == ("issue", pytest.approx(2.0))
    work.wavefronts = 264 * 2.0**20
    found = devices.modelled(devices.DEVICES["H100"], work, wide_loop(), 2)
    assert (found.bound, found.ratio) == ("shared memory", pytest.approx(8.0))


def test_few_loads_under_way_do_not_fill_the_bandwidth():
    loop = sass.Loop(instructions=4, global_requests=1, loaded=4)
    work = devices.Work(108, 1, 0, 1000, 0, 0, 1e9, 1e9)
    assert devices.modelled(devices.DEVICES["A100"], work, loop, 1).bound == "loads under way"


# ---- a device that is found

H100 = {13: 1_980_000, 16: 132, 36: 2_619_000, 37: 5120, 75: 9, 76: 0}  # CU_DEVICE_ATTRIBUTE_...: value


def test_bandwidth_follows_from_clock_and_width_of_the_bus():
    found = devices.of_driver(H100.__getitem__)
    assert found[:3] == (90, 132, 1.98e9)
    assert found.dram == pytest.approx(devices.DEVICES["H100"].dram, rel=0.01)


@pytest.mark.parametrize(("capability", "known"), [((12, 1), 120), ((10, 3), 100), ((8, 7), 86), ((7, 5), 80)])
def test_an_unknown_architecture_has_the_rates_of_the_one_before(capability, known):
    attributes = H100 | dict(zip((75, 76), capability, strict=True))
    assert devices.of_driver(attributes.__getitem__).architecture == known


@pytest.mark.sim
def test_the_emulated_device_has_a_roofline():
    found = devices.of_driver(dispatch.get_backend("sim").driver.native.attribute)
    assert found[:4] == (80, 8, 1e9, 128e9)
    assert devices.roofline(found, devices.rate(80, "FFMA", 32), 64 * 8e9, 0) == 1.0
    assert devices.roofline(found, devices.rate(80, "HMMA", 2048), 0, 256e9) == 2.0


def test_spills_and_local_memory_in_loops_are_told():
    loop = wide_loop()
    kernel = sass.Kernel(loop, loop, local=3)
    metric = metrics.spills({80: (cubin.Resources(32, 0, 0), kernel), 90: (cubin.Resources(32, 0, 8), kernel)})
    assert not metric.held
    assert metric.why == "sm_80: 0 B spilled, 3 local in loops; sm_90: 8 B spilled, 3 local in loops"


def test_what_is_over_budget_is_named():
    row = {"math share": metrics.least(0.5, 0.9, "sm_80"), "spills": metrics.most(0, 0)}
    assert report.over_budget("no such kernel", row) == ["no such kernel: math share 0.500, budget 0.9 (sm_80)"]


GOOD, BAD = metrics.least(64, 48), metrics.least(24, 48, "sm_80")


def test_a_miss_is_told_with_its_column_its_limit_and_the_reason(monkeypatch):
    monkeypatch.setattr(report, "budgets", lambda: {"held": {"residency": {"limit": 24, "why": "a row in registers"}}})
    assert report.misses("held", {"residency": BAD}) == ["warps 24, limit 48: a row in registers"]
    assert report.misses("free", {"residency": BAD}) == ["warps 24, limit 48: sm_80"]
    assert report.misses("free", {"residency": GOOD}) == []


def test_rows_go_into_the_table_of_a_document(tmp_path):
    path = tmp_path / "kernels.md"
    path.write_text("before\n- dash\n" + report.BEGIN + report.END + "after\n")
    report.update(path, {"softmax_warp_f32": {"residency": GOOD}, "no such kernel": {"residency": BAD}})
    report.update(path, {"gemm_nn_f32_128": {"residency": BAD}})
    none = " | -" * 10
    assert path.read_text().splitlines() == [
        "before", "- dash", report.BEGIN.strip(),
        "| kernel | " + " | ".join(report.COLUMNS) + " |", "|---" * (1 + len(report.COLUMNS)) + "|",
        f"| gemm_nn_f32_128{none} | 24* | - | - | - |", f"| softmax_warp_f32{none} | 64 | - | - | - |",
        "", report.MISSES, "", "- gemm_nn_f32_128: warps 24, limit 48: sm_80", report.END.strip(), "after",
    ]  # fmt: skip
    report.update(path, {"gemm_nn_f32_128": {"residency": GOOD}})
    assert "- gemm" not in path.read_text()


# ---- the project's own kernels


@pytest.mark.sim
@pytest.mark.parametrize("family", families(), ids=lambda f: f.kernel)
def test_each_family_launches_its_kernel_on_every_device(family):
    for device in devices.DEVICES.values():
        launch, needed = noted(lambda new: family.call(new, family.full), family.kernel, device.multiprocessors)
        assert launch.kernel == family.kernel
        assert launch.blocks * needed > 0


TO_BE_READ = {"gemm_ladder"}


@pytest.mark.sim
def test_every_kernel_file_has_a_family():
    launched = {noted(lambda new, f=f: f.call(new, f.full), f.kernel, 108)[0].module for f in families()}
    assert launched == set(compiler.modules()) - TO_BE_READ


def test_budgets_are_of_families():
    assert set(report.budgets()) <= {family.kernel for family in families()}


def test_the_documentation_tells_of_every_row_what_it_misses_and_why():
    text = DOCUMENTATION.read_text().partition(report.BEGIN)[2].partition(report.END)[0]
    table = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in text.splitlines() if line.startswith("| ")}
    told = dict(line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("- "))
    assert [*table] == ["kernel", *(family.kernel for family in families() if family.kernel in table)]
    for kernel, row in table.items():
        missed = {name: cell for name, cell in zip(report.COLUMNS, row, strict=True) if "*" in cell}
        reasons = report.budgets().get(kernel, {})
        for name, cell in missed.items():
            why = reasons[report.COLUMNS[name][0]]["why"]
            assert f"{name} {cell.rstrip(' |*')}, limit " in told[kernel]
            assert why in told[kernel]


BUDGETED = ("gemm_nn_f32_128", "gemm_tn_f32_128", "reduce_block_sum_f32_f32", "softmax_warp_f32")


@pytest.mark.nvcc
@pytest.mark.skipif(cubin.missing() is not None, reason=str(cubin.missing()))
@pytest.mark.skipif(not shutil.which("g++"), reason="the emulator needs g++")
@pytest.mark.parametrize("kernel", BUDGETED)
def test_kernels_keep_their_budgets(kernel):
    family = next(f for f in families() if f.kernel == kernel)
    assert report.over_budget(kernel, metrics.row(family, (80, 90), filtered=True)) == []


@pytest.mark.nvcc
@pytest.mark.skipif(cubin.missing() is not None, reason=str(cubin.missing()))
def test_ptx_for_older_devices(tmp_path):
    for path in ptx.write(tmp_path):
        assert ".target sm_75" in path.read_text()
        assert f".entry {path.stem}_" in path.read_text()


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BackendError, match="ptxas-of-tomorrow not found: install the CUDA toolkit"):
        cubin.tool("ptxas-of-tomorrow")
