import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.container import ErrorbarContainer

from experiments.figures import (
    cost_over_deadline,
    greedy_gap,
    ledger,
    paired_differences,
    performance_profiles,
    save,
    score_grid,
    score_over_time_and_cost,
    sensitivity,
)
from experiments.figures.grid_cells import Scale
from experiments.figures.rows import Series, label_of
from experiments.figures.series import offsets
from experiments.figures.style import balanced
from experiments.ledger import PARTS
from sim.model.errors import InputError

POLICIES = ("seer", "rubberband", "sha-fixed")
SEEDS = 6


def runs(deadlines=(600.0, 1200.0), budgets=(4.0,), scalings=("linear", "bert-t4"), seeds=SEEDS):
    """Rows of a sweep: a policy costs 1, 2, 3 USD (and a cent per seed), twice as much at the first deadline."""
    rows = [
        {
            "policy": policy,
            "job.deadline_s": deadline_s,
            "job.budget_usd": budget_usd,
            "workload.scaling": scaling,
            "workload.bundle": "digits-mlp",
            "seed": seed,
            "status": "done",
            "cost_usd": (1 + place) * (2 if deadline_s == deadlines[0] else 1) + 0.01 * seed,
            "regret": 0.1 * place + 0.01 * seed,
            "score": 0.5 + 0.1 * place + 0.01 * seed,
            "direction": "minimize",
            "deadline_met": True,
        }
        for place, policy in enumerate(POLICIES)
        for deadline_s in deadlines
        for budget_usd in budgets
        for scaling in scalings
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def where(table, **columns):
    names = {"deadline_s": "job.deadline_s", "budget_usd": "job.budget_usd", "scaling": "workload.scaling"}
    return np.logical_and.reduce([table[names.get(name, name)] == value for name, value in columns.items()])


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def caption(figure):
    return figure.legends[0].get_title().get_text()


def labelled(artists, label):
    return [artist for artist in artists if artist.get_label() == label]


def shown(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def bars(axes):
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def bar_ends(container):
    (collection,) = container[2]
    return [tuple(segment[:, 1]) for segment in collection.get_segments()]


def test_cost_over_deadline_has_a_column_per_scaling_with_the_means_and_below_the_ratios():
    figure = cost_over_deadline(runs())
    top, other_top, below, _ = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["bert-t4", "linear", "", ""]
    assert (top.get_ylabel(), below.get_ylabel()) == ("cost (USD)", "sha-fixed's cost\n/ policy's")
    assert [axes.get_xlabel() for axes in (top, other_top, below)] == ["", "", "deadline (min)"]
    (seer,) = labelled(top.lines, "seer")
    assert seer.get_ydata() == pytest.approx([2.025, 1.025])
    assert seer.get_xdata() == pytest.approx([10, 20], abs=0.5)
    assert len(bars(top)) == 3
    low, high = bar_ends(bars(top)[0])[0]
    assert 2.0 <= low < 2.025 < high <= 2.05
    (ratio,) = labelled(below.lines, "seer")
    seeds = 0.01 * np.arange(SEEDS)
    assert ratio.get_ydata()[0] == pytest.approx(np.exp(np.mean(np.log((6 + seeds) / (2 + seeds)))))
    assert not labelled(below.lines, "sha-fixed")
    assert labelled(below.lines, "_equal")[0].get_ydata()[0] == 1.0
    assert legend_texts(figure) == ["seer", "rubberband", "sha-fixed"]


def test_equal_costs_show_side_by_side():
    places = [labelled(cost_over_deadline(runs()).axes[0].lines, policy)[0].get_xdata()[0] for policy in POLICIES]
    assert places[0] < places[1] < places[2]
    assert places[1] == pytest.approx(10)
    assert offsets(np.array([1.0, 10.0, 100.0]), 3, is_log=True) == pytest.approx([-0.0921, 0, 0.0921], abs=1e-4)
    assert np.ptp(offsets(np.array([1.0, 2.0, 100.0]), 23)) <= 0.5 + 1e-9
    assert offsets(np.array([1.0]), 1).tolist() == [0.0]


def test_missed_deadlines_are_hollow_and_missing_plans_crosses():
    table = runs()
    table.loc[where(table, policy="rubberband", deadline_s=600.0, seed=2, scaling="linear"), "deadline_met"] = False
    gone = where(table, policy="seer", deadline_s=600.0, scaling="linear")
    table = table.astype({"deadline_met": object})
    table.loc[gone, ["status", "cost_usd", "deadline_met"]] = ["infeasible", np.nan, None]
    figure = cost_over_deadline(table)
    _, top, _, below = figure.axes
    (hollow,) = labelled(top.lines, "_hollow")
    assert hollow.get_markerfacecolor() == "white"
    assert len(hollow.get_xdata()) == 1
    assert hollow.get_ydata() == pytest.approx([4.025])
    (cross,) = labelled(top.lines, "_infeasible")
    assert cross.get_xdata() == pytest.approx([10], abs=0.5)
    assert len(labelled(top.lines, "seer")[0].get_xdata()) == 1
    assert len(labelled(below.lines, "seer")[0].get_xdata()) == 1
    assert legend_texts(figure)[3:] == ["some run missed the deadline", "no plan within the limits"]


def test_one_deadline_has_its_own_tick_and_far_ones_a_log_axis():
    (_, below) = cost_over_deadline(runs(deadlines=(1800.0,), scalings=("linear",))).axes
    assert [text.get_text() for text in below.get_xticklabels()] == ["30"]
    far = cost_over_deadline(runs(deadlines=(600.0, 1800.0, 7200.0), scalings=("linear",))).axes[1]
    assert far.get_xscale() == "log"
    assert [text.get_text() for text in far.get_xticklabels()] == ["10", "30", "120"]


def test_without_the_panels_column_there_is_one_panel_of_a_single_width():
    figure = cost_over_deadline(runs(scalings=("linear",)).drop(columns="workload.scaling"))
    assert figure.get_figwidth() == 3.4
    assert len(figure.axes) == 2
    five = cost_over_deadline(runs(scalings=[f"scaling-{number}" for number in range(5)]))
    assert (len(five.axes), len(shown(five))) == (12, 10)
    assert [balanced(panels, 4) for panels in (1, 2, 3, 4, 5, 6, 7, 9, 23)] == [1, 2, 3, 4, 3, 3, 4, 3, 4]


def test_runs_that_would_be_pooled_unseen_are_refused():
    with pytest.raises(InputError, match=r"several runs of policy seer, job.deadline_s 600.0, workload.scaling linear"):
        cost_over_deadline(runs(budgets=(4.0, 8.0)))
    with pytest.raises(
        InputError, match=r"cost_over_deadline: no policy static in the table, which has rubberband, seer"
    ):
        cost_over_deadline(runs(), reference="static")


def test_sensitivity_has_a_panel_per_parameter():
    one = runs(deadlines=(600.0,), scalings=("linear", "bert-t4")).assign(parameter="workload.scaling")
    table = pd.concat(
        [
            one.assign(**{"cloud.rescale_s": 10.0}),
            *(
                runs(deadlines=(600.0,), scalings=("linear",)).assign(
                    parameter="cloud.rescale_s", **{"cloud.rescale_s": seconds}
                )
                for seconds in (0.0, 60.0, 120.0)
            ),
        ]
    )
    figure = sensitivity(table, ["cloud.rescale_s", "workload.scaling"])
    numbers, texts = figure.axes
    assert (numbers.get_xlabel(), texts.get_xlabel()) == ("rescale (s)", "scaling")
    assert (numbers.get_ylabel(), texts.get_ylabel()) == ("regret (share of median - best)", "")
    (seer,) = labelled(numbers.lines, "seer")
    assert seer.get_ydata() == pytest.approx([0.025] * 3)
    assert seer.get_xdata() == pytest.approx([0, 60, 120], abs=5)
    assert [text.get_text() for text in texts.get_xticklabels()] == ["bert-t4", "linear"]
    assert labelled(texts.lines, "rubberband")[0].get_ydata() == pytest.approx([0.125] * 2)
    with pytest.raises(InputError, match="no column parameter in the table, which must say of each row which of 2"):
        sensitivity(table.drop(columns="parameter"), ["cloud.rescale_s", "workload.scaling"])
    with pytest.raises(InputError, match=r"no row varies job\.deadline_s"):
        sensitivity(table, ["job.deadline_s"])


def test_settings_too_near_one_another_stand_side_by_side():
    table = pd.concat(
        [
            runs(deadlines=(600.0,), scalings=("linear",)).assign(**{"cloud.billing.granularity_s": seconds})
            for seconds in (0.0, 60.0, 3600.0)
        ]
    )
    table.loc[where(table, policy="seer") & (table["cloud.billing.granularity_s"] == 3600), "status"] = "infeasible"
    figure = sensitivity(table, "cloud.billing.granularity_s", value="cost_usd")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "billing granularity (s)"
    assert axes.get_xticks().tolist() == [0, 1, 2]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "60", "3600"]
    assert len(labelled(axes.lines, "seer")[0].get_xdata()) == 2
    assert labelled(axes.lines, "_infeasible")[0].get_xdata() == pytest.approx([2], abs=0.3)


def test_a_categorical_column_gives_the_order_of_settings_and_nothing_to_draw_is_said():
    order = ["linear", "bert-t4"]
    table = runs(deadlines=(600.0,)).astype({"workload.scaling": pd.CategoricalDtype(order)})
    (axes,) = sensitivity(table, "workload.scaling").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == order
    (axes,) = sensitivity(table.assign(regret=np.nan), "workload.scaling").axes
    assert [text.get_text() for text in axes.texts] == ["no run has a value"]


def grid_runs(seeds=SEEDS):
    return runs(deadlines=(600.0, 1200.0, 1800.0), budgets=(4.0, 8.0), scalings=("linear",), seeds=seeds)


def test_the_grid_has_a_heat_map_per_policy_with_budgets_up_and_deadlines_across():
    table = grid_runs()
    gone = where(table, policy="rubberband", deadline_s=600.0, budget_usd=8.0)
    table.loc[gone, ["status", "regret"]] = ["infeasible", np.nan]
    figure = score_grid(table)
    seer, rubberband, sha, bar = figure.axes
    assert [axes.get_title(loc="left") for axes in (seer, rubberband, sha)] == list(POLICIES)
    assert (seer.get_xlabel(), seer.get_ylabel()) == ("deadline (min)", "budget (USD)")
    assert [text.get_text() for text in seer.get_xticklabels()] == ["10", "20", "30"]
    assert [text.get_text() for text in seer.get_yticklabels()] == ["4", "8"]
    assert bar.get_ylabel() == "regret\n(lower is better)"
    (mesh,) = labelled(rubberband.collections, "_cells")
    values = np.ma.filled(mesh.get_array(), np.nan)
    np.testing.assert_allclose(values, [[0.125, 0.125, 0.125], [np.nan, 0.125, 0.125]])
    (hatched,) = labelled(rubberband.patches, "_infeasible")
    assert (hatched.get_xy(), hatched.get_hatch()) == ((0, 1), "//////")
    assert not labelled(seer.patches, "_infeasible")
    assert [text.get_text() for text in seer.texts] == [".025"] * 6
    assert legend_texts(figure) == ["no plan within the limits"]
    assert caption(figure) == "mean regret (share of median - best)"


def test_a_difference_has_its_sign_and_a_frame_where_its_interval_leaves_out_zero():
    table = grid_runs()
    worse = where(table, policy="rubberband", budget_usd=8.0)
    # As often better as worse than seer: cannot be told apart.
    table.loc[worse, "regret"] = [0.01 * seed + 0.05 * (-1) ** seed for seed in table.loc[worse, "seed"]]
    figure = score_grid(table, against="seer")
    rubberband, sha, bar = figure.axes
    assert rubberband.get_title(loc="left") == "rubberband \N{MINUS SIGN} seer"
    assert [patch.get_xy()[1] for patch in labelled(rubberband.patches, "_clear")] == pytest.approx([0.06] * 3)
    assert len(labelled(sha.patches, "_clear")) == 6
    assert [text.get_text() for text in rubberband.texts] == ["+.100"] * 3 + [".000"] * 3
    assert bar.get_ylabel().startswith("difference in regret")
    assert legend_texts(figure) == ["95 % interval leaves out 0"]
    assert not any(labelled(axes.patches, "_clear") for axes in score_grid(grid_runs(seeds=5), against="seer").axes)


def test_the_scale_is_bright_where_it_is_better_and_symmetric_for_differences():
    values = np.array([-0.2, 0.0, 0.1])
    assert Scale.of(values, is_difference=False, is_less_better=True).colors == "cividis_r"
    assert Scale.of(values, is_difference=False, is_less_better=False).colors == "cividis"
    scale = Scale.of(values, is_difference=True, is_less_better=True)
    assert scale.low == -scale.high
    assert scale.colors == "PuOr_r"
    assert (scale.text(-0.2), scale.text(0.1), scale.text(0.0)) == ("\N{MINUS SIGN}.200", "+.100", ".000")
    assert Scale.of(np.array([7.1234]), is_difference=False, is_less_better=True).text(7.1234) == "7.12"
    nothing = Scale.of(np.full(3, np.nan), is_difference=False, is_less_better=True)
    assert nothing.low < nothing.high


def test_of_scores_the_direction_says_what_is_better():
    bar = score_grid(grid_runs().assign(direction="maximize"), value="score").axes[-1]
    assert bar.get_ylabel() == "score\n(higher is better)"
    with pytest.raises(InputError, match="score_grid: no column direction"):
        score_grid(grid_runs().drop(columns="direction"), value="score")


def test_one_cell_and_cells_without_values_are_drawn():
    (seer, *_) = score_grid(runs(deadlines=(600.0,), scalings=("linear",))).axes
    assert [text.get_text() for text in seer.texts] == [".025"]
    (seer, *_) = score_grid(grid_runs().assign(regret=np.nan)).axes
    assert not seer.texts


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
    table = pd.DataFrame({"family": "random", "comparison": "greedy, all levels", "gap": [0.0, 0.0, 0.05, 0.1]})
    figure = greedy_gap(pd.concat([table, table.assign(comparison="wide frontier", gap=0.02)]))
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "random (4 jobs)"
    assert axes.get_xlabel() == "costs more by (%)"
    (line,) = labelled(axes.lines, "greedy, all levels")
    end = 100 * np.quantile([0.0, 0.0, 0.05, 0.1], 0.99)
    assert line.get_xdata() == pytest.approx([0, 5, 10, end])
    assert line.get_ydata() == pytest.approx([0.5, 0.75, 1.0, 0.75])
    assert legend_texts(figure) == ["greedy, all levels", "wide frontier"]


def test_the_band_of_a_gap_is_dvoretzky_kiefer_and_wolfowitz():
    table = pd.DataFrame({"family": "random", "comparison": "fair frontier", "gap": [0.0] * 50 + [0.1] * 50})
    (axes,) = greedy_gap(table).axes
    (band,) = labelled(axes.collections, "_band")
    at_zero = band.get_paths()[0].vertices
    at_zero = at_zero[at_zero[:, 0] == 0][:, 1]
    assert (at_zero.min(), at_zero.max()) == pytest.approx((0.5 - 0.1358, 0.5 + 0.1358), abs=1e-4)


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


@pytest.mark.parametrize(
    ("make", "table", "columns"),
    [
        (cost_over_deadline, runs, ["policy", "seed", "job.deadline_s", "cost_usd", "deadline_met"]),
        (score_grid, grid_runs, ["policy", "seed", "job.deadline_s", "job.budget_usd", "regret"]),
        (performance_profiles, profile_table, ["policy", "tau", "share", "low", "high"]),
        (paired_differences, difference_table, ["policy", "mean", "low", "high", "better", "ties", "pairs"]),
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


@pytest.mark.parametrize("policies", [1, 24])
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


def test_a_columns_label_is_its_words_and_its_unit():
    told = {
        "cost_usd": "cost (USD)",
        "job.deadline_s": "deadline (s)",
        "cloud.startup.init_s.mean_s": "startup init mean (s)",
        "cloud.startup.init_s.cv": "startup init cv",
        "cloud.data.ingress_usd_per_gb": "data ingress (USD/GB)",
        "cloud.data.gb": "data (GB)",
        "cloud.faults.instance_loss_per_hour": "faults instance loss (1/h)",
        "ledger_usd.idle": "idle (USD)",
        "workload.scaling": "scaling",
        "deadline_met": "within the deadline (share of runs)",
    }
    assert {column: label_of(column) for column in told} == told


def test_a_series_leaves_out_what_is_not_finite():
    series = Series.of([(1.0, np.array([1.0, 3.0, np.nan])), (2.0, np.array([np.nan]))])
    assert series.value[0] == 2.0
    assert np.isnan(series.value[1])
    assert (series.low[0], series.high[0]) == (1.0, 3.0)
    assert len(Series.of([]).at) == 0
