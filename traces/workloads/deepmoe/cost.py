"""What an image costs a DeepMoE: multiply-adds of active channels, and inference that skips the others. Imports torch.

A channel is active for an image where its gate is above 0. A convolution is paid for active inputs times active outputs. The
embedding, the gating heads and the classifier are counted; normalisation, ReLU and pooling are not, for any network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elastune.traces.workloads.deepmoe.network import Convolution, DeepMoe


def multiply_adds(network: DeepMoe, images: torch.Tensor) -> torch.Tensor:
    """(images,) float64: what each image costs at inference."""
    with torch.inference_mode():
        gates = [] if network.embedding is None else network.gates(network.embedding(images))
    return _total(network, [(gate > 0).sum(1).double() for gate in gates], len(images))


def dense_multiply_adds(network: DeepMoe) -> float:
    """What an image costs where every channel is active."""
    widths = [float(layer.convolution.out_channels) for layer in network.gated_layers] if network.heads else []
    return float(_total(network, [torch.tensor([width], dtype=torch.float64) for width in widths], 1)[0])


@dataclass(frozen=True)
class _ConvolutionAtSide:
    """A convolution, and the side of its images."""

    layer: Convolution
    side: int


def _layers(network: DeepMoe) -> Iterator[tuple[_ConvolutionAtSide, _ConvolutionAtSide | None]]:
    """Stages of the network: the stem alone, then the two convolutions of each block."""
    side = network.architecture.shape.side
    yield _ConvolutionAtSide(network.stem, side), None
    for block in network.blocks:
        side //= 2
        yield _ConvolutionAtSide(block.inner, side), _ConvolutionAtSide(block.outer, side)


def _total(network: DeepMoe, active: Sequence[torch.Tensor], images: int) -> torch.Tensor:
    """(images,) multiply-adds, given the active channels of each gated convolution; all are active where none is gated."""
    counts = dict(zip(map(id, network.gated_layers), active, strict=False)) if active else {}

    def active_in(layer: Convolution) -> torch.Tensor:
        everything = torch.full((images,), float(layer.convolution.out_channels), dtype=torch.float64)
        return counts.get(id(layer), everything)

    inputs = torch.full((images,), float(network.architecture.shape.channels), dtype=torch.float64)
    total = torch.zeros(images, dtype=torch.float64)
    for (first, second), shortcut in zip(
        _layers(network), [None, *(block.shortcut for block in network.blocks)], strict=True
    ):
        if shortcut is not None:
            total = total + first.side**2 * inputs * shortcut.out_channels
        for one in (first, second):
            if one is not None:
                outputs = active_in(one.layer)
                total = total + 9 * one.side**2 * inputs * outputs
                inputs = outputs
    return total + inputs * network.classifier.out_features + _embedding(network)


def _embedding(network: DeepMoe) -> float:
    """Multiply-adds of the embedding and of the gating heads, the same for every image."""
    if network.embedding is None:
        return 0.0
    side, total = network.architecture.shape.side, 0.0
    for layer in network.embedding.layers:
        side = (side + 1) // 2
        total += 9.0 * side**2 * layer.in_channels * layer.out_channels
    # A linear layer costs a multiply-add per weight.
    heads = sum(head.numel() for head in network.heads.parameters())
    return total + network.embedding.linear.weight.numel() + heads


def skipping(network: DeepMoe, images: torch.Tensor) -> torch.Tensor:
    """(images, classes) logits as the network gives them, computed without the channels that no image of the batch uses.

    What it saves depends on how alike the gates of a batch are: `grouped` orders images so that they are.
    """
    with torch.inference_mode():
        assert network.embedding is not None
        gates = dict(zip(map(id, network.gated_layers), network.gates(network.embedding(images)), strict=True))
        everything = torch.arange(images.shape[1], device=images.device)
        images, kept = _skipping(network.stem, gates.get(id(network.stem)), images, everything)
        for block in network.blocks:
            images = _pooled(images)
            inner, used = _skipping(block.inner, gates[id(block.inner)], images, kept)
            outer, outer_used = _skipping(block.outer, gates.get(id(block.outer)), inner, used)
            if block.shortcut is not None:
                outer = outer + _convolved(images, block.shortcut.weight[:, kept], padding=0)
            images, kept = outer, outer_used
        return functional.linear(images.mean((2, 3)), network.classifier.weight[:, kept], network.classifier.bias)


def _skipping(
    layer: Convolution, gate: torch.Tensor | None, images: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs that some image uses, and which channels these are."""
    used = torch.arange(layer.convolution.out_channels, device=images.device)
    if gate is not None:
        used = used[(gate > 0).any(0)]
    outputs = _convolved(images, layer.convolution.weight[used][:, kept], padding=1)
    if not len(used):
        return outputs, used
    norm = layer.normalisation
    outputs = functional.relu(functional.group_norm(outputs, len(used), norm.weight[used], norm.bias[used], norm.eps))
    return (outputs if gate is None else outputs * gate[:, used, None, None]), used


def _pooled(images: torch.Tensor) -> torch.Tensor:
    """Half the side, also without a channel, which PyTorch refuses."""
    if not images.shape[1]:
        return images[:, :, : images.shape[2] // 2, : images.shape[3] // 2]
    return functional.max_pool2d(images, 2)


def _convolved(images: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    """The convolution; nothing comes of no inputs, and of no outputs there is nothing. PyTorch refuses both."""
    if 0 in weight.shape:
        return images.new_zeros(len(images), weight.shape[0], *images.shape[2:])
    return functional.conv2d(images, weight, padding=padding)


def grouped(network: DeepMoe, images: torch.Tensor) -> torch.Tensor:
    """(images,) an order in which images with like gates follow each other: by the class that the embedding sees."""
    with torch.inference_mode():
        embedded = network.gated(images).embedded
    assert embedded is not None
    return embedded.argmax(1).argsort(stable=True)
