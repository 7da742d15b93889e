"""The worlds in which the contract plays a policy: one plain one, and others that each go wrong in a way of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from elastune.sim.control.controller import Controller
from elastune.sim.model.capacity import Steps
from elastune.sim.model.job import TuningJob
from elastune.sim.model.prices import ON_DEMAND, SPOT, BillingRule, InstanceType, PriceBook
from elastune.sim.model.profile import (
    CloudTruth,
    Delay,
    Faults,
    GroundTruth,
    Profile,
    Spot,
    Startup,
    Stragglers,
    Timings,
)
from elastune.sim.model.reclaim import Lifetimes, NodeChange, RecordedNodes
from elastune.sim.model.scaling import PowerScaling
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.traces import ProfileErrors, synthetic_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elastune.sim.control.journal import Sink
    from elastune.sim.model.protocols import PolicyFactory


@dataclass(frozen=True)
class ContractWorld:
    """Everything around a policy.

    Attributes:
        may_be_infeasible: some rules cannot do the job at all here, and may say so.
    """

    name: str
    job: TuningJob
    truth: GroundTruth
    cloud: CloudTruth
    profile: Profile
    price_book: PriceBook
    seed: int = 0
    may_be_infeasible: bool = False

    def controller(self, name: str, factory: PolicyFactory, sink: Sink | None = None) -> Controller:
        """A fresh controller with a fresh policy.

        Raises:
            InfeasibleJobError: the policy cannot do the job.
        """
        policy = factory(self.job, self.profile, self.price_book, Streams(self.seed).rng("policy"))
        return Controller(policy, self.job, self.price_book, name=name, sink=sink)

    def backend(self) -> SimulatedBackend:
        """A fresh backend."""
        return SimulatedBackend(self.truth, self.cloud, Streams(self.seed))


def plain_world() -> ContractWorld:
    """Twelve configurations, R = 9, nothing random, all beliefs right, time and money to spare."""
    bundle = synthetic_bundle(12, 9, seed=3, iteration_s=60.0, scaling=PowerScaling(0.8, max_gpus=8))
    job = TuningJob(trials=12, min_iterations=1, max_iterations=9, deadline_s=3600.0, budget_usd=20.0)
    terms = replace(bundle.terms(), timings=Timings(launch_s=10.0, checkpoint_s=5.0, rescale_s=15.0), sync_s=2.0)
    startup = Startup(queue=Delay(20.0), init=Delay(40.0))
    return ContractWorld(
        "plain",
        job,
        bundle.truth_of(terms, job, seed=0),
        CloudTruth(startup=startup),
        bundle.profile_of(terms, startup),
        PriceBook((InstanceType("p3.8xlarge", 4, {ON_DEMAND: 12.0}),), max_instances=8),
    )


def worlds() -> tuple[ContractWorld, ...]:
    """The worlds every policy is played in; the plain one first."""
    plain = plain_world()
    families = (_rough_worlds, _misjudged_worlds, _limited_worlds, _priced_worlds, _harsh_worlds, _spot_worlds)
    return (plain, *(world for family in families for world in family(plain)))


def _rough_worlds(plain: ContractWorld) -> Iterator[ContractWorld]:
    stragglers = Stragglers(persistent_cv=0.3, per_iteration_cv=0.2)
    yield replace(
        plain,
        name="stragglers",
        truth=replace(plain.truth, stragglers=stragglers),
        profile=replace(plain.profile, stragglers=stragglers),
    )
    yield _with_cloud(plain, "failing segments", faults=Faults(segment_failure_per_hour=6.0))
    yield _with_cloud(plain, "lost instances", faults=Faults(instance_loss_per_hour=4.0))
    every_third = replace(
        _with_cloud(plain, "failing segments, checkpoints within", faults=Faults(segment_failure_per_hour=12.0)),
        job=msgspec.structs.replace(plain.job, checkpoint_every=1),
    )
    yield every_third
    yield replace(
        _with_cloud(
            plain, "no capacity beyond two small machines", capacity={("p3.2xlarge", ON_DEMAND): Steps.constant(2)}
        ),
        job=msgspec.structs.replace(plain.job, deadline_s=1000.0),
        price_book=msgspec.structs.replace(
            plain.price_book, instance_types=(InstanceType("p3.2xlarge", 1, {ON_DEMAND: 3.0}),)
        ),
    )
    yield replace(
        _with_cloud(plain, "slow start and release", release_s=30.0),
        price_book=msgspec.structs.replace(plain.price_book, release_s=30.0),
    )
    scores = plain.truth.scores.copy()
    scores[::3, 2:] = math.nan
    job = msgspec.structs.replace(plain.job, direction="maximize")
    yield replace(plain, name="accuracy with diverged runs", job=job, truth=replace(plain.truth, scores=1.0 - scores))


def _misjudged_worlds(plain: ContractWorld) -> Iterator[ContractWorld]:
    for error in (-0.5, 0.5):
        errors = ProfileErrors(scaling_error=error)
        scaling = errors.scaling_believed(plain.truth.scaling)
        yield replace(plain, name=f"scaling believed {error:+.0%}", profile=replace(plain.profile, scaling=scaling))
        iteration_s = plain.profile.iteration_s * (1.0 + error)
        profile = replace(plain.profile, iteration_s=iteration_s)
        yield replace(plain, name=f"seconds per iteration believed {error:+.0%}", profile=profile)


def _limited_worlds(plain: ContractWorld) -> Iterator[ContractWorld]:
    for name, deadline_s, budget_usd in (
        ("tight deadline", 400.0, 20.0),
        ("tight budget", 3600.0, 1.5),
        ("tight deadline and budget", 600.0, 2.2),
        ("deadline only", 3600.0, None),
        ("budget only", None, 20.0),
    ):
        job = msgspec.structs.replace(plain.job, deadline_s=deadline_s, budget_usd=budget_usd)
        yield replace(plain, name=name, job=job, may_be_infeasible=True)


def _priced_worlds(plain: ContractWorld) -> Iterator[ContractWorld]:
    for name, billing in (
        ("per-function billing", BillingRule(model="per-function")),
        ("per-function billing by the minute", BillingRule(granularity_s=60.0, minimum_s=60.0, model="per-function")),
        ("hourly billing", BillingRule(granularity_s=3600.0, minimum_s=60.0)),
        ("ten minutes at least, boot free of charge", BillingRule(minimum_s=600.0, bills_startup=False)),
    ):
        price_book = msgspec.structs.replace(plain.price_book, billing=billing)
        yield replace(plain, name=name, price_book=price_book)


def _harsh_worlds(plain: ContractWorld) -> Iterator[ContractWorld]:
    """Several troubles at once, each of them about the budget."""
    tight = replace(
        plain,
        job=msgspec.structs.replace(plain.job, trials=9, deadline_s=7200.0, budget_usd=2.5),
        may_be_infeasible=True,
    )
    yield replace(
        tight,
        name="three times slower than believed, on a tight budget",
        truth=replace(plain.truth, iteration_s=plain.truth.iteration_s * 3.0),
    )
    by_the_minute = BillingRule(granularity_s=60.0, minimum_s=60.0, model="per-function")
    yield replace(
        _with_cloud(
            tight, "failing functions, by the minute, on a tight budget", faults=Faults(segment_failure_per_hour=60.0)
        ),
        price_book=msgspec.structs.replace(plain.price_book, billing=by_the_minute),
    )
    slow_queue = Startup(queue=Delay(300.0), init=Delay(40.0))
    yield replace(
        _with_cloud(
            tight,
            "lost machines, slow to be replaced, on a tight budget",
            startup=slow_queue,
            faults=Faults(instance_loss_per_hour=12.0),
            release_s=30.0,
        ),
        profile=replace(plain.profile, startup=slow_queue),
        price_book=msgspec.structs.replace(
            plain.price_book,
            instance_types=(InstanceType("p3.2xlarge", 1, {ON_DEMAND: 3.0}),),
            billing=BillingRule(minimum_s=300.0),
            release_s=30.0,
        ),
    )


def _spot_worlds(plain: ContractWorld) -> Iterator[ContractWorld]:
    """Machines that are taken back, and such as are not to be had."""
    machine = InstanceType("p3.8xlarge", 4, {ON_DEMAND: 12.0, SPOT: 3.0})
    book = msgspec.structs.replace(plain.price_book, instance_types=(machine,), market="spot")
    rented = replace(
        plain,
        job=msgspec.structs.replace(plain.job, checkpoint_every="auto"),
        profile=replace(plain.profile, mtbf_s=300.0),
        price_book=book,
    )
    alone = Spot(Lifetimes(300.0, shape=3.0), notice_s=120.0)
    yield _with_cloud(rented, "spot machines, two minutes' notice", spot=alone)
    waves = Lifetimes(bulk_per_hour=6.0, bulk_share=0.7, zones=2)
    yield _with_cloud(rented, "spot machines go in waves, without notice", spot=Spot(waves, notice_s=0.0))
    yield _with_cloud(
        rented,
        "spot capacity as recorded, and a quota that rises: requests wait",
        spot=Spot(_few_nodes(), notice_s=30.0),
        quota=Steps((0.0, 300.0), (1, 8)),
        waits=True,
    )
    yield replace(
        _with_cloud(
            rented,
            "no more spot capacity, on demand instead",
            spot=alone,
            capacity={("p3.8xlarge", SPOT): Steps((0.0, 200.0), (1, 0))},
        ),
        price_book=msgspec.structs.replace(book, fail_over=(("p3.8xlarge", ON_DEMAND),)),
    )
    mixed = msgspec.structs.replace(book, market="mixed")
    yield replace(_with_cloud(rented, "spot first, on demand at the end", spot=alone), price_book=mixed)


def _few_nodes() -> RecordedNodes:
    """Three nodes, of which one goes every four minutes, and comes back after two; for an hour."""
    changes = [NodeChange(0.0, True, node) for node in "abc"]
    for turn in range(14):
        node = "abc"[turn % 3]
        changes += [NodeChange(240.0 * (turn + 1), False, node), NodeChange(240.0 * (turn + 1) + 120.0, True, node)]
    return RecordedNodes("three nodes", tuple(changes), 3600.0)


def _with_cloud(world: ContractWorld, name: str, **changes: object) -> ContractWorld:
    return replace(world, name=name, cloud=replace(world.cloud, **changes))  # type: ignore[arg-type]  # field names of CloudTruth
