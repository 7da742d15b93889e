"""What a plan is, and the terms it is made under. Pure; imports only `sim.model` and the halving arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from elastune.policies.rules.margin import PLAN_MARGIN_S, most_usd, plan_ends_by_s
from elastune.sim.model.errors import InfeasibleJobError
from elastune.sim.model.prices import SECONDS_PER_HOUR, PriceBook

if TYPE_CHECKING:
    from collections.abc import Callable

    from elastune.policies.rules.halving import Stage
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.profile import Profile

FINE_QUANTUM_S = 1.0
"""Rounding each lease up to a multiple of this is not worth knowing the ages of machines."""


@dataclass(frozen=True)
class Allocation:
    """What one stage gets.

    Attributes:
        trials: how many train in it.
        gpus: GPUs that train, all trials together.
        gpus_per_trial: size of each gang.
        gpus_per_instance: GPUs of the machines they are on.
        spare_instances: machines held beyond those that train, so that a later stage does not wait for new ones.
        is_prefetched: whether its new machines are asked for during the stage before, early enough to be ready at the
            barrier; see `policies.planning.estimate.lead_s`.
    """

    trials: int
    gpus: int
    gpus_per_trial: int
    gpus_per_instance: int
    spare_instances: int = 0
    is_prefetched: bool = False

    @cached_property
    def gangs(self) -> int:
        """How many trials train at once."""
        return min(self.gpus // self.gpus_per_trial, self.trials)

    @cached_property
    def needed_instances(self) -> int:
        """Whole machines that hold the GPUs that train."""
        return -(-self.gpus // self.gpus_per_instance)

    @property
    def instances(self) -> int:
        """Machines that are held while the stage runs."""
        return self.needed_instances + self.spare_instances

    @cached_property
    def waves(self) -> int:
        """How many times the gangs must run to train all trials."""
        return math.ceil(self.trials / self.gangs)


@dataclass(frozen=True)
class Terms:
    """What planners know: the profile, the prices and the job's limits; one instance type.

    Attributes:
        deadline_s: plans end by it; infinite for none.
        budget_usd: infinite for none.
        listed: the prices before those that change were replaced by their highest; None where none does.
        gives_back: whether machines are given back within a stage, when they and the next stage have no more use for them.
    """

    profile: Profile
    price_book: PriceBook
    deadline_s: float = math.inf
    budget_usd: float = math.inf
    listed: PriceBook | None = None
    gives_back: bool = False

    def __post_init__(self) -> None:
        if self.profile.min_gpus > 1 and not self.gang_sizes:
            raise InfeasibleJobError(
                f"a configuration needs {self.profile.min_gpus} GPUs for its memory (min_gpus), but no gang of so many fills or"
                f" divides machines of {self.gpus_per_instance}: the scaling is known for {self.profile.scaling.max_gpus} GPUs,"
                f" the quota holds {self.max_gpus}"
            )

    @classmethod
    def of(cls, job: TuningJob, profile: Profile, price_book: PriceBook) -> Terms:
        """The terms of a job; absent limits are infinite, and a plan ends a moment before the run must.

        A price that changes is planned with at the highest that it reaches by the deadline, so that a plan keeps the budget
        whenever it holds its machines.
        """
        highest = highest_prices(price_book, job.deadline_s)
        listed = None if highest is price_book else price_book
        return cls(profile, highest, plan_ends_by_s(job), job.budget_usd or math.inf, listed)

    def are_kept_by(self, plan: Plan) -> bool:
        """Whether a plan keeps deadline and budget."""
        return plan.promised_s <= self.deadline_s and plan.needed_usd <= most_usd(self.budget_usd)

    def margin_usd(self, instances: int) -> float:
        """What it costs to hold so many machines for the margin before the budget ends."""
        return PLAN_MARGIN_S * (instances * self.usd_per_s + self.standing_usd_per_s)

    @cached_property
    def gpus_per_instance(self) -> int:
        """GPUs of the machines that are rented."""
        return self.price_book.default_type.gpus_per_instance

    @cached_property
    def usd_per_hour(self) -> float:
        """Price of one machine."""
        return self.price_book.usd_per_hour()

    @property
    def max_gpus(self) -> int:
        """GPUs of the whole quota."""
        return self.price_book.max_instances * self.gpus_per_instance

    @property
    def largest_gang(self) -> int:
        """GPUs of the largest gang that can be had: the scaling is known for it, and the quota holds it."""
        return min(self.profile.scaling.max_gpus, self.max_gpus)

    @property
    def cluster_sizes(self) -> range:
        """Numbers of machines a fixed cluster may have: the least gang fits, and the quota holds them."""
        return range(-(-self.gang_sizes[0] // self.gpus_per_instance), self.price_book.max_instances + 1)

    @cached_property
    def usd_per_s(self) -> float:
        """Price of one machine per second."""
        return self.usd_per_hour / SECONDS_PER_HOUR

    @property
    def ingress_usd(self) -> float:
        """Price of the data that one new machine loads."""
        return self.price_book.ingress_usd

    @property
    def standing_usd_per_s(self) -> float:
        """Price of head node and storage per second of the run."""
        return self.price_book.standing_usd_per_hour / SECONDS_PER_HOUR

    @property
    def is_per_instance(self) -> bool:
        """Whether machines are billed, and not the GPU-seconds of what runs on them."""
        return self.price_book.billing.model == "per-instance"

    @property
    def instance_type(self) -> str:
        """Name of the machines that are rented."""
        return self.price_book.default_type.name

    def for_any_deadline(self) -> Terms:
        """The same with each price at the highest that it ever has."""
        return self if self.listed is None else replace(self, price_book=self.listed.at_highest())

    def without_limits(self) -> Terms:
        """The same without deadline and budget."""
        return replace(self, deadline_s=math.inf, budget_usd=math.inf)

    @cached_property
    def placeable_gang_sizes(self) -> tuple[int, ...]:
        """Gangs that can be placed as priced: what of them does not fill a machine divides one; rising speed-up only.

        Such gangs tile machines in whatever order GPUs come free, each on as few nodes as it is priced for. Sizes in between
        leave fragments on which a gang would be spread.
        """
        whole = self.gpus_per_instance
        return self._rising(lambda gpus: gpus % whole == 0 or whole % (gpus % whole) == 0)

    @cached_property
    def placeable_gangs(self) -> tuple[tuple[int, float], ...]:
        """(size, mean seconds of an iteration) of each of `placeable_gang_sizes`."""
        return tuple((size, self.train_s(1, size)) for size in self.placeable_gang_sizes)

    @cached_property
    def gang_sizes(self) -> tuple[int, ...]:
        """Gangs worth planning: they fill whole machines or divide one, and each is faster than all smaller ones.

        None is smaller than the memory of the configurations takes. Measured speed-ups fall in places; beyond its peak a gang
        only costs more.
        """
        whole = self.gpus_per_instance
        return self._rising(lambda gpus: whole % gpus == 0 or gpus % whole == 0)

    def _rising(self, is_allowed: Callable[[int], bool]) -> tuple[int, ...]:
        sizes: list[int] = []
        fastest = 0.0
        for gpus in range(self.profile.min_gpus, self.largest_gang + 1):
            speedup = self.speedup(gpus)
            if is_allowed(gpus) and speedup > fastest:
                sizes.append(gpus)
                fastest = speedup
        return tuple(sizes)

    def speedup(self, gpus: int) -> float:
        """Believed speed-up of a gang on as few nodes as it fits on."""
        return self.profile.scaling.speedup(gpus, -(-gpus // self.gpus_per_instance))

    def fixed_s(self, *, is_first: bool) -> float:
        """Seconds of one segment that do not vary: launch or resume, and checkpoint."""
        timings = self.profile.timings
        return (timings.launch_s if is_first else timings.resume_s) + timings.checkpoint_s

    def train_s(self, iterations: int, gpus_per_trial: int) -> float:
        """Mean seconds of these iterations on a gang of this size."""
        return iterations * (self.profile.iteration_s / self.speedup(gpus_per_trial))

    def segment_s(self, iterations: int, gpus_per_trial: int, *, is_first: bool, stretch: float = 1.0) -> float:
        """Mean seconds of one segment: launch or resume, training (so many times its mean), checkpoint."""
        return self.fixed_s(is_first=is_first) + self.train_s(iterations, gpus_per_trial) * stretch


def highest_prices(price_book: PriceBook, deadline_s: float | None) -> PriceBook:
    """The book with each price at the highest that a run which ends by the deadline may have to pay."""
    return price_book.at_highest(price_book.paid_until_s(deadline_s))


@dataclass(frozen=True)
class Plan:
    """An allocation for each stage, and what it is expected to take.

    Attributes:
        stage_s: (stages,) expected seconds of each stage, growth and barrier included.
        prefetch_after_s: (stages,) seconds after the start of each stage at which the machines of the next are asked for;
            None where they are asked for at the barrier.
        instance_type: name of the machines.
        makespan_p95_s: by when it ends with 95 % probability, where that was asked for; see `policies.planning.lateness`.
        search_gap: share of its price that a partial plan which was counted and not followed, or a thinned stage, may save at
            most; 0 where all were followed.
        left_out: what the search for it did not weigh, in words; empty where it weighed everything.
        margin_usd: what it costs to end one margin later, as a run ends that long before its money does; a whole quantum of
            each machine where a quantum has just been used up.
    """

    stages: tuple[Stage, ...]
    allocations: tuple[Allocation, ...]
    stage_s: tuple[float, ...]
    makespan_s: float
    cost_usd: float
    prefetch_after_s: tuple[float | None, ...] = ()
    instance_type: str = ""
    makespan_p95_s: float | None = None
    search_gap: float = 0.0
    left_out: str = ""
    margin_usd: float = 0.0

    @property
    def needed_usd(self) -> float:
        """The budget that keeps it."""
        return self.cost_usd + self.margin_usd

    @property
    def promised_s(self) -> float:
        """What is compared with a deadline: the 95th percentile where it was asked for, the expected makespan otherwise."""
        return self.makespan_s if self.makespan_p95_s is None else self.makespan_p95_s

    @property
    def gpus_per_stage(self) -> tuple[int, ...]:
        """(stages,) GPUs that train."""
        return tuple(allocation.gpus for allocation in self.allocations)

    @property
    def instances_per_stage(self) -> tuple[int, ...]:
        """(stages,) machines that are held."""
        return tuple(allocation.instances for allocation in self.allocations)
