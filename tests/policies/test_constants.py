"""Numbers that decide seldom, each pinned where it decides; worked out by hand.

Machines have one GPU and cost 1 USD a second; speed-up is linear.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from elastune.policies.execution.observed import Observed
from elastune.policies.planning.plan import Allocation, Plan, Terms
from elastune.policies.rules.halving import Bracket, Stage, rungs
from elastune.policies.seer.director import SeerDirector
from elastune.policies.seer.mechanisms import TowardsR
from elastune.policies.seer.seer import SeerReplanner
from elastune.policies.sizing.sizing import largest
from elastune.policies.sizing.targets import winner_targets
from elastune.sim.model.events import Outcome, ProgressReported, SegmentEnded
from elastune.sim.model.ids import TrialId


def reported(at_s, iteration):
    return ProgressReported(at_s, TrialId(0), 0, iteration, 1.0)


def ended(trial, iterations, train_s):
    return SegmentEnded(0.0, trial, trial, iterations, iterations, 1.0, Outcome.COMPLETED, 0.0, train_s, 0.0)


@pytest.mark.parametrize(
    ("rule", "rescale_s", "gpus"),
    [
        # 20 of 22 iterations of 1 s are left, and the trial is late. Two GPUs would do 2 x (20 - 8.95) = 22.1 of them.
        ("gain", 8.95, 2),
        # 2 x (20 - 9.05) = 21.9 is more than 20, but by less than a tenth.
        ("gain", 9.05, 1),
        ("always", 9.05, 2),
        # The 19 that follow the one under way would take 9.5 + 9.6 s instead of 19 s.
        ("always", 9.6, 1),
        ("never", 1.0, 1),
    ],
)
def test_a_late_trial_gets_more_gpus_if_it_gains_a_tenth(world, rule, rescale_s, gpus):
    tiny = world(trials=2, iterations=22, timings=(0.0, 0.0, rescale_s), gpus=2, quota=1, deadline_s=10.0)
    stages = (Stage(2, 22, 22),)
    plan = Plan(stages, (Allocation(2, 2, 1, 2),), (22.0,), 22.0, 22.0)
    terms = Terms.of(tiny.job, tiny.profile, tiny.book)
    director = SeerDirector(plan, terms, tiny.job, TowardsR(resize_rule=rule), replanner=None)
    bracket = Bracket(stages, [TrialId(0), TrialId(1)], "minimize")
    trial = SimpleNamespace(gpus=1, iteration=2, checkpoint_iteration=0)
    view = SimpleNamespace(now_s=2.0, trial=lambda _: trial)
    director.shares(bracket, view, 10.0)
    director.observe_report(reported(1.0, 1), gpus=1)
    director.observe_report(reported(2.0, 2), gpus=1)
    assert director.resized(bracket, TrialId(0), 2, view) == gpus


def test_what_is_learned_of_the_speed_up_is_the_mean_of_all_that_was_seen(world):
    observed = Observed(world(gpus=4).profile)
    for trial in range(3):
        observed.segment(ended(trial, 10, 100.0), 1, 10)
    # One GPU takes 10 s an iteration. Two take 6 s: 2/3 of the gain that was believed; four take 4 s: half; then two take 10 s.
    observed.segment(ended(0, 1, 6.0), 2, 1)
    observed.segment(ended(1, 1, 4.0), 4, 1)
    observed.segment(ended(2, 1, 10.0), 2, 1)
    gain = (2 / 3 + 1 / 2 + 0) / 3
    assert observed.scaling().speedup(2) == pytest.approx(1 + gain)
    assert observed.scaling().speedup(4) == pytest.approx(1 + 3 * gain)


@pytest.mark.parametrize(
    ("budget_usd", "trials", "cost_usd"),
    [
        # Two survivors take 10 s and 20 s an iteration; two iterations each would be followed by two of the winner. If the
        # slower one wins, 4 x 20 USD are due ...
        (99.0, 2, 80.0),
        # ... which 75 USD do not pay; but they pay an average winner.
        (75.0, 2, None),
        # If not that either, the worse one is dropped: 3 x 10 USD.
        (40.0, 1, 30.0),
    ],
)
def test_a_new_plan_insures_against_the_slowest_winner_if_the_budget_pays_for_it(world, budget_usd, trials, cost_usd):
    tiny = world(
        trials=4, iterations=4, gpus=1, quota=2, reduction_factor=2, deadline_s=10_000.0, budget_usd=budget_usd
    )
    terms = Terms.of(tiny.job, tiny.profile, tiny.book)
    stages = rungs(tiny.job)
    assert [(stage.trials, stage.iterations) for stage in stages] == [(4, 1), (2, 1), (1, 2)]
    bracket = Bracket(stages, [TrialId(number) for number in range(4)], "minimize")
    for number in range(4):
        bracket.record(TrialId(number), float(number))
    bracket.advance()
    observed = Observed(tiny.profile)
    observed.segment(ended(0, 1, 10.0), 1, 1)
    observed.segment(ended(1, 1, 20.0), 1, 1)
    plan = Plan(stages, (), (), 0.0, 0.0)
    replanner = SeerReplanner(plan, tiny.job, terms, TowardsR(objective="largest_n"))
    view = SimpleNamespace(job=tiny.job, now_s=0.0, committed_usd=0.0, instances={})
    replanned = replanner.replanned(bracket, view, observed)
    assert replanned.stages[0].trials == trials
    assert replanned.cost_usd <= budget_usd
    if cost_usd is not None:
        assert replanned.cost_usd == pytest.approx(cost_usd)


@pytest.mark.parametrize(
    ("min_iterations", "targets"),
    # The whole of R = 60, two thirds, half, a third and a fifth; none below two rungs of 10 and 30.
    [(1, [60, 40, 30, 20, 12]), (10, [60, 40, 30])],
)
def test_a_winner_may_be_trained_to_a_share_of_the_end(world, min_iterations, targets):
    tiny = world(trials=4, iterations=60, min_iterations=min_iterations, reduction_factor=3)
    constant = SimpleNamespace(is_prefix_schedule=True)
    decaying = SimpleNamespace(is_prefix_schedule=False)
    assert winner_targets(tiny.job, constant, "always") == winner_targets(tiny.job, decaying, "always") == targets
    assert winner_targets(tiny.job, constant, "prefix-only") == targets
    assert winner_targets(tiny.job, decaying, "prefix-only") == [60]
    assert winner_targets(tiny.job, constant, "never") == [60]


def test_the_search_for_the_largest_number_begins_a_tenth_above_what_the_budget_can_pay(world):
    # 995 USD pay 995 s, which is 99 configurations of 10 s; 1.1 times as many seconds are 109, and a tenth of these is 10.
    tiny = world(trials=200, iterations=1, gpus=1, budget_usd=995.0)
    tried = []
    assert largest(tiny.job, Terms.of(tiny.job, tiny.profile, tiny.book), tried.append) is None
    assert [stages[0].trials for stages in tried] == list(range(109 + 10, 0, -1))
