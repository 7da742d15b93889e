"""The two stages of training a DeepMoE, and its loss. Imports torch.

Stage 1 trains all of it, with L1 on the gates and the classes that the embedding sees. Stage 2 freezes embedding and
gates, drops both penalties, and trains the rest at a lower rate. It begins at a fixed iteration of R, like a drop of the
learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from elastune.sim.model.errors import InputError
from elastune.traces.workloads.deepmoe.network import DeepMoe

if TYPE_CHECKING:
    from torch import nn

STAGE_2_RATE = 0.2
"""Learning rate of stage 2, as a share of that of stage 1 [ours: re-implementations drop it twice by 10 over 350 epochs]."""


@dataclass(frozen=True)
class Penalties:
    """Weights of the loss beside the classes.

    Attributes:
        sparsity: lambda, on the sum of all gates of an image.
        embedding: mu, on the classes as the embedding alone sees them.
    """

    sparsity: float
    embedding: float

    def __post_init__(self) -> None:
        for name, value in (("lambda", self.sparsity), ("mu", self.embedding)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value:g}, but must be at least 0")


NO_PENALTIES = Penalties(0.0, 0.0)


def loss_of(network: DeepMoe, images: torch.Tensor, labels: torch.Tensor, penalties: Penalties) -> torch.Tensor:
    """Sum of the losses of a batch's images, a scalar: classes, gates, and classes as the embedding sees them."""
    passed = network.gated(images)
    loss = functional.cross_entropy(passed.logits, labels, reduction="sum")
    if passed.embedded is None:
        return loss
    if penalties.sparsity:
        loss = loss + penalties.sparsity * torch.stack([gate.sum() for gate in passed.gates]).sum()
    if penalties.embedding:
        loss = loss + penalties.embedding * functional.cross_entropy(passed.embedded, labels, reduction="sum")
    return loss


@dataclass
class TwoStages:
    """The objective of a trial, by iteration; see `traces.training.classifier.Objective`.

    Attributes:
        penalties: of stage 1.
        stage_2_after: iterations of stage 1.
        learning_rate: of stage 1.
    """

    penalties: Penalties
    stage_2_after: int
    learning_rate: float

    @classmethod
    def of(cls, penalties: Penalties, *, iterations: int, stage_2_fraction: float, learning_rate: float) -> TwoStages:
        """Stage 2 is this fraction of the iterations, rounded; none of it where that is 0.

        Raises:
            InputError: the fraction is not between 0 and 1.
        """
        if not 0 <= stage_2_fraction < 1:
            raise InputError(f"stage_2_fraction is {stage_2_fraction:g}, but must be at least 0 and below 1")
        return cls(penalties, iterations - round(iterations * stage_2_fraction), learning_rate)

    def begin(self, network: nn.Module, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Make network and optimizer ready for an iteration, counted from 0; whatever came before, the same follows."""
        assert isinstance(network, DeepMoe)
        is_second = self._is_second(iteration)
        network.freeze_gates(is_frozen=is_second)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * (STAGE_2_RATE if is_second else 1.0)
        self._now = NO_PENALTIES if is_second else self.penalties

    def loss(
        self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, reduction: Literal["mean", "sum"]
    ) -> torch.Tensor:
        """The loss of a batch, in the stage of the iteration that was begun last."""
        assert isinstance(network, DeepMoe)
        total = loss_of(network, images, labels, self._now)
        return total / len(labels) if reduction == "mean" else total

    def _is_second(self, iteration: int) -> bool:
        return iteration >= self.stage_2_after
