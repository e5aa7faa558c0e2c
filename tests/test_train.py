"""The Trainer: it learns, resumes bit-exactly, and stops with clear words."""

import csv
import hashlib
import os
import signal
import sys
import threading

import numpy as np
import pytest

import dlcore as dl
from dlcore import nn, optim
from dlcore.data import ArrayDataset, DataLoader
from dlcore.errors import ArgumentError, DataError, TrainingError
from dlcore.train import (
    Accuracy,
    Callback,
    Checkpoints,
    ConfusionMatrix,
    CSVLogger,
    EarlyStopping,
    JSONLLogger,
    TensorBoardLogger,
    Trainer,
    load_checkpoint,
    read_jsonl,
)
from dlcore.train.checkpoints import pack, unpack

CLASSES, FEATURES = 3, 6


def blobs(size=60, seed=0):
    """Three well separated clusters."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=size)
    return ArrayDataset((3 * np.eye(FEATURES)[labels] + rng.normal(size=(size, FEATURES))).astype(np.float32), labels)


def jitter(sample, rng):
    return sample[0] + rng.normal(size=FEATURES).astype(np.float32), *sample[1:]


def make_loader(**options):
    return DataLoader(blobs(), 8, **{"shuffle": True, "seed": 3, "transform": jitter} | options)


def make_trainer(**options):
    dl.manual_seed(7)
    model = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    return Trainer(model, optimizer, nn.cross_entropy, **{"progress": False} | options)


def weights(trainer):
    """sha256 of the model's parameters and the optimizer's state."""
    _, tensors = pack({"model": trainer.model.state_dict(), "optimizer": trainer.optimizer.state_dict()})
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + np.asarray(tensors[name]).tobytes())
    return digest.hexdigest()


def without_time(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


class At(Callback):
    """Do something after a given step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, trainer, record):
        if trainer.step == self.step:
            self.action()


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


# ---- fitting


def test_it_learns():
    trainer = make_trainer(metrics=[Accuracy()])
    history = trainer.fit(make_loader(), epochs=6, val_loader=DataLoader(blobs(seed=1), 16))
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["val_accuracy"] > 0.9
    assert {"step", "lr", "accuracy", "val_loss", "seconds"} <= set(history[0])


def test_steps_limit_the_run_and_a_second_fit_goes_on_where_it_stopped():
    straight = make_trainer()
    straight.fit(make_loader(), epochs=2)
    parts, loader = make_trainer(), make_loader()
    for limit in (3, 8, 11, 100):
        parts.fit(loader, epochs=2, steps=limit)
        assert parts.step == min(limit, 16)
    assert weights(parts) == weights(straight)
    assert without_time(parts.history) == without_time(straight.history)


def test_evaluate_leaves_the_model_in_its_mode_and_is_repeatable():
    trainer = make_trainer(metrics=[Accuracy(), ConfusionMatrix(CLASSES)])
    results = [trainer.evaluate(DataLoader(blobs(), size)) for size in (7, 60)]
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert set(results[0]) == {"loss", "accuracy", "balanced_accuracy"}
    assert trainer.model.training


def test_accumulated_batches_equal_one_large_batch():
    def after(batch_size, accumulate):
        trainer = make_trainer(accumulate=accumulate)
        trainer.model.eval()  # no dropout: its draws depend on the batch's shape
        trainer.model.train = lambda mode=True: trainer.model
        trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=0.1)
        trainer.fit(DataLoader(blobs(), batch_size), epochs=1, steps=3)
        return trainer.model.state_dict()

    whole, parts = after(12, 1), after(4, 3)
    for name, value in whole.items():
        np.testing.assert_allclose(np.asarray(parts[name]), np.asarray(value), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "clip_norm": 0.1}])
def test_a_captured_step_trains_to_the_same_bits(options):
    found = []
    for capture in (False, True):
        trainer = make_trainer(capture=capture, **options)
        found.append((without_time(trainer.fit(make_loader(), epochs=3)), weights(trainer)))
    assert found[0] == found[1]
    assert trainer._backward.programs


def test_clip_norm_bounds_the_step():
    trainer = make_trainer(clip_norm=1e-3)
    trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=1.0)
    before = [np.array(p) for p in trainer.model.parameters()]
    trainer.fit(make_loader(), epochs=1, steps=1)
    moved = sum(((np.asarray(p) - q) ** 2).sum() for p, q in zip(trainer.model.parameters(), before, strict=True))
    assert moved**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_validation_uses_the_averaged_weights():
    trainer = make_trainer()
    trainer.ema = optim.EMA(trainer.model, decay=0.9)
    untrained = trainer.evaluate(DataLoader(blobs(), 16))
    trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=1.0)
    trainer.ema.update = lambda: None
    trainer.fit(make_loader(), epochs=1)
    assert trainer.evaluate(DataLoader(blobs(), 16)) == untrained


def test_plateau_schedule_follows_the_validation_loss():
    trainer = make_trainer()
    trainer.schedule = optim.ReduceLROnPlateau(trainer.optimizer, factor=0.5, patience=0)
    trainer.evaluate = lambda loader: {"loss": 1.0}
    history = trainer.fit(make_loader(), epochs=3, val_loader=[])
    assert [record["lr"] for record in history] == [1e-2, 1e-2, 5e-3]
    assert trainer.optimizer.lr == 2.5e-3


# ---- resuming


@pytest.mark.parametrize("stop", [1, 5, 8, 12])
@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_bit_exact(tmp_path, stop, workers):
    straight = make_trainer(metrics=[Accuracy()])
    straight.fit(make_loader(), epochs=2)

    make_trainer(metrics=[Accuracy()], checkpoints=Checkpoints(tmp_path)).fit(make_loader(), epochs=2, steps=stop)
    resumed = make_trainer(metrics=[Accuracy()], checkpoints=Checkpoints(tmp_path))
    resumed.fit(make_loader(num_workers=workers), epochs=2, resume=True)
    assert weights(resumed) == weights(straight)
    assert without_time(resumed.history) == without_time(straight.history)


def test_resuming_restores_schedule_ema_and_early_stopping(tmp_path):
    def trainer():
        made = make_trainer(early_stopping=EarlyStopping(patience=9), checkpoints=Checkpoints(tmp_path))
        made.schedule = optim.CosineAnnealingLR(made.optimizer, T_max=24)
        made.ema = optim.EMA(made.model, decay=0.9)
        return made

    first = trainer()
    first.fit(make_loader(), epochs=2, val_loader=DataLoader(blobs(), 16))
    second = trainer()
    second.load_state_dict(load_checkpoint(Checkpoints(tmp_path).latest()))
    assert second.optimizer.lr == first.optimizer.lr < 1e-2
    assert second.early_stopping.state_dict() == first.early_stopping.state_dict()
    for name, value in first.ema.state_dict().items():
        np.testing.assert_array_equal(np.asarray(second.ema.state_dict()[name]), np.asarray(value))


def test_resume_without_a_checkpoint_starts_from_nothing(tmp_path):
    trainer = make_trainer(checkpoints=Checkpoints(tmp_path))
    trainer.fit(make_loader(), epochs=1, resume=True)
    assert trainer.epoch == 1


def test_ctrl_c_saves_and_resuming_is_bit_exact(tmp_path):
    straight = make_trainer()
    straight.fit(make_loader(), epochs=2)

    handler = signal.getsignal(signal.SIGINT)
    stopped = make_trainer(checkpoints=Checkpoints(tmp_path), loggers=[At(5, press_ctrl_c)])
    with pytest.raises(KeyboardInterrupt, match=r"after step 5; saved .*step-00000005"):
        stopped.fit(make_loader(), epochs=2)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = make_trainer(checkpoints=Checkpoints(tmp_path))
    resumed.fit(make_loader(), epochs=2, resume=True)
    assert weights(resumed) == weights(straight)


def test_a_second_ctrl_c_stops_at_once():
    trainer = make_trainer(loggers=[At(2, press_ctrl_c), At(2, press_ctrl_c)])
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        trainer.fit(make_loader(), epochs=1)


def test_fits_in_a_thread_where_signals_do_not_reach():
    trainer = make_trainer()
    thread = threading.Thread(target=trainer.fit, args=(make_loader(),), kwargs={"epochs": 1})
    thread.start()
    thread.join()
    assert trainer.epoch == 1


# ---- checkpoints


def test_pack_and_unpack_any_tree():
    tree = {"a": {"w": dl.tensor([1.0, 2.0]), "n": 3}, "b": [0.1, None, "x", dl.tensor(5)]}
    plain, tensors = pack(tree)
    assert set(tensors) == {"a.w", "b.3"}
    back = unpack(plain, tensors)
    assert back["a"]["w"] is tree["a"]["w"]
    assert back["b"][:3] == tree["b"][:3]


@pytest.mark.parametrize(("mode", "kept"), [("min", {2, 4, 5}), ("max", {3, 4, 5})])
def test_keeps_the_last_and_the_best(tmp_path, mode, kept):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1, monitor="score", mode=mode)
    trainer = make_trainer()
    trainer.loader = make_loader()
    for step, score in enumerate([0.5, 0.1, 0.9, 0.4, 0.3], 1):
        trainer.step = step
        checkpoints.on_epoch(trainer, {"score": score})
    assert {int(path.stem.split("-")[1]) for path in checkpoints.paths()} == kept
    assert checkpoints.latest().stem.endswith("5")
    assert int(checkpoints.best().stem[-1]) == (2 if mode == "min" else 3)


def test_saves_every_few_steps(tmp_path):
    trainer = make_trainer(checkpoints=Checkpoints(tmp_path, every=3, keep_last=9))
    trainer.fit(make_loader(), epochs=1)
    assert [int(path.stem[5:]) for path in trainer.checkpoints.paths()] == [3, 6, 8]


def test_a_fresh_fit_does_not_mix_with_old_checkpoints(tmp_path):
    make_trainer(checkpoints=Checkpoints(tmp_path)).fit(make_loader(), epochs=1)
    with pytest.raises(ArgumentError, match=r"checkpoints of another training; use fit\(resume=True\)"):
        make_trainer(checkpoints=Checkpoints(tmp_path)).fit(make_loader(), epochs=1)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    make_trainer(checkpoints=Checkpoints(tmp_path)).fit(make_loader(), epochs=1)
    path = Checkpoints(tmp_path).latest()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="truncated"):
        make_trainer(checkpoints=Checkpoints(tmp_path)).fit(make_loader(), epochs=2, resume=True)


def test_another_file_is_no_checkpoint(tmp_path):
    dl.save(tmp_path / "f", {"x": dl.tensor(1.0)})
    with pytest.raises(DataError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "f")


def test_a_state_with_other_parts_is_refused(tmp_path):
    make_trainer(checkpoints=Checkpoints(tmp_path)).fit(make_loader(), epochs=1)
    other = make_trainer(checkpoints=Checkpoints(tmp_path), early_stopping=EarlyStopping())
    with pytest.raises(ArgumentError, match="do not both have: early_stopping"):
        other.fit(make_loader(), epochs=2, resume=True)


# ---- stopping and errors


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_early_stopping_counts_epochs_without_progress(mode, sign):
    stopping = EarlyStopping("score", patience=2, min_delta=0.1, mode=mode)
    trainer = make_trainer()
    for value, stops in [(1.0, False), (0.95, False), (0.8, False), (0.75, False), (0.71, True)]:
        stopping.on_epoch(trainer, {"score": sign * value})
        assert bool(trainer.stop_reason) == stops
    assert f"no better score than {sign * 0.8} for 2 epochs" in trainer.stop_reason


def test_early_stopping_ends_fit():
    trainer = make_trainer(early_stopping=EarlyStopping("accuracy", patience=1, mode="min"), metrics=[Accuracy()])
    assert len(trainer.fit(make_loader(), epochs=50)) < 50


def test_a_misspelt_monitor_lists_the_columns():
    trainer = make_trainer(early_stopping=EarlyStopping("val_los"))
    with pytest.raises(ArgumentError, match="monitor='val_los' is not in the record; there are epoch, step, lr, loss"):
        trainer.fit(make_loader(), epochs=1)


def test_a_nan_loss_stops_before_the_step_and_leaves_the_trainer_usable():
    x, y = blobs().arrays
    trainer = make_trainer()
    before = weights(trainer)
    with pytest.raises(TrainingError, match=r"the loss is nan in step 1 \(epoch 1\)"):
        trainer.fit(DataLoader(ArrayDataset(np.full_like(x, np.nan), y), 8), epochs=1)
    assert weights(trainer) == before
    assert np.isfinite(trainer.fit(make_loader(), epochs=1)[0]["loss"])


@pytest.mark.parametrize("call", ["fit", "evaluate"])
def test_no_batches_say_so(call):
    empty = DataLoader(ArrayDataset(np.zeros((0, FEATURES), np.float32), np.zeros(0, int)), 4)
    with pytest.raises(ArgumentError, match="no batch was seen"):
        make_trainer().fit(empty, epochs=1) if call == "fit" else make_trainer().evaluate(empty)


def test_checkpoints_need_a_loader_with_a_position(tmp_path):
    with pytest.raises(ArgumentError, match="state_dict"):
        make_trainer(checkpoints=Checkpoints(tmp_path)).fit([(1, 2)], epochs=1)


def test_resume_needs_checkpoints():
    with pytest.raises(ArgumentError, match="needs checkpoints"):
        make_trainer().fit(make_loader(), epochs=1, resume=True)


# ---- loggers and progress


def test_csv_has_a_row_per_epoch_also_after_resuming(tmp_path):
    for epochs in (1, 3):
        trainer = make_trainer(loggers=[CSVLogger(tmp_path / "a" / "log.csv")], checkpoints=Checkpoints(tmp_path / "c"))
        trainer.fit(make_loader(), epochs=epochs, resume=True)
    with open(tmp_path / "a" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["loss"]) == trainer.history[2]["loss"]


def test_jsonl_has_each_step_once_also_after_a_crash(tmp_path):
    def crash():
        raise RuntimeError("crash")

    log, folder = tmp_path / "log.jsonl", tmp_path / "c"
    trainer = make_trainer(loggers=[JSONLLogger(log), At(7, crash)], checkpoints=Checkpoints(folder, every=5))
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit(make_loader(), epochs=1)
    make_trainer(loggers=[JSONLLogger(log)], checkpoints=Checkpoints(folder)).fit(make_loader(), epochs=1, resume=True)
    rows = read_jsonl(log)
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 9))
    assert [row["kind"] for row in rows].count("epoch") == 1


def test_jsonl_names_a_damaged_line(tmp_path):
    (tmp_path / "log").write_text('{"step": 1}\n{"st')
    with pytest.raises(DataError, match="line 2"):
        read_jsonl(tmp_path / "log")


def test_tensorboard_writes_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    make_trainer(loggers=[TensorBoardLogger(tmp_path)]).fit(make_loader(), epochs=1)
    (events,) = tmp_path.glob("events.*")
    content = events.read_bytes()
    for tag in (b"step/loss", b"step/lr", b"epoch/loss"):
        assert tag in content


def test_tensorboard_drops_what_a_resumed_run_repeats(tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("tensorboardX")
    purged = []
    monkeypatch.setattr(tensorboard, "SummaryWriter", lambda folder, purge_step: purged.append(purge_step))
    logger, trainer = TensorBoardLogger(tmp_path), make_trainer()
    trainer.step = 7
    logger.on_start(trainer)
    assert purged == [8]


def test_a_bar_with_tqdm_and_plain_lines_without(capfd, monkeypatch):
    make_trainer(progress=True, metrics=[Accuracy()]).fit(make_loader(), epochs=1)
    shown = capfd.readouterr().err
    assert "epoch 1/1: 100%" in shown
    assert "accuracy=" in shown
    monkeypatch.setitem(sys.modules, "tqdm", None)
    make_trainer(progress=True, metrics=[Accuracy()]).fit(make_loader(), epochs=2)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "accuracy 0." in lines[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_trainer(accumulate=0),
        lambda: EarlyStopping(patience=0),
        lambda: EarlyStopping(mode="largest"),
        lambda: Checkpoints("x", keep_last=0),
        lambda: Checkpoints("x", every=0),
        lambda: JSONLLogger("x", every=0),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ArgumentError, match=r"got|must"):
        make()
