"""The same table of 200 configurations, decided by Optuna 5.0 and Syne Tune 0.13: see tests/references/record_decisions.py."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from elastune.policies.execution.asynchronous import AsynchronousPolicy
from elastune.policies.execution.limits import Limits
from elastune.policies.rules.halving import AsynchronousRung, Bracket, rungs
from elastune.policies.tuners.asha_stopping import StoppingRule
from elastune.policies.tuners.hyperband import bracket_sizes, bracket_stages
from elastune.policies.tuners.pasha import PashaRule
from elastune.policies.tuners.promotion import PromotionRule
from elastune.sim.model.commands import StartSegment
from elastune.sim.model.events import SegmentEnded
from elastune.sim.model.ids import TrialId
from elastune.sim.model.job import TuningJob

REFERENCES = Path(__file__).parents[1] / "references"
ETA, LAST = 3, 27


@pytest.fixture(scope="module")
def scores():
    with (REFERENCES / "table.csv").open(encoding="utf-8") as stream:
        return [[float(cell) for cell in row] for row in csv.reader(stream)]


@pytest.fixture(scope="module")
def optuna():
    return json.loads((REFERENCES / "optuna.json").read_text(encoding="utf-8"))["decisions"]


@pytest.fixture(scope="module")
def syne_tune():
    return json.loads((REFERENCES / "syne_tune.json").read_text(encoding="utf-8"))["decisions"]


def the_job(trials=200):
    return TuningJob(trials=trials, min_iterations=1, max_iterations=LAST, reduction_factor=ETA)


def survivors(bracket, scores):
    """Who is left after each rung but the last."""
    left = []
    while not bracket.is_last:
        level = bracket.stage.until_iteration
        for trial in bracket.trials:
            bracket.record(trial, scores[trial][level - 1])
        bracket.advance()
        left.append({"iteration": level, "survivors": sorted(bracket.trials)})
    return left


@pytest.mark.parametrize("size", [200, 81, 32])
def test_sha_keeps_the_same_trials_as_optuna(size, scores, optuna):
    """Rungs of floor(n / eta^k). Optuna judges each trial as the last to come to its rung."""
    bracket = Bracket(rungs(the_job(size)), [TrialId(number) for number in range(size)], "minimize")
    assert survivors(bracket, scores) == optuna["sha"][str(size)]


def test_hyperband_has_the_same_brackets_and_keeps_the_same_trials_as_optuna(scores, optuna):
    job, first = the_job(), 0
    assert list(bracket_sizes(job)) == [bracket["trials"] for bracket in optuna["hyperband"]] == [27, 12, 6, 4]
    for number, (size, expected) in enumerate(zip(bracket_sizes(job), optuna["hyperband"], strict=True)):
        trials = [TrialId(first + at) for at in range(size)]
        bracket = Bracket(bracket_stages(job, number, size), trials, "minimize")
        assert survivors(bracket, scores) == expected["rungs"]
        first += size


@pytest.fixture
def worker(world, play):
    """What one worker does under a policy, in order: [trial, until iteration], cut to what was recorded."""

    def tasks(build, scores, *, as_ended=False):
        tiny = world(scores=scores, gpus=1, quota=1, max_iterations=LAST, reduction_factor=ETA)
        story = play(build(tiny), tiny, tiny.streams)
        if as_ended:
            return [[e.event.trial, e.event.iteration] for e in story.entries if isinstance(e.event, SegmentEnded)]
        orders = (order for entry in story.entries for order in entry.commands if isinstance(order, StartSegment))
        return [[order.trial, order.until_iteration] for order in orders]

    return tasks


def under(rule):
    """A rule on one machine."""
    return lambda tiny: AsynchronousPolicy(rule, Limits(tiny.job, tiny.profile, tiny.book), instances=1)


def assert_same(ours, recorded):
    """The record ends when the scheduler asks for a configuration beyond the table; we know that there is none, and go on."""
    assert ours[: len(recorded)] == recorded
    assert len({trial for trial, _ in recorded}) == 200
    # What follows are promotions only.
    assert all(until > 1 for _, until in ours[len(recorded) :])


def test_asha_promotes_as_syne_tune_does_under_the_papers_cutoff(worker, scores, syne_tune):
    """Algorithm 2 promotes the top floor(n / eta); Syne Tune was given that cutoff, everything else of it is as shipped."""

    assert_same(worker(under(PromotionRule(the_job(), 200)), scores), syne_tune["promotion, the paper's cutoff"])


class RoundedUp(AsynchronousRung):
    """Syne Tune's own cutoff, the quantile 1 / eta: the top ceil(n / eta), from two records on.

    floor((n + eta - 1) / eta) = ceil(n / eta): eta - 1 records that are worse than all others make the difference.
    """

    __slots__ = ()

    def record(self, trial, loss):
        super().record(trial, loss)
        if self.size == 2:
            for ghost in range(ETA - 1):
                super().record(TrialId(10**6 + ghost), math.inf)


def test_with_syne_tunes_cutoff_the_promotions_are_those_of_syne_tune_as_shipped(worker, scores, syne_tune):
    rule = PromotionRule(the_job(), 200)
    rule._rungs = [RoundedUp(ETA) for _ in rule.levels]
    recorded = syne_tune["promotion"]
    assert_same(worker(under(rule), scores), recorded)
    assert recorded != syne_tune["promotion, the paper's cutoff"]


def test_stopping_asha_stops_the_same_trials_as_syne_tune_at_the_same_rungs(worker, scores, syne_tune):
    assert worker(under(StoppingRule(the_job(), 200)), scores, as_ended=True) == syne_tune["stopping"]


def calm(scores):
    """As in record_decisions.py."""
    return [[row[-1] + (value - row[-1]) / 1000 for value in row] for row in scores]


def test_pasha_raises_its_highest_rung_when_syne_tune_does(worker, scores, syne_tune):
    assert_same(worker(under(PashaRule(the_job(), 200)), scores), syne_tune["pasha, the paper's cutoff"])


def test_pasha_leaves_its_highest_rung_where_syne_tune_does(worker, scores, syne_tune):
    rule = PashaRule(the_job(), 200)
    recorded = syne_tune["pasha, the paper's cutoff, calm"]
    assert_same(worker(under(rule), calm(scores)), recorded)
    assert max(until for _, until in recorded) == rule._promotions.levels[rule.top] < LAST
