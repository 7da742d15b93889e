"""RubberBand planned for a percentile of the makespan instead of its mean."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from monte_carlo import sample

from elastune.experiments.contracts.policies import plain_world
from elastune.policies.planning.plan import Terms
from elastune.policies.registry import factory
from elastune.sim.model.errors import InputError
from elastune.sim.model.profile import Stragglers


def planned(makespan, deadline_s=None):
    """The plan that is run in a world with stragglers, and its terms."""
    world = plain_world()
    job = world.job if deadline_s is None else msgspec.structs.replace(world.job, deadline_s=deadline_s)
    profile = replace(world.profile, stragglers=Stragglers(persistent_cv=0.3, per_iteration_cv=0.1))
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
    with pytest.raises(InputError, match=r"rubberband: makespan is 'p99', but must be 'mean' or 'p95'"):
        planned("p99")
