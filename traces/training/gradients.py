"""Gradients of a batch, computed by one worker or by a gang. Imports torch, like the module that uses it.

A gang is data-parallel: every member has the whole network, takes its part of each batch, and gets the sum of what all
members computed. Its gradients are those of one worker up to rounding, as parts are weighted by their size and dropout
drops what it would drop in one worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import distributed, nn

from elastune.sim.model.errors import WorkerError

if TYPE_CHECKING:
    from elastune.traces.training.workload import Seat


Loss: TypeAlias = Callable[[nn.Module, torch.Tensor, torch.Tensor, Literal["mean", "sum"]], torch.Tensor]
"""The loss of a batch: network, images, labels, and whether it is the mean or the sum over the images."""


class OneWorker:
    """Computes whole batches."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        self._network, self._loss = network, loss

    def backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch; its gradients are added to those of the network."""
        loss = self._loss(self._network, images, labels, "mean")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class GangMember:
    """Computes its part of each batch; members call `backward` in step, with the same batch.

    Raises:
        WorkerError: torch.distributed's default group is not this gang.
    """

    def __init__(self, network: nn.Module, seat: Seat, loss: Loss) -> None:
        group = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else None
        if group != (seat.rank, seat.size):
            raise WorkerError(f"rank {seat.rank} of {seat.size} is to train, but the process group is {group}")
        self._network, self._seat, self._loss = network, seat, loss
        self._dropouts = _shared_dropouts(network)

    def backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss of a whole batch; its gradients become those of the network, on every member."""
        bounds = [len(labels) * rank // self._seat.size for rank in (self._seat.rank, self._seat.rank + 1)]
        part = slice(*bounds)  # empty for some, where the batch has fewer examples than the gang has members
        for dropout in self._dropouts:
            dropout.batch, dropout.part = len(labels), part
        loss = self._loss(self._network, images[part], labels[part], "sum") / len(labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return self._add_up(loss.detach())

    def _add_up(self, loss: torch.Tensor) -> torch.Tensor:
        """Replace all gradients by their sums over the gang; the sum of the losses."""
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), loss.reshape(1)])
        distributed.all_reduce(flat)
        totals = torch.split(flat[:-1], [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))
        return flat[-1]


class _SharedDropout(nn.Module):
    """Drops from part of a batch what `nn.Dropout` would drop there, had it been given the whole batch.

    Members have the same random state and draw for the whole batch, so it stays the same and equals that of one worker.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self._probability = probability
        self.batch, self.part = 0, slice(0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return inputs
        whole = torch.ones((self.batch, *inputs.shape[1:]), dtype=inputs.dtype, device=inputs.device)
        return inputs * nn.functional.dropout(whole, self._probability)[self.part]


def _shared_dropouts(network: nn.Module) -> list[_SharedDropout]:
    """Those that have taken the places of the network's own; they hold no parameters, so checkpoints stay the same."""
    shared: list[_SharedDropout] = []
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                shared.append(_SharedDropout(child.p))
                setattr(module, name, shared[-1])
    return shared
