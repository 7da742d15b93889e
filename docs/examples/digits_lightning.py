# ruff: noqa: ANN001, ANN201, ANN204, D101, D102
"""A Lightning module and its trainer: a small network on the digits of scikit-learn."""

import pytorch_lightning as lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from elastune import LightningCallback


class Digits(lightning.LightningModule):
    def __init__(self, width, learning_rate):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        self.learning_rate = learning_rate

    def training_step(self, batch, _):
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch, _):
        images, labels = batch
        self.log("val_accuracy", (self.layers(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)]


def train(config):
    """Train to the end, or until nobody wants another epoch."""
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    train_data = DataLoader(torch.utils.data.Subset(data, range(1200)), batch_size=64, shuffle=True)
    val_data = DataLoader(torch.utils.data.Subset(data, range(1200, 1797)), batch_size=597)
    callback = LightningCallback("val_accuracy")
    trainer = lightning.Trainer(
        max_epochs=27,
        devices=1,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(**config), train_data, val_data, ckpt_path=callback.ckpt_path)


if __name__ == "__main__":
    train({"width": 64, "learning_rate": 0.1})
