"""Where the configurations of real runs come from."""

from __future__ import annotations

import math
import sys

import pytest

from elastune.experiments.runs.configurations import (
    SAMPLERS,
    Sampled,
    adaptable_hyperparameters,
    configuration_source,
)
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.errors import InputError
from elastune.sim.model.job import TuningJob
from elastune.traces import load_bundle, synthetic_bundle
from elastune.traces.workloads import Categorical, Integer, LogUniform, SearchSpace, Uniform, workload_named

SPACE = SearchSpace(
    {"x": Uniform(-1.0, 1.0), "rate": LogUniform(1e-4, 1.0), "depth": Integer(1, 4), "kind": Categorical(("a", "b"))}
)
JOB = TuningJob(trials=6, min_iterations=1, max_iterations=9)
DIGITS = workload_named("digits-mlp")


def spec_of(configurations=None, **workload):
    given = {"bundle": "digits-mlp", **workload} | ({"configurations": configurations} if configurations else {})
    return RunSpec.of(
        job={"trials": 6, "max_iterations": 9, "budget_usd": 10.0},
        workload=given,
        cloud={"price_usd_per_hour": 1.0, "gpus_per_instance": 2, "max_instances": 2},
        policy="sha-fixed",
        seed=4,
    )


def sampled(kind="tpe", *, direction="minimize", seed=3, max_iterations=9):
    return Sampled(kind, SPACE, seed=seed, direction=direction, max_iterations=max_iterations)


def played(source, trials, score, levels=(1, 3, 9)):
    """The configurations proposed one after the other, each heard of at these iterations before the next is asked for."""
    proposed = []
    for trial in range(trials):
        proposed.append(source.configuration_of(trial))
        for iteration in levels:
            source.hear(trial, iteration, score(proposed[-1], iteration))
    return proposed


def off_target(configuration, _iteration=9):
    return abs(configuration["x"] - 0.5)


def test_the_bundle_gives_the_draw_that_the_simulation_uses():
    bundle = load_bundle("digits-mlp")
    source = configuration_source(spec_of(), bundle, JOB)
    drawn = [source.configuration_of(trial) for trial in range(6)]
    assert drawn == bundle.drawn_configurations(6, seed=4)


def test_the_search_space_gives_what_profiling_would_train():
    source = configuration_source(spec_of("search-space"), load_bundle("digits-mlp"), JOB)
    assert [source.configuration_of(trial) for trial in (0, 5)] == [
        DIGITS.configuration_of(seed=4, trial=trial) for trial in (0, 5)
    ]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_proposes_configurations_of_the_workload(kind):
    source = configuration_source(spec_of(kind), load_bundle("digits-mlp"), JOB)
    proposed = played(source, 3, lambda one, _: one["learning_rate"])
    for configuration in proposed:
        DIGITS.search_space.require(configuration)
        assert 2e-4 <= configuration["learning_rate"] <= 3.0
        assert configuration["batch_size"] in (16, 32, 64, 128)
        assert isinstance(configuration["width"], int)
    assert len({configuration["learning_rate"] for configuration in proposed}) == 3


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_equal_seeds_propose_the_same_and_others_something_else(kind):
    first, again, other = (played(sampled(kind, seed=seed), 15, off_target) for seed in (3, 3, 5))
    assert first == again
    assert first != other


def test_a_proposal_is_kept_however_often_it_is_asked_for():
    source = sampled()
    assert source.configuration_of(2) == source.configuration_of(2)


def test_what_is_handed_out_cannot_be_changed_from_outside():
    source = sampled()
    source.configuration_of(0)["x"] = 7.0
    assert abs(source.configuration_of(0)["x"]) <= 1.0


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_tpe_comes_closer_to_what_scores_well_in_either_direction(direction, sign):
    proposed = played(sampled(direction=direction), 60, lambda one, _: sign * off_target(one))
    early, late = (sum(map(off_target, part)) / len(part) for part in (proposed[:10], proposed[-20:]))
    assert late < early / 2


def test_tpe_learns_from_trials_that_were_cut_short():
    proposed = played(sampled(), 60, off_target, levels=(1, 3))
    early, late = (sum(map(off_target, part)) / len(part) for part in (proposed[:10], proposed[-20:]))
    assert late < early / 2


def test_random_proposals_do_not_depend_on_results():
    heard, deaf = played(sampled("random"), 15, off_target), played(sampled("random"), 15, off_target, levels=())
    assert heard == deaf


def test_diverged_trials_are_the_worst_and_stop_nothing():
    # Everything with x < 0 diverges, some at once and some late; the rest is equally good.
    def score(one, iteration):
        return 0.3 if one["x"] >= 0 else (None if iteration > 1 else math.nan)

    proposed = played(sampled(), 60, score)
    assert sum(one["x"] >= 0 for one in proposed[-20:]) >= 15


@pytest.mark.parametrize(
    ("heard", "state", "value", "intermediate"),
    [
        ([], "RUNNING", None, {}),
        ([(0, 0.9)], "RUNNING", None, {}),
        ([(1, 0.5), (3, 0.4)], "PRUNED", 0.4, {1: 0.5, 3: 0.4}),
        ([(1, 0.5), (3, 0.4), (3, 0.45)], "PRUNED", 0.45, {1: 0.5, 3: 0.45}),
        ([(1, 0.5), (9, 0.2)], "COMPLETE", 0.2, {1: 0.5, 9: 0.2}),
    ],
)
def test_the_sampler_is_shown_each_trial_as_far_as_it_came(heard, state, value, intermediate):
    source = sampled()
    source.configuration_of(0)
    for iteration, score in heard:
        source.hear(0, iteration, score)
    shown = source._shown(0)
    assert (shown.state.name, shown.value, shown.intermediate_values) == (state, value, intermediate)


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_a_trial_that_diverged_at_the_end_is_shown_as_pruned_at_its_beginning(score):
    source = sampled()
    source.configuration_of(0)
    source.hear(0, 1, 0.1)
    source.hear(0, 9, score)
    shown = source._shown(0)
    assert (shown.state.name, list(shown.intermediate_values)) == ("PRUNED", [1])
    assert math.isnan(shown.intermediate_values[1])


def test_gaussian_processes_are_shown_the_score_that_each_trial_has_now():
    source = sampled("gp")
    source.configuration_of(0)
    source.hear(0, 3, 0.4)
    assert (source._shown(0).state.name, source._shown(0).value) == ("COMPLETE", 0.4)


def test_a_resumed_sampler_proposes_what_it_would_have_proposed():
    whole = sampled()
    expected = played(whole, 20, off_target)
    resumed = sampled()
    for trial in range(14):
        resumed.remember(trial, expected[trial])
        for iteration in (1, 3, 9):
            resumed.hear(trial, iteration, off_target(expected[trial]))
    continued = []
    for trial in range(14, 20):
        continued.append(resumed.configuration_of(trial))
        for iteration in (1, 3, 9):
            resumed.hear(trial, iteration, off_target(continued[-1]))
    assert continued == expected[14:]


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ({"x": 0.0, "rate": 0.1, "depth": 9, "kind": "a"}, r"trial 2 has a configuration outside the search space"),
        ({"x": 0.0, "rate": 0.1, "depth": 1}, r"the configuration lacks kind"),
        ({"x": 0.0, "rate": 0.1, "depht": 1, "kind": "a"}, r"there is no hyperparameter 'depht'; did you mean 'depth'"),
    ],
)
def test_a_configuration_of_another_search_space_is_not_remembered(configuration, problem):
    source = sampled()
    with pytest.raises(InputError, match=problem):
        source.remember(2, configuration)
    SPACE.require(source.configuration_of(2))


def test_optuna_says_nothing_on_the_way(capfd):
    played(sampled(), 3, off_target)
    assert capfd.readouterr() == ("", "")


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"workload.configurations is tpe: pip install 'elastune\[bridge\]'"):
        sampled()


def test_a_bundle_of_no_known_workload_has_no_search_space():
    bundle = synthetic_bundle(8, 9)
    for kind in ("search-space", "tpe"):
        with pytest.raises(InputError, match=rf"workload.configurations is {kind}, but nothing is known of the search"):
            configuration_source(spec_of(kind), bundle, JOB)


def test_what_may_change_while_training_leaves_the_network_as_it_is():
    adaptable = adaptable_hyperparameters("pbt", load_bundle("mnist5k-cnn"))
    assert set(adaptable) == {"learning_rate", "momentum", "weight_decay", "batch_size", "dropout"}
    assert adaptable["batch_size"].scaled(64, 1.2) == 128
    with pytest.raises(InputError, match=r"^policy pbt changes configurations, but nothing is known"):
        adaptable_hyperparameters("pbt", synthetic_bundle(8, 9))
