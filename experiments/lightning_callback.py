"""A Lightning `Trainer` takes part in a run by one callback; see docs/train_your_own.md.

Stands on whichever of the two packages, `lightning` and `pytorch_lightning`, the training code has imported: each has classes
of its own. Imports experiments.reporting.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any, Self

from elastune.experiments.reporting import checkpoint_folder, report
from elastune.sim.model.errors import WorkerError

_FILE = "trainer.ckpt"


class LightningCallback:
    """Reports a metric after each epoch; `Trainer.fit` goes on from `ckpt_path`.

    It is a `Checkpoint`, which Lightning calls last, when all that an epoch logs is there.

    Args:
        metric: what the module logs as its score, such as `val_accuracy`.
        test_metric: what it logs about data that no decision may look at.

    Attributes:
        ckpt_path: for `Trainer.fit(..., ckpt_path=...)`; None for a new trial.
    """

    def __new__(cls, *_: object, **__: object) -> Self:
        """An object that is a `Checkpoint` of the training code's own Lightning as well."""
        package = "lightning.pytorch" if "lightning.pytorch" in sys.modules else "pytorch_lightning"
        checkpoint = importlib.import_module(f"{package}.callbacks").Checkpoint
        both: type[Self] = type(cls.__name__, (cls, checkpoint), {})
        return object.__new__(both)

    def __init__(self, metric: str, *, test_metric: str | None = None) -> None:
        super().__init__()
        folder = checkpoint_folder()
        self.ckpt_path = None if folder is None else str(folder / _FILE)
        self._metric, self._test_metric = metric, test_metric

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401, ARG002  Lightning's own types
        """Report, and return when another epoch is wanted.

        Raises:
            WorkerError: the module did not log the metric.
        """
        test_score = None if self._test_metric is None else self._logged(trainer, self._test_metric)
        report(self._logged(trainer, self._metric), save=partial(_save, trainer), test_score=test_score)

    @staticmethod
    def _logged(trainer: Any, metric: str) -> float:  # noqa: ANN401
        logged = trainer.callback_metrics
        if metric not in logged:
            raise WorkerError(
                f"LightningCallback: {metric!r} was not logged by the end of epoch {trainer.current_epoch}; there is"
                f" {', '.join(sorted(logged)) or 'nothing'}: call self.log({metric!r}, ...) in validation_step, and validate"
                " after every epoch"
            )
        return float(logged[metric])


def _save(trainer: Any, folder: Path) -> None:  # noqa: ANN401
    trainer.save_checkpoint(folder / _FILE)
