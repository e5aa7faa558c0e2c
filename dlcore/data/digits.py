"""scikit-learn's handwritten digits: 1,797 grey 8 x 8 pictures (UCI "Optical Recognition of Handwritten Digits")."""

from __future__ import annotations

import numpy as np

from dlcore.data.dataset import ImageDataset
from dlcore.errors import DataError

TEST_SIZE = 360  # the last fifth; mostly other writers than in the first part


class Digits(ImageDataset):
    """1,437 training or 360 test digits: samples (float32 [1, 8, 8] of mean 0 and std 1, int64 label).

    Raises:
        DataError: scikit-learn, which carries the images, is not installed.
    """

    def __init__(self, train: bool = True) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("Digits needs scikit-learn: pip install 'dlcore[data]'") from None
        bunch = load_digits()
        part = slice(None, -TEST_SIZE) if train else slice(-TEST_SIZE, None)
        images = (bunch.images[part] * 15).astype(np.uint8)[:, None]  # 0..16 becomes 0..240
        labels = bunch.target[part].astype(np.int64)
        super().__init__(images, labels, classes=[str(digit) for digit in range(10)], mean=0.2874, std=0.3534)
