import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

from elastune.experiments.figures import cost_over_deadline, score_grid, sensitivity
from elastune.experiments.figures.grid import Scale
from elastune.experiments.figures.series import offsets
from elastune.experiments.figures.style import balanced
from elastune.experiments.figures.tables import Series, few_policies, label_of
from elastune.sim.model.errors import InputError

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
            "completed": True,
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
    assert (top.get_ylabel(), below.get_ylabel()) == ("cost (USD)", "sha-fixed's\ncost / policy's")
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


def test_the_dearest_panel_stretches_the_axis_that_all_share_wherever_it_stands():
    dear = runs(scalings=("linear",)).assign(cost_usd=lambda table: 10 * table["cost_usd"])
    figure = cost_over_deadline(pd.concat([runs(scalings=("bert-t4",)), dear]), reference="sha-fixed")
    for axes in figure.axes[:2]:
        low, high = axes.get_ylim()
        assert low == 0
        assert high > dear["cost_usd"].max()


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
    table = table.astype({"completed": object, "deadline_met": object})
    table.loc[gone, ["status", "cost_usd", "completed", "deadline_met"]] = ["infeasible", np.nan, None, None]
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
    assert legend_texts(figure)[3:] == ["some run was cut or late", "no plan within the limits"]


def test_a_run_that_was_cut_is_not_cheap():
    table = runs(scalings=("linear",))
    cut = where(table, policy="rubberband", deadline_s=600.0, seed=2, scaling="linear")
    before = cost_over_deadline(table).axes
    table.loc[cut, ["cost_usd", "completed"]] = [0.01, False]
    top, below = cost_over_deadline(table).axes
    (hollow,) = labelled(top.lines, "_hollow")
    kept = table[where(table, policy="rubberband", deadline_s=600.0, scaling="linear") & ~cut]
    assert hollow.get_ydata() == pytest.approx([kept["cost_usd"].mean()])
    # The ratio of that deadline is over one pair less, and that of the others is as it was.
    now, then = (labelled(axes.lines, "rubberband")[0].get_ydata() for axes in (below, before[1]))
    assert now[1:] == pytest.approx(then[1:])
    assert now[0] < 1.1 * then[0]


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


def test_a_bundle_that_brings_its_own_scaling_has_a_panel():
    own = runs(scalings=("linear",)).assign(**{"workload.scaling": None})
    figure = cost_over_deadline(own)
    assert [axes.get_title(loc="left") for axes in shown(figure)] == ["of the bundle", ""]
    both = cost_over_deadline(pd.concat([own, runs(scalings=("linear",))]))
    assert [axes.get_title(loc="left") for axes in shown(both)[:2]] == ["linear", "of the bundle"]
    with pytest.raises(InputError, match=r"score_grid: no row has a value of job.budget_usd, over which the cells lie"):
        score_grid(runs(scalings=("linear",)).assign(**{"job.budget_usd": np.nan}))


@pytest.mark.parametrize(("columns", "rotation"), [(7, 0), (20, 90)])
def test_every_deadline_of_a_heat_map_has_its_label(columns, rotation):
    deadlines_s = tuple(600.0 * (1 + place) for place in range(columns))
    rows = runs(deadlines=deadlines_s, scalings=("linear",), seeds=1)
    figure = score_grid(rows[rows["policy"] == "seer"])
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == [
        f"{at_s / (60 if columns == 7 else 3600):.3g}" for at_s in deadlines_s
    ]
    assert {label.get_rotation() for label in labels} == {rotation}
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


def test_what_versions_of_results_and_cells_would_mix_is_refused():
    table = runs(deadlines=(600.0,), scalings=("linear",))
    versions = table.assign(results_version=np.where(table["seed"] < 2, "1", "2"))
    for draw in (cost_over_deadline, score_grid, lambda rows: sensitivity(rows, "workload.scaling")):
        with pytest.raises(InputError, match=r"rows are of several versions of results: 2 \(12 rows\), 1 \(6 rows\)"):
            draw(versions)
    with pytest.raises(InputError, match="cost_over_deadline: no row has a deadline"):
        cost_over_deadline(table.assign(**{"job.deadline_s": np.nan}))


def test_bundles_that_share_their_seeds_do_not_make_intervals_shorter():
    table = runs(deadlines=(600.0,), scalings=("linear",))
    twins = [table.assign(**{"workload.bundle": bundle}) for bundle in ("a", "b", "c", "d")]
    for draw in (cost_over_deadline, lambda rows: sensitivity(rows, "workload.scaling")):
        alone, together = (bar_ends(bars(draw(rows).axes[0])[0])[0] for rows in (table, pd.concat(twins)))
        assert together == pytest.approx(alone)
    few = runs(deadlines=(600.0,), scalings=("linear",), seeds=3)
    (_, sha, _) = score_grid(pd.concat([few, few.assign(**{"workload.bundle": "b"})]), against="seer").axes
    assert not labelled(sha.patches, "_clear")  # six pairs, but three seeds


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
    series = Series.of([(1.0, np.array([1.0, 3.0, np.nan]), np.arange(3)), (2.0, np.array([np.nan]), np.arange(1))])
    assert series.value[0] == 2.0
    assert np.isnan(series.value[1])
    assert (series.low[0], series.high[0]) == (1.0, 3.0)
    assert len(Series.of([]).at) == 0


def test_a_picture_of_many_policies_shows_the_reference_and_the_best():
    rows = pd.DataFrame(
        [{"policy": f"p{place}", "seed": 0, "regret": place / 10, "status": "done"} for place in range(10)]
    )
    assert few_policies(rows, "p9") == ["p9", *(f"p{place}" for place in range(7))]
    assert few_policies(rows.head(3), "p1") == ["p1", "p0", "p2"]
    assert few_policies(rows.head(3), "none of its runs is done", ["p2"]) == ["p2", "p0", "p1"]
