"""Writes curves.csv, as a team's own logs might hold them: 60 configurations, 40 epochs, wall seconds, five that diverged."""

import csv
from pathlib import Path

import numpy as np

rng = np.random.default_rng(7)
with Path("curves.csv").open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["run", "epoch", "val_error", "wall_s", "lr", "width"])
    for number in range(60):
        lr, width = 10 ** rng.uniform(-4, 0), int(rng.choice([64, 128, 256]))
        best = 0.06 + 0.05 * (np.log10(lr) + 1.7) ** 2 + 4 / width * rng.uniform(0.5, 1.0)
        speed, seconds = rng.uniform(3, 9), 40 * (width / 128) ** 0.5
        diverges_at = int(rng.integers(2, 10)) if lr > 0.3 else None
        for epoch in range(1, 41):
            if diverges_at is not None and epoch >= diverges_at:
                error = ""  # the loss was nan
            else:
                error = round(min(0.9, best + 0.8 * np.exp(-epoch / speed) + rng.normal(0, 0.004)), 4)
            rows.writerow(
                [f"w{width}-{number:02}", epoch, error, round(seconds * rng.uniform(0.97, 1.05), 2), f"{lr:.5f}", width]
            )
