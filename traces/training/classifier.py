"""One configuration of a classifier in training. Imports torch, so it is itself imported only when a trial is built."""

from __future__ import annotations

import math
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch
from torch import nn

from elastune.sim.model.errors import InputError, WorkerError
from elastune.traces.training.gradients import GangMember, OneWorker
from elastune.traces.training.workload import ALONE, Seat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from elastune.sim.model.protocols import Configuration
    from elastune.traces.training.datasets import Split, Splits

_EVALUATION_BATCH = 256
"""Examples per evaluation step; one cache-sized piece at a time is faster on a CPU than all at once."""


def _optimizer(network: nn.Module, configuration: Configuration) -> torch.optim.Optimizer:
    """SGD or Adam at a constant learning rate; fused, which is the fastest form on a CPU."""
    name, momentum = configuration["optimizer"], float(configuration["momentum"] or 0)
    learning_rate, weight_decay = float(configuration["learning_rate"] or 0), float(configuration["weight_decay"] or 0)
    parameters = network.parameters()
    if name == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum, weight_decay=weight_decay, fused=True)
    if name == "adam":
        betas = (momentum, 0.999)
        return torch.optim.Adam(parameters, learning_rate, betas, weight_decay=weight_decay, fused=True)
    raise InputError(f"optimizer is {name}, but must be sgd or adam")


Measure: TypeAlias = "Callable[[Any, torch.Tensor], torch.Tensor]"  # takes the network that its workload trains
"""What a network needs for each of some images, shape (images,)."""


class Objective(Protocol):
    """What a trial minimises, by iteration."""

    def begin(self, network: nn.Module, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Make network and optimizer ready for an iteration, counted from 0."""

    def loss(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, reduction: Literal["mean", "sum"]
    ) -> torch.Tensor:
        """The loss of a batch, a scalar."""


class CrossEntropy:
    """The classes alone, the same in every iteration."""

    def begin(self, network: nn.Module, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Nothing changes between iterations."""

    def loss(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, reduction: Literal["mean", "sum"]
    ) -> torch.Tensor:
        """See `Objective`."""
        return nn.functional.cross_entropy(network(images), labels, reduction=reduction)


class Classifier:
    """A network that learns to classify: the `Trainable` of all workloads.

    One iteration is one epoch. All randomness of an iteration comes from (seed, iteration), so a trial that goes on
    from a checkpoint has the same scores as one that was never interrupted, and other trials of the process do not
    matter.

    A trial has diverged when a training loss was not finite: its scores are NaN from then on. It keeps training at its
    usual cost, as a real job would that nobody stops, so its seconds per iteration stay those of its configuration.

    In a gang, all members build it with the same arguments but for the seat, and train in step: the same examples in the
    same order as one worker, each member a part of every batch. Scores are those of one worker up to rounding, where the
    batch is the gang's; where it is each worker's, those of one worker with a batch that is so many times as large. Any
    member can evaluate and save.

    One trainable fills one slot, so building it limits torch to one thread in the whole process; two threads per worker
    on a shared core ran 40 times slower. Denormal numbers are flushed to zero: they cost time and change nothing.
    """

    def __init__(
        self,
        network: Callable[[Configuration], nn.Module],
        splits: Splits,
        configuration: Configuration,
        seed: int,
        *,
        score: Literal["accuracy", "error"],
        seat: Seat = ALONE,
        objective: Objective | None = None,
        measures: Mapping[str, Measure] = MappingProxyType({}),
    ) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self._seed, self._score, self._iteration, self._diverged = seed, score, 0, False
        self._optimizer_name = configuration["optimizer"]
        self._batch_size = int(configuration["batch_size"] or 0) * (seat.size if seat.batch == "per-worker" else 1)
        self._device = torch.device(seat.device)
        self._train, self._validation, self._test = (
            _tensors(split, self._device) for split in (splits.train, splits.validation, splits.test)
        )
        with self._forked_rng():
            torch.manual_seed(seed)
            self._network = network(configuration).to(self._device)
        self._objective, self._measures = objective or CrossEntropy(), measures
        loss = self._objective.loss
        self._gradients = OneWorker(self._network, loss) if seat.size == 1 else GangMember(self._network, seat, loss)
        self._loss = math.nan
        self._optimizer = _optimizer(self._network, configuration)

    def train_iteration(self) -> None:
        """One epoch in a fresh random order."""
        images, labels = self._train
        self._network.train()
        self._objective.begin(self._network, self._optimizer, self._iteration)
        total = torch.zeros((), device=self._device)
        with self._forked_rng():
            torch.manual_seed((self._seed * 1_000_003 + self._iteration + 1) % 2**63)
            # The order is drawn on the processor, so that it is the same on every device.
            batches = torch.split(torch.randperm(len(labels)).to(self._device), self._batch_size)
            for batch in batches:
                self._optimizer.zero_grad()
                total += self._gradients.backward(images[batch], labels[batch])
                self._optimizer.step()
        self._iteration += 1
        self._loss = total.item() / len(batches)
        self._diverged = self._diverged or not math.isfinite(self._loss)

    @property
    def network(self) -> nn.Module:
        """What it trains."""
        return self._network

    @property
    def training_loss(self) -> float:
        """Mean loss over the batches of the last iteration; NaN before there was one here."""
        return self._loss

    def _forked_rng(self) -> AbstractContextManager[None]:
        """Random draws within leave no trace in the random state of the process."""
        return torch.random.fork_rng(devices=[torch.cuda.current_device()] if self._device.type == "cuda" else [])

    def evaluate(self) -> float:
        """Score on the validation split; NaN where training diverged."""
        return self._score_on(self._validation)

    def test_score(self) -> float:
        """Score on the test split; NaN where training diverged."""
        return self._score_on(self._test)

    def measures(self) -> dict[str, float]:
        """By name, the mean of each measure over the images of the validation split."""
        self._network.eval()
        pieces = torch.split(self._validation[0], _EVALUATION_BATCH)
        with torch.inference_mode():
            return {
                name: float(torch.cat([measure(self._network, piece) for piece in pieces]).mean())
                for name, measure in self._measures.items()
            }

    def _score_on(self, split: tuple[torch.Tensor, torch.Tensor]) -> float:
        self._network.eval()
        images, labels = split
        pieces = zip(torch.split(images, _EVALUATION_BATCH), torch.split(labels, _EVALUATION_BATCH), strict=True)
        with torch.inference_mode():
            correct = sum(int((self._network(piece).argmax(1) == truth).sum()) for piece, truth in pieces)
        if self._diverged:
            return math.nan
        return (correct if self._score == "accuracy" else len(labels) - correct) / len(labels)

    def save(self, path: Path) -> None:
        """Write weights, optimizer and iteration to `path`; afterwards all of it is there, or nothing changed."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        state = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "optimizer_name": self._optimizer_name,
            "iteration": self._iteration,
            "diverged": self._diverged,
        }
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        The configuration and the seed stay this trial's own, so that a clone may go on from another trial's weights
        with changed hyperparameters. The optimizer's state is taken over where the optimizer is the same kind.

        Raises:
            WorkerError: the file cannot be read, is cut short, or belongs to another network.
        """
        state = _read_checkpoint(path)
        try:
            self._network.load_state_dict(state["network"])
            if state["optimizer_name"] == self._optimizer_name:
                own = self._optimizer.state_dict()
                self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": own["param_groups"]})
            self._iteration, self._diverged = int(state["iteration"]), bool(state["diverged"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WorkerError(f"{path} does not fit this trial's network: {error}") from error


def _tensors(split: Split, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)


def _read_checkpoint(path: Path) -> dict[str, Any]:  # what torch.load gives is only known at run time
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise WorkerError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict):
        raise WorkerError(f"{path} is not a checkpoint of a classifier")
    return state
