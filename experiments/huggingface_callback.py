"""A Hugging Face `Trainer` takes part in a run by one callback; see docs/train_your_own.md.

Imports experiments.reporting.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from elastune.experiments.reporting import checkpoint_folder, report
from elastune.sim.model.errors import WorkerError


class HuggingFaceCallback(TrainerCallback):  # type: ignore[misc] # without types
    """Reports a metric after each evaluation; `Trainer.train` goes on from `checkpoint`.

    The `Trainer` writes a checkpoint at each evaluation, as it can write one only there.

    Args:
        metric: of `compute_metrics` or the loss, as the `Trainer` names it, such as `eval_accuracy`.
        test_metric: of data that no decision may look at.

    Attributes:
        output_dir: for `TrainingArguments(output_dir=...)`: a folder of this trial alone; only its last checkpoint stays.
        checkpoint: for `Trainer.train(resume_from_checkpoint=...)`; None for a new trial.
    """

    def __init__(self, metric: str, *, test_metric: str | None = None) -> None:
        folder = checkpoint_folder()
        self.checkpoint = None if folder is None else str(folder)
        self.output_dir = tempfile.mkdtemp(prefix="elastune-")
        weakref.finalize(self, shutil.rmtree, self.output_dir, ignore_errors=True)
        self._metric, self._test_metric = metric, test_metric
        self._scores: tuple[float, float | None] | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> Any:  # noqa: ANN401, ARG002  as transformers calls it
        """Note the scores, and ask for a checkpoint.

        Raises:
            WorkerError: the evaluation does not have the metric.
        """
        metrics = others["metrics"]
        wanted = [self._metric, *([] if self._test_metric is None else [self._test_metric])]
        for metric in wanted:
            if metric not in metrics:
                raise WorkerError(
                    f"HuggingFaceCallback: the evaluation has no {metric!r}; it has {', '.join(sorted(metrics))}: return it"
                    " from compute_metrics"
                )
        scores = [float(metrics[metric]) for metric in wanted]
        self._scores = (scores[0], scores[1] if len(scores) > 1 else None)
        control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ANN401, ARG002
        """Report, and return when training is to go on."""
        if self._scores is None:  # a checkpoint of the user's own, between two evaluations
            return
        (score, test_score), self._scores = self._scores, None
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.output_dir == self.output_dir:
            for older in Path(self.output_dir).glob("checkpoint-*"):
                if older != written:
                    shutil.rmtree(older)
        report(score, save=partial(shutil.copytree, written, dirs_exist_ok=True), test_score=test_score)
