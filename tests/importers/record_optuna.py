"""Write fixtures/optuna.db and fixtures/optuna.log with Optuna: one study in both of its kinds of storage.

It needs an environment of its own:

    python3.11 -m venv optuna-env && optuna-env/bin/pip install --constraint constraints.txt optuna
    optuna-env/bin/python tests/importers/record_optuna.py

Scores, parameters and durations come from formulas, which the tests repeat; only the identifiers in the journal differ from
one recording to the next.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
STARTED = dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001  Optuna's times know no zone
EPOCHS = 4


def trials():
    """Five that ran through, one that was pruned after two epochs, one that failed after its score became nan."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    distributions = {
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "layers": IntDistribution(1, 8),
        "optimizer": CategoricalDistribution(["sgd", "adam", None]),
    }
    for number in range(7):
        values = {epoch: (number + 1) / epoch for epoch in range(1, EPOCHS + 1)}
        state, value = TrialState.COMPLETE, values[EPOCHS]
        if number == 2:
            values, state = {1: 3.0, 2: 1.5}, TrialState.PRUNED
        if number == 4:
            values, state, value = {1: 5.0, 2: 2.5, 3: float("nan")}, TrialState.FAIL, None
        trial = create_trial(
            state=state,
            value=value,
            params={"lr": 10.0 ** -(number % 4), "layers": 1 + number, "optimizer": ["sgd", "adam", None][number % 3]},
            distributions=distributions,
            intermediate_values=values,
        )
        trial.datetime_start = STARTED
        trial.datetime_complete = STARTED + dt.timedelta(seconds=10 * len(values) * (1 + number))
        yield trial


def record(name, storage):
    import optuna

    optuna.create_study(study_name=name, direction="minimize", storage=storage).add_trials(list(trials()))


def main():
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    FIXTURES.mkdir(exist_ok=True)
    for name in ("optuna.db", "optuna.log"):
        (FIXTURES / name).unlink(missing_ok=True)
    database = RDBStorage(f"sqlite:///{FIXTURES / 'optuna.db'}")
    record("toy", database)
    # A second study, of two objectives: those have no curves.
    optuna.create_study(study_name="two objectives", directions=["minimize", "maximize"], storage=database)
    database.remove_session()
    database.engine.dispose()
    # What Optuna wrote, in pages of 512 bytes instead of 4096: most of its tables hold a row or none.
    with contextlib.closing(sqlite3.connect(FIXTURES / "optuna.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("VACUUM")
    record("toy", JournalStorage(JournalFileBackend(str(FIXTURES / "optuna.log"))))


if __name__ == "__main__":
    main()
