"""The loader: batches in an order, with augmentation, that depend on (seed, epoch) and never on the workers."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

from dlcore.data.batches import collate as default_collate
from dlcore.data.batches import to_tensors
from dlcore.data.dataset import Dataset, Indices, fetch_batch
from dlcore.data.sampler import RandomSampler, Sampler, SequentialSampler, generator
from dlcore.data.transforms import Transform
from dlcore.errors import ArgumentError, DataError

Collate = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class BatchReader:
    """Reads one batch as arrays; a pure function of (epoch, indices), so any worker may run it."""

    dataset: Dataset
    transform: Transform | None
    collate: Collate
    seed: int

    def __call__(self, epoch: int, indices: Indices) -> Any:
        """Read the batch of samples `indices`."""
        if self.transform is None and self.collate is default_collate:
            batch = fetch_batch(self.dataset, indices)
            if batch is not None:
                return batch
        return self.collate([self._sample(epoch, int(index)) for index in indices])

    def _sample(self, epoch: int, index: int) -> Any:
        try:
            sample = self.dataset[index]
            return sample if self.transform is None else self.transform(sample, generator(self.seed, epoch, index))
        except Exception as error:
            raise DataError(f"sample {index}: {type(error).__name__}: {error}") from error


class DataLoader:
    """Batches of a dataset as tensors.

    Every pass is one epoch. Order and augmentation depend on (seed, epoch, sample index) only: they are the same for
    any `num_workers`, and after `load_state_dict` in the middle of an epoch.

    Args:
        dataset: anything with `len(d)` and `d[i]`.
        batch_size: samples per batch; the last batch may be smaller unless `drop_last`.
        shuffle: a new random order each epoch; or give a `sampler`.
        seed: of order and augmentation.
        num_workers: 0 reads in the calling thread; n reads ahead with n threads, or processes with `worker="process"`
            (started afresh: the dataset is sent to them once, and the script needs `if __name__ == "__main__":`).
        prefetch: batches each worker reads ahead.
        transform: `transform(sample, rng)`, with the sample's own generator; see `dlcore.data.transforms`.
        collate: joins a list of samples into a batch of arrays.
        device: where the tensors go; None is the default device.

    Example:
        >>> loader = DataLoader(ArrayDataset(x, y), batch_size=32, shuffle=True, seed=0)
        >>> for xb, yb in loader: ...

    Raises:
        ArgumentError: a bad argument.
        DataError: while iterating, a sample that could not be read, with its index.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        *,
        shuffle: bool = False,
        sampler: Sampler | None = None,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        worker: Literal["thread", "process"] = "thread",
        prefetch: int = 2,
        transform: Transform | None = None,
        collate: Collate = default_collate,
        device: str | None = None,
    ) -> None:
        for name, value, least in [
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
            ("prefetch", prefetch, 1),
        ]:
            if not isinstance(value, int) or value < least:
                raise ArgumentError(f"DataLoader: {name} must be an integer >= {least}, got {value!r}")
        if worker not in ("thread", "process"):
            raise ArgumentError(f"DataLoader: worker must be 'thread' or 'process', got {worker!r}")
        if shuffle and sampler is not None:
            raise ArgumentError("DataLoader: give shuffle=True or a sampler, not both")
        self.sampler = sampler or (RandomSampler(dataset, seed) if shuffle else SequentialSampler(dataset))
        self.batch_size, self.seed, self.drop_last, self.device = batch_size, seed, drop_last, device
        self.num_workers, self.worker, self.prefetch = num_workers, worker, prefetch
        self._read = BatchReader(dataset, transform, collate, seed)
        self.epoch, self._batch, self._resumed = 0, 0, False

    def __len__(self) -> int:
        """Batches per epoch."""
        samples = len(self.sampler)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self._batch and not self._resumed:  # the last pass was left early
            self.epoch, self._batch = self.epoch + 1, 0
        self._resumed = False
        for batch in self._read_all(self._index_batches()):
            self._batch += 1
            yield to_tensors(batch, self.device)
        self.epoch, self._batch = self.epoch + 1, 0

    def _index_batches(self) -> list[Indices]:
        order, size = self.sampler.indices(self.epoch), self.batch_size
        return [order[b * size : (b + 1) * size] for b in range(self._batch, len(self))]

    def _read_all(self, batches: list[Indices]) -> Iterator[Any]:
        if self.num_workers == 0:
            yield from (self._read(self.epoch, indices) for indices in batches)
            return
        with self._pool() as (pool, read):
            pending: deque[Any] = deque()
            for indices in batches:
                pending.append(pool.submit(read, self.epoch, indices))
                if len(pending) > self.num_workers * self.prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    @contextmanager
    def _pool(self) -> Iterator[tuple[Executor, Callable[[int, Indices], Any]]]:
        pool: Executor
        if self.worker == "thread":
            pool, read = ThreadPoolExecutor(self.num_workers, "dlcore-data"), self._read.__call__
        else:
            context = get_context("spawn")
            pool = ProcessPoolExecutor(self.num_workers, context, _start_process, (self._read,))
            read = _read_in_process
        try:
            yield pool, read
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def state_dict(self) -> dict[str, int]:
        """Position (epoch and batches given out), and what must stay the same for it to mean anything."""
        return {"epoch": self.epoch, "batch": self._batch, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next pass start where `state` was taken.

        Raises:
            ArgumentError: the state belongs to another seed, batch size or number of samples.
        """
        for name, here in self._identity().items():
            if state[name] != here:
                raise ArgumentError(
                    f"DataLoader: the saved position has {name}={state[name]}, this loader {name}={here}"
                )
        self.epoch, self._batch, self._resumed = state["epoch"], state["batch"], True

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "batch_size": self.batch_size, "samples": len(self.sampler)}


_process_reader: BatchReader | None = None


def _start_process(reader: BatchReader) -> None:
    global _process_reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _process_reader = reader


def _read_in_process(epoch: int, indices: Indices) -> Any:
    assert _process_reader is not None
    return _process_reader(epoch, indices)
