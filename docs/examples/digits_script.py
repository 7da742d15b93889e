# ruff: noqa: ANN001, ANN201, T201
"""An ordinary training script: a small network on the digits of scikit-learn."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def train(config):
    """Print the accuracy after each epoch."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))
    optimizer = torch.optim.SGD(model.parameters(), config["learning_rate"], momentum=0.9)

    for epoch in range(27):
        for batch in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (model(x[1200:]).argmax(1) == y[1200:]).float().mean().item()
        print(epoch, accuracy)


if __name__ == "__main__":
    train({"width": 64, "learning_rate": 0.1})
