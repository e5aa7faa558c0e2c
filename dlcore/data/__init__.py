"""Datasets, samplers, transforms and the loader."""

from dlcore.data import transforms
from dlcore.data.batches import collate
from dlcore.data.dataset import (
    ArrayDataset,
    ConcatDataset,
    Dataset,
    ImageDataset,
    Subset,
    TensorDataset,
    random_split,
)
from dlcore.data.digits import Digits
from dlcore.data.fashion_mnist import FashionMNIST
from dlcore.data.idx import read_idx
from dlcore.data.loader import DataLoader
from dlcore.data.sampler import RandomSampler, Sampler, SequentialSampler, WeightedSampler
from dlcore.data.tables import CSVDataset, NPZDataset, load_csv, load_npz

__all__ = [
    "ArrayDataset",
    "CSVDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "ImageDataset",
    "NPZDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "TensorDataset",
    "WeightedSampler",
    "collate",
    "load_csv",
    "load_npz",
    "random_split",
    "read_idx",
    "transforms",
]
