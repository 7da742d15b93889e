"""Bundles: all that was recorded about one workload, and the truth and the belief that follow from it.

Imports sim.model, sim.model.streams, numpy and the loaders of this package.

A bundle is a folder with `bundle.yaml`, `curves.parquet`, `configs.csv` and optionally `scaling.csv`, described in
`traces/README.md`. Everything is checked when it is loaded and trusted afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import GroundTruth, Profile, Startup, Stragglers, Timings
from elastune.sim.model.scaling import Scaling, kind_phrase
from elastune.sim.model.streams import Streams
from elastune.traces.bundles.terms import Overrides, ProfileErrors, WorkloadTerms
from elastune.traces.formats.html_table import pairs_html
from elastune.traces.scaling.tables import slower_phrase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.sim.model.job import Direction, TuningJob
    from elastune.sim.model.protocols import Configuration
    from elastune.traces.bundles.replicates import Replicates

_SUPPLIED = {
    "iteration_s": ("seconds per iteration", "workload.iteration_s"),
    "scaling": ("scaling", "workload.scaling"),
    "timings": ("launch and checkpoint seconds", "cloud.rescale_s"),
}
"""What a run needs and a bundle may lack: in words, and the key of a spec that supplies it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bundle:
    """All that was recorded about one workload. Arrays are read-only.

    Attributes:
        name: of the workload.
        direction: whether scores are minimised or maximised.
        score: what the score is.
        iteration: what an iteration is.
        max_iterations: the length of the curves.
        scores: (trials, iterations) float; `scores[t, k]` after k + 1 iterations, NaN where the run diverged. Of a trial
            that was trained several times, those of the first replicate.
        configurations: hyperparameters by trial.
        relative_cost: (trials,) float > 0; cost of an iteration of each.
        source: who recorded it.
        licence: of the recording.
        sha256: digest of its files.
        test_scores: of the same shape as `scores`, or None where none were recorded.
        seconds: of the same shape, recorded seconds of each iteration, or None.
        iteration_s: seconds per iteration on one GPU at relative cost 1, evaluation included; None where nothing was timed.
        evaluate_s: the part of it that is evaluation, or None.
        min_gpus: (trials,) int >= 1, the smallest gang that holds each in its memory; None for one GPU everywhere.
        timings: launch, checkpoint and rescale; None where nothing was timed.
        stragglers: spread of an iteration's duration, or None.
        scaling: speed-up by gang, or None.
        checkpoint_bytes: size of a checkpoint, or None.
        data_bytes: size of the training data, or None.
        provenance: by key, `measured`, `published`, `assumed` or `not measured`, then free text.
        family: bundles of one family are not independent samples; None where it stands alone.
        schedule: what a curve cut short is worth (a schedule that depends on the length makes it another curve).
        notes: everything else its bundle.yaml says.
        replicates: all curves, where trials were trained more than once; None where each was trained once.
        measures: what was measured beside the score, in words by name; smaller is better.
        measured: by name, of the same shape as `scores`, NaN where training diverged.
        bounds: on what was measured, which the scores already contain; see `traces.bundles.constraints`.
        labels: what the recording calls the trials; empty for their numbers from 0.
    """

    name: str
    direction: Direction
    score: str
    iteration: str
    max_iterations: int
    scores: np.ndarray
    configurations: Sequence[Configuration]
    relative_cost: np.ndarray
    source: str
    licence: str
    sha256: str
    test_scores: np.ndarray | None = None
    seconds: np.ndarray | None = None
    iteration_s: float | None = None
    evaluate_s: float | None = None
    min_gpus: np.ndarray | None = None
    timings: Timings | None = None
    stragglers: Stragglers | None = None
    scaling: Scaling | None = None
    checkpoint_bytes: float | None = None
    data_bytes: float | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    family: str | None = None
    schedule: str | None = None
    notes: Mapping[str, object] = field(default_factory=dict)
    replicates: Replicates | None = None
    measures: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, np.ndarray] = field(default_factory=dict)
    bounds: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[str] = ()

    def __repr__(self) -> str:
        """On one line."""
        return f"<Bundle {self.name}: {self.trials} configurations, {self.max_iterations} iterations, {self.score}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        best = np.nanmin(self.scores) if self.direction == "minimize" else np.nanmax(self.scores)
        shown = {
            "configurations": self.trials,
            "iterations": f"{self.max_iterations} ({self.iteration})",
            "score": f"{self.score}, {'lower' if self.direction == 'minimize' else 'higher'} is better",
            "best score": f"{best:.4g}",
            "iteration, s": "not recorded" if self.iteration_s is None else f"{self.iteration_s:.4g}",
            "source": self.source,
            "licence": self.licence,
        }
        return pairs_html(self.name, shown)

    def __post_init__(self) -> None:
        arrays = (self.scores, self.test_scores, self.seconds, self.relative_cost, self.min_gpus)
        for array in (*arrays, *self.measured.values()):
            if array is not None:
                array.setflags(write=False)

    @property
    def trials(self) -> int:
        """Configurations it holds."""
        return len(self.relative_cost)

    def draw(self, trials: int, seed: int) -> np.ndarray:
        """(trials,) int: rows of the first so many configurations in the seed's order.

        A larger draw extends a smaller one of the same seed.

        Raises:
            InputError: the bundle has fewer.
        """
        if not 1 <= trials <= self.trials:
            raise InputError(f"job.trials is {trials}, but bundle {self.name} has 1 to {self.trials} configurations")
        return Streams(seed).rng("draw").permutation(self.trials)[:trials]

    def drawn_labels(self, trials: int, seed: int) -> list[str]:
        """What the recording calls the trials of `draw`, in its order."""
        return [self.labels[row] if self.labels else str(row) for row in self.draw(trials, seed)]

    def drawn_configurations(self, trials: int, seed: int) -> list[Configuration]:
        """The configurations of `draw`, in its order."""
        return [self.configurations[row] for row in self.draw(trials, seed)]

    def drawn_test_scores(self, trials: int, seed: int, iteration: int) -> np.ndarray | None:
        """(trials,) float: test scores after so many iterations of the curves that the seed draws; None where there are none.

        Raises:
            InputError: the bundle has fewer configurations.
        """
        curves, held = self._drawn(self.draw(trials, seed), seed)
        return None if held.test_scores is None else held.test_scores[curves, iteration - 1]

    def _drawn(self, rows: np.ndarray, seed: int) -> tuple[np.ndarray, Bundle | Replicates]:
        """(rows,) int: the curves that the seed draws for these configurations, and what holds them."""
        return (rows, self) if self.replicates is None else (self.replicates.drawn(rows, seed), self.replicates)

    def recorded_beside(self, row: int, seed: int, iteration: int) -> tuple[float | None, dict[str, float]]:
        """What is recorded beside the score of one configuration after so many iterations, on the curve that the seed draws.

        Args:
            row: of the configurations.
            seed: of the run.
            iteration: from 1 on.

        Returns:
            The test score, None where there are none, and by name what was measured.
        """
        # A stream for each of all the other configurations would be drawn in vain.
        curves, held = self._drawn(np.array([row]), seed)
        at = curves.item(), iteration - 1
        tests = None if held.test_scores is None else held.test_scores.item(at)
        return tests, {name: values.item(at) for name, values in held.measured.items()}

    def terms(self, overrides: Overrides | None = None, *, sync_s: float = 0.0) -> WorkloadTerms:
        """The numbers of a run: the overrides, and the bundle's own where there is none.

        Raises:
            InputError: neither has one; the message names the key of a spec that supplies it.
        """
        overrides = overrides or Overrides()
        timings = overrides.timings(self.timings)
        iteration_s = self.iteration_s if overrides.iteration_s is None else overrides.iteration_s
        scaling = overrides.scaling or self.scaling
        if iteration_s is None:
            raise self._lacks("iteration_s")
        if scaling is None:
            raise self._lacks("scaling")
        if timings is None:
            raise self._lacks("timings")
        provenance = self._provenance(overrides)
        phrases = (provenance["scaling"], kind_phrase(scaling), slower_phrase(scaling))
        provenance["scaling"] = "; ".join(filter(None, phrases))
        return WorkloadTerms(
            iteration_s,
            scaling,
            timings,
            overrides.stragglers or self.stragglers or Stragglers(),
            sync_s,
            provenance,
            self._evaluate_s(iteration_s) if overrides.evaluate_s is None else overrides.evaluate_s,
            overrides.min_gpus,
        )

    def _evaluate_s(self, iteration_s: float) -> float:
        """Seconds of evaluation in an iteration of this length; other hardware leaves its share as it is."""
        if self.evaluate_s is None or self.iteration_s is None:
            return 0.0
        return self.evaluate_s / self.iteration_s * iteration_s

    def lacking(self) -> dict[str, str]:
        """What a run needs and the bundle does not record, and the key of the spec that supplies each."""
        return dict(pair for name, pair in _SUPPLIED.items() if getattr(self, name) is None)

    def _lacks(self, name: str) -> InputError:
        what, key = _SUPPLIED[name]
        return InputError(f"bundle {self.name} records no {what}: set {key}")

    def _provenance(self, overrides: Overrides) -> dict[str, str]:
        stated = {
            "iteration_s": self._stated("iteration_s"),
            "scaling": self._stated("scaling"),
            "timings": self._stated("timings", "launch_s"),
            "stragglers": self._stated("straggler", "straggler.persistent_cv") if self.stragglers else "assumed: none",
        }
        if self.evaluate_s is not None:
            stated["evaluate_s"] = self._stated("evaluate_s")
        if self.min_gpus is not None:
            stated["min_gpus"] = self._stated("min_gpus")
        timed = (overrides.launch_s, overrides.checkpoint_s, overrides.rescale_s)
        given = {
            "iteration_s": overrides.iteration_s is not None,
            "scaling": overrides.scaling is not None,
            "timings": any(seconds is not None for seconds in timed),
            "stragglers": overrides.stragglers is not None,
            "evaluate_s": overrides.evaluate_s is not None,
            "min_gpus": overrides.min_gpus is not None,
        }
        return stated | {key: "assumed: set by the run" for key, is_given in given.items() if is_given}

    def _stated(self, *keys: str) -> str:
        return next((self.provenance[key] for key in keys if key in self.provenance), "unstated")

    def truth_of(self, terms: WorkloadTerms, job: TuningJob, seed: int) -> GroundTruth:
        """The true curves and durations of the configurations that the seed draws for this job.

        Raises:
            InputError: the job is longer than the curves, wider than the bundle, or ranks scores the other way.
        """
        self.require_covers(job)
        rows = self.draw(job.trials, seed)
        (curves, held), iteration_s = self._drawn(rows, seed), terms.iteration_s * self.relative_cost[rows]
        if self.replicates is not None:
            iteration_s *= self.replicates.slowness[curves]
        scaling = terms.of_iteration(terms.scaling)
        min_gpus = self.min_gpus
        if terms.min_gpus is not None:
            min_gpus = np.full(self.trials, terms.min_gpus) if terms.min_gpus > 1 else None
        if min_gpus is not None:
            min_gpus = min_gpus[rows]
        return GroundTruth(held.scores[curves], iteration_s, scaling, terms.timings, terms.stragglers, min_gpus)

    def require_covers(self, job: TuningJob) -> None:
        """Check that the curves are long enough for a job.

        Raises:
            InputError: the job is longer than the curves, or ranks scores the other way.
        """
        staged = sum(iterations for _, iterations in job.stages or ())
        longest, key = max((job.max_iterations, "max_iterations"), (staged, "stages"))
        if longest > self.max_iterations:
            raise InputError(
                f"job longer than its curves: job.{key} asks for {longest} iterations, bundle {self.name} has"
                f" {self.max_iterations}"
            )
        if job.direction != self.direction:
            raise InputError(f"job.direction is {job.direction}, but bundle {self.name} says {self.direction}")

    def profile_of(
        self, terms: WorkloadTerms, startup: Startup | None = None, errors: ProfileErrors | None = None
    ) -> Profile:
        """What an operator believes: the terms, averaged over the bundle's configurations, with these errors.

        An operator cannot tell configurations of different cost from trials that are persistently slow or fast, so the
        spread of the costs, and of the durations of replicates, is part of the persistent spread. The smallest gang is that
        of the largest configuration.
        """
        mean_cost = float(self.relative_cost.mean())
        cost_cv = float(self.relative_cost.std()) / mean_cost
        if self.replicates is not None:
            squared = self.relative_cost**2 * self.replicates.mean_squared_slowness()
            cost_cv = math.sqrt(max(float(squared.mean()) / mean_cost**2 - 1, 0.0))
        persistent_cv = math.sqrt((1 + terms.stragglers.persistent_cv**2) * (1 + cost_cv**2) - 1)
        believed = terms.profile(startup, errors, mean_cost=mean_cost)
        if terms.min_gpus is None and self.min_gpus is not None:
            believed = replace(believed, min_gpus=int(self.min_gpus.max()))
        return replace(
            believed,
            stragglers=replace(terms.stragglers, persistent_cv=persistent_cv),
            family=self.family or self.name,
            is_prefix_schedule=self.schedule == "constant",
        )


def repeating_phrase(drawn: int, configurations: int) -> str:
    """Why seeds that draw so many of the configurations are no independent samples, in words; empty where they are.

    A draw of more configurations than there are is refused elsewhere.
    """
    most = configurations // 4
    if not most < drawn <= configurations:
        return ""
    return (
        f"draws {drawn} of {configurations} configurations; with more than a quarter ({most}), seeds repeat each other"
    )
