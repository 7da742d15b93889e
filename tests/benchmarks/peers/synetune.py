"""Syne Tune's ASHA on its simulator: `python synetune.py CONFIGURATIONS EPOCHS WORKERS`, in an environment of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("SYNETUNE_FOLDER", tempfile.mkdtemp())

import numpy as np
import pandas as pd
from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend.simulator_backend.simulator_callback import SimulatorCallback
from syne_tune.blackbox_repository import UserBlackboxBackend
from syne_tune.blackbox_repository.blackbox_tabular import BlackboxTabular
from syne_tune.config_space import randint
from syne_tune.optimizer.baselines import ASHA
from table import EPOCH_S, curves, timed

logging.disable(logging.ERROR)
configurations, epochs, workers = map(int, sys.argv[1:])
np.random.seed(0)  # noqa: NPY002  what Syne Tune draws from
rows = configurations // 10 + workers  # it starts a few more trials than it is told to
table = np.zeros((10 * rows, 1, epochs, 2))
table[:, 0, :, 0] = curves(10 * rows, epochs)
table[:, 0, :, 1] = EPOCH_S * np.arange(1, epochs + 1)
space = {"row": randint(0, rows - 1), "column": randint(0, 9)}  # the table must have two columns
grid = pd.DataFrame({"row": np.arange(10 * rows) // 10, "column": np.arange(10 * rows) % 10})
recorded = BlackboxTabular(grid, space, {"epoch": randint(1, epochs)}, table, objectives_names=["error", "runtime"])
tuner = Tuner(
    trial_backend=UserBlackboxBackend(blackbox=recorded, elapsed_time_attr="runtime"),
    scheduler=ASHA(
        config_space=space,
        metric="error",
        time_attr="epoch",
        max_t=epochs,
        grace_period=1,
        reduction_factor=3,
        random_seed=0,
        points_to_evaluate=[{"row": number // 10, "column": number % 10} for number in range(configurations)],
    ),
    n_workers=workers,
    sleep_time=0,
    callbacks=[SimulatorCallback()],
    stop_criterion=StoppingCriterion(max_num_trials_started=configurations),
    wait_trial_completion_when_stopping=True,
    results_update_interval=600,
    print_update_interval=600,
    save_tuner=False,
)


def quietly() -> None:
    """Run it without its tables."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        tuner.run()


timed(quietly, trials=configurations)
