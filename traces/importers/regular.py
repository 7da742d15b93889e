"""Curves as a bundle needs them: every trial from iteration 1 without a gap, complete unless it diverged.

Imports the standard library, numpy, sim.model.errors, traces.formats and traces.importers.recording. Only what `CurveRules`
asks for is repaired. Anything else is an error that names the rule that would help.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.traces.formats.limits import LONGEST_S, are_too_large, too_large, too_long

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.traces.importers.recording import CurveRules, Points, RecordedCurves

_COUNTED_FROM_0 = "if they are counted from 0, --iteration-zero first adds 1"
_MOST = 1e12  # floats tell larger numbers of steps apart, but a slip is likelier
_LONGEST_START_S = 3600.0
_SLOWEST_START = 100.0
"""A first iteration may take an hour and 100 times the others; beyond that, the clock began before the trial."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RegularCurves:
    """The points of a recording that a bundle takes.

    Attributes:
        points: sorted by trial and iteration, which counts from 1 in each trial; `elapsed_s` has become `seconds`.
        kept: (trials,) bool; which trials of the recording are left.
        timed: (trials,) int; iterations that each trial trained itself, including those beyond the cut.
        max_iterations: length of a complete curve.
        step: recorded units per iteration: 5 where every fifth was recorded.
        ended: names of trials that are taken to have diverged.
        zeros: points of an iteration 0 that were left out.
        cut: points beyond the iterations that were asked for, also left out.
    """

    points: Points
    kept: np.ndarray
    timed: np.ndarray
    max_iterations: int
    step: int
    ended: Sequence[str]
    zeros: int
    cut: int


def regular_curves(recording: RecordedCurves, rules: CurveRules) -> RegularCurves:
    """The curves of a recording, as the rules ask.

    Raises:
        InvalidTraceError: they are not what a bundle needs, and no rule says what to do about it.
        InputError: nothing is left.
    """
    points = _in_order(recording, rules)
    if not len(points):
        raise InvalidTraceError(recording.origin, "has no points of any curve")
    _check_scores(recording, points)
    points = _with_seconds(recording, points)
    points, step = _counted_from_1(recording, points, rules)
    zeros = len(recording.points) - len(points)
    timed = points if points.inherited is None else points.taken(~points.inherited)
    cut = _cut(recording, points, rules)
    points = points.taken(points.iteration <= cut)
    beyond = len(recording.points) - zeros - len(points)
    points, kept, ended, longest = _complete(recording, points, rules)
    return RegularCurves(
        points=points,
        kept=kept,
        timed=timed.lengths(len(recording.labels)),
        max_iterations=longest,
        step=step,
        ended=ended,
        zeros=zeros,
        cut=beyond,
    )


def _check_scores(recording: RecordedCurves, points: Points) -> None:
    for column in ("score", "test_score"):
        scores = getattr(points, column)
        wrong = np.flatnonzero(are_too_large(scores) if scores is not None else ())
        if wrong.size:
            at = _first(points, wrong)
            raise recording.wrong(points, at, column, too_large(scores[at]))


def _cut(recording: RecordedCurves, points: Points, rules: CurveRules) -> int:
    """The last iteration that is kept."""
    longest = int(points.iteration.max())
    if rules.iterations is not None and not 1 <= rules.iterations <= longest:
        raise InputError(
            f"{recording.origin}: asked to keep {rules.iterations} iterations, but the longest curve has {longest}"
        )
    return rules.iterations or longest


def _first(points: Points, wrong: np.ndarray) -> int:
    """The position that comes first in the file."""
    return int(wrong[0] if points.row is None else wrong[np.argmin(points.row[wrong])])


def _in_order(recording: RecordedCurves, rules: CurveRules) -> Points:
    """Sorted by trial and iteration, each pair once, iterations whole numbers.

    Of several points of an iteration 0 that is left out, the first says when the clock began.
    """
    points = recording.points
    whole = (points.iteration == np.floor(points.iteration)) & (points.iteration >= 0) & (points.iteration <= _MOST)
    if not whole.all():
        at = _first(points, np.flatnonzero(~whole))
        raise recording.wrong(
            points,
            at,
            "iteration",
            f"is {points.iteration[at]:g}, but must be a whole number, 0 or more, up to {_MOST:g}",
        )
    points = points.taken(np.lexsort((points.iteration, points.trial)))
    is_repeated = np.zeros(len(points), dtype=bool)
    is_repeated[1:] = (np.diff(points.trial) == 0) & (np.diff(points.iteration) == 0)
    left_out = is_repeated & (points.iteration == 0) & (rules.iteration_zero == "drop")
    twice = np.flatnonzero(is_repeated & ~left_out)
    if twice.size:
        at = _first(points, twice)
        first = "" if points.row is None else f" in row {points.row[at - 1]}"
        problem = f"iteration {points.iteration[at]:g} was already given{first}; keep one row of each iteration"
        raise recording.wrong(points, at, "iteration", problem)
    return points.taken(~left_out)


def _with_seconds(recording: RecordedCurves, points: Points) -> Points:
    """Seconds of each iteration, checked; from the elapsed ones where those were recorded."""
    column, seconds = "seconds", points.seconds
    if points.elapsed_s is not None:
        column, seconds = "elapsed_s", _differences(recording, points, points.elapsed_s)
    if seconds is None:
        return points
    untimed = np.isnan(seconds) & np.isfinite(points.score)
    wrong = np.flatnonzero((seconds < 0) | (seconds > LONGEST_S) | untimed)
    if wrong.size:
        at = _first(points, wrong)
        problem = f"iteration {points.iteration[at]:g} has {seconds[at]:g} seconds, "
        if seconds[at] > LONGEST_S and np.isfinite(seconds[at]):
            problem += too_long(seconds[at])
        else:
            problem += (
                "but every iteration with a score needs a number >= 0; leave seconds out altogether with --untimed"
            )
        raise recording.wrong(points, at, column, problem)
    return replace(points, seconds=seconds, elapsed_s=None)


def _differences(recording: RecordedCurves, points: Points, elapsed_s: np.ndarray) -> np.ndarray:
    """Seconds since the point before, or since 0 at the first of a trial."""
    before = np.zeros_like(elapsed_s)
    before[1:] = np.where(np.diff(points.trial) == 0, elapsed_s[:-1], 0.0)
    falling = np.flatnonzero(elapsed_s < before)
    if falling.size:
        at = _first(points, falling)
        problem = (
            f"elapsed seconds fall from {before[at]:g} to {elapsed_s[at]:g} at iteration {points.iteration[at]:g}; if they"
            " are the seconds of each iteration, name them as seconds instead of elapsed"
        )
        raise recording.wrong(points, at, "elapsed_s", problem)
    seconds: np.ndarray = elapsed_s - before
    _check_beginning(recording, points, seconds)
    return seconds


def _check_beginning(recording: RecordedCurves, points: Points, seconds: np.ndarray) -> None:
    """Elapsed seconds count from the start of the trial, not from 1970 or the start of the machine."""
    begins = np.flatnonzero(np.diff(points.trial, prepend=-1))
    largest = np.zeros(len(recording.labels))
    later = np.setdiff1d(np.arange(len(points)), begins)
    np.maximum.at(largest, points.trial[later], np.nan_to_num(seconds[later]))
    of_first, rest = seconds[begins], np.minimum(largest[points.trial[begins]], LONGEST_S)
    wrong = begins[(of_first > LONGEST_S) | ((rest > 0) & (of_first > _LONGEST_START_S + _SLOWEST_START * rest))]
    if wrong.size:
        at = _first(points, wrong)
        problem = (
            f"elapsed seconds begin at {seconds[at]:g}, but iterations take at most {largest[points.trial[at]]:g} s: they must"
            " count from the start of the trial; subtract the time at which it started"
        )
        raise recording.wrong(points, at, "elapsed_s", problem)


def _counted_from_1(recording: RecordedCurves, points: Points, rules: CurveRules) -> tuple[Points, int]:
    """Iterations 1, 2, 3, ... of each trial, and how many recorded units each of them is."""
    if rules.iteration_zero == "first":
        points = replace(points, iteration=points.iteration + 1)
    zero = np.flatnonzero(points.iteration == 0)
    if zero.size and rules.iteration_zero == "error":
        problem = (
            "has an iteration 0: is it the first, all being counted from 0 (--iteration-zero first), or was it recorded"
            " before training (--iteration-zero drop)?"
        )
        raise recording.wrong(points, _first(points, zero), "iteration", problem)
    points = points.taken(points.iteration > 0)
    if not len(points):
        raise InvalidTraceError(recording.origin, "has no iteration after 0", column=recording.columns["iteration"])
    step = points.iteration.min()
    before = np.zeros_like(points.iteration)
    before[1:] = np.where(np.diff(points.trial) == 0, points.iteration[:-1], 0)
    wrong = np.flatnonzero(points.iteration != before + step)
    if wrong.size:
        at = _first(points, wrong)
        raise recording.wrong(points, at, "iteration", _gap(points, at, before[at], step))
    return replace(points, iteration=points.iteration / step), int(step)


def _gap(points: Points, at: int, before: float, step: float) -> str:
    """What is wrong with an iteration that is not the one before plus the step."""
    needed = "a bundle needs every iteration (1, 2, 3, ...) or every k-th (k, 2k, 3k, ...) of each trial"
    shifted = points.iteration + 1
    if before == 0:
        problem = f"starts at iteration {points.iteration[at]:g}, but the first recorded anywhere is {step:g}; {needed}"
    else:
        problem = f"jumps from iteration {before:g} to {points.iteration[at]:g}; {needed}"
    return f"{problem}; {_COUNTED_FROM_0}" if not (shifted % (step + 1)).any() else problem


def _complete(
    recording: RecordedCurves, points: Points, rules: CurveRules
) -> tuple[Points, np.ndarray, list[str], int]:
    """All points of trials that are complete, which those are, who was ended, and the full length."""
    trials = len(recording.labels)
    lengths = points.lengths(trials)
    longest = int(lengths.max())
    last = np.full(trials, np.nan)
    ends = np.flatnonzero(np.diff(points.trial, append=-1))
    last[points.trial[ends]] = points.score[ends]
    absent = lengths == 0
    short = absent | ((lengths < longest) & np.isfinite(last))
    if not short.any():
        return points, ~short, [], longest
    if rules.incomplete == "drop":
        if short.all():
            raise InputError(f"{recording.origin}: every trial is incomplete, none is left")
        return points.taken(~short[points.trial]), ~short, [], longest
    if rules.incomplete == "error":
        raise _too_short(recording, points, short, lengths)
    ended = _ended_in_nan(points, np.flatnonzero(short), lengths)
    return ended, np.full(trials, True), recording.names(short), longest


def _too_short(recording: RecordedCurves, points: Points, short: np.ndarray, lengths: np.ndarray) -> InvalidTraceError:
    trial = int(np.flatnonzero(short)[0])
    counted = sorted(Counter(lengths.tolist()).items(), reverse=True)
    listed = ", ".join(f"{count} x {length}" for length, count in counted[:5]) + (", ..." if counted[5:] else "")
    which = f"ends at iteration {lengths[trial]} of {lengths.max()}" if lengths[trial] else "has no curve"
    problem = (
        f"{which}; {int(short.sum())} of {len(short)} trials are incomplete, though they did not diverge (trials x"
        f" iterations: {listed}): leave such trials out with --incomplete drop, cut all curves with --iterations N, or say"
        " that they did diverge with --incomplete diverged"
    )
    if not lengths[trial]:
        message = f"trial {recording.name(trial)}: {problem}"
        return InvalidTraceError(recording.origin, message, column=recording.columns["iteration"])
    at = int(np.flatnonzero(points.trial == trial)[-1])
    return recording.wrong(points, at, "iteration", problem)


def _ended_in_nan(points: Points, trials: np.ndarray, lengths: np.ndarray) -> Points:
    """The points, and one without a score after the last of each of these trials."""
    nothing = np.full(len(trials), np.nan)

    def longer(array: np.ndarray | None, added: np.ndarray) -> np.ndarray | None:
        return None if array is None else np.concatenate([array, added])

    joined = replace(
        points,
        trial=np.concatenate([points.trial, trials]),
        iteration=np.concatenate([points.iteration, lengths[trials] + 1]),
        score=np.concatenate([points.score, nothing]),
        test_score=longer(points.test_score, nothing),
        seconds=longer(points.seconds, nothing),
        inherited=longer(points.inherited, np.zeros(len(trials), dtype=bool)),
        row=None,
    )
    return joined.taken(np.lexsort((joined.iteration, joined.trial)))
