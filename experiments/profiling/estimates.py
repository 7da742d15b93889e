"""Estimates from timed segments: medians with their intervals, speed-ups, and the spread of iterations.

Imports the standard library and `experiments.profiling.records`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elastune.experiments.profiling.records import GangShape, SegmentRecord

ALONE = GangShape(1, 1)
_CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A median with an interval between two order statistics, whatever the distribution.

    Attributes:
        value: the median.
        low: lower end of the interval.
        high: upper end.
        coverage: probability that the interval holds the true median; at least 0.95 from 6 samples on.
        samples: number of samples. With fewer than 6, the interval is their range.
    """

    value: float
    low: float
    high: float
    coverage: float
    samples: int

    @classmethod
    def of(cls, samples: Iterable[float]) -> Estimate | None:
        """The median of some numbers; None if there are none."""
        ordered = sorted(samples)
        count = len(ordered)
        if not ordered:
            return None
        # P(the median lies outside the k-th and the k-th last of n) = 2 P(Binomial(n, 1/2) < k). In whole numbers, because a
        # thousand samples give numbers too large for a float.
        left_out, below, ways = 0, 1, 1
        while left_out + 1 < (count + 1) // 2:
            ways = ways * (count - left_out) // (left_out + 1)
            if 2 * (below + ways) / 2**count > 1 - _CONFIDENCE:
                break
            left_out, below = left_out + 1, below + ways
        outside = 2 * below / 2**count
        low, high = ordered[left_out], ordered[-1 - left_out]
        return cls(statistics.median(ordered), low, high, max(1.0 - outside, 0.0), count)

    @property
    def half_width(self) -> float:
        """Half the width of the interval, relative to the median."""
        return (self.high - self.low) / 2 / self.value


class Spread(NamedTuple):
    """Coefficients of variation of an iteration's duration; None if there are too few samples.

    Attributes:
        per_iteration: within a segment.
        workers: between fresh worker groups with one configuration.
        configurations: between configurations, beyond their relative costs.
    """

    per_iteration: float
    workers: float | None
    configurations: float | None

    @property
    def persistent(self) -> float | None:
        """Variation that lasts for a segment: workers and configurations together, as far as known."""
        known = [cv for cv in (self.workers, self.configurations) if cv is not None]
        return math.sqrt(math.prod(1 + cv**2 for cv in known) - 1) if known else None


def mean_and_cv(samples: Sequence[float]) -> tuple[float, float]:
    """The mean of some numbers, and their coefficient of variation; 0 where they are too few or their mean is 0."""
    mean = statistics.fmean(samples)
    return mean, statistics.stdev(samples) / mean if len(samples) > 1 and mean else 0.0


@dataclass(frozen=True)
class Timing:
    """Results of a timing profile, in seconds of the wall clock.

    Attributes:
        iteration_s: on one GPU at relative cost 1, evaluation included.
        evaluate_s: the part of it that is evaluation.
        speedups: of training, without evaluation, over one GPU, by gang.
        train_s: of an iteration without evaluation at relative cost 1, by gang.
        launch_s: of a new trial: all time but training and saving, as in the ledger of a run.
        resume_s: the same of a trial that continues from a checkpoint.
        checkpoint_s: writing a checkpoint.
        rescale_s: the checkpoint on one gang and the launch on the next.
        checkpoint_bytes: median size.
        spread: of an iteration's duration.
        busyness: median over segments of mean over median iteration; far above 1 if other work ran beside it.
    """

    iteration_s: Estimate
    evaluate_s: Estimate
    speedups: Mapping[GangShape, Estimate]
    train_s: Mapping[GangShape, Estimate]
    launch_s: Estimate
    resume_s: Estimate
    checkpoint_s: Estimate
    rescale_s: Estimate
    checkpoint_bytes: int
    spread: Spread
    busyness: float


def timing_of(series: Sequence[Sequence[SegmentRecord]], relative_cost: Mapping[int, float]) -> Timing:
    """Estimates from these segments.

    Args:
        series: at least two segments of one trial each; some are of gangs of one.
        relative_cost: by row of the bundle.
    """
    records = [record for segments in series for record in segments]
    alone = [record for record in records if record.shape == ALONE]
    shapes = sorted({record.shape for record in records})
    pairs = [pair for segments in series for pair in itertools.pairwise(segments)]
    return Timing(
        iteration_s=_known(record.iteration_s / relative_cost[record.row] for record in alone),
        evaluate_s=_known(record.evaluate_s / relative_cost[record.row] for record in alone),
        speedups={shape: _speedup(records, shape) for shape in shapes},
        train_s={
            shape: _known(record.train_s / relative_cost[record.row] for record in records if record.shape == shape)
            for shape in shapes
        },
        launch_s=_known(record.launch_s for record in records if record.is_fresh),
        resume_s=_known(record.launch_s for record in records if not record.is_fresh),
        checkpoint_s=_known(record.checkpoint_s for record in records),
        rescale_s=_known(before.checkpoint_s + after.launch_s for before, after in pairs),
        checkpoint_bytes=round(statistics.median(record.checkpoint_bytes for record in records)),
        spread=_spread(records, relative_cost),
        busyness=statistics.median(record.mean_iteration_s / record.iteration_s for record in records),
    )


def _known(samples: Iterable[float]) -> Estimate:
    found = Estimate.of(samples)
    assert found is not None, "each series has a fresh segment and one that goes on, and some gang is alone"
    return found


def _speedup(records: Sequence[SegmentRecord], shape: GangShape) -> Estimate:
    """Speed-up of training. Each configuration and round is compared with itself on one GPU, so that differences cancel."""
    if shape == ALONE:
        return Estimate(1.0, 1.0, 1.0, 1.0, sum(record.shape == ALONE for record in records))
    alone_s = _medians(records, ALONE, lambda record: record.train_s)
    gang_s = _medians(records, shape, lambda record: record.train_s)
    return _known(alone_s[key] / seconds for key, seconds in gang_s.items())


def _medians(
    records: Sequence[SegmentRecord], shape: GangShape, number: Callable[[SegmentRecord], float]
) -> dict[tuple[int, int], float]:
    """By configuration and round."""
    found: dict[tuple[int, int], list[float]] = {}
    for record in records:
        if record.shape == shape:
            found.setdefault((record.row, record.round), []).append(number(record))
    return {key: statistics.median(numbers) for key, numbers in found.items()}


def _spread(records: Sequence[SegmentRecord], relative_cost: Mapping[int, float]) -> Spread:
    """Variance components of the logarithms of segment medians, around the mean of each gang."""
    per_iteration = statistics.median(record.iteration_cv for record in records)
    within: list[float] = []
    between: list[float] = []
    for shape in sorted({record.shape for record in records}):
        logs: dict[int, list[float]] = {}
        for record in records:
            if record.shape == shape:
                logs.setdefault(record.row, []).append(math.log(record.iteration_s / relative_cost[record.row]))
        of_workers = [statistics.variance(of_row) for of_row in logs.values() if len(of_row) > 1]
        within += of_workers
        if len(logs) > 1:
            fewest = min(len(of_row) for of_row in logs.values())
            explained = statistics.fmean(of_workers) / fewest if of_workers else 0.0
            means = [statistics.fmean(of_row) for of_row in logs.values()]
            between.append(statistics.variance(means) - explained)
    return Spread(
        per_iteration,
        _cv(statistics.fmean(within)) if within else None,
        _cv(statistics.fmean(between)) if between else None,
    )


def _cv(log_variance: float) -> float:
    """Coefficient of variation of a log-normal; 0 if the variation is less than chance."""
    return math.sqrt(math.expm1(max(log_variance, 0.0)))
