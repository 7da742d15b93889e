"""Accuracy against FLOPs of standard networks and mixtures of experts: `python -m elastune.experiments.profiling.trade_off`.

The data are MNIST-5k at half its size, or Fashion-MNIST or CIFAR-10 in a folder. Imports torch when the training begins.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from elastune.sim.model.errors import InputError
from elastune.traces.training import datasets, image_folders
from elastune.traces.workloads.deepmoe.compared import FEW_NETWORKS, NETWORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.traces.training.datasets import Splits


def splits_of(data: str, folder: Path | None) -> Splits:
    """The images of a data set by name.

    Raises:
        InputError: it lies in no such folder, or none was given.
    """
    if data == "mnist5k":
        return datasets.mnist5k_small()
    if data == "fashion-mnist":
        return image_folders.fashion_mnist_small(folder or image_folders.FASHION_MNIST)
    if folder is None:
        raise InputError(f"--data {data} needs --folder, where its files lie; nothing is downloaded")
    return image_folders.cifar10(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="trade_off", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="CSV file of the rows")
    parser.add_argument("--data", choices=("mnist5k", "fashion-mnist", "cifar10"), default="mnist5k")
    parser.add_argument("--folder", type=Path, help="where the files of the data lie")
    parser.add_argument("--body", choices=("vgg", "resnet"), default="vgg")
    parser.add_argument("--few", action="store_true", help=f"{len(FEW_NETWORKS)} networks instead of {len(NETWORKS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args(arguments)
    try:
        from elastune.traces.workloads.deepmoe.trade_off import measure

        splits = splits_of(options.data, options.folder)
        rows = measure(
            options.out,
            splits,
            options.data,
            networks=FEW_NETWORKS if options.few else NETWORKS,
            body=options.body,
            seeds=options.seeds,
            epochs=options.epochs,
            clock=time.process_time,
        )
        for row in rows:
            sys.stderr.write(
                f"{row.network} {row.width:g} {row.sparsity:g} seed {row.seed}: {row.test:.4f} {row.flops:,.0f}\n"
            )
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
