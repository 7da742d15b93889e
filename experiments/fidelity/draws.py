"""Durations for a simulation from the journal of a real run, or from the samples of a profile.

Imports experiments.runs, sim.model, `sim.simulated`, numpy.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from elastune.sim.model.commands import ReleaseInstance, StartSegment
from elastune.sim.model.events import Outcome
from elastune.sim.model.ids import InstanceId
from elastune.sim.model.spread import LOG_NORMAL
from elastune.sim.simulated.truth import Draws

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elastune.experiments.profiling.records import SegmentRecord
    from elastune.experiments.runs.fold import Segment, Tables
    from elastune.sim.model.profile import CloudTruth, GroundTruth
    from elastune.sim.model.streams import Streams

SampleT = TypeVar("SampleT")
_WHOLE = (Outcome.COMPLETED, Outcome.ENDED)


class MeasuredDraws(Draws):
    """The seconds of a run that has happened: of each segment and each machine, the mean of its kind where there is none.

    Args:
        tables: of the real run.
        truth: of the simulated world.
        cloud: of the simulated world.
        streams: of the run.
    """

    def __init__(self, tables: Tables, truth: GroundTruth, cloud: CloudTruth, streams: Streams) -> None:
        super().__init__(truth, cloud, streams)
        self.varies = True
        self._segments: dict[tuple[int, int], tuple[float, float]] = {}
        self._ratios: dict[int, dict[int, float]] = {}
        kinds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for segment in tables.segments:
            self._take(segment, kinds)
        self._kinds = {is_new: _means(pairs) for is_new, pairs in kinds.items() if pairs}
        ratios = [ratio for each in self._ratios.values() for ratio in each.values()]
        self._ratio = statistics.fmean(ratios) if ratios else 1.0
        self._iterations = truth.scores.shape[1]
        self._queue_s = {lease.instance: lease.launched_s - lease.requested_s for lease in tables.leases}
        self._boot_s = {lease.instance: lease.ready_s - lease.launched_s for lease in tables.leases}

    def _take(self, segment: Segment, kinds: dict[bool, list[tuple[float, float]]]) -> None:
        ended, command = segment.ended, segment.command
        if ended is None or ended.outcome not in _WHOLE:
            return
        done = ended.iteration - command.from_iteration
        every = command.checkpoint_every
        saves = 1 + ((ended.iteration - 1) // every - command.from_iteration // every if every else 0)
        around = (ended.launch_s, ended.checkpoint_s / max(saves, 1))
        self._segments[command.trial, command.from_iteration] = around
        kinds[command.restore_from is None].append(around)
        if done > 0:
            expected_s = self.iteration_s(command.trial, segment.gpus, len(command.placement))
            each = self._ratios.setdefault(command.trial, {})
            each.update(
                dict.fromkeys(range(command.from_iteration, ended.iteration), ended.train_s / done / expected_s)
            )

    def around_s(self, command: StartSegment) -> tuple[float, float]:
        """What it was in the run; see `Draws.around_s`."""
        known = self._segments.get((command.trial, command.from_iteration))
        return known or self._kinds.get(command.restore_from is None) or super().around_s(command)

    def slowness(self, trial: int, gpus: int) -> np.ndarray:  # noqa: ARG002  measured on the gang it ran on
        """What it was in the run; see `Draws.slowness`."""
        known = self._ratios.get(trial, {})
        mean = statistics.fmean(known.values()) if known else self._ratio
        return np.array([known.get(iteration, mean) for iteration in range(self._iterations)])

    def queue_s(self, instance: int) -> float:
        """What it was in the run; see `Draws.queue_s`."""
        return _known(self._queue_s, instance, super().queue_s(instance))

    def init_s(self, instance: int) -> float:
        """What it was in the run, set-up included where the spec has none of its own; see `Draws.init_s`."""
        boot_s = _known(self._boot_s, instance, super().init_s(instance) + super().setup_s(instance))
        return max(boot_s - super().setup_s(instance), 0.0)


def _known(by_instance: dict[InstanceId, float], instance: int, otherwise: float) -> float:
    known = by_instance.get(InstanceId(instance), math.nan)
    if math.isnan(known):
        others = [seconds for seconds in by_instance.values() if not math.isnan(seconds)]
        return statistics.fmean(others) if others else otherwise
    return known


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*pairs, strict=True)
    return statistics.fmean(first), statistics.fmean(second)


def measured_truth(tables: Tables, truth: GroundTruth, cloud: CloudTruth) -> tuple[GroundTruth, CloudTruth]:
    """The rest of a real run's world: the scores that were reported, and the seconds that releases took."""
    scores = truth.scores.copy()
    for segment in tables.ended():
        ended = segment.ended
        if ended is not None and ended.iteration:
            scores[segment.trial, ended.iteration - 1] = math.nan if ended.score is None else ended.score
    asked_s = {what.instance: at_s for _, at_s, what, _ in tables.changes if isinstance(what, ReleaseInstance)}
    waits_s = [
        lease.ended_s - asked_s[lease.instance]
        for lease in tables.leases
        if lease.instance in asked_s and not math.isnan(lease.ended_s)
    ]
    release_s = statistics.fmean(waits_s) if waits_s else cloud.release_s
    return replace(truth, scores=scores), replace(cloud, release_s=max(release_s, 0.0))


@dataclass(frozen=True)
class Noise:
    """What is known of how seconds and scores vary, from the segments that a profile timed and from earlier runs.

    Attributes:
        launches: by GPUs of the gang: (seconds of launch, of the checkpoint) of new trials.
        resumes: the same of trials that went on.
        paces: mean seconds of an iteration over those of the profile at the same relative cost, one per segment on one GPU.
        machine_cv: how much faster or slower the whole machine is from one time to another; a coefficient of variation.
        starts: seconds from the launch of a node to readiness; none where the spec says how long machines take.
        trainings: last score of a trial less the recorded one, in earlier runs; see `fidelity.trainings`.
    """

    launches: Mapping[int, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    resumes: Mapping[int, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    paces: tuple[float, ...] = ()
    machine_cv: float = 0.0
    starts: tuple[float, ...] = ()
    trainings: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, records: Sequence[SegmentRecord], relative_cost: Sequence[float], iteration_s: float, machine_cv: float
    ) -> Noise:
        """The noise in these segments.

        Args:
            records: of a profile.
            relative_cost: by row of the bundle.
            iteration_s: of the profile, at relative cost 1 on one GPU.
            machine_cv: see the attribute.
        """
        around: dict[bool, dict[int, tuple[tuple[float, float], ...]]] = {True: {}, False: {}}
        for one in records:
            of_kind = around[one.is_fresh]
            of_kind[one.gpus] = (*of_kind.get(one.gpus, ()), (one.launch_s, one.checkpoint_s))
        paces = tuple(
            one.mean_iteration_s / relative_cost[one.row] / iteration_s for one in records if one.gpus == one.nodes == 1
        )
        return cls(around[True], around[False], paces, machine_cv)


class NoisyDraws(Draws):
    """Draws of a run that is still to come: samples of the profile, which itself is one of many that could have been measured.

    The samples are drawn with replacement once for the run (what the profile happened to see), and again for each segment.

    Args:
        noise: of the profile.
        truth: of the simulated world.
        cloud: of the simulated world.
        streams: of this draw.
    """

    def __init__(self, noise: Noise, truth: GroundTruth, cloud: CloudTruth, streams: Streams) -> None:
        super().__init__(truth, cloud, streams)
        rng = streams.rng("fidelity-run")
        self._pace = LOG_NORMAL.draw(rng, noise.machine_cv, (1, 1)).item()
        self._around = {
            (is_new, gpus): _resampled(rng, pairs)
            for is_new, by_gpus in ((True, noise.launches), (False, noise.resumes))
            for gpus, pairs in sorted(by_gpus.items())
        }
        if noise.paces:
            self._train = self._pace * float(rng.choice(np.array(noise.paces), len(noise.paces)).mean())
        else:
            self._train = self._pace
        self._starts = _resampled(rng, noise.starts)
        self.varies = True
        self._once = np.ones(truth.scores.shape[1])

    def around_s(self, command: StartSegment) -> tuple[float, float]:
        """One of the profile's samples of a gang of this size, or of the nearest; see `Draws.around_s`."""
        pairs = self._samples(is_new=command.restore_from is None, gpus=sum(gpus for _, gpus in command.placement))
        if pairs is None:
            launch_s, checkpoint_s = super().around_s(command)
        else:
            rng = self.streams.rng("fidelity-launch", command.trial, command.from_iteration)
            launch_s, checkpoint_s = pairs[int(rng.integers(len(pairs)))]
        return self._pace * launch_s, self._pace * checkpoint_s

    def _samples(self, *, is_new: bool, gpus: int) -> list[tuple[float, float]] | None:
        sizes = [size for known, size in self._around if known == is_new]
        return self._around[is_new, min(sizes, key=lambda size: abs(math.log(size / gpus)))] if sizes else None

    def init_s(self, instance: int) -> float:
        """One of the profile's starts, where it knows some; see `Draws.init_s`."""
        if self._starts is None:
            return super().init_s(instance)
        rng = self.streams.rng("fidelity-start", instance)
        return self._pace * self._starts[int(rng.integers(len(self._starts)))]

    def slowness(self, trial: int, gpus: int) -> np.ndarray:
        """The spread of the profile, at the pace of this run; see `Draws.slowness`."""
        factors = super().slowness(trial, gpus) if self._truth.stragglers.any else self._once
        return self._train * factors


def _resampled(rng: np.random.Generator, samples: Sequence[SampleT]) -> list[SampleT] | None:
    if not samples:
        return None
    return [samples[index] for index in rng.integers(len(samples), size=len(samples))]
