"""Write the runs in fixtures/tensorboard with the SummaryWriter of PyTorch.

It needs an environment of its own, or that of the `bridge` and `tensorboard` extras:

    python3.11 -m venv events-env && events-env/bin/pip install --constraint constraints.txt torch tensorboard
    events-env/bin/python tests/importers/record_tensorboard.py

Scores and wall times come from formulas, which the tests repeat. Files are renamed, since a writer puts the name of the
machine into theirs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures" / "tensorboard"
BEGAN = 1_767_268_800.0
STEPS = 4


def write(folder, run, steps, began_s, hyperparameters=None):
    """Points of a run whose steps take 1 + run seconds each, every 100th step; the last of run 1 is nan."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(FIXTURES / folder)) as writer:
        for number, step in enumerate(steps, start=1):
            at_s = BEGAN + began_s + number * (1.0 + run)
            score = float("nan") if (run, step) == (1, STEPS) else (run + 1) / step
            writer.add_scalar("val/loss", score, 100 * step, walltime=at_s)
            writer.add_scalar("test/loss", score + 1, 100 * step, walltime=at_s)
        if hyperparameters is not None:
            writer.add_hparams(hyperparameters, {"best": 0.5}, run_name="hparams")


def main():
    shutil.rmtree(FIXTURES, ignore_errors=True)
    for run, learning_rate in enumerate((0.1, 0.01)):
        write(f"run-{run}", run, range(1, STEPS + 1), 0.0, {"lr": learning_rate, "layers": 2 + run, "optimizer": "sgd"})
    # Killed after its third step, and started again from the checkpoint of its second one an hour later.
    write("run-2", 2, range(1, 4), 0.0)
    write("run-2", 2, range(3, STEPS + 1), 3600.0)
    (FIXTURES / "run-2" / "hparams.yaml").write_text("lr: 0.001\nlayers: 4\noptimizer: adam\n", encoding="utf-8")
    for number, file in enumerate(sorted(FIXTURES.rglob("*tfevents*"), key=lambda file: file.stat().st_mtime_ns)):
        file.rename(file.with_name(f"events.out.tfevents.{BEGAN:.0f}.machine.1.{number}"))


if __name__ == "__main__":
    main()
