"""Datasets, samplers, transforms and the loader: same batches for any workers, exact resume, clear errors."""

import threading

import numpy as np
import pytest

from dlcore.data import (
    ArrayDataset,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    Subset,
    WeightedSampler,
    collate,
    random_split,
)
from dlcore.data.dataset import ImageDataset
from dlcore.data.sampler import generator
from dlcore.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip
from dlcore.errors import ArgumentError, DataError, IndexRangeError
from dlcore.tensor import Tensor


class Squares:
    """A dataset that only gives single samples, and fails at one of them."""

    def __init__(self, size=10, broken=None):
        self.size, self.broken = size, broken

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index == self.broken:
            raise ZeroDivisionError("no such square")
        return np.float32(index), index * index


def arrays(size=10):
    return ArrayDataset(np.arange(size * 16, dtype=np.float32).reshape(size, 1, 4, 4), np.arange(size))


def seen(loader):
    """Everything one pass gives, as arrays."""
    return [tuple(np.array(field) for field in batch) for batch in loader]


def assert_same(a, b):
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        for x, y in zip(left, right, strict=True):
            np.testing.assert_array_equal(x, y)


def labels(batches):
    return [int(label) for batch in batches for label in batch[-1]]


def jitter(sample, rng):
    return sample[0] + rng.normal(), *sample[1:]


# ---- datasets


def test_array_dataset_gives_rows_and_batches():
    data = arrays()
    assert len(data) == 10
    assert data[3][1] == 3
    np.testing.assert_array_equal(data.batch(np.array([2, 2, 5]))[1], [2, 2, 5])


@pytest.mark.parametrize("bad", [(), (np.zeros(3), np.zeros(4)), (np.float32(1),)])
def test_array_dataset_refuses_arrays_of_other_lengths(bad):
    with pytest.raises(DataError, match="one first length"):
        ArrayDataset(*bad)


def test_image_dataset_normalises_alike_one_by_one_and_in_batches():
    data = ImageDataset(np.full((3, 1, 2, 2), 51, np.uint8), np.arange(3), classes="abc", mean=0.1, std=0.5)
    np.testing.assert_allclose(data[0][0], np.full((1, 2, 2), (51 / 255 - 0.1) / 0.5), rtol=1e-6)
    np.testing.assert_array_equal(data.batch(np.array([0, 1]))[0][1], data[1][0])
    assert data[0][0].dtype == np.float32


def test_subset_and_concat_index_into_their_parts():
    joined = ConcatDataset([Subset(Squares(), [7, 1]), Squares(3)])
    assert [joined[i][1] for i in range(len(joined))] == [49, 1, 0, 1, 4]
    assert joined[-1][1] == 4
    with pytest.raises(IndexError):
        joined[5]


def test_subset_of_arrays_is_read_in_whole_batches():
    assert labels(seen(DataLoader(Subset(arrays(), [4, 9, 2]), 2))) == [4, 9, 2]
    assert Subset(Squares(), [1]).batch(np.array([0])) is None


@pytest.mark.parametrize("index", [-1, 10])
def test_subset_refuses_an_index_outside(index):
    with pytest.raises(IndexRangeError, match=f"index {index}"):
        Subset(Squares(), [0, index])


@pytest.mark.parametrize("lengths", [[7, 3], [0.7, 0.3]])
def test_random_split_parts_are_disjoint_and_repeatable(lengths):
    parts = random_split(Squares(), lengths, seed=3)
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(int(i) for part in parts for i in part.indices) == list(range(10))
    np.testing.assert_array_equal(parts[0].indices, random_split(Squares(), lengths, seed=3)[0].indices)
    assert (parts[0].indices != random_split(Squares(), lengths, seed=4)[0].indices).any()


@pytest.mark.parametrize("lengths", [[], [5, 4], [0.5, 0.4], [12, -2]])
def test_random_split_refuses_lengths_that_do_not_add_up(lengths):
    with pytest.raises(ArgumentError, match="do not add up"):
        random_split(Squares(), lengths)


# ---- samplers and random streams


def test_random_sampler_depends_on_seed_and_epoch_only():
    orders = [tuple(RandomSampler(Squares(50), seed).indices(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(RandomSampler(Squares(50), 1).indices(1)) == orders[3]


def test_every_stream_differs():
    streams = [(s, e, i) for s in (0, 1) for e in (0, 1) for i in (None, 0, 1, 2**40)]
    assert len({generator(*key).integers(2**63) for key in streams}) == len(streams)


def test_weighted_sampler_draws_in_proportion():
    counts = np.bincount(WeightedSampler([1, 0, 3], 40_000, seed=0).indices(0), minlength=3)
    assert counts[1] == 0
    assert counts[2] / counts[0] == pytest.approx(3, rel=0.05)  # 4 sigma is 0.046


@pytest.mark.parametrize("weights", [[], [1, -1], [0, 0], [1, np.nan], [[1.0]]])
def test_weighted_sampler_refuses_bad_weights(weights):
    with pytest.raises(ArgumentError, match="weights"):
        WeightedSampler(weights, 3)


# ---- transforms


def test_normalize_per_channel():
    x = np.ones((2, 3, 3), np.float32)
    y, label = Normalize([1, 2], [1, 0.5])((x, 7), generator(0, 0, 0))
    assert (y[0] == 0).all()
    assert (y[1] == -2).all()
    assert label == 7


def test_random_crop_gives_every_window_of_the_padded_image():
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2)
    crops = {RandomCrop(2, padding=1)(x, generator(0, 0, i)).tobytes() for i in range(200)}
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1)])
    assert crops == {padded[:, i : i + 2, j : j + 2].tobytes() for i in range(3) for j in range(3)}


def test_random_crop_refuses_a_window_larger_than_the_image():
    with pytest.raises(ArgumentError, match="no window of 5"):
        RandomCrop(5)(np.zeros((1, 4, 4)), generator(0, 0, 0))


def test_flip_mirrors_about_half_of_the_samples():
    x = np.arange(3.0)[None, None]
    flipped = [RandomHorizontalFlip()(x, generator(0, 0, i))[0, 0, 0] == 2 for i in range(400)]
    assert 160 <= sum(flipped) <= 240  # 4 sigma


# ---- collate


def test_collate_stacks_fields_and_keeps_text():
    batch = collate([{"x": np.zeros(2), "n": 1, "f": 0.5, "s": "a"}, {"x": np.ones(2), "n": 2, "f": 1.5, "s": "b"}])
    assert batch["x"].shape == (2, 2)
    assert batch["n"].dtype == np.int64
    assert batch["f"].dtype == np.float32
    assert batch["s"] == ["a", "b"]


@pytest.mark.parametrize("samples", [[np.zeros(2), np.zeros(3)], [(1, 2), (1,)], [{"a": 1}, {"b": 1}]])
def test_collate_names_what_differs(samples):
    with pytest.raises(DataError, match="samples have different"):
        collate(samples)


# ---- the loader


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_batch_sizes_and_len(drop_last, sizes):
    loader = DataLoader(arrays(), 4, drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert [len(y) for _, y in loader] == sizes


def test_batches_are_tensors():
    x, y = next(iter(DataLoader(Squares(), 3)))
    assert isinstance(x, Tensor)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)


def test_each_epoch_has_its_own_order():
    loader = DataLoader(arrays(50), 7, shuffle=True, seed=5)
    first, second = labels(seen(loader)), labels(seen(loader))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(50))


@pytest.mark.parametrize("transform", [None, jitter, Compose([RandomCrop(3), RandomHorizontalFlip()])])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_same_batches_for_any_number_of_workers(transform, workers):
    def passes(n):
        loader = DataLoader(arrays(23), 4, shuffle=True, seed=1, num_workers=n, prefetch=2, transform=transform)
        return seen(loader) + seen(loader)

    assert_same(passes(0), passes(workers))


def test_worker_processes_give_the_same_batches_as_threads():
    options = {"batch_size": 3, "shuffle": True, "seed": 1, "transform": jitter, "num_workers": 2}
    threads, processes = (DataLoader(Squares(), worker=kind, **options) for kind in ("thread", "process"))
    assert_same(seen(threads), seen(processes))


def test_augmentation_differs_between_epochs_and_samples():
    loader = DataLoader(ArrayDataset(np.zeros(6), np.arange(6)), 6, transform=jitter)
    (first,), (second,) = seen(loader), seen(loader)
    assert len(set(first[0]) | set(second[0])) == 12


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 3, 6])
def test_resumes_in_the_middle_of_an_epoch(stop, workers):
    def loader():
        return DataLoader(arrays(23), 4, shuffle=True, seed=1, num_workers=workers, transform=jitter)

    whole = loader()
    expected = seen(whole) + seen(whole) + seen(whole)
    part, given = loader(), []
    given += seen(part)
    batches = iter(part)
    given += [tuple(np.array(field) for field in next(batches)) for _ in range(stop)]
    state = part.state_dict()
    batches.close()
    rest = loader()
    rest.load_state_dict(state)
    given += seen(rest) + seen(rest)
    assert_same(given, expected)


def test_a_pass_left_early_is_not_continued():
    loader = DataLoader(arrays(12), 4, shuffle=True, seed=1)
    next(iter(loader))
    assert sorted(labels(seen(loader))) == list(range(12))
    assert loader.epoch == 2


def test_a_position_of_another_loader_is_refused():
    state = DataLoader(arrays(12), 4).state_dict()
    with pytest.raises(ArgumentError, match="batch_size=4, this loader batch_size=3"):
        DataLoader(arrays(12), 3).load_state_dict(state)


@pytest.mark.parametrize(("workers", "kind"), [(0, "thread"), (2, "thread"), (1, "process")])
def test_a_failing_sample_is_named(workers, kind):
    loader = DataLoader(Squares(broken=7), 2, num_workers=workers, worker=kind)
    with pytest.raises(DataError, match="sample 7: ZeroDivisionError: no such square"):
        list(loader)
    assert running_threads() == 0


def running_threads():
    return sum(thread.name.startswith("dlcore-data") for thread in threading.enumerate())


def test_leaving_early_leaks_no_threads():
    loader = DataLoader(Squares(1000), 2, num_workers=3)
    for _ in loader:
        assert running_threads() > 0
        break
    assert running_threads() == 0


def test_workers_read_no_further_ahead_than_asked():
    read = []

    class Counting(Squares):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    batches = iter(DataLoader(Counting(100), 1, num_workers=2, prefetch=3))
    for _ in range(4):
        next(batches)
    batches.close()
    assert max(read) < 4 + 2 * 3


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"num_workers": -1},
        {"prefetch": 0},
        {"seed": -1},
        {"worker": "fork"},
        {"shuffle": True, "sampler": RandomSampler(arrays())},
    ],
)
def test_bad_arguments_are_named(bad):
    with pytest.raises(ArgumentError, match=f"DataLoader: .*{next(iter(bad))}"):
        DataLoader(arrays(), **bad)
