"""A winner that is trained to less than R, for SEER and for the rules that it is compared with.

A GPU trains an iteration in 10 s; a segment takes 2 s (new) or 3 s (resumed) to launch and 1 s for its checkpoint. Machines
have one GPU and cost 1 USD a second.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from elastune.policies.registry import factory
from elastune.sim.model.errors import InfeasibleJobError, InputError
from elastune.sim.model.scaling import PowerScaling

WITH_BARRIERS = (
    "seer",
    "sha-fixed",
    "sha-fixed-naive",
    "sha-elastic",
    "hyperband-fixed",
    "hyperband-elastic",
    "rubberband",
)
WITHOUT = ("asha-fixed", "asha-stopping-fixed", "pasha-fixed", "hypersched-fixed")
RULES = (*WITH_BARRIERS, *WITHOUT)


@pytest.fixture
def short_of_time(world):
    """A world in which 30 iterations take 303 s on one GPU, hardly less on more, and T is 170 s."""

    def made(*, is_prefix=False, **keywords):
        defaults = {"trials": 8, "iterations": 30, "reduction_factor": 3, "timings": (2.0, 1.0, 4.0)}
        limits = {"gpus": 1, "quota": 8, "deadline_s": 170.0, "budget_usd": 2000.0}
        tiny = world(scaling=PowerScaling(0.05, 8), **{**defaults, **limits, **keywords})
        tiny.profile = replace(tiny.profile, is_prefix_schedule=is_prefix)
        return tiny

    return made


def winner(name, truncate, tiny, play):
    """How far the winner of a run is trained."""
    story = play(factory(name, {"truncate": truncate})(tiny.job, tiny.profile, tiny.book, None), tiny)
    return story.state.trials[story.best].checkpoint_iteration


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_may_truncate_trains_its_winner_as_far_as_time_allows(name, short_of_time, play):
    # A fifth of R is the least target, a half the most that 170 s allow; without barriers it goes on until the limit.
    assert 6 <= winner(name, "always", short_of_time(), play) <= 16


@pytest.mark.parametrize("name", RULES)
def test_prefix_only_asks_for_a_constant_schedule(name, short_of_time, play):
    assert 6 <= winner(name, "prefix-only", short_of_time(is_prefix=True), play) <= 16
    with pytest.raises(InfeasibleJobError, match="to 30 iterations"):
        winner(name, "prefix-only", short_of_time(), play)


@pytest.mark.parametrize("name", RULES)
def test_never_asks_for_all_of_r(name, short_of_time, play):
    with pytest.raises(InfeasibleJobError, match="to 30 iterations"):
        winner(name, "never", short_of_time(is_prefix=True), play)


@pytest.mark.parametrize("name", WITH_BARRIERS)
def test_a_refusal_names_the_least_target(name, short_of_time, play):
    with pytest.raises(InfeasibleJobError, match="to 6 iterations"):
        winner(name, "always", short_of_time(deadline_s=40.0), play)


@pytest.mark.parametrize("name", WITHOUT)
def test_without_barriers_two_rungs_are_enough(name, short_of_time, play):
    # Rungs end after 1, 3, 9 and 30 iterations; three take 33 s.
    assert winner(name, "always", short_of_time(deadline_s=40.0), play) == 3
    with pytest.raises(InfeasibleJobError, match="to 3 iterations"):
        winner(name, "always", short_of_time(deadline_s=30.0), play)


@pytest.mark.parametrize("name", RULES)
def test_another_value_is_refused(name, short_of_time, play):
    with pytest.raises(
        InputError, match=f"{name}: truncate is 'sometimes', but must be one of always, prefix-only, never"
    ):
        winner(name, "sometimes", short_of_time(), play)
