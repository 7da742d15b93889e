"""What a run takes place in: what its policy believes, and what really happens.

A `Belief` is all that a policy is given. It needs no curves: a spec without a bundle will do if it says how long an iteration
takes and how it scales. A `World` adds the truth, which needs a bundle of recorded curves.

Imports experiments.spec, the policies through the registry, `sim` but the bridge, and `traces`. Versions are read from the
installed packages, so a journal holds no wall-clock time and nothing of the machine.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.runs.configurations import adaptable_hyperparameters
from elastune.experiments.runs.regret import scale_of
from elastune.sim.control.controller import Controller
from elastune.sim.control.journal import Header, Sink
from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import OnMachines, knows_nodes
from elastune.sim.model.profile import GroundTruth, Profile, Stragglers, Timings
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import Bundle, WorkloadTerms
from elastune.traces.bundles.constraints import constrained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elastune.experiments.spec.run import RunSpec
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook

_RECORDED_VERSIONS = ("elastune", "numpy", "simpy", "msgspec")


@dataclass(frozen=True, eq=False)
class Belief:
    """Everything a policy is given, resolved from a spec.

    Attributes:
        bundle: where the profile is from; None where the spec alone says it.
    """

    spec: RunSpec
    bundle: Bundle | None
    job: TuningJob
    price_book: PriceBook
    profile: Profile

    @classmethod
    def of(cls, spec: RunSpec, bundle: Bundle | None = None) -> Belief:
        """The belief of a spec, in a workload that need not have curves for this job.

        Args:
            spec: the run.
            bundle: used instead of the one that the spec names.

        Raises:
            InputError: a number is given by neither spec nor bundle, or is out of range.
        """
        if bundle is None and spec.workload.bundle is not None:
            bundle = spec.bundle()
        bundle = _bounded(spec, bundle)
        book = spec.price_book(bundle)
        profile = profile_of(spec, bundle, terms_of(spec, bundle), book)
        job = spec.job.tuning_job("minimize" if bundle is None else bundle.direction)
        return cls(spec, bundle, job, book, profile)

    def controller(self, sink: Sink | None, *, scores: np.ndarray | None = None) -> Controller:
        """A fresh controller of this run's policy.

        Args:
            sink: where its journal goes.
            scores: (trials, iterations) float, the true curves; for those policies that are upper bounds.

        Raises:
            InfeasibleJobError: the policy finds no plan within deadline and budget.
            InputError: the policy is an upper bound, and there are no true curves; or it changes configurations, and nothing
                says which.
        """
        spec = self.spec
        build = spec.policy.factory()
        entry = spec.policy.entry
        if entry.needs_truth:
            if scores is None:
                raise InputError(
                    f"policy {spec.policy.name} is told the true curves, which a run on real workers does not have"
                )
            build = partial(build, scores=scores)  # type: ignore[call-arg]  # such an entry takes them
        if entry.needs_real_workers:
            if self.bundle is None:
                raise InputError(f"policy {spec.policy.name} needs workload.bundle, which says what it may change")
            hyperparameters = adaptable_hyperparameters(spec.policy.name, self.bundle)
            build = partial(build, hyperparameters=hyperparameters)  # type: ignore[call-arg]  # such an entry takes them
        policy = build(self.job, self.profile, self.price_book, Streams(spec.seed).rng("policy"))
        return Controller(
            policy, self.job, self.price_book, name=spec.policy.label, sink=sink, placement=spec.cloud.placement or "on"
        )


def _bounded(spec: RunSpec, bundle: Bundle | None) -> Bundle | None:
    if bundle is None:
        if spec.job.bounds:
            raise InputError("job.constraint bounds what a bundle measures: set workload.bundle, or leave it out")
        return None
    return constrained(bundle, spec.job.bounds)


def truth_anew(terms: WorkloadTerms, job: TuningJob) -> GroundTruth:
    """The truth of configurations that are drawn anew and trained by the user's own code: scores that nobody knows."""
    scores = np.full((job.trials, job.max_iterations), np.nan)
    scaling = terms.of_iteration(terms.scaling)
    return GroundTruth(scores, np.full(job.trials, terms.iteration_s), scaling, terms.timings, terms.stragglers)


def terms_of(spec: RunSpec, bundle: Bundle | None) -> WorkloadTerms:
    """The numbers of a spec's workload.

    Raises:
        InputError: neither the spec nor the bundle says how long an iteration takes, or how it scales.
    """
    workload, cloud = spec.workload, spec.cloud
    overrides = workload.overrides(cloud.rescale_s)
    if bundle is not None:
        return bundle.terms(overrides, sync_s=cloud.sync_s)
    for key, value in (("iteration_s", overrides.iteration_s), ("scaling", overrides.scaling)):
        if value is None:
            raise InputError(f"workload.{key} is missing: without workload.bundle it must be given")
    assert overrides.iteration_s is not None
    assert overrides.scaling is not None
    return WorkloadTerms(
        overrides.iteration_s,
        overrides.scaling,
        overrides.timings(None) or Timings(),
        overrides.stragglers or Stragglers(),
        cloud.sync_s,
        evaluate_s=overrides.evaluate_s or 0.0,
        min_gpus=overrides.min_gpus,
    )


def profile_of(spec: RunSpec, bundle: Bundle | None, terms: WorkloadTerms, book: PriceBook) -> Profile:
    """What a policy believes of these terms on the machines of the price book."""
    cloud, errors = spec.cloud, spec.workload.profile.errors()
    if bundle is None:
        profile = terms.profile(cloud.startup_delays(), errors)
    else:
        profile = bundle.profile_of(terms, cloud.startup_delays(bundle.data_bytes), errors)
    profile = replace(profile, mtbf_s=cloud.believed_mtbf_s())
    if knows_nodes(terms.scaling if errors.scaling is None else errors.scaling):
        profile = replace(profile, scaling=OnMachines(profile.scaling, most_gpus(book)))
    return profile


def most_gpus(book: PriceBook) -> int:
    """GPUs of the largest machines: no gang can be on fewer of them than that allows."""
    return max(instance_type.gpus_per_instance for instance_type in book.instance_types)


@dataclass(frozen=True, eq=False)
class World:
    """Everything a run needs, resolved from its spec.

    Attributes:
        truth: what really happens; never shown to a policy. Its scores are those that the policy is told, noise included.
        recorded_scores: (trials, iterations) float; the curves of the seed's draw, without noise. Answers are judged by them.
        profile: what the policy believes.
        provenance: where the workload's numbers are from; see `traces.WorkloadTerms`.
    """

    spec: RunSpec
    bundle: Bundle
    job: TuningJob
    price_book: PriceBook
    truth: GroundTruth
    profile: Profile
    provenance: Mapping[str, str]
    recorded_scores: np.ndarray

    @classmethod
    def of(cls, spec: RunSpec, bundle: Bundle | None = None) -> World:
        """The world of a spec.

        Args:
            spec: the run.
            bundle: used instead of the one that the spec names.

        Raises:
            InputError: spec and bundle do not fit each other, or a number is given by neither.
        """
        bundle = constrained(spec.bundle() if bundle is None else bundle, spec.job.bounds)
        terms = terms_of(spec, bundle)
        job = spec.job.tuning_job(bundle.direction)
        book = spec.price_book(bundle)
        truth = truth_anew(terms, job) if spec.draws_anew else bundle.truth_of(terms, job, spec.seed)
        noisy = noisy_scores(truth.scores, spec.workload.score_noise or 0.0, bundle, spec.seed)
        return cls(
            spec,
            bundle,
            job,
            book,
            truth=replace(truth, scores=noisy),
            profile=profile_of(spec, bundle, terms, book),
            provenance=terms.provenance,
            recorded_scores=truth.scores,
        )

    def controller(self, sink: Sink | None) -> Controller:
        """A fresh controller of this run's policy.

        Raises:
            InfeasibleJobError: the policy finds no plan within deadline and budget.
        """
        return self.belief.controller(sink, scores=self.recorded_scores)

    @property
    def belief(self) -> Belief:
        """What of it the policy is given."""
        return Belief(self.spec, self.bundle, self.job, self.price_book, self.profile)

    def backend(self) -> SimulatedBackend:
        """The simulated cloud and workers."""
        return SimulatedBackend(self.truth, self.spec.cloud.truth(self.bundle.data_bytes), Streams(self.spec.seed))

    def header(self, *, is_real: bool = False) -> Header:
        """The first line of this run's journal; of a real run, it names the user's own training code too."""
        header, code = new_header(self.spec, self.bundle), self.spec.workload.code
        if is_real and code is not None:
            header.data_sha256[code.name] = code.sha256
        return header


def new_header(spec: RunSpec, bundle: Bundle | None) -> Header:
    """The first line of a run's journal."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in _RECORDED_VERSIONS}}
    return Header(spec.to_dict(), spec.digest(), versions, data_sha256(spec, bundle))


def data_sha256(spec: RunSpec, bundle: Bundle | None) -> dict[str, str]:
    """Digest of all that was read for a run: its bundle, by name; its own code, price catalogue and spot trace, by path."""
    spot, code = spec.cloud.spot, spec.policy.code
    trace = {} if spot is None else spot.data_sha256()
    recorded = {} if bundle is None else {bundle.name: bundle.sha256}
    own = {} if code is None else {spec.policy.name: code.sha256}
    return {**recorded, **prices_sha256(spec), **trace, **own}


def prices_sha256(spec: RunSpec) -> dict[str, str]:
    """The digest of the price catalogue that a spec names, by its path; nothing where it names none."""
    prices = spec.cloud.prices
    return {} if prices is None else {prices: file_sha256(prices)}


def file_sha256(path: str) -> str:
    """The digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def noisy_scores(scores: np.ndarray, noise: float, bundle: Bundle, seed: int) -> np.ndarray:
    """The scores as validation reports them: the recorded ones with normal noise. Diverged scores stay diverged.

    The noise of a trial's iteration depends on the seed alone, not on the policy or the size of the job.

    Args:
        scores: (trials, iterations) float; the curves of the seed's draw.
        noise: standard deviation in the unit of regret; 0 changes nothing.
        bundle: where the curves are from.
        seed: of the run.

    Raises:
        InputError: the bundle's final scores are all alike or all diverged, so that there is no unit.
    """
    if noise == 0:
        return scores
    unit = scale_of(bundle.scores[:, -1], bundle.direction)
    if unit is None:
        raise InputError(
            f"workload.score_noise is {noise:g} times (median - best) of the final scores, but those of bundle {bundle.name}"
            " are all alike or all diverged: leave it out"
        )
    streams, (trials, iterations) = Streams(seed), scores.shape
    drawn = [streams.rng("score-noise", trial).standard_normal(iterations) for trial in range(trials)]
    return scores + noise * unit * np.stack(drawn)
