# ruff: noqa: ANN001, ANN201, ANN204, D101, D102, S301
"""A network of scikit-learn on its digits, as a class: no PyTorch."""

import pickle
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

PASSES = 8  # over the training images, in an iteration


class Digits:
    direction = "maximize"

    def __init__(self, config, seed):
        images, self.labels = load_digits(return_X_y=True)
        self.images, self.batch_size = images / 16, config["batch_size"]
        self.order = np.random.default_rng(seed)
        self.network = MLPClassifier(
            (config["width"], config["width"]),
            learning_rate_init=config["learning_rate"],
            alpha=config["weight_decay"],
            random_state=seed % 2**32,
        )

    def train_iteration(self):
        for _ in range(PASSES):
            for batch in np.array_split(self.order.permutation(1200), 1200 // self.batch_size):
                self.network.partial_fit(self.images[batch], self.labels[batch], classes=range(10))

    def evaluate(self):
        return self.network.score(self.images[1200:], self.labels[1200:])

    def save(self, folder):
        (Path(folder) / "state.pickle").write_bytes(pickle.dumps((self.network, self.order)))

    def load(self, folder):
        # Of this run's own folder: unpickling what others wrote can run their code.
        self.network, self.order = pickle.loads((Path(folder) / "state.pickle").read_bytes())
