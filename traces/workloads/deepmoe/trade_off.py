"""Accuracy against FLOPs of standard networks and mixtures of experts: a row of a CSV file per training.

A row that is there is not trained again. The clock is the caller's. Imports torch.
"""

from __future__ import annotations

import csv
import itertools
import statistics
from typing import TYPE_CHECKING

import torch

from elastune.sim.model.errors import InputError
from elastune.traces.training.classifier import Classifier
from elastune.traces.workloads.deepmoe import cost
from elastune.traces.workloads.deepmoe.compared import NETWORKS, ComparedNetwork, TrainedNetwork
from elastune.traces.workloads.deepmoe.network import Architecture, Body, DeepMoe, Shape
from elastune.traces.workloads.deepmoe.training import Penalties, TwoStages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from elastune.sim.model.protocols import Configuration
    from elastune.traces.training.datasets import Splits

MU = 0.3
"""Weight of the classes that the embedding sees [ours]."""
_LEARNING_RATE = 0.1
_TRAINED: Configuration = {
    "optimizer": "sgd",
    "learning_rate": _LEARNING_RATE,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 64,
}
_EMBEDDING = 64
_BATCH, _REPEATS = 250, 3


def trained(
    network: ComparedNetwork,
    splits: Splits,
    data: str,
    *,
    body: Body,
    seed: int,
    epochs: int,
    clock: Callable[[], float],
) -> TrainedNetwork:
    """Train one network and measure it."""
    channels, side = splits.train.images.shape[1:3]
    architecture = Architecture(body, network.gating, network.width, _EMBEDDING, Shape(channels, side))
    objective = TwoStages.of(
        Penalties(network.sparsity, MU),
        iterations=epochs,
        stage_2_fraction=network.stage_2_fraction,
        learning_rate=_LEARNING_RATE,
    )
    trial = Classifier(lambda _: DeepMoe(architecture), splits, _TRAINED, seed, score="accuracy", objective=objective)
    first = (float("nan"), float("nan"))
    for epoch in range(1, epochs + 1):
        trial.train_iteration()
        if epoch == objective.stage_2_after:
            first = trial.evaluate(), trial.test_score()
    moe, images = trial.network, torch.from_numpy(splits.validation.images)
    assert isinstance(moe, DeepMoe)
    active, routed = _used(moe, images)
    return TrainedNetwork(
        data,
        network.name,
        body,
        network.width,
        network.sparsity,
        seed,
        epochs,
        round(float(cost.multiply_adds(moe, images).mean()), 1),
        cost.dense_multiply_adds(moe),
        trial.evaluate(),
        trial.test_score(),
        *first,
        *_inference_cpu_s(moe, torch.from_numpy(splits.test.images), clock),
        active,
        routed,
    )


def _used(network: DeepMoe, images: torch.Tensor) -> tuple[str, float]:
    """The share of active channels by gated layer, and that of channels that some images use and others do not."""
    with torch.inference_mode():
        used = [gate > 0 for gate in network.gated(images).gates]
    if not used:
        return "", 0.0
    together = torch.cat(used, dim=1)
    routed = float((together.any(0) & ~together.all(0)).double().mean())
    return " ".join(f"{float(layer.double().mean()):.4f}" for layer in used), round(routed, 4)


def _inference_cpu_s(network: DeepMoe, images: torch.Tensor, clock: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of processor seconds, the ways of computing one after another in each round; all equal where nothing is gated."""
    ways: list[tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = [(network, images)]
    if network.heads:
        like = images[cost.grouped(network, images)]
        ways += [(lambda batch: cost.skipping(network, batch), one) for one in (images, like)]
    seconds: list[list[float]] = [[] for _ in ways]
    with torch.inference_mode():
        for _ in range(_REPEATS):
            for (compute, ordered), found in zip(ways, seconds, strict=True):
                began_s = clock()
                for batch in torch.split(ordered, _BATCH):
                    compute(batch)
                found.append(clock() - began_s)
    medians = [round(statistics.median(found), 5) for found in seconds]
    return medians[0], medians[len(medians) // 2], medians[-1]


def measure(
    out: Path,
    splits: Splits,
    data: str,
    *,
    networks: Sequence[ComparedNetwork] = NETWORKS,
    body: Body = "vgg",
    seeds: int,
    epochs: int,
    clock: Callable[[], float],
) -> Iterator[TrainedNetwork]:
    """Train what is not in the file yet, seed by seed, and add a row for each.

    Args:
        out: the CSV file.
        splits: the images.
        data: what they are called in the file.
        networks: what is compared.
        body: of all networks.
        seeds: how many, from 0.
        epochs: of each training, both stages together.
        clock: processor seconds so far.

    Raises:
        InputError: the file is no table of this kind.
    """
    done = _done(out)
    for seed, network in itertools.product(range(seeds), networks):
        named = tuple(map(str, (data, network.name, body, network.width, network.sparsity, seed, epochs)))
        if named in done:
            continue
        row = trained(network, splits, data, body=body, seed=seed, epochs=epochs, clock=clock)
        is_new = not out.exists()
        with out.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([TrainedNetwork._fields, row] if is_new else [row])
        yield row


def _done(out: Path) -> set[tuple[str, ...]]:
    if not out.exists():
        return set()
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != TrainedNetwork._fields:
        raise InputError(f"{out} is no table of trade-offs: its columns must be {', '.join(TrainedNetwork._fields)}")
    return {tuple(row[:7]) for row in rows[1:]}
