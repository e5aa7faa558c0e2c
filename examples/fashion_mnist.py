"""Train a small CNN on Fashion-MNIST: 60,000 training and 10,000 test pictures of clothes in 10 classes.

python examples/fashion_mnist.py --epochs 5 --seed 0
DLCORE_BACKEND=numpy python examples/fashion_mnist.py --steps 50
"""

import argparse
import hashlib
import os
import shutil
import time
from pathlib import Path

import numpy as np

import dlcore as dl
from dlcore import nn, optim
from dlcore.data import DataLoader, Digits, FashionMNIST
from dlcore.errors import DataError
from dlcore.train import Accuracy, Checkpoints, CSVLogger, JSONLLogger, Trainer, read_jsonl


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of the cpu backend (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("runs/fashion_mnist"))
    parser.add_argument("--data", type=Path, help="folder that holds the four Fashion-MNIST files")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    return parser.parse_args()


def load_data(folder):
    try:
        return FashionMNIST(folder), FashionMNIST(folder, train=False)
    except DataError as error:
        print(f"{error}\nTraining on scikit-learn's 8 x 8 digits instead.")
        return Digits(), Digits(train=False)


def build_model(side):
    return nn.Sequential(  # x[N, 1, side, side]
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # [N, 32, side/2, side/2]
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # [N, 64, side/4, side/4]
        nn.Flatten(), nn.Linear(64 * (side // 4) ** 2, 10),
    )  # fmt: skip


def weights_sha256(model):
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def draw_curve(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    left.plot([row["step"] for row in steps], [row["loss"] for row in steps], linewidth=0.5)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    right.plot([row["epoch"] for row in epochs], [row["val_accuracy"] for row in epochs], marker="o")
    right.set(xlabel="epoch", ylabel="test accuracy")
    figure.savefig(path, dpi=120)


def draw_predictions(model, data, path):
    from matplotlib.figure import Figure

    x, labels = data.batch(np.arange(40))
    with dl.no_grad():
        guesses = model(dl.asarray(x)).numpy().argmax(1)
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, image, label, guess in zip(figure.subplots(5, 8).flat, x, labels, guesses, strict=True):
        axes.imshow(image[0], cmap="gray_r")
        axes.set_title(data.classes[guess], color="black" if guess == label else "red", fontsize=9)
        axes.axis("off")
    figure.suptitle("predictions (wrong ones in red)")
    figure.savefig(path, dpi=120)


def main():
    args = parse_arguments()
    if args.threads:
        os.environ["DLCORE_NUM_THREADS"] = str(args.threads)
    if not args.resume:
        shutil.rmtree(args.out / "checkpoints", ignore_errors=True)
    dl.manual_seed(args.seed)

    train, test = load_data(args.data)
    loader = DataLoader(train, args.batch_size, shuffle=True, seed=args.seed, num_workers=1)
    test_loader = DataLoader(test, 500)
    model = build_model(side=train.images.shape[-1])
    optimizer = optim.AdamW(model.parameters(), lr=4e-3)
    trainer = Trainer(
        model, optimizer, nn.cross_entropy,
        schedule=optim.OneCycleLR(optimizer, max_lr=4e-3, total_steps=args.epochs * len(loader) + 1),
        metrics=[Accuracy()],
        loggers=[CSVLogger(args.out / "epochs.csv"), JSONLLogger(args.out / "log.jsonl")],
        checkpoints=Checkpoints(args.out / "checkpoints", keep_last=1),
    )  # fmt: skip
    start = time.perf_counter()
    try:
        trainer.fit(loader, epochs=args.epochs, steps=args.steps, val_loader=test_loader, resume=args.resume)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(f"{interrupt} (here: --resume)") from None
    accuracy = trainer.evaluate(test_loader)["accuracy"]
    seconds = time.perf_counter() - start

    dl.save(args.out / "model.safetensors", model.state_dict())
    draw_curve(read_jsonl(args.out / "log.jsonl"), args.out / "curve.png")
    draw_predictions(model, test, args.out / "predictions.png")
    print(f"\nwrote model.safetensors, epochs.csv, curve.png and predictions.png to {args.out}/")
    print("try next: --seed 1, --epochs 10, or another backend: DLCORE_BACKEND=cuda (or cpu, numpy, sim)")
    print(f"weights sha256: {weights_sha256(model)}")
    backend = next(model.parameters()).device
    print(f"test accuracy: {accuracy:.4f} ({len(test)} images, {seconds:.0f} s, backend {backend})")


if __name__ == "__main__":
    main()
