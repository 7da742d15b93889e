"""Paired differences and performance profiles, on rows whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune.experiments.statistics.significance import holm
from elastune.experiments.sweeps.paired import PAIRED_COLUMNS, paired_table, profile_table
from elastune.experiments.sweeps.rows import columns, table_of
from elastune.experiments.sweeps.summary import summarise, with_origins
from elastune.sim.model.errors import InputError


def row(policy, seed, regret, bundle="b", **given):
    found = dict.fromkeys(columns()) | {
        "policy": policy,
        "seed": seed,
        "status": "done" if regret is not None else "infeasible",
        "regret": regret,
        "workload.bundle": bundle,
        "bundle_sha256": bundle,
        "bundle_family": bundle[0],
        "direction": "minimize",
        "workload.scaling": "table",
        "provenance.scaling": "assumed: set by the run",
        "job.deadline_s": 600.0,
    }
    return found | given


def rows_of(*rows):
    return table_of(rows).to_pandas()


def policies(by_policy, **given):
    """One row per policy and seed."""
    return [
        row(policy, seed, regret, **given)
        for policy, regrets in by_policy.items()
        for seed, regret in enumerate(regrets)
    ]


def test_differences_are_pair_by_pair():
    results = rows_of(*policies({"a": [0.1, 0.2, 0.3, 0.4], "b": [0.2, 0.2, 0.1, 0.5]}))
    (only,) = paired_table(results, "a", group=[]).to_dict("records")
    assert (only["policy"], only["against"], only["measure"], only["scope"]) == ("b", "a", "regret", "all")
    assert only["mean"] == pytest.approx(0.0)
    assert (only["better"], only["ties"], only["pairs"], only["seeds"]) == (0.25, 0.25, 4, 4)
    # Of the sixteen ways to flip 0.1, 0, -0.2 and 0.1, all have a sum at least as far from 0.
    assert (only["p"], only["p_holm"], only["over"]) == (1.0, 1.0, "seeds")


def test_a_run_without_its_pair_is_counted_and_left_out():
    results = rows_of(*policies({"a": [0.1, None, 0.3], "b": [0.2, 0.9, None]}))
    (only,) = paired_table(results, "a", group=[]).to_dict("records")
    assert (only["mean"], only["pairs"], only["only"], only["only_against"]) == (pytest.approx(0.1), 1, 1, 1)


def test_cells_are_told_apart_and_where_the_sign_flips():
    tight = policies({"a": [0.5, 0.5], "b": [0.1, 0.3]}, **{"job.deadline_s": 300.0})
    loose = policies({"a": [0.1, 0.1], "b": [0.2, 0.2]}, **{"job.deadline_s": 900.0})
    table = paired_table(rows_of(*loose, *tight), "a")
    assert list(table.columns) == ["policy", "against", "measure", "scope", "job.deadline_s", *PAIRED_COLUMNS]
    assert table["job.deadline_s"].tolist()[:2] == [300.0, 900.0]
    assert table["scope"].tolist() == ["group", "group", "all"]
    assert table["mean"].tolist() == pytest.approx([-0.3, 0.1, -0.1])
    assert table["cells_better"].tolist() == [1, 0, 1]
    assert table["cells_worse"].tolist() == [0, 1, 1]
    # Per seed, both cells together: (-0.4 + 0.1) / 2 and (-0.2 + 0.1) / 2.
    assert (table["p"].iloc[2], table["seeds"].iloc[2]) == (0.5, 2)


def test_p_values_are_corrected_over_the_policies_of_a_group():
    rng = np.random.default_rng(1)
    shared = rng.normal(1.0, 0.1, 9)
    regrets = {
        "a": shared,
        **{name: shared + rng.normal(shift, 0.1, 9) for name, shift in zip("bcd", (0, 0.1, 0.2), strict=True)},
    }
    table = paired_table(rows_of(*policies({name: values.tolist() for name, values in regrets.items()})), "a", group=[])
    assert table["policy"].tolist() == ["b", "c", "d"]
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"].tolist()).tolist())
    assert table["p"].iloc[2] == 2 / 2**9
    assert table["p_holm"].iloc[2] == pytest.approx(3 * 2 / 2**9)


def test_over_families_each_is_one_unit():
    runs = [run for bundle in ("x1", "y1", "z1") for run in policies({"a": [0.1, 0.2], "b": [0.3, 0.5]}, bundle=bundle)]
    pooled = paired_table(rows_of(*runs), "a", group=[]).to_dict("records")[0]
    assert (pooled["over"], pooled["families"], pooled["p"]) == ("families", 3, 2 / 2**3)
    seeds = paired_table(rows_of(*runs), "a", group=[], over="seeds").to_dict("records")[0]
    assert (seeds["over"], seeds["families"], seeds["p"]) == ("seeds", 3, 2 / 2**2)


def test_own_and_borrowed_scaling_are_never_pooled():
    own = {"workload.scaling": None, "provenance.scaling": "measured: on 8 machines"}
    runs = [
        *policies({"a": [0.1], "b": [0.2]}, bundle="x", **own),
        *policies({"a": [0.1], "b": [0.4]}, bundle="y"),
        # Without a result, a run's scaling is that of others of its bundle.
        *policies({"c": [None]}, bundle="x", **{**own, "provenance.scaling": None}),
        *policies({"c": [0.5]}, bundle="y"),
    ]
    results = rows_of(*runs)
    assert with_origins(results)["scaling_from"].tolist() == [
        "own",
        "own",
        "borrowed",
        "borrowed",
        "own",
        "borrowed",
    ]
    table = paired_table(results, "a", group=[])
    found = {(one["policy"], one["scaling_from"]): one["mean"] for one in table.to_dict("records")}
    assert found[("b", "borrowed")] == pytest.approx(0.3)
    assert found[("b", "own")] == pytest.approx(0.1)
    assert math.isnan(found[("c", "own")])
    assert set(summarise(results, ["policy"], ["regret"])["scaling_from"]) == {"own", "borrowed"}
    assert set(profile_table(results, taus=[0.1])["scaling_from"]) == {"own", "borrowed"}
    # By bundle nothing would be mixed.
    assert "scaling_from" not in summarise(results, ["policy", "workload.bundle"], ["regret"]).columns


def test_a_scaling_nobody_speaks_of_is_borrowed_where_the_run_sets_it():
    results = rows_of(
        row("a", 0, None, **{"provenance.scaling": None}),
        row("a", 1, None, bundle="c", **{"provenance.scaling": None, "workload.scaling": None}),
    )
    assert with_origins(results)["scaling_from"].tolist() == ["borrowed", "own"]


def test_scores_that_are_minimised_and_maximised_have_no_common_mean():
    runs = [
        row(policy, 0, 0.1, bundle=bundle, score=score, direction=direction)
        for bundle, direction, scores in (("x", "minimize", (0.3, 0.2)), ("y", "maximize", (0.7, 0.8)))
        for policy, score in zip("ab", scores, strict=True)
    ]
    table = paired_table(rows_of(*runs), "a", measure="score")
    assert table["mean"].tolist() == pytest.approx([-0.1, 0.1, math.nan], nan_ok=True)
    assert table["better"].tolist() == [1.0, 1.0, 1.0]
    assert table["cells_better"].tolist() == [1, 1, 2]
    with pytest.raises(InputError, match="score is minimised in some cells and maximised in others"):
        profile_table(rows_of(*runs), measure="score")
    by_bundle = profile_table(rows_of(*runs), measure="score", group=["workload.bundle"], taus=[0.25, 0.75])
    assert by_bundle["share"].tolist() == [0, 1, 1, 1, 1, 0, 1, 1]


def test_more_is_better_of_limits_that_are_met():
    runs = [row("a", seed, 0.1, deadline_met=False) for seed in range(2)]
    runs += [row("b", seed, 0.1, deadline_met=seed == 1) for seed in range(2)]
    (only,) = paired_table(rows_of(*runs), "a", measure="deadline_met", group=["policy"]).to_dict("records")
    assert (only["mean"], only["better"], only["ties"]) == (0.5, 0.5, 0.5)


def test_an_answer_that_was_trained_to_the_end_is_better():
    runs = [row("a", seed, 0.1, best_is_complete=seed == 0, best_iteration=9 - seed) for seed in range(2)]
    runs += [row("b", seed, 0.1, best_is_complete=True, best_iteration=9) for seed in range(2)]
    for measure in ("best_is_complete", "best_iteration"):
        (only,) = paired_table(rows_of(*runs), "a", measure=measure, group=[]).to_dict("records")
        assert (only["better"], only["ties"], only["cells_better"]) == (0.5, 0.5, 1)


def test_how_many_seeds_it_takes_is_told_in_the_unit_of_the_measure():
    # Differences of cost 0 and 2 around a mean cost of 20: 5 % of it is 1, the spread 1.41.
    runs = [row("a", seed, 0.0, cost_usd=20.0) for seed in range(2)]
    runs += [row("b", seed, 0.0, cost_usd=20.0 + 2 * seed) for seed in range(2)]
    cost = paired_table(rows_of(*runs), "a", measure="cost_usd", group=[])["seeds_needed"].iloc[0]
    regret = paired_table(rows_of(*policies({"a": [0.0, 0.0], "b": [0.0, 0.1]})), "a", group=[])["seeds_needed"].iloc[0]
    # The spread of 0.071 is as many times 0.05.
    assert cost == regret == 18


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda results: paired_table(results, "seerr"), "there is no policy 'seerr'; did you mean 'seer'?"),
        (lambda results: paired_table(results, "seer", measure="regrets"), "did you mean 'regret'?"),
        (lambda results: paired_table(results, "seer", group=["job.deadlin_s"]), "did you mean 'job.deadline_s'?"),
        (lambda results: paired_table(results, "seer", group=["cost_usd"]), "cost_usd is not of the cell"),
        (lambda results: paired_table(results[results["policy"] == "seer"], "seer"), "no other policy than seer"),
        (lambda results: profile_table(pd.concat([results, results])), "several rows for one cell and seed"),
    ],
)
def test_what_cannot_be_compared_is_refused(ask, message):
    with pytest.raises(InputError) as failed:
        ask(rows_of(*policies({"seer": [0.1], "sha": [0.2]})))
    assert message in str(failed.value)


def test_a_profile_counts_runs_without_a_value_as_never_good_enough():
    results = rows_of(*policies({"a": [0.0, 0.1, None, None], "b": [0.2, 0.2, 0.2, None]}))
    table = profile_table(results, taus=[0.0, 0.1, 0.2])
    # The last seed is left out: nobody has an answer to it.
    assert table[table["policy"] == "a"]["share"].tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert table[table["policy"] == "b"]["share"].tolist() == pytest.approx([0, 0, 1])
    assert table["runs"].tolist() == [3] * 6


@given(st.lists(st.floats(-0.5, 2), min_size=2, max_size=12))
@settings(max_examples=examples(20), deadline=None)
def test_profiles_rise_with_tau_within_their_bands(regrets):
    runs = policies({"a": regrets}, bundle="x") + policies({"a": regrets[::-1]}, bundle="y")
    table = profile_table(rows_of(*runs))
    assert table["tau"].tolist() == [percent / 100 for percent in range(101)]
    for name in ("share", "low", "high"):
        assert table[name].is_monotonic_increasing
    assert ((table["low"] <= table["share"] + 1e-9) & (table["share"] <= table["high"] + 1e-9)).all()
    assert table["share"].iloc[-1] == pytest.approx(np.mean(np.array(regrets) <= 1))


def test_profiles_of_other_measures_span_their_values():
    runs = [row("a", seed, 0.0, cost_usd=float(seed), gpu_utilisation=seed / 10) for seed in range(11)]
    costs = profile_table(rows_of(*runs), measure="cost_usd")
    assert (costs["tau"].iloc[0], costs["tau"].iloc[-1], len(costs)) == (0.0, pytest.approx(9.5), 51)
    used = profile_table(rows_of(*runs), measure="gpu_utilisation")
    assert (used["tau"].iloc[0], used["tau"].iloc[-1]) == (1.0, pytest.approx(0.05))
    assert used["share"].is_monotonic_increasing


def test_a_summary_weighs_families_equally_and_says_what_it_rests_on():
    runs = [*policies({"a": [1.0, 1.0]}, bundle="x1"), *policies({"a": [3.0, 3.0]}, bundle="x2")]
    runs += policies({"a": [8.0, None]}, bundle="y1")
    (only,) = summarise(rows_of(*runs), ["policy"], ["regret"]).to_dict("records")
    assert (only["regret"], only["runs"], only["infeasible"], only["families"], only["bundles"]) == (5.0, 5, 1, 2, 3)
    assert (only["seeds"], only["over"], only["regret_low"], only["regret_high"]) == (2, "families", 1.0, 8.0)
    (middle,) = summarise(rows_of(*runs), ["policy"], ["regret"], over="seeds", statistic="iqm").to_dict("records")
    # By weight: a quarter each of 1 and 3, half of 8; the middle half is the 3s and half of the 8.
    assert (middle["regret"], middle["over"]) == (5.5, "seeds")
