"""The benchmarks: wrong and unfinished results are told, the fastest peer counts, runs are kept and summed up."""

import importlib.util
import itertools
import json
import sys
import time
import types

import numpy as np
import pytest

import dlcore as dl
from benchmarks import __main__ as command
from benchmarks import captured, functions, harness, history, libraries, memory, products, scaling, suites, table
from benchmarks.row import COMPILED, Case, Peaks, Row, Work, check, row

native = pytest.mark.skipif(importlib.util.find_spec("dlcore._C") is None, reason="the extension is not built")
PEAKS = Peaks(100.0, 10.0)


def work(error=1e-7, **peers):
    return Work(lambda: [1.0], {name: lambda: [1.0] for name in peers or ["peer"]}, error, {"peer": 1e-7} | peers, 4e6)


def timed(monkeypatch, *milliseconds):
    timings = [harness.Timing(t, t, t) for t in milliseconds]
    monkeypatch.setattr(harness, "measure", lambda sides: timings[: len(sides)])


def a_row(name, ratio, **columns):
    return Row(name, 1.0, (1.0, 1.0), "peer", ratio, (1.0, 1.0), ratio, 0.0, 0.0, 1.0, "GFLOP/s", 0.5, **columns)


def test_the_fastest_peer_counts_and_a_compiled_one_has_its_own_column(monkeypatch):
    timed(monkeypatch, 2.0, 8.0, 6.0, 3.0)
    found = row(Case("x", lambda: work(slow=0, fast=0, **{COMPILED: 0})), PEAKS)
    assert (found.peer, found.ratio, found.compile_ratio) == ("fast", 3.0, 1.5)
    assert (found.rate, found.unit, found.peak_fraction) == (2.0, "GFLOP/s", 0.02)


def test_a_wrong_row_is_told_and_the_others_still_run(monkeypatch, capsys):
    timed(monkeypatch, 1.0, 1.0)
    monkeypatch.setitem(suites.SUITES, "ops", lambda _: iter([Case("bad", lambda: work(1e-3)), Case("good", work)]))
    monkeypatch.setattr(Peaks, "measured", lambda: PEAKS)
    with dl.device("numpy"):
        assert suites.main("ops", []) == 1
        assert suites.main("ops", ["--only", "good"]) == 0
    assert "WRONG: bad: error 0.001 against float64" in capsys.readouterr().out


def test_nan_is_wrong():
    with pytest.raises(harness.WrongResultError):
        harness.relative_error([np.float32("nan")], [1.0])


def test_a_call_that_returns_before_its_result_is_there_is_found():
    class Later:
        def __array__(self, dtype=None, copy=None):
            time.sleep(0.02)
            return np.ones(1)

    with pytest.raises(harness.UnsynchronisedError):
        harness.check_synchronised(lambda: [Later()])
    harness.check_synchronised(lambda: [np.asarray(Later())])


def test_means_are_geometric_and_name_the_last():
    rows = [a_row("a step", 4.0, compile_ratio=2.0, memory_ratio=0.5), a_row("b step", 1.0), a_row("c", 3.0)]
    assert list(table.summary(rows)) == [
        "steps: geometric mean 2.00, lowest 1.00 (b step)",
        "other rows: geometric mean 3.00, lowest 3.00 (c)",
        "against torch.compile: geometric mean 2.00, lowest 2.00 (a step)",
        "peak memory, ours over the peer's: geometric mean 0.50, highest 0.50 (a step)",
    ]


@native
def test_a_history_has_a_line_per_run_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "history", tmp_path / "picture.png"
    for ratio in (1.0, 2.0):
        history.append(str(file), "ops", [a_row("sgemm", ratio)])
    assert [ratio for _, ratio in history.ratios(str(file))["sgemm"]] == [1.0, 2.0]
    assert {"date", "machine", "versions", "rows"} <= set(json.loads(file.read_text().splitlines()[0]))
    history.main([str(file), "--out", str(picture)])
    assert picture.stat().st_size > 1000


def test_without_matplotlib_the_plot_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match="matplotlib"):
        history.draw("none", "none")


def test_without_pytorch_its_suites_say_so(monkeypatch):
    monkeypatch.setattr(suites, "installed", lambda name: False)
    with pytest.raises(SystemExit, match="pip install torch"):
        next(suites.layers(None))


@pytest.mark.skipif(not memory.works(), reason="the system does not count a process's peak")
def test_growth_is_the_peak_and_not_what_is_left():
    def f():
        np.ones(8_000_000)
        np.ones(1_000_000)

    assert 60 < memory.growth(f) < 75


def test_every_suite_is_listed(capsys):
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {suite} " in listed for suite in (*suites.SUITES, *command.OTHERS))
    assert set(command.ROWS) == set(suites.SUITES)


def test_jax_is_compiled_and_waited_for(monkeypatch):
    waited = []
    jax = types.SimpleNamespace(jit=lambda f: f, block_until_ready=lambda x: waited.append(1) or x)
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax.numpy", np)
    (found,) = libraries.run("jax", lambda xp, x: xp.exp(x), np.zeros(2))()
    assert found.tolist() == [1.0, 1.0]
    assert waited


def test_a_peer_that_does_other_work_is_told():
    with pytest.raises(harness.WrongResultError, match="peer computes something else"):
        check(work(error=1.0, peer=1.0))


@native
@pytest.mark.parametrize("name", ["softmax 4096x1024", "sum of columns 4096x1024", "transposed copy 4096x1024"])
def test_functions_beside_numpy_are_right(name):
    with dl.device("cpu"):
        check(next(case for case in functions.cases(("numpy",)) if case.name == name).work())


@native
def test_a_product_beside_numpy_is_right():
    with dl.device("cpu"):
        check(next(products.cases(("numpy",))).work())


@native
@pytest.mark.parametrize("name", ["mlp step b32 adam, captured", "4 ops on 4 numbers: replay overhead"])
def test_captured_cases_are_right(name):
    with dl.device("cpu"):
        check(next(case for case in captured.cases() if case.name == name).work())


def test_only_points_beyond_the_cache_count():
    milliseconds, sizes = (9.0, 2.4, 4.0, 8.0), itertools.count()
    found = [scaling.Point(2**i, t, 100 * 2**i) for i, t in zip(sizes, milliseconds, strict=False)]
    assert scaling.flatness(found, cache=150) == pytest.approx(1.2)
    assert len(scaling.beyond(found, cache=10**6)) == 2


def test_strict_scaling_fails_where_a_curve_is_steep(monkeypatch, capsys):
    steep = [scaling.Point(n, float(n * n), 0) for n in (1, 2)]
    monkeypatch.setattr(scaling, "points", lambda curve: steep)
    assert scaling.main(["--only", "mlp", "--strict"]) == 1
    assert scaling.main(["--only", "mlp"]) == 0
    assert "NOT FLAT within 1.3: mlp" in capsys.readouterr().out


@native
@pytest.mark.parametrize("name", scaling.CURVES)
def test_curves_run(name):
    with dl.device("cpu"):
        (point,) = scaling.points(scaling.Curve("unit", (1,), scaling.CURVES[name].make), rounds=2)
    assert point.per_unit > 0
    assert point.nbytes > 0
