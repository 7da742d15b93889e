"""DeepMoE: convolutions whose channels are experts, chosen for each input by sparse gates. Imports torch.

Wang et al., "Deep Mixture of Experts via Shallow Embedding" (UAI 2019), at the size that two cores train.

    e  = embedding(x)                    shallow network, stride 2; one vector per image
    g  = relu(W_l e)                     gating head of layer l: sparse, linear, without bias; one number per channel
    h' = g * relu(norm(conv_l(h)))       a channel whose gate is 0 contributes nothing, and need not be computed
    loss = CE(classes) + lambda * sum_l |g_l|_1 + mu * CE(classes seen by the embedding alone)      (`training`)

Deviations: images of 28 x 28 and a stem and two blocks. Normalisation is per image and channel instead of per batch, so that
several workers have the gradients of one, and a channel never depends on another; gates follow it, as it would undo them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias, cast

import torch
from torch import nn
from torch.nn import functional

from elastune.sim.model.errors import InputError

Body: TypeAlias = Literal["vgg", "resnet"]
Gating: TypeAlias = Literal["none", "mixture"]

CHANNELS = (8, 16, 32)
"""Channels of the stem and of both blocks at width 1; each but the last halves the image."""
EMBEDDING_CHANNELS = (2, 4, 8)
"""Channels of the shallow embedding network, whose convolutions all have stride 2 [ours: scaled down with the base]."""
CLASSES = 10


class Shape(NamedTuple):
    """What the images are: channels, and pixels of a side."""

    channels: int
    side: int


MNIST = Shape(1, 28)
HALVED_MNIST = Shape(1, 14)


@dataclass(frozen=True)
class Architecture:
    """Which network.

    Attributes:
        body: VGG-style, every convolution gated; or ResNet-style, only the inner convolution of a block gated, as the outer one
            adds to all channels of the shortcut.
        gating: `none` is the standard network of the same widths.
        width: factor on `CHANNELS`; 2 is the paper's wide network.
        embedding_size: entries of the embedding.
        shape: of the images.
    """

    body: Body = "vgg"
    gating: Gating = "mixture"
    width: float = 1.0
    embedding_size: int = 32
    shape: Shape = MNIST

    def __post_init__(self) -> None:
        if min(self.channels) < 1:
            least = 1 / CHANNELS[0]
            raise InputError(
                f"width {self.width:g} leaves a convolution without a channel: it must be at least {least:g}"
            )
        if self.embedding_size < 1:
            raise InputError(f"embedding_size is {self.embedding_size}, but must be at least 1")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the stem and of each block."""
        return tuple(int(channels * self.width) for channels in CHANNELS)


class Gated(NamedTuple):
    """What a pass through a mixture gives.

    Attributes:
        logits: (images, classes).
        embedded: (images, classes), as the embedding alone sees them; None where nothing is gated.
        gates: per gated convolution (images, channels).
    """

    logits: torch.Tensor
    embedded: torch.Tensor | None
    gates: Sequence[torch.Tensor]


class Convolution(nn.Module):
    """3 x 3 convolution, normalisation per image and channel, ReLU; then the gates, where it has some."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.normalisation = nn.GroupNorm(outputs, outputs)  # a group is a channel

    def forward(self, images: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        """(images, channels, side, side), times the gate (images, channels) where there is one."""
        outputs = functional.relu(self.normalisation(self.convolution(images)))
        return outputs if gate is None else outputs * gate[:, :, None, None]


class Block(nn.Module):
    """Two convolutions; in a ResNet the second one adds to a shortcut, and is never gated."""

    def __init__(self, inputs: int, outputs: int, body: Body) -> None:
        super().__init__()
        self.inner, self.outer = Convolution(inputs, outputs), Convolution(outputs, outputs)
        self.is_residual = body == "resnet"
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if self.is_residual else None

    @property
    def gated(self) -> list[Convolution]:
        """The convolutions that are mixtures of experts."""
        return [self.inner] if self.is_residual else [self.inner, self.outer]

    def forward(self, images: torch.Tensor, gates: Sequence[torch.Tensor]) -> torch.Tensor:
        """(images, channels, side, side), given the gates of its gated convolutions, or none at all."""
        inner = self.inner(images, gates[0] if gates else None)
        outputs: torch.Tensor = self.outer(inner, gates[1] if len(gates) > 1 else None)
        return outputs if self.shortcut is None else outputs + self.shortcut(images)


class Embedding(nn.Module):
    """The shallow network that sees the image first, and what all gating heads read."""

    def __init__(self, shape: Shape, size: int) -> None:
        super().__init__()
        inputs = (shape.channels, *EMBEDDING_CHANNELS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(one, other, 3, stride=2, padding=1) for one, other in zip(inputs, EMBEDDING_CHANNELS, strict=True)
        )
        self.side = shape.side
        for _ in EMBEDDING_CHANNELS:
            self.side = (self.side + 1) // 2
        self.linear = nn.Linear(EMBEDDING_CHANNELS[-1] * self.side**2, size)
        self.normalisation = nn.LayerNorm(size)  # of one image, so that gates begin alike whatever the size

    @property
    def layers(self) -> list[nn.Conv2d]:
        """Its convolutions."""
        return [cast("nn.Conv2d", layer) for layer in self.convolutions]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(images, size), at least 0."""
        for layer in self.layers:
            images = functional.relu(layer(images))
        return functional.relu(self.normalisation(self.linear(images.flatten(1))))


class DeepMoe(nn.Module):
    """A standard network, or the mixture of channel experts of the same shape.

    `forward` gives logits only, as any classifier; `gated` gives all that the loss needs.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = architecture.channels
        self.stem = Convolution(architecture.shape.channels, channels[0])
        self.block_list = nn.ModuleList(Block(one, other, architecture.body) for one, other in pairwise(channels))
        self.classifier = nn.Linear(channels[-1], CLASSES)
        self.embedding: Embedding | None = None
        self.embedded_classifier: nn.Linear | None = None
        self.heads = nn.ModuleList()
        if architecture.gating == "mixture":
            self._add_gates(architecture)

    def _add_gates(self, architecture: Architecture) -> None:
        size = architecture.embedding_size
        self.embedding = Embedding(architecture.shape, size)
        self.embedded_classifier = nn.Linear(size, CLASSES)
        self.heads = nn.ModuleList(
            nn.Linear(size, one.convolution.out_channels, bias=False) for one in self.gated_layers
        )
        for head in self.heads:
            # Positive weights on an embedding of mean 0.4: all experts begin active, with gates around 1. A gate that
            # begins at 0 for every image would never have a gradient: the degenerate combination that the paper warns of.
            nn.init.uniform_(cast("nn.Linear", head).weight, 0.0, 5.0 / size)

    @property
    def blocks(self) -> list[Block]:
        """The two blocks after the stem."""
        return [cast("Block", block) for block in self.block_list]

    @property
    def gated_layers(self) -> list[Convolution]:
        """The convolutions that are mixtures of experts, in the order of their gates."""
        stem = [self.stem] if self.architecture.body == "vgg" else []
        return [*stem, *(one for block in self.blocks for one in block.gated)]

    def gates(self, embedded: torch.Tensor) -> list[torch.Tensor]:
        """Per gated convolution (images, channels), at least 0."""
        return [functional.relu(head(embedded)) for head in self.heads]

    def gated(self, images: torch.Tensor) -> Gated:
        """Logits, and what chose the experts."""
        if self.embedding is None or self.embedded_classifier is None:
            return Gated(self._classified(images, ()), None, ())
        embedded = self.embedding(images)
        gates = self.gates(embedded)
        return Gated(self._classified(images, gates), self.embedded_classifier(embedded), gates)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(images, classes) logits."""
        return self.gated(images).logits

    def _classified(self, images: torch.Tensor, gates: Sequence[torch.Tensor]) -> torch.Tensor:
        left = iter(gates)
        images = self.stem(images, next(left) if gates and self.architecture.body == "vgg" else None)
        for block in self.blocks:
            images = functional.max_pool2d(images, 2)
            images = block(images, [next(left) for _ in block.gated] if gates else [])
        logits: torch.Tensor = self.classifier(images.mean((2, 3)))
        return logits

    def freeze_gates(self, *, is_frozen: bool) -> None:
        """Whether embedding and gates stay as they are, as in the second stage of training."""
        frozen = [self.embedding, self.heads, self.embedded_classifier]
        for parameter in [one for module in frozen if module is not None for one in module.parameters()]:
            parameter.requires_grad_(not is_frozen)
            parameter.grad = None
