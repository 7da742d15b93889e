"""Figures of statistics, plans, ledgers and trajectories; and what all figures of sweeps have in common."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from test_sweep_figures import bars, caption, grid_runs, labelled, legend_texts, runs, where

from elastune.experiments.figures import (
    cost_over_deadline,
    greedy_gap,
    ledger,
    paired_differences,
    performance_profiles,
    reliability,
    save,
    score_grid,
    score_over_time_and_cost,
    sensitivity,
)
from elastune.experiments.runs.ledger import PARTS
from elastune.sim.model.errors import InputError


def profile_table():
    taus = [0.0, 0.1, 0.2, 0.3]
    rows = [
        (policy, tau, share, max(share - 0.1, 0), min(share + 0.1, 1))
        for policy, shares in (("seer", (0.5, 0.9, 1.0, 1.0)), ("sha-fixed", (0.2, 0.5, 0.9, 1.0)))
        for tau, share in zip(taus, shares, strict=True)
    ]
    return pd.DataFrame(rows, columns=["policy", "tau", "share", "low", "high"])


def test_performance_profiles_are_steps_with_bands():
    figure = performance_profiles(profile_table())
    (axes,) = figure.axes
    (seer,) = labelled(axes.lines, "seer")
    assert seer.get_ydata().tolist() == [0.5, 0.9, 1.0, 1.0]
    assert seer.get_drawstyle() == "steps-post"
    assert len([one for one in axes.collections if isinstance(one, FillBetweenPolyCollection)]) == 2
    assert axes.get_xlim() == pytest.approx((0.0, 0.309))
    assert axes.get_ylim() == (0, 1.02)
    assert legend_texts(figure) == ["seer", "sha-fixed"]
    seer = profile_table().head(4)
    many = pd.concat([seer.assign(policy=f"mine-{number}") for number in range(12)])
    assert performance_profiles(many).get_figwidth() == 7.0
    with pytest.raises(InputError, match="some policy has two rows for one tau: draw one group of the table"):
        performance_profiles(pd.concat([seer, seer]))


def test_a_profile_with_a_long_tail_does_not_hide_the_others():
    tail = pd.DataFrame({"policy": "random-fixed", "tau": [0.0, 50.0], "share": [0.1, 1.0], "low": 0.0, "high": 1.0})
    (axes,) = performance_profiles(pd.concat([profile_table(), tail])).axes
    assert axes.get_xlim()[1] == pytest.approx(1.03 * 4 * 0.3)
    flat = pd.DataFrame({"policy": ["seer"] * 2, "tau": [0.0, 2.0], "share": 1.0, "low": 1.0, "high": 1.0})
    assert performance_profiles(flat).axes[0].get_xlim()[1] == pytest.approx(2.06)


def difference_table():
    rows = [
        ("sha-fixed", "images", 0.02, 0.01, 0.03, 0.25, 0.5, 20),
        ("rubberband", "images", -0.01, -0.03, 0.01, 0.5, 0.0, 20),
        ("sha-fixed", "digits", 0.01, 0.005, 0.02, 0.0, 0.0, 3),
        ("seer", "images", 0.0, 0.0, 0.0, 0.0, 1.0, 20),
    ]
    return pd.DataFrame(rows, columns=["policy", "bundle_family", "mean", "low", "high", "better", "ties", "pairs"])


def test_paired_differences_are_a_forest_with_shares_as_text():
    figure = paired_differences(difference_table())
    digits, images = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["digits", "images"]
    assert images.get_xlabel() == "regret: policy \N{MINUS SIGN} seer"
    assert [text.get_text() for text in digits.get_yticklabels()] == ["rubberband", "sha-fixed"]
    rubberband, sha = bars(images)
    assert rubberband[0].get_xdata() == pytest.approx([-0.01])
    assert rubberband[0].get_markerfacecolor() == "white"
    assert sha[0].get_markerfacecolor() == sha[0].get_color()
    assert bars(digits)[0][0].get_markerfacecolor() == "white"  # three pairs cannot tell
    assert [text.get_text() for text in images.texts] == ["50 % / 0 %", "25 % / 50 %", "better / equal"]
    assert [text.get_text() for text in digits.texts] == ["no pairs", "0 % / 0 %", "better / equal"]
    assert "left of 0: better than seer" in caption(figure)
    small = difference_table().assign(**{name: difference_table()[name] / 100 for name in ("mean", "low", "high")})
    ticks = paired_differences(small.assign(low=small["low"] - 0.01)).axes[0]
    boxes = [label.get_window_extent() for label in ticks.get_xticklabels() if label.get_text()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert "right of 0" in caption(paired_differences(difference_table(), less_is_better=False))


def test_a_far_difference_is_an_arrow_with_its_number():
    usual = difference_table()[lambda table: table["bundle_family"] == "images"].drop(columns="bundle_family")
    rows = [usual, *(usual.head(1).assign(policy=f"mine-{number}") for number in range(4))]
    far = usual.head(1).assign(policy="random-fixed", mean=5.0, low=2.0, high=9.0)
    (axes,) = paired_differences(pd.concat([*rows, far])).axes
    assert axes.get_xlim()[1] < 0.05
    (arrow,) = labelled(axes.lines, "_beyond")
    assert arrow.get_marker() == ">"
    assert "+5" in [text.get_text() for text in axes.texts]


def test_two_differences_of_one_policy_are_refused():
    with pytest.raises(InputError, match="paired_differences: some policy has two rows for one bundle_family"):
        paired_differences(pd.concat([difference_table(), difference_table().head(1)]))
    with pytest.raises(InputError, match="paired_differences: the table has no rows"):
        paired_differences(difference_table().tail(1))


def test_the_greedy_gap_is_the_share_of_jobs_by_gap():
    table = pd.DataFrame({"family": "random", "comparison": "greedy, fair", "gap": [0.0, 0.0, 0.05, 0.1]})
    figure = greedy_gap(pd.concat([table, table.assign(comparison="wide frontier", gap=0.02)]))
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "random: 4 jobs"
    assert axes.get_xlabel() == "costs more by (%)"
    (line,) = labelled(axes.lines, "greedy, fair")
    end = 100 * np.quantile([0.0, 0.0, 0.05, 0.1], 0.99)
    assert line.get_xdata() == pytest.approx([0, 5, end])
    assert line.get_ydata() == pytest.approx([0.5, 0.75, 0.75])
    assert legend_texts(figure) == ["greedy, fair", "wide frontier"]


def test_the_band_of_a_gap_is_a_bootstrap_interval_over_jobs_and_a_single_job_has_none():
    table = pd.DataFrame({"family": "random", "comparison": "fair frontier", "gap": [0.0] * 50 + [0.1] * 50})
    reach = {}
    # The two plans of a job differ, or are equal: what half as many jobs tell is less certain.
    for jobs, of_plan in ((100, range(100)), (50, [number // 2 for number in range(100)])):
        (axes,) = greedy_gap(table.assign(job=of_plan)).axes
        assert axes.get_title(loc="left") == ("random: 100 jobs" if jobs == 100 else "random: 50 jobs, 100 plans")
        (band,) = labelled(axes.collections, "_band")
        vertices = band.get_paths()[0].vertices
        at_zero = vertices[vertices[:, 0] == 0][:, 1]
        assert at_zero.min() + at_zero.max() == pytest.approx(1.0, abs=0.03)
        reach[jobs] = at_zero.max() - 0.5
    assert reach[100] == pytest.approx(1.96 * 0.5 / 10, abs=0.02)
    assert reach[50] == pytest.approx(1.96 * 0.5 / 50**0.5, abs=0.03)
    figure = greedy_gap(table.assign(job="a"))
    assert not figure.axes[0].collections
    assert "bands" not in figure.legends[0].get_title().get_text()


def test_panels_of_gaps_stand_in_the_order_of_their_category_on_one_axis():
    order = ["startup 30 s", "startup 120 s"]
    table = pd.DataFrame(
        {"family": pd.Categorical(order[::-1], order), "comparison": "fair frontier", "gap": [0.5, 0.1]}
    )
    first, second = greedy_gap(table).axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["startup 30 s: 1 job", "startup 120 s: 1 job"]
    assert first.get_xlim() == second.get_xlim() == pytest.approx((-0.05, 50))


def test_many_profiles_have_a_panel_each_beside_the_first():
    seer = profile_table().head(4)
    many = pd.concat([seer, *(seer.assign(policy=f"mine-{number}") for number in range(7))])
    figure = performance_profiles(many)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [f"mine-{number}" for number in range(7)]
    for axes in shown:
        assert len(labelled(axes.lines, "seer")) == 1
        assert len(labelled(axes.lines, "_behind")) == 6
        assert len(labelled(axes.collections, "_band")) == 2
    assert legend_texts(figure) == ["seer, in every panel", "the policies of the other panels"]


def test_the_ledger_takes_rows_of_sweeps_and_draws_the_intervals_of_their_sums():
    table = runs(deadlines=(600.0,), scalings=("linear",))
    zero = {f"ledger_{unit}.{part}": 0.0 for unit in ("usd", "gpu_s") for part in PARTS}
    table = table.assign(**zero)
    table["ledger_usd.training"], table["ledger_usd.startup"] = table["cost_usd"] - 0.5, 0.5
    table["ledger_gpu_s.training"] = 7200.0
    table.loc[where(table, policy="sha-fixed", seed=5), ["status", "ledger_usd.training"]] = ["failed", np.nan]
    figure = ledger(table)
    dollars, hours = figure.axes
    assert legend_texts(figure) == ["training", "startup"]
    assert [text.get_text() for text in dollars.texts] == ["2.02", "4.03", "6.02", "budget 4 USD"]
    assert [text.get_text() for text in hours.texts] == ["2.00"] * 3
    assert len(bars(dollars)) == 3
    assert bars(hours)[0][2][0].get_segments()[0][:, 0] == pytest.approx([2.0, 2.0])
    with pytest.raises(InputError, match=r"ledger: several runs of policy seer, workload.bundle digits-mlp, seed 0"):
        ledger(pd.concat([table, table.assign(**{"job.budget_usd": 8.0})]))
    with pytest.raises(InputError, match=r"ledger: no column ledger_usd\.idle in the table"):
        ledger(table.drop(columns="ledger_usd.idle"))


def trajectories():
    columns = ["policy", "seed", "at_s", "spent_usd", "best_score", "direction"]
    rows = [
        (policy, seed, at_s, at_s / 100, best + 0.01 * seed, "minimize")
        for policy in ("seer", "sha-fixed")
        for seed in range(5)
        for at_s, best in ((0, np.nan), (300, 0.5), (900, 0.2), (1500, 0.1))
    ]
    return pd.DataFrame(rows, columns=columns).assign(deadline_s=1800.0, budget_usd=20.0)


def test_score_over_time_and_cost_share_one_view_of_the_scores():
    figure = score_over_time_and_cost(trajectories(), band="quartiles", score_label="error")
    time, money = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    assert (time.get_xlabel(), money.get_xlabel()) == ("time (min)", "spent (USD)")
    assert (time.get_ylabel(), money.get_ylabel()) == ("error\n(lower is better)", "")
    assert time.get_ylim() == money.get_ylim()
    (line,) = labelled(time.lines, "seer")
    assert line.get_ydata()[-1] == pytest.approx(0.12)
    band = labelled(time.collections, "_band")[0].get_paths()[0].vertices
    assert {0.11, 0.13} <= set(np.round(band[band[:, 0] > 29][:, 1], 6))  # second and fourth of five
    assert caption(figure) == "median of 5 seeds with the middle half of the seeds"
    assert line.get_linewidth() > labelled(time.lines, "sha-fixed")[0].get_linewidth()
    with pytest.raises(InputError, match="band is 'mean', but must be one of interval, quartiles"):
        score_over_time_and_cost(trajectories(), band="mean")


def reliability_table():
    rows = [("a", "one", 0.1, 0.2), ("a", "two", 0.4, 0.3), ("b", "three", 1.0, 0.5)]
    return pd.DataFrame(rows, columns=["family", "bundle", "predicted", "measured"])


def test_reliability_has_a_panel_for_each_family_and_the_line_of_equal_values():
    figure = reliability(reliability_table())
    first, second = figure.axes
    assert [axes.get_xlim() == axes.get_ylim() == (0, 1.05) for axes in figure.axes] == [True, True]
    assert [marks.get_offsets().tolist() for marks in first.collections] == [[[0.1, 0.2]], [[0.4, 0.3]]]
    assert [marks.get_offsets().tolist() for marks in second.collections] == [[[1.0, 0.5]]]
    (line,) = labelled(first.lines, "_equal")
    assert list(line.get_xdata()) == list(line.get_ydata())
    assert sorted(legend_texts(figure)) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("make", "table", "columns"),
    [
        (cost_over_deadline, runs, ["policy", "seed", "job.deadline_s", "cost_usd", "completed", "deadline_met"]),
        (score_grid, grid_runs, ["policy", "seed", "job.deadline_s", "job.budget_usd", "regret"]),
        (performance_profiles, profile_table, ["policy", "tau", "share", "low", "high"]),
        (paired_differences, difference_table, ["policy", "mean", "low", "high", "better", "ties", "pairs"]),
        (reliability, reliability_table, ["family", "bundle", "predicted", "measured"]),
        (
            greedy_gap,
            lambda: pd.DataFrame({"family": ["a"], "comparison": ["wide frontier"], "gap": [0.1]}),
            ["family", "comparison", "gap"],
        ),
    ],
)
def test_a_missing_column_is_named_with_its_figure(make, table, columns):
    for column in columns:
        with pytest.raises(InputError, match=f"^{make.__name__}: no column {column} in the table"):
            make(table().drop(columns=column))
    with pytest.raises(InputError, match=f"^{make.__name__}: the table has no rows"):
        make(table().head(0))
    with pytest.raises(InputError, match=r"^sensitivity: no column cloud\.sync_s in the table"):
        sensitivity(runs(), "cloud.sync_s")


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("suffix", [".png", ".pdf"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: cost_over_deadline(runs()),
        lambda: sensitivity(runs(deadlines=(600.0,)), "workload.scaling"),
        lambda: score_grid(grid_runs(), against="seer"),
        lambda: performance_profiles(profile_table()),
        lambda: paired_differences(difference_table()),
        lambda: score_over_time_and_cost(trajectories()),
    ],
    ids=["cost", "sensitivity", "grid", "profiles", "differences", "progress"],
)
def test_equal_tables_give_equal_bytes(tmp_path, make, suffix):
    first, again = save(make(), tmp_path / f"a{suffix}"), save(make(), tmp_path / f"b{suffix}")
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("policies", [1, pytest.param(24, marks=pytest.mark.slow)])
def test_nothing_sticks_out_of_a_figure_however_many_policies_there_are(policies):
    names = [f"sha-elastic:gpus_per_trial={number}" for number in range(policies)]

    def many(table):
        one = table[table["policy"] == table["policy"].iloc[0]]
        return pd.concat([one.assign(policy=name) for name in names])

    table = many(runs())
    for figure in (
        cost_over_deadline(table, reference=names[0]),
        sensitivity(table[table["job.deadline_s"] == 600], "workload.scaling"),
        score_grid(many(grid_runs())),
        performance_profiles(many(profile_table())),
        paired_differences(many(difference_table().iloc[[0, 2]])),
        score_over_time_and_cost(many(trajectories())),
    ):
        tight, width, height = figure.get_tightbbox(), *figure.get_size_inches()
        assert min(tight.x0, tight.y0) >= -1e-6
        assert tight.x1 <= width + 1e-6
        assert tight.y1 <= height + 1e-6
