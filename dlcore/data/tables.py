"""Tables: CSV files and NumPy .npz archives as datasets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dlcore.data.dataset import ArrayDataset
from dlcore.errors import DataError


def load_csv(path: str | Path, *, delimiter: str = ",", header: bool = True) -> dict[str, NDArray[Any]]:
    """Read a CSV file as columns: int64 or float32 where every value is a number, else strings.

    Without a header the columns are named "0", "1", ...

    Example:
        >>> load_csv("iris.csv")["sepal_length"]

    Raises:
        DataError: the file cannot be read, has no rows, or a row of another length (with its line).
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    names = rows.pop(0)[1] if header and rows else [str(i) for i in range(len(rows[0][1]) if rows else 0)]
    if not rows or len(set(names)) < len(names):
        raise DataError(f"{path}: expected rows under distinct column names, got {len(rows)} rows under {names}")
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: expected {len(names)} values, got {len(row)}")
    return {name: _column([row[i] for _, row in rows]) for i, name in enumerate(names)}


def _column(values: list[str]) -> NDArray[Any]:
    for dtype in (np.int64, np.float32):
        try:
            return np.array(values).astype(dtype)
        except (ValueError, OverflowError):
            continue
    return np.array(values)


class CSVDataset(ArrayDataset):
    """Rows of a CSV file: samples (float32 [F] features, target), or (features,) without a target.

    An integer target stays int64, a number float32; strings become class numbers (`classes` has their names, sorted).

    Args:
        path: the file; see `load_csv` for `delimiter` and `header`.
        target: the target's column name.
        features: the columns to use; None means all others, which must be numbers.

    Raises:
        DataError: as `load_csv`; an unknown column, or a feature that is not a number.
    """

    def __init__(
        self,
        path: str | Path,
        target: str | None = None,
        features: Sequence[str] | None = None,
        *,
        delimiter: str = ",",
        header: bool = True,
    ) -> None:
        columns = load_csv(path, delimiter=delimiter, header=header)
        self.features = tuple(features or (name for name in columns if name != target))
        for name in (*self.features, *([] if target is None else [target])):
            if name not in columns:
                raise DataError(f"{path}: no column {name!r}; there are {', '.join(columns)}")
        for name in self.features:
            if columns[name].dtype.kind == "U":
                raise DataError(f"{path}: column {name!r} is not all numbers, so it cannot be a feature")
        x = np.stack([columns[name].astype(np.float32) for name in self.features], axis=1)
        self.classes: tuple[str, ...] = ()
        super().__init__(x, *([] if target is None else [self._target(columns[target])]))

    def _target(self, column: NDArray[Any]) -> NDArray[Any]:
        if column.dtype.kind != "U":
            return column
        names, numbers = np.unique(column, return_inverse=True)
        self.classes = tuple(str(name) for name in names)
        return numbers.astype(np.int64)


def load_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read every array of a .npz archive; pickled objects are refused. Raises DataError when it cannot be read."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from error


class NPZDataset(ArrayDataset):
    """Rows of the arrays `names` in a .npz archive, e.g. `NPZDataset("set.npz", ["x", "y"])`.

    Raises:
        DataError: as `load_npz`; an array is missing, or their lengths differ.
    """

    def __init__(self, path: str | Path, names: Sequence[str]) -> None:
        arrays = load_npz(path)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise DataError(f"{path}: no array {missing[0]!r}; there are {', '.join(arrays)}")
        super().__init__(*(arrays[name] for name in names))
