"""RubberBand planned for a percentile of the makespan instead of its mean."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from monte_carlo import sample

from elastune.experiments.contracts.policies import plain_world
from elastune.policies.planning.lateness import late_probability
from elastune.policies.planning.plan import Terms
from elastune.policies.registry import factory
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import Stragglers

VARIED = Stragglers(persistent_cv=0.3, per_iteration_cv=0.1)


def planned(makespan, deadline_s=None, stragglers=VARIED):
    """The plan that is run in a world with stragglers, and its terms."""
    world = plain_world()
    job = world.job if deadline_s is None else msgspec.structs.replace(world.job, deadline_s=deadline_s)
    profile = replace(world.profile, stragglers=stragglers)
    policy = factory("rubberband", {"makespan": makespan})(job, profile, world.price_book, np.random.default_rng(0))
    return policy._director.plan, Terms.of(job, profile, world.price_book)


def late_s(plan, terms):
    return np.quantile(sample(plan, terms, 4000, np.random.default_rng(1)).makespan_s, 0.95)


def test_a_plan_that_just_fits_on_average_is_replaced_by_one_that_surely_does():
    loose, _ = planned("mean")
    deadline_s = loose.makespan_s + 1.0
    mean, terms = planned("mean", deadline_s)
    sure, _ = planned("p95", deadline_s)
    assert mean.makespan_s <= deadline_s < late_s(mean, terms)
    assert late_s(sure, terms) <= deadline_s * 1.02  # planned on 200 samples of its own
    assert sure.makespan_s < mean.makespan_s


def test_another_word_is_refused():
    with pytest.raises(InputError, match=r"rubberband: makespan is 'p99', but must be one of mean, p95"):
        planned("p99")


@pytest.mark.parametrize("makespan", ["mean", "p95"])
def test_the_share_of_late_runs_is_told_before_the_run(makespan):
    loose, _ = planned("mean")
    for later_s in (1.0, 60.0):
        plan, terms = planned(makespan, loose.makespan_s + later_s)
        late = (sample(plan, terms, 4000, np.random.default_rng(2)).makespan_s > terms.deadline_s).mean()
        # The estimate errs on the late side, because ends are skewed.
        assert late - 0.02 <= late_probability(plan, terms) <= late + 0.1
    assert late_probability(plan, terms.without_limits()) is None


def test_where_nothing_is_random_a_plan_is_late_or_not():
    plan, terms = planned("mean", stragglers=Stragglers())
    ends_s = plan.makespan_s
    for deadline_s, late in ((ends_s - 1, 1.0), (ends_s + 1, 0.0)):
        assert late_probability(plan, replace(terms, deadline_s=deadline_s)) == late
