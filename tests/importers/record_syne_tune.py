"""Write the folders fixtures/syne-tune and fixtures/syne-tune-pd1 with Syne Tune's own serialisers.

It needs an environment of its own (Syne Tune is no dependency of the project):

    python3.11 -m venv syne-env
    syne-env/bin/pip install --constraint constraints.txt syne-tune==0.16.0 fastparquet huggingface_hub pyarrow msgspec PyYAML
    PYTHONPATH=. syne-env/bin/python tests/importers/record_syne_tune.py

The numbers come from formulas, which the tests repeat. What was written is read back with Syne Tune, and its objects and its
folders are imported and compared: the only place where the importer meets the real class.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

FIXTURES = Path(__file__).parent / "fixtures"
OBJECTIVES = ["metric_valid_loss", "metric_test_loss", "metric_elapsed_time"]
METADATA = {
    "metric_elapsed_time": "metric_elapsed_time",
    "metric_default": "metric_valid_loss",
    "time_attr": "hp_epoch",
}


def evaluations(task, configurations, seeds, fidelities):
    """(configurations, seeds, fidelities, objectives); configuration 2 diverges after its second epoch under seed 0."""
    c, s, f = np.ogrid[0:configurations, 0:seeds, 1 : fidelities + 1]
    loss = (1 + c + 10 * task) / f + s / 8
    array = np.stack([loss, loss + 0.5, f * (c + 1.0) + 0 * s], axis=-1)
    array[2, 0, 2:, :2] = np.nan
    return array


def blackbox(hyperparameters, array, name="hp_epoch"):
    from syne_tune.blackbox_repository.blackbox_tabular import BlackboxTabular
    from syne_tune.config_space import choice, loguniform, randint

    space = {"hp_lr": loguniform(1e-4, 1.0), "hp_layers": choice(["True", "2", "3"])}
    return BlackboxTabular(
        hyperparameters=hyperparameters,
        configuration_space=space,
        fidelity_space={name: randint(1, array.shape[2])},
        objectives_evaluations=array,
        fidelity_values=np.arange(1, array.shape[2] + 1),
        objectives_names=OBJECTIVES,
    )


def record():
    from syne_tune.blackbox_repository.blackbox_tabular import serialize
    from syne_tune.blackbox_repository.conversion_scripts.scripts import pd1_import

    table = pd.DataFrame(
        {
            "hp_lr": [0.001, 0.01, 0.1, 0.001, 0.01, 0.1],
            "hp_layers": ["True", "True", "True", "2", "3", "3"],
        }
    )
    same = {f"task-{task}": blackbox(table, evaluations(task, 6, 2, 5)) for task in (0, 1)}
    serialize(same, fresh("syne-tune"), METADATA)
    # Where tasks differ in their configurations (PD1), Syne Tune writes files for each of them, and ends short curves in NaN.
    short = evaluations(0, 3, 1, 4)
    short[1, 0, 3:] = np.nan
    own = {
        "cifar": blackbox(table.iloc[:3], short, "global_step"),
        "imagenet": blackbox(table.iloc[3:].reset_index(drop=True), evaluations(1, 3, 1, 6), "global_step"),
    }
    pd1_import.serialize(own, fresh("syne-tune-pd1"), METADATA | {"time_attr": "global_step"})


def fresh(name):
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def check():
    """Objects of Syne Tune and the folders they were written to become the same bundle."""
    from syne_tune.blackbox_repository.blackbox_tabular import deserialize
    from syne_tune.blackbox_repository.conversion_scripts.scripts import pd1_import

    from elastune.traces.importers import (
        BlackboxChoice,
        CurveRules,
        Description,
        from_blackbox,
        from_blackbox_folder,
    )

    described = Description(name="toy", source="formulas", licence="CC0-1.0", direction="minimize")
    rules = CurveRules(incomplete="diverged")
    choice = BlackboxChoice(objective="metric_valid_loss", elapsed="metric_elapsed_time", test_score="metric_test_loss")
    for name, read in (("syne-tune", deserialize), ("syne-tune-pd1", pd1_import.deserialize)):
        for task, of_task in read(FIXTURES / name).items():
            with tempfile.TemporaryDirectory() as out:
                one = from_blackbox(of_task, f"{out}/one", described, choice=choice, rules=rules)
                other = from_blackbox_folder(
                    FIXTURES / name, f"{out}/other", described, task=task, choice=choice, rules=rules
                )
                np.testing.assert_array_equal(one.scores, other.scores)
                np.testing.assert_array_equal(one.test_scores, other.test_scores)
                np.testing.assert_array_equal(one.relative_cost, other.relative_cost)
                assert one.configurations == other.configurations


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    record()
    check()
