"""Feeds the placements of a physical run to the simulated world, with speeds of a profile, learned ones or measured ones.

No policy decides anything: in each round the recorded jobs start on their recorded workers and end with it. This tests how
rounds, preemptions, restarts and speeds add up to completion times. Imports numpy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from elastune.experiments.fidelity.physical_record import Config, Outcomes, PhysicalJob, PhysicalRun
from elastune.sim.model.commands import EndSegment, ProvisionInstance, StartSegment, StartTimer
from elastune.sim.model.events import SegmentEnded, TimerFired
from elastune.sim.model.ids import InstanceId, SegmentId, TrialId
from elastune.sim.model.prices import ON_DEMAND
from elastune.sim.model.profile import CloudTruth, GroundTruth, Timings
from elastune.sim.model.streams import Streams
from elastune.sim.simulated import SimulatedBackend
from elastune.sim.simulated.truth import Draws
from elastune.traces import scaling_of

ROUND_S = 120.0
"""Of the record: a lease trains for so long in each round, whatever else the round takes."""
SHARE_LEARNED = 0.1
"""Rounds from which speeds are learned: the first tenth."""
PARTS_OF_JOB = 10_000
"""Iterations into which the work of a job is cut, so that a round ends within a few seconds of its time [ours]."""
_FEWEST_LEASES, _LIKE_THE_LINE = 5, 3
"""Leases that a line needs, and with how many a model is drawn towards it [ours]."""
_ROUNDS_MORE = 20
"""After so many times the recorded rounds a job that has not ended never will."""
Mode = Literal["profile", "learned", "measured"]


@dataclass(frozen=True)
class Speeds:
    """How fast jobs are believed to be.

    Attributes:
        period_s: from one round to the next, beyond the recorded ones.
        overall: speed over that of the profile, once a lease has loaded.
        by_model: the same by model, drawn towards the overall one where little was seen.
        load_s: of a lease, before it trains.
        spread: standard deviation of the logarithm between jobs, beyond these factors.
    """

    period_s: float = ROUND_S
    overall: float = 1.0
    by_model: Mapping[str, float] = field(default_factory=dict)
    load_s: float = 0.0
    spread: float = 0.0

    def factor(self, config: Config) -> float:
        """The factor of a configuration."""
        return self.by_model.get(config[0], self.overall)


def learned_speeds(run: PhysicalRun, profile: Mapping[Config, float]) -> Speeds:
    """Speeds and rounds as the first tenth of a run shows them.

    The measured speed of a lease of d seconds over the profile's is f (1 - load / d): one line in 1 / d over all leases. What a
    model is faster or slower than that is counted with three leases that are as the line.

    Args:
        run: the physical run.
        profile: samples per second.
    """
    last = max(int(SHARE_LEARNED * len(run.rounds_s)), 2)
    period_s = (run.rounds_s[last] - run.rounds_s[0]) / last if last < len(run.rounds_s) else ROUND_S
    seen = list(_seen(run, profile, last))
    if len(seen) < _FEWEST_LEASES:
        return Speeds(period_s)
    ratio, length_s = np.array([one[2] for one in seen]), np.array([one[3] for one in seen])
    load_s = 0.0
    if np.ptp(length_s) > 0:
        slope, limit = np.polyfit(1 / length_s, ratio, 1).tolist()
        load_s = min(max(-slope / limit, 0.0), 0.5 * ROUND_S) if limit > 0 else 0.0
    overall = statistics.median((ratio / (1 - load_s / length_s)).tolist())
    logs = np.log(ratio / (1 - load_s / length_s) / overall)
    by_model: dict[str, float] = {}
    for model in {config[0] for _, config, _, _ in seen}:
        own = logs[[config[0] == model for _, config, _, _ in seen]]
        by_model[model] = overall * math.exp(float(own.sum()) / (len(own) + _LIKE_THE_LINE))
    by_job: dict[int, list[float]] = {}
    for (job, config, _, _), log in zip(seen, logs.tolist(), strict=True):
        by_job.setdefault(job, []).append(log - math.log(by_model[config[0]] / overall))
    means = [statistics.fmean(found) for found in by_job.values()]
    return Speeds(period_s, overall, by_model, load_s, statistics.stdev(means) if len(means) > 1 else 0.0)


def _seen(run: PhysicalRun, profile: Mapping[Config, float], last: int) -> Iterator[tuple[int, Config, float, float]]:
    """(job, configuration, speed over the profile's, seconds) of each lease that ended by this round and did not fail."""
    rounds: dict[int, list[int]] = {}
    for number, jobs in sorted(run.placements.items()):
        for job in jobs:
            rounds.setdefault(job, []).append(number)
    for job, leases in run.leases.items():
        since = 0
        for lease in leases:
            held = sum(since <= number < lease.until for number in rounds[job])
            since = lease.until
            if lease.until <= last and lease.samples_per_s > 0 and lease.config in profile and held:
                yield job, lease.config, lease.samples_per_s / profile[lease.config], held * ROUND_S


class PlacedDraws(Draws):
    """Seconds of each part of each job.

    Attributes:
        part_s: (PARTS_OF_JOB,) by the position of the job.
    """

    def __init__(self, truth: GroundTruth, part_s: list[np.ndarray]) -> None:
        super().__init__(truth, CloudTruth(), Streams(0))
        self.varies, self.part_s = True, part_s  # loading is the launch and the resume of the truth

    def iteration_s(self, trial: int, gpus: int, nodes: int) -> float:  # noqa: ARG002  the seconds are those of the job's gang
        """One, which `slowness` multiplies; see `Draws.iteration_s`."""
        return 1.0

    def slowness(self, trial: int, gpus: int) -> np.ndarray:  # noqa: ARG002
        """The seconds themselves; see `Draws.slowness`."""
        return self.part_s[trial]


def replay_physical(
    run: PhysicalRun, profile: Mapping[Config, float], mode: Mode, speeds: Speeds, seed: int | None = None
) -> Outcomes:
    """Simulate the recorded placements.

    Args:
        run: the physical run.
        profile: samples per second.
        mode: profile: the profile's speeds; learned: times these factors, after loading; measured: of each lease.
        speeds: what was learned.
        seed: of the luck of the jobs, drawn from the spread; None for none.
    """
    return _Replay(run, profile, mode, speeds if mode == "learned" else Speeds(speeds.period_s), seed).outcomes()


class _Replay:
    def __init__(
        self, run: PhysicalRun, profile: Mapping[Config, float], mode: Mode, speeds: Speeds, seed: int | None
    ) -> None:
        self._run, self._mode = run, mode
        self._jobs = list(run.jobs.values())
        self._at = {job.job: position for position, job in enumerate(self._jobs)}
        luck = np.zeros(len(self._jobs))
        if seed is not None:
            luck = Streams(seed).rng("physical-jobs").normal(0.0, speeds.spread, len(self._jobs))
        parts = [_part_s(job, profile, speeds) * math.exp(-luck[at]) for at, job in enumerate(self._jobs)]
        load = Timings(launch_s=speeds.load_s, rescale_s=speeds.load_s)
        scores, ones = np.zeros((len(self._jobs), PARTS_OF_JOB)), np.ones(len(self._jobs))
        truth = GroundTruth(scores, ones, scaling_of({1: 1.0}), load)
        self._draws = PlacedDraws(truth, parts)
        self._backend = SimulatedBackend(truth, CloudTruth(), Streams(0), draws=self._draws)
        self._period_s = speeds.period_s
        self._done = [0] * len(self._jobs)
        self._service_s = [0.0] * len(self._jobs)
        self._end_s: dict[int, float] = {}
        self._running: dict[int, SegmentId] = {}
        self._waiting: dict[int, tuple[int, ...]] = {}
        self._last: dict[int, tuple[int, ...]] = {}
        self._last_round = {job: number for number, jobs in sorted(run.placements.items()) for job in jobs}
        self._round, self._segments = -1, 0

    def outcomes(self) -> Outcomes:
        """Play all rounds, and more of them until every job has ended."""
        backend, first_s = self._backend, self._run.first_s
        for worker in range(self._run.workers):
            backend.perform(ProvisionInstance(InstanceId(worker), "gpu", ON_DEMAND))
        self._set_round(0)
        while len(self._end_s) < len(self._jobs):
            event = backend.next_event()
            assert event is not None  # a timer for the next round is always set
            if isinstance(event, SegmentEnded):
                self._ended(event)
            elif isinstance(event, TimerFired):
                if event.tag == "round":
                    self._begin(event.at_s)
                else:
                    self._finish()
        backend.close()
        jobs = self._jobs
        return Outcomes(
            {job.job: self._end_s[job.job] - max(job.arrival_s, first_s) for job in jobs},
            {job.job: self._service_s[at] for at, job in enumerate(jobs)},
            max(self._end_s.values()) - first_s,
        )

    def _round_s(self, number: int) -> float:
        recorded = self._run.rounds_s
        beyond = max(number - len(recorded) + 1, 0)
        return recorded[min(number, len(recorded) - 1)] + beyond * self._period_s

    def _set_round(self, number: int) -> None:
        self._round = number - 1
        assert number < _ROUNDS_MORE * len(self._run.rounds_s), "a job does not end"
        self._backend.perform(StartTimer("round", self._round_s(number)))

    def _begin(self, at_s: float) -> None:
        """Start the jobs of the round, and set the times of its end and of the next one."""
        self._set_round(self._round + 2)
        number = self._round
        placed = dict(self._run.placements.get(number, {}))
        # The record has no more rounds of a job that was faster there; here it stays where it was.
        left = {job for job, last in self._last_round.items() if number > last and job not in self._end_s}
        placed |= {job: workers for job, workers in self._last.items() if job in left}
        for job, workers in placed.items():
            if job not in self._end_s and self._run.jobs[job].arrival_s <= at_s:
                self._last[job] = workers
                self._place(job, workers)
        self._backend.perform(StartTimer("end", at_s + min(ROUND_S, self._round_s(number + 1) - at_s)))

    def _place(self, job: int, workers: tuple[int, ...]) -> None:
        if job in self._running:
            if not self._goes_on(job, self._round - 1):
                self._waiting[job] = workers
            return
        at = self._at[job]
        if self._mode == "measured":
            lease = next((one for one in self._run.leases[job] if one.until > self._round), None)
            if lease is not None:
                if lease.samples_per_s <= 0:
                    return  # the lease failed, and trained nothing
                self._draws.part_s[at] = np.full(
                    PARTS_OF_JOB, self._run.jobs[job].samples / PARTS_OF_JOB / lease.samples_per_s
                )
        done, rounds = self._done[at], 1
        while self._goes_on(job, self._round + rounds - 1):
            rounds += 1
        longest_s = self._round_s(self._round + rounds) - self._round_s(self._round) + ROUND_S
        reach = int(np.searchsorted(np.cumsum(self._draws.part_s[at][done:]), longest_s)) + 2
        self._segments += 1
        self._running[job] = SegmentId(self._segments)
        placement = tuple((InstanceId(worker), 1) for worker in workers)
        self._backend.perform(
            StartSegment(
                SegmentId(self._segments), TrialId(at), placement, done, min(done + reach, PARTS_OF_JOB),
                restore_from=TrialId(at) if done else None,
            )
        )  # fmt: skip

    def _finish(self) -> None:
        for job, segment in self._running.items():
            if not self._goes_on(job, self._round):
                self._backend.perform(EndSegment(segment))

    def _goes_on(self, job: int, number: int) -> bool:
        """Whether a lease is extended: the job stays where it is in the next round, and trains on in between."""
        placements = self._run.placements
        now, then = placements.get(number, {}).get(job), placements.get(number + 1, {}).get(job)
        return now is not None and now == then and all(lease.until != number + 1 for lease in self._run.leases[job])

    def _ended(self, event: SegmentEnded) -> None:
        at = int(event.trial)
        job = self._jobs[at].job
        del self._running[job]
        self._done[at] = event.iteration
        self._service_s[at] += event.launch_s + event.train_s
        workers = self._waiting.pop(job, None)
        if event.iteration >= PARTS_OF_JOB:
            self._end_s[job] = event.at_s
        elif workers is not None:
            self._place(job, workers)


def _part_s(job: PhysicalJob, profile: Mapping[Config, float], speeds: Speeds) -> np.ndarray:
    """(PARTS_OF_JOB,) seconds of each part of a job, by the batch at its place."""
    shares = [share for share, _ in job.batches]
    speed = np.array(
        [profile[job.model, batch, job.gpus] * speeds.factor((job.model, batch, job.gpus)) for _, batch in job.batches]
    )
    at = np.searchsorted(np.array(shares), np.arange(PARTS_OF_JOB) / PARTS_OF_JOB, side="right") - 1
    seconds: np.ndarray = job.samples / PARTS_OF_JOB / speed[at]
    return seconds


def predicted_jcts(
    run: PhysicalRun, profile: Mapping[Config, float], speeds: Speeds, seeds: Sequence[int]
) -> Mapping[int, tuple[float, float]]:
    """By job, the 5 % and 95 % quantiles of its completion time with learned speeds.

    Args:
        run: the physical run.
        profile: samples per second.
        speeds: learned.
        seeds: one replay each.
    """
    drawn = [replay_physical(run, profile, "learned", speeds, seed).jct_s for seed in seeds]
    quantiles = {job: np.quantile([one[job] for one in drawn], [0.05, 0.95]).tolist() for job in run.jobs}
    return {job: (low, high) for job, (low, high) in quantiles.items()}
