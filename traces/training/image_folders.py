"""Data sets that lie in a folder of the machine: Fashion-MNIST as Debian installs it, and CIFAR-10. Imports numpy.

Nothing is downloaded. Files are read as numbers alone; CIFAR-10 is its binary version, as its Python version is a pickle, which
could run code.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError
from elastune.traces.training.datasets import Splits, halved, split

if TYPE_CHECKING:
    import numpy as np

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""
_IMAGES, _LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
_CIFAR_FILES = ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin")
_CIFAR_BYTES = 1 + 3 * 32 * 32


def fashion_mnist(
    folder: Path = FASHION_MNIST, *, train: int = 1250, validation: int = 1250, test: int = 1250
) -> Splits:
    """The first images of Fashion-MNIST's training file, shape (examples, 1, 28, 28) in [0, 1].

    Raises:
        InputError: it is not there, or not whole; nothing was trained.
    """
    images = _idx(folder / _IMAGES, header_bytes=16).reshape(-1, 1, 28, 28)
    labels = _idx(folder / _LABELS, header_bytes=8)
    return _first(images, labels, folder, (train, validation, test))


def fashion_mnist_small(folder: Path = FASHION_MNIST) -> Splits:
    """The images of `fashion_mnist` at half their size, shape (examples, 1, 14, 14).

    Raises:
        InputError: as `fashion_mnist`.
    """
    whole = fashion_mnist(folder)
    return Splits(*(halved(part) for part in (whole.train, whole.validation, whole.test)))


def cifar10(folder: Path, *, train: int = 45_000, validation: int = 2_500, test: int = 2_500) -> Splits:
    """Images of CIFAR-10's training files, shape (examples, 3, 32, 32) in [0, 1].

    Raises:
        InputError: it is not there, or not whole; nothing was trained.
    """
    import numpy as np

    records = np.concatenate([_cifar_records(folder / name) for name in _CIFAR_FILES])
    return _first(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0], folder, (train, validation, test))


def fashion_mnist_bytes() -> int:
    """Bytes of the compressed training images and labels."""
    return sum(_file(FASHION_MNIST / name).stat().st_size for name in (_IMAGES, _LABELS))


def _cifar_records(path: Path) -> np.ndarray:
    import numpy as np

    content = _file(path).read_bytes()
    if not content or len(content) % _CIFAR_BYTES:
        raise InputError(
            f"{path} has {len(content)} bytes, but must hold whole records of {_CIFAR_BYTES}: a label, an image"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_BYTES)


def _idx(path: Path, header_bytes: int) -> np.ndarray:
    import numpy as np

    try:
        content = gzip.decompress(_file(path).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not readable: {error}") from error
    cells = content[header_bytes:]
    if not cells or (header_bytes == 16 and len(cells) % 784):
        raise InputError(f"{path} is cut short: it has {len(content)} bytes")
    return np.frombuffer(cells, np.uint8)


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the data set is not downloaded; Fashion-MNIST is Debian's package dataset-fashion-mnist, and"
            " CIFAR-10 its binary version, unpacked"
        )
    return path


def _first(images: np.ndarray, labels: np.ndarray, folder: Path, sizes: tuple[int, int, int]) -> Splits:
    """So many images to train, validate and test, after shuffling those that are needed."""
    train, validation, test = sizes
    needed = train + validation + test
    if not len(labels) == len(images) >= needed or labels.max() > 9:
        raise InputError(
            f"{folder} has {len(images)} images and {len(labels)} labels up to {labels.max()}, but must have at least"
            f" {needed} of both, and labels up to 9"
        )
    return split(images[:needed] / 255, labels[:needed], train=train, validation=validation)
