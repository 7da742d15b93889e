"""What a run's policy believes, and the controller that follows from it; for runs whose truth nobody has recorded as well.

Imports experiments.spec.run, the policies through the registry, `sim` but the backends, and `traces`. A planner or
policy needs no
curves: a spec without a bundle will do, as long as it says how long an iteration takes and how it scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from elastune.experiments.runs.configurations import adaptable_hyperparameters
from elastune.policies.registry import entry_named
from elastune.sim.control.controller import Controller
from elastune.sim.model.errors import InputError
from elastune.sim.model.node_scaling import OnMachines, knows_nodes
from elastune.sim.model.profile import Stragglers, Timings
from elastune.sim.model.streams import Streams
from elastune.traces import WorkloadTerms

if TYPE_CHECKING:
    import numpy as np

    from elastune.experiments.spec.run import RunSpec
    from elastune.sim.control.journal import Sink
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import PriceBook
    from elastune.sim.model.profile import Profile
    from elastune.traces import Bundle


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
        entry = entry_named(spec.policy.name)
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
