"""The networks that are trained. Imports torch, so it is itself imported only when a trial is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from elastune.sim.model.protocols import Configuration


def _scaled(network: nn.Sequential, init_scale: float) -> nn.Sequential:
    """The network with the initial weights of every layer multiplied by `init_scale`."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(init_scale)
    return network


def mlp(configuration: Configuration) -> nn.Sequential:
    """64 pixels, 1 to 3 hidden layers of equal width, 10 classes."""
    width, dropout = int(configuration["width"] or 0), float(configuration["dropout"] or 0)
    layers: list[nn.Module] = []
    inputs = 64
    for _ in range(int(configuration["hidden_layers"] or 0)):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return _scaled(nn.Sequential(*layers, nn.Linear(inputs, 10)), float(configuration["init_scale"] or 0))


def cnn(configuration: Configuration) -> nn.Sequential:
    """28 x 28 pixels, two 3 x 3 convolutions with pooling, one hidden layer, 10 classes."""
    channels, width = int(configuration["channels"] or 0), int(configuration["width"] or 0)
    network = nn.Sequential(
        *(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2 * channels * 7 * 7, width), nn.ReLU()),
        *(nn.Dropout(float(configuration["dropout"] or 0)), nn.Linear(width, 10)),
    )
    return _scaled(network, float(configuration["init_scale"] or 0))
