"""A barrier answers by as little search as it takes, and never otherwise than one search for each question would."""

from __future__ import annotations

from statistics import pstdev
from types import SimpleNamespace

import numpy as np
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune.policies.execution.observed import Observed, deviation
from elastune.policies.planning.plan import Plan, Terms
from elastune.policies.rules.halving import rungs
from elastune.policies.seer.barrier import Barrier, StagesLeft
from elastune.policies.seer.mechanisms import TowardsR
from elastune.policies.seer.seer import SeerReplanner
from elastune.policies.sizing.replanning import AtBarrier, terms_left
from elastune.sim.model.ids import TrialId
from elastune.sim.model.scaling import PowerScaling

TRIALS = 9


def barrier_of(world, seed):
    """A replanner and the barrier after its first rung, whose trials took what they took; all but some were seen."""
    rng = np.random.default_rng(seed)
    tiny = world(
        trials=TRIALS,
        iterations=9,
        gpus=2,
        quota=4,
        scaling=PowerScaling(0.8, 8),
        timings=(2.0, 1.0, 4.0),
        startup=(2.0, 20.0),
        deadline_s=float(rng.uniform(60, 900)),
        budget_usd=float(rng.uniform(60, 1500)),
    )
    observed = Observed(tiny.profile)
    for number, seconds in enumerate(10.0 * rng.lognormal(0.0, rng.choice([0.1, 0.5, 1.0]), TRIALS)):
        if rng.random() < 0.9:
            observed.segment(SimpleNamespace(trial=TrialId(number), train_s=float(seconds)), 1, 1)
    terms, mechanisms = Terms.of(tiny.job, tiny.profile, tiny.book), TowardsR()
    plan = Plan(rungs(tiny.job), (), (), 0.0, 0.0)
    at = AtBarrier(tiny.job, 0.0, 0.0, int(rng.integers(0, 4)))
    trials = [TrialId(number) for number in range(TRIALS)]
    barrier = Barrier(trials, at, observed, terms, mechanisms)

    def is_found(left):
        profile = observed.profile(trials[: left.stages[0].trials], of_slowest=left.of_slowest)
        known, live = terms_left(terms, profile, at), at.live_instances
        return mechanisms.plan(left.stages, known, live_instances=live, is_resumed=True) is not None

    return SeerReplanner(plan, tiny.job, terms, mechanisms), barrier, is_found


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(0, 9), (1, 3)]), st.sampled_from([9, 6, 4]))
def test_the_most_survivors_are_those_that_are_found_one_number_after_the_other(world, seed, rung, target):
    replanner, barrier, is_found = barrier_of(world, seed)
    index, most = rung
    candidates = (
        StagesLeft(tuple(replanner._stages_left(index, count, target)), of_slowest)
        for count in range(most, 0, -1)
        for of_slowest in (True, False)
    )
    assert replanner._largest(index, barrier, target) == next(filter(is_found, candidates), None)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_a_barrier_allows_has_a_plan_and_nothing_else_has(world, seed):
    replanner, barrier, is_found = barrier_of(world, seed)
    left = replanner._largest(1, barrier, 9)
    if left is not None:
        barrier.plan(left)
    for count in range(1, TRIALS + 1):
        for stages in (replanner._stages_left(1, count, 9), replanner._stages_left(0, count, 9)):
            asked = StagesLeft(tuple(stages), of_slowest=False)
            assert barrier.allows(asked) == is_found(asked)
            assert (barrier.plan(asked) is not None) == is_found(asked)


def test_a_question_is_searched_once(world, monkeypatch):
    searched = []
    replanner, barrier, _ = barrier_of(world, 1)
    left = StagesLeft(tuple(replanner._stages_left(1, 2, 9)), of_slowest=False)
    search = TowardsR.search
    monkeypatch.setattr(
        TowardsR, "search", lambda self, *args, **state: searched.append(args) or search(self, *args, **state)
    )
    assert barrier.plan(left) == barrier.plan(left)
    assert barrier.allows(left) == barrier.allows(left)
    assert len(searched) <= 1


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=70))
def test_the_deviation_is_that_of_the_standard_library_to_the_last_bit(values):
    assert deviation(values) == pstdev(values)
