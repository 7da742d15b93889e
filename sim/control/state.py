"""What the controller knows of a run: the mutable `RunState`.

Policies see it through `sim.control.view.StateView`. Only the controller changes it, by events and commands.
`check_invariants` states what must hold after every event.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from elastune.sim.control.placement import PlacementRule, free_pool
from elastune.sim.control.progress import Progress
from elastune.sim.model.billing import Bill
from elastune.sim.model.events import (
    GoneCause,
    InstanceBooted,
    InstanceGone,
    InstanceLaunched,
    InstanceReady,
    InstanceRefused,
    Outcome,
    ProgressReported,
    ReclaimNoticed,
    SegmentEnded,
    TrialSampled,
)
from elastune.sim.model.ids import InstanceId, Placement, SegmentId, TrialId
from elastune.sim.model.price_series import Price, combined
from elastune.sim.model.protocols import InstanceStatus, TrialStatus

if TYPE_CHECKING:
    from elastune.sim.model.actions import CloneTrial, RunTrial
    from elastune.sim.model.job import TuningJob
    from elastune.sim.model.prices import InstanceType, Pool, PriceBook

NO_SEGMENT = SegmentId(-1)
# Looking up a member of an enumeration costs a descriptor call; these are needed at every segment.
_IDLE, _WAITING, _RUNNING, _STOPPED = TrialStatus.IDLE, TrialStatus.WAITING, TrialStatus.RUNNING, TrialStatus.STOPPED
_DRAINING, _RELEASING = InstanceStatus.DRAINING, InstanceStatus.RELEASING
_INSTANCE_GONE = Outcome.INSTANCE_GONE


class TrialState:
    """One trial; policies see it as a `TrialView`."""

    __slots__ = (
        "checkpoint_iteration",
        "checkpoint_score",
        "cloned_from",
        "configuration",
        "from_iteration",
        "furthest",
        "gpus",
        "is_waiting",
        "iteration",
        "placement",
        "score",
        "segment",
        "status",
    )

    def __init__(self) -> None:
        self.status = TrialStatus.IDLE
        self.iteration = 0
        self.score: float | None = None
        self.checkpoint_iteration = 0
        self.checkpoint_score: float | None = None
        self.gpus = 0
        self.segment = NO_SEGMENT
        self.placement: Placement = ()
        self.from_iteration = 0
        self.furthest = 0
        self.is_waiting = False
        self.configuration: dict[str, float | int | str | bool | None] | None = None
        self.cloned_from: TrialId | None = None

    def restores_from(self, itself: TrialId) -> TrialId:
        """The trial whose checkpoint its next segment restores; `itself` is its own number."""
        return itself if self.cloned_from is None else self.cloned_from


class InstanceState:
    """One instance; policies see it as an `InstanceView`."""

    __slots__ = ("free_gpus", "gone_at_s", "gpus", "instance_type", "launched_at_s", "market", "status")

    def __init__(self, instance_type: str, market: str, gpus: int) -> None:
        self.instance_type = instance_type
        self.market = market
        self.gpus = gpus
        self.free_gpus = gpus
        self.status = InstanceStatus.REQUESTED
        self.launched_at_s = math.nan
        self.gone_at_s = math.inf

    @property
    def pool(self) -> Pool:
        """Its type and market."""
        return self.instance_type, self.market


class Totals:
    """Sums over the run, for its result.

    Attributes:
        trained_gpu_s: GPU-seconds spent on training.
        leased_gpu_s: GPU-seconds between launch and end of all instances.
        iterations_trained: includes work that was done again.
        peak_gpus: the most GPUs that were ready at once.
    """

    __slots__ = ("iterations_trained", "leased_gpu_s", "peak_gpus", "trained_gpu_s")

    def __init__(self) -> None:
        self.trained_gpu_s = 0.0
        self.leased_gpu_s = 0.0
        self.iterations_trained = 0
        self.peak_gpus = 0


class RunState:
    """Everything known of a run from its events and commands."""

    def __init__(self, job: TuningJob, price_book: PriceBook, placement: PlacementRule = "on") -> None:
        self.job = job
        self.price_book = price_book
        self.now_s = 0.0
        self.trials = [TrialState() for _ in range(job.trials)]
        self.started: dict[TrialId, None] = {}
        self.instances: dict[InstanceId, InstanceState] = {}
        self.gone: set[InstanceId] = set()
        self.free = free_pool(placement)
        self.suspended: list[InstanceId] = []
        self.waiting: deque[RunTrial] = deque()
        self.waiting_gpus = 0
        self.draining: dict[InstanceId, InstanceState] = {}
        self.active: Counter[Pool] = Counter()
        self.targets: dict[Pool, int] = {}
        self.running_trials = 0
        self.ready_gpus = 0
        self.bills_instances = price_book.billing.model == "per-instance"
        self.bill = Bill.of(price_book, job.deadline_s)
        self.totals = Totals()
        self.progress = Progress()

    # Events about machines.

    def instance_launched(self, event: InstanceLaunched) -> None:
        instance = self.instances[event.instance]
        instance.launched_at_s = event.at_s
        if instance.status is InstanceStatus.REQUESTED:
            instance.status = InstanceStatus.LAUNCHED
        self.bill.launched(event.instance, event.at_s)

    def instance_booted(self, event: InstanceBooted) -> None:
        self.bill.booted(event.instance, event.at_s)

    def instance_ready(self, event: InstanceReady) -> None:
        instance = self.instances[event.instance]
        self.bill.ready(event.instance, event.at_s)
        if instance.status is InstanceStatus.LAUNCHED:
            instance.status = InstanceStatus.READY
            self.ready_gpus += instance.gpus
            self.totals.peak_gpus = max(self.totals.peak_gpus, self.ready_gpus)
            self.free.admit(event.instance, instance.gpus)

    def reclaim_noticed(self, event: ReclaimNoticed) -> None:
        """Start nothing new on the instance; what runs there continues."""
        instance = self.instances.get(event.instance)
        if instance is None or instance.status is InstanceStatus.RELEASING:
            return
        instance.gone_at_s = event.gone_at_s
        self.drain(event.instance, instance)

    def drain(self, number: InstanceId, instance: InstanceState) -> None:
        """Release the instance when its last gang ends."""
        if instance.status is not InstanceStatus.DRAINING:
            self.withdraw(number, instance)
            self._deactivate(instance)
            instance.status = InstanceStatus.DRAINING
            self.draining[number] = instance

    def reactivate(self, number: InstanceId, instance: InstanceState) -> None:
        """Use a draining machine again."""
        del self.draining[number]
        instance.status = InstanceStatus.READY
        self.active[instance.pool] += 1
        self.ready_gpus += instance.gpus
        self.free.admit(number, instance.free_gpus)

    def _deactivate(self, instance: InstanceState) -> None:
        """Count a machine no longer towards its target."""
        if instance.status not in (_DRAINING, _RELEASING):
            self.active[instance.pool] -= 1

    def instance_gone(self, event: InstanceGone) -> None:
        instance = self.instances.pop(event.instance)
        self.gone.add(event.instance)
        self.withdraw(event.instance, instance)
        self._deactivate(instance)
        self.bill.gone(event.instance, event.at_s, is_reclaimed=event.cause is GoneCause.RECLAIMED)
        if not math.isnan(instance.launched_at_s):
            self.totals.leased_gpu_s += instance.gpus * (event.at_s - instance.launched_at_s)
        self.progress.instance_gone(event.cause, was_noticed=instance.gone_at_s < math.inf)
        self._resume_suspended()

    def withdraw(self, number: InstanceId, instance: InstanceState) -> None:
        """Place nothing on this instance any more."""
        if instance.status is InstanceStatus.READY:
            self.ready_gpus -= instance.gpus
        elif instance.status is InstanceStatus.DRAINING:
            del self.draining[number]
        self.free.withdraw(number)

    def instance_requested(self, number: InstanceId, instance_type: InstanceType, market: str) -> None:
        instance = InstanceState(instance_type.name, market, instance_type.gpus_per_instance)
        self.instances[number] = instance
        self.active[instance.pool] += 1
        self.bill.requested(number, self.price_book.price(instance_type.name, market), self.now_s)

    def instance_refused(self, event: InstanceRefused) -> None:
        self._deactivate(self.instances.pop(event.instance))
        self.bill.refused(event.instance)
        self.progress.refusals += 1

    def instance_released(self, number: InstanceId, instance: InstanceState) -> None:
        self.withdraw(number, instance)
        self._deactivate(instance)
        instance.status = InstanceStatus.RELEASING
        self.bill.released(number, self.now_s)

    # Events and commands about trials and their segments.

    def trial_sampled(self, event: TrialSampled) -> None:
        """Keep the configuration for every later segment, so that neither a resumed driver nor a replay needs the sampler."""
        self.trials[event.trial].configuration = event.configuration

    def trial_cloned(self, action: CloneTrial) -> None:
        """Put the target at the source's durable checkpoint, or at the one that the source itself borrows."""
        source, target = self.trials[action.source], self.trials[action.target]
        target.iteration = target.checkpoint_iteration = source.checkpoint_iteration
        target.score = target.checkpoint_score = source.checkpoint_score
        target.configuration = action.configuration
        target.cloned_from = source.restores_from(action.source)

    def borrower_of(self, lender: TrialId) -> TrialId | None:
        """A clone that still borrows this trial's checkpoint; None where there is none."""
        return next((TrialId(n) for n, trial in enumerate(self.trials) if trial.cloned_from == lender), None)

    def segment_started(
        self, number: SegmentId, trial_id: TrialId, trial: TrialState, placement: Placement, gpus: int
    ) -> None:
        """Note that a segment runs; its GPUs have already been taken from `free`."""
        if trial_id not in self.started:
            self.started[trial_id] = None
        trial.status = _RUNNING
        trial.segment = number
        trial.placement = placement
        trial.gpus = gpus
        trial.from_iteration = trial.checkpoint_iteration
        for instance, count in placement:
            self.instances[instance].free_gpus -= count
        self.running_trials += 1
        if not self.bills_instances:
            self.bill.ask(number, self._gang_price(placement))
            self.bill.start(number, self.now_s)

    def progress_reported(self, event: ProgressReported) -> bool:
        """Update the trial; returns whether the event is about its current segment."""
        trial = self.trials[event.trial]
        if trial.segment != event.segment:
            return False
        trial.iteration, trial.score = event.iteration, event.score
        if event.iteration > trial.furthest:
            trial.furthest = event.iteration
            self.progress.events = 0
        return True

    def segment_ended(self, event: SegmentEnded) -> bool:
        """Update the trial; returns whether the event is about its current segment."""
        trial = self.trials[event.trial]
        if trial.segment != event.segment:
            return False
        totals = self.totals
        self.progress.segment_ended(event, trial.from_iteration)
        totals.iterations_trained += event.iteration - trial.from_iteration
        totals.trained_gpu_s += event.train_s * trial.gpus
        self._give_gpus_back(trial.placement, is_gone=event.outcome is _INSTANCE_GONE)
        if not self.bills_instances and event.segment in self.bill:
            self.bill.stop(event.segment, event.at_s)
        trial.iteration, trial.score = event.iteration, event.score
        trial.checkpoint_iteration = event.checkpoint_iteration
        if event.checkpoint_iteration == event.iteration:
            trial.checkpoint_score = event.score
        if trial.cloned_from is not None and event.checkpoint_iteration > trial.from_iteration:
            trial.cloned_from = None
        trial.segment = NO_SEGMENT
        trial.placement = ()
        trial.gpus = 0
        if trial.status is not _STOPPED:
            trial.status = _WAITING if trial.is_waiting else _IDLE
        self.running_trials -= 1
        return True

    def _give_gpus_back(self, placement: Placement, *, is_gone: bool) -> None:
        free = self.free
        for number, count in placement:
            instance = self.instances.get(number)
            if instance is None:
                continue  # the command to start crossed the machine's end on the way
            instance.free_gpus += count
            if number not in free:
                continue
            if is_gone:
                # One of the gang's machines is about to go, and only InstanceGone will say which.
                free.withdraw(number)
                self.suspended.append(number)
            else:
                free.give_back(number, count)

    def _resume_suspended(self) -> None:
        for number in self.suspended:
            instance = self.instances.get(number)
            if instance is not None and instance.status is InstanceStatus.READY and number not in self.free:
                self.free.admit(number, instance.free_gpus)
        self.suspended.clear()

    def _gang_price(self, placement: Placement) -> Price:
        book, instances = self.price_book, self.instances
        placed = ((instances[number], count) for number, count in placement)
        return combined((book.price(i.instance_type, i.market), count / i.gpus) for i, count in placed)

    def finish(self, at_s: float) -> None:
        """Close every lease at the end of the run; later events are neither billed nor counted."""
        self.bill.stop_all(at_s)
        for instance in self.instances.values():
            if not math.isnan(instance.launched_at_s):
                self.totals.leased_gpu_s += instance.gpus * (at_s - instance.launched_at_s)
                instance.launched_at_s = math.nan

    def check_invariants(self) -> None:
        """Raise AssertionError where the state contradicts itself; tests call it after every event."""
        held: dict[InstanceId, int] = {}
        for trial in self.trials:
            assert (trial.segment == NO_SEGMENT) == (not trial.placement), "GPUs are held by segments, and only by them"
            assert trial.placement or trial.checkpoint_iteration <= trial.iteration
            assert trial.gpus == sum(count for _, count in trial.placement)
            if trial.cloned_from is not None:
                assert trial.checkpoint_iteration, "a clone goes on from a checkpoint"
                assert self.trials[trial.cloned_from].cloned_from is None, "what is lent is the lender's own"
            for number, count in trial.placement:
                held[number] = held.get(number, 0) + count
        for number, instance in self.instances.items():
            assert instance.gpus - held.pop(number, 0) == instance.free_gpus >= 0, (
                f"GPUs of instance {number} do not add up"
            )
            assert number not in self.free or instance.status is InstanceStatus.READY
        assert held.keys() <= self.gone, f"GPUs held on instances that never were: {held}"
        assert self.free.total == sum(i.free_gpus for n, i in self.instances.items() if n in self.free)
        assert {action.trial for action in self.waiting} == {
            TrialId(n) for n, t in enumerate(self.trials) if t.is_waiting
        }
        assert self.waiting_gpus == sum(action.gpus for action in self.waiting)
        assert self.running_trials == sum(trial.segment != NO_SEGMENT for trial in self.trials)
        active = Counter(i.pool for i in self.instances.values() if i.status not in (_DRAINING, _RELEASING))
        assert active == +self.active, "machines that count for a target"
        assert self.draining == {n: i for n, i in self.instances.items() if i.status is _DRAINING}
        assert len(self.instances) <= self.price_book.max_instances, "more instances than the quota"
