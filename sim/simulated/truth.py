"""Random quantities of the world: durations of iterations, failures and machines. Imports the pure core and numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.prices import SECONDS_PER_HOUR
from elastune.sim.model.spread import LOG_NORMAL

if TYPE_CHECKING:
    from elastune.sim.model.commands import StartSegment
    from elastune.sim.model.profile import CloudTruth, GroundTruth
    from elastune.sim.model.streams import Streams

_TRIALS_PER_BLOCK = 256  # one generator per block: building it takes 20 us, drawing a row of 81 takes 2 us


class Draws:
    """Random quantities of one run. Each comes from the stream of its own entity, so no policy changes another's luck.

    A subclass may know the seconds of a run from elsewhere, such as from the journal of a real one.

    Attributes:
        streams: of the run.
        varies: whether iterations differ in duration at all.
    """

    def __init__(self, truth: GroundTruth, cloud: CloudTruth, streams: Streams) -> None:
        self._truth = truth
        self._cloud = cloud
        self.streams = streams
        self.varies = truth.stragglers.any
        timings = truth.timings
        self._new, self._again = (timings.launch_s, timings.checkpoint_s), (timings.resume_s, timings.checkpoint_s)
        self._blocks: dict[tuple[int, int], np.ndarray] = {}
        self._node_slowness: dict[int, float] = {}
        self._speedups: dict[tuple[int, int], float] = {}
        self._iteration_s: list[float] = truth.iteration_s.tolist()
        self._failures_of_trial: dict[int, int] = {}

    def iteration_s(self, trial: int, gpus: int, nodes: int) -> float:
        """Mean seconds per iteration of the trial on this gang."""
        speedup = self._speedups.get((gpus, nodes))
        if speedup is None:
            speedup = self._speedups[gpus, nodes] = self._truth.scaling.speedup(gpus, nodes)
        return self._iteration_s[trial] / speedup

    def around_s(self, command: StartSegment) -> tuple[float, float]:
        """Seconds from the start of this segment to its first iteration, and seconds of each of its checkpoints."""
        return self._new if command.restore_from is None else self._again

    def slowness(self, trial: int, gpus: int) -> np.ndarray:
        """(iterations,) factor on the duration of each iteration of the trial on a gang of this size."""
        block, row = divmod(trial, _TRIALS_PER_BLOCK)
        workers = gpus if self._truth.stragglers.is_per_worker else 1
        factors = self._blocks.get((block, workers))
        if factors is None:
            factors = self._blocks[block, workers] = self._draw_block(block, workers)
        return np.asarray(factors[row])

    def _draw_block(self, block: int, workers: int) -> np.ndarray:
        """(trials, iterations) the lasting factor of each trial times that of its slowest worker in each iteration.

        Generators fill arrays row by row. So a block that is not full gets the first rows of what a full one would get.
        """
        stragglers, streams = self._truth.stragglers, self.streams
        trials, iterations = self._truth.scores.shape
        shape = (min(trials - block * _TRIALS_PER_BLOCK, _TRIALS_PER_BLOCK), iterations)
        factors = stragglers.tail.draw(streams.rng("iteration-slowness", block), stragglers.per_iteration_cv, shape)
        for worker in range(1, workers):
            rng = streams.rng("iteration-slowness", block, worker)
            np.maximum(factors, stragglers.tail.draw(rng, stragglers.per_iteration_cv, shape), out=factors)
        rng = streams.rng("persistent-slowness", block)
        persistent = LOG_NORMAL.draw(rng, stragglers.persistent_cv, (shape[0], 1))
        return persistent * factors

    def node_slowness(self, instance: int) -> float:
        """Factor on the duration of every iteration on this machine."""
        slowness = self._node_slowness.get(instance)
        if slowness is None:
            slow = self._cloud.slow_nodes
            rng = self.streams.rng("node-slowness", instance)
            slowness = slow.slowdown if rng.random() < slow.share else 1.0
            slowness *= LOG_NORMAL.draw(rng, slow.cv, (1, 1)).item()
            self._node_slowness[instance] = slowness
        return slowness

    def segment_fails_after_s(self, trial: int) -> float:
        """Seconds until the next segment of this trial fails; infinite where nothing fails."""
        rate_per_hour = self._cloud.faults.segment_failure_per_hour
        if rate_per_hour <= 0:
            return math.inf
        nth = self._failures_of_trial[trial] = self._failures_of_trial.get(trial, -1) + 1
        return float(self.streams.rng("segment-failure", trial, nth).exponential(SECONDS_PER_HOUR / rate_per_hour))

    def queue_s(self, instance: int) -> float:
        """Seconds the provider takes to launch this instance."""
        return self._cloud.startup.queue.draw_s(self.streams.rng("queue", instance))

    def init_s(self, instance: int) -> float:
        """Seconds this instance takes to boot."""
        return self._cloud.startup.init.draw_s(self.streams.rng("init", instance))

    def setup_s(self, instance: int) -> float:
        """Seconds this instance takes from the end of its boot to readiness."""
        return self._cloud.startup.setup.draw_s(self.streams.rng("setup", instance))

    def instance_lives_s(self, instance: int) -> float:
        """Seconds from launch until this instance is lost; infinite where none is."""
        rate_per_hour = self._cloud.faults.instance_loss_per_hour
        if rate_per_hour <= 0:
            return math.inf
        return float(self.streams.rng("instance-loss", instance).exponential(SECONDS_PER_HOUR / rate_per_hour))
