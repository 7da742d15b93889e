from __future__ import annotations

import re

import pytest

from elastune.policies.registry import POLICIES, entry_named, factory
from elastune.sim.model.errors import InfeasibleJobError, InputError

ANY_GANG = ("seer", "rubberband", "sha-fixed")


@pytest.fixture
def build(world):
    """A policy for nine trials, R = 9, on at most four machines of 4 GPUs and 1 USD per second, ready after 5 + 20 s.

    SEER must reach R, as the others must.
    """

    def of(name, parameters=None, **job):
        parameters = parameters or ({"truncate": "never"} if name == "seer" else None)
        tiny = world(trials=9, iterations=9, timings=(2.0, 1.0, 4.0), startup=(5.0, 20.0), quota=4, **job)
        return factory(name, parameters)(tiny.job, tiny.profile, tiny.book, None)

    return of


# One configuration to R = 9: on one machine 25 + 2 + 90/4 + 1 = 50.5 s, billed for 45.5 s; on four (16 GPUs)
# 25 + 2 + 90/16 + 1 = 33.6 s, billed for 4 x 28.6 = 114.5 s. Limits are named in whole seconds and cents, and with the margin.
@pytest.mark.parametrize("name", ANY_GANG)
@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"deadline_s": 30.0}, "a deadline of 30 s"),
        ({"budget_usd": 40.0}, "a budget of 40 USD"),
        ({"deadline_s": 33.0, "budget_usd": 40.0}, "a deadline of 33 s and a budget of 40 USD"),
    ],
)
def test_an_infeasible_job_is_told_what_could_be_achieved(build, name, limits, asked):
    problem = (
        rf"^{name}.*: no plan trains 1 configuration to 9 iterations within {asked}; the fastest takes 34 s"
        r" \(for 114\.51 USD\), the cheapest costs 45\.51 USD \(in 51 s\)$"
    )
    with pytest.raises(InfeasibleJobError, match=problem):
        build(name, **limits)


def test_sha_with_one_gpu_per_trial_names_what_that_could_achieve(build):
    # 25 + 2 + 90 + 1 = 118 s on one machine, billed without its queue: 113 s.
    problem = (
        r"^sha-elastic:gpus_per_trial=1: no plan trains 1 configuration to 9 iterations within a deadline of 30 s;"
        r" the fastest takes 119 s \(for 113\.01 USD\), the cheapest costs 113\.01 USD \(in 119 s\)$"
    )
    with pytest.raises(InfeasibleJobError, match=problem):
        build("sha-elastic", deadline_s=30.0)


def test_asha_names_what_one_gpu_per_trial_could_achieve(build):
    # 25 + (2 + 10 + 1) + (3 + 20 + 1) + (3 + 60 + 1) = 126 s on one machine, billed without its queue: 121 s.
    problem = (
        r"^asha-fixed: with 1 GPU per trial, no number of machines trains 1 configuration to 9 iterations within a deadline"
        r" of 30 s; the fastest takes 127 s \(for 121\.01 USD\), the cheapest costs 121\.01 USD \(in 127 s\)$"
    )
    with pytest.raises(InfeasibleJobError, match=problem):
        build("asha-fixed", deadline_s=30.0)


@pytest.mark.parametrize("name", ["seer", "rubberband", "sha-fixed"])
def test_no_policy_refuses_what_a_constant_cluster_can_do(build, name):
    # On three machines of 4 GPUs: 25 + (2 + 10 + 1) + (3 + 20/4 + 1) + (3 + 60/12 + 1) = 56 s. With a fourth machine the last
    # rung would take 7.75 s instead of 9, but first wait 25 s for it.
    build(name, deadline_s=57.0, exact=True)


def test_the_fastest_that_is_named_is_the_fastest(build):
    with pytest.raises(InfeasibleJobError) as error:
        build("seer", deadline_s=40.0, exact=True)
    fastest_s = float(re.search(r"the fastest takes (\d+) s", str(error.value))[1])
    assert fastest_s <= 56


@pytest.mark.parametrize("name", ["sha-fixed-naive", "asha-fixed-naive"])
def test_the_naive_size_needs_both_limits_and_one_machine_for_all_of_the_time(build, name):
    with pytest.raises(InfeasibleJobError, match=rf"^{name}: .*needs job\.deadline_s and job\.budget_usd"):
        build(name, deadline_s=60.0)
    with pytest.raises(
        InfeasibleJobError, match=r"held for all of 600 s costs 600\.00 USD, more than the budget of 100 USD.*for 100 s"
    ):
        build(name, deadline_s=600.0, budget_usd=100.0)


@pytest.mark.parametrize("gpus", [0, 17])
def test_a_constant_gang_must_fit_quota_and_scaling(build, gpus):
    with pytest.raises(InputError, match=rf"gpus_per_trial is {gpus}, but must be between 1 and 16"):
        build("sha-elastic", {"gpus_per_trial": gpus}, deadline_s=600.0)


def test_the_registry_names_the_nearest_policy_and_parameter():
    with pytest.raises(InputError, match=r"there is no policy 'sher'; did you mean 'seer'\? known: .*sha-elastic"):
        entry_named("sher")
    with pytest.raises(InputError, match=r"there is no seer parameter 'replann'; did you mean 'replan'\?"):
        factory("seer", {"replann": True})
    with pytest.raises(InputError, match=r"there is no sha-fixed parameter 'x'"):
        factory("sha-fixed", {"x": 1})


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_a_one_line_summary(name):
    assert 10 < len(POLICIES[name].summary) < 120
    assert "\n" not in POLICIES[name].summary
