# ruff: noqa: ANN001, ANN201, ANN204, D101, D102
"""A Hugging Face trainer: a small network on the digits of scikit-learn."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import Trainer, TrainingArguments

from elastune import HuggingFaceCallback


class Digits(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images, labels):
        logits = self.layers(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(config):
    """Train to the end, or until nobody wants another epoch."""
    images, labels = load_digits(return_X_y=True)
    rows = [
        {"images": torch.tensor(image / 16, dtype=torch.float32), "labels": int(label)}
        for image, label in zip(images, labels, strict=True)
    ]
    callback = HuggingFaceCallback("eval_accuracy")
    arguments = TrainingArguments(
        output_dir=callback.output_dir,
        num_train_epochs=27,
        per_device_train_batch_size=64,
        learning_rate=config["learning_rate"],
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        Digits(config["width"]),
        arguments,
        train_dataset=rows[:1200],
        eval_dataset=rows[1200:],
        compute_metrics=lambda told: {"accuracy": (told.predictions.argmax(1) == told.label_ids).mean()},
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=callback.checkpoint)


if __name__ == "__main__":
    train({"width": 64, "learning_rate": 0.01})
