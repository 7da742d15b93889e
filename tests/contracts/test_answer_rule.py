"""The answer of a run is the trial whose latest durable checkpoint has the best score, in simulation and in reality."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from elastune.experiments.real.result import real_answer
from elastune.policies.registry import factory
from elastune.sim.bridge.workers.checkpoint import SavedCheckpoint
from elastune.sim.model.actions import FinishRun
from elastune.sim.model.events import SegmentEnded

EARLY_BEST = [[0.1, 0.3, 0.5], [0.2, 0.3, 0.4]]
"""Trial 0 is best after one iteration and goes on, only to become worse than trial 1 was there."""
STEADY = [[0.3, 0.2, 0.1], [0.4, 0.3, 0.2]]


def played(play, world, scores):
    tiny = world(scores=scores, reduction_factor=2)
    return play(factory("sha-fixed")(tiny.job, tiny.profile, tiny.book, None), tiny), tiny


@pytest.mark.parametrize(("scores", "winner"), [(EARLY_BEST, 1), (STEADY, 0)])
def test_only_the_latest_durable_checkpoint_of_a_trial_counts(play, world, scores, winner):
    story, _ = played(play, world, scores)
    ends = [entry.event for entry in story.entries if isinstance(entry.event, SegmentEnded)]
    latest = {end.trial: (end.checkpoint_iteration, end.score) for end in ends}
    assert latest[0][0] > latest[1][0], "trial 0 went on, trial 1 did not"
    assert story.best == winner == min(latest, key=lambda trial: latest[trial][1])
    assert [a.best for entry in story.entries for a in entry.actions if isinstance(a, FinishRun)] == [winner]


def checkpoint(iteration, score, test_score):
    return SavedCheckpoint(0, iteration, score, "data", 1, "digest", 0, test_score)


@pytest.mark.parametrize(
    ("iterations", "score", "test_score"),
    [((3, 2), 0.1, 0.13), ((4, 3), 0.1, 0.13), ((2,), 0.2, 0.12), ((), 0.1, None)],
)
def test_a_real_run_tells_the_score_of_the_checkpoint_that_can_be_loaded(play, world, iterations, score, test_score):
    """Of the newest ones in the store, at most as far as the run knows; an unknown or lost one gives way to the one before."""
    story, _ = played(play, world, STEADY)
    story.state.trials[0].configuration = {"lr": 0.1}
    story.state.trials[0].checkpoint_iteration = 3
    saved = {2: checkpoint(2, 0.2, 0.12), 3: checkpoint(3, 0.1, 0.13), 4: checkpoint(4, 0.0, 0.14)}
    store = SimpleNamespace(
        latest=lambda trial, at_most: next((saved[i] for i in iterations if trial == 0 and i <= at_most), None)
    )
    workload = SimpleNamespace(configurations=None)
    answer = real_answer(SimpleNamespace(spec=SimpleNamespace(workload=workload)), story.controller, store)
    assert (answer.score, answer.test_score) == (score, test_score)
