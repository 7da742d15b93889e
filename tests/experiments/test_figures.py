import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.container import ErrorbarContainer
from typer.testing import CliRunner

from elastune.experiments.cli.app import app
from elastune.experiments.figures import (
    best_so_far,
    comparison,
    curves,
    gpus_over_time,
    ledger,
    save,
    score_over_cost,
)
from elastune.experiments.figures.style import KNOWN, looks_of
from elastune.experiments.figures.summary import mean_band, median_band, robust_view
from elastune.experiments.figures.tables import resampled
from elastune.experiments.known_policies import policy_names
from elastune.sim.model.errors import InputError

POLICIES = ("seer", "rubberband", "homemade")
SEEDS = 7


def results(direction="minimize"):
    rng = np.random.default_rng(0)
    rows = [
        (policy, seed, 0.03 + 0.01 * place + 0.002 * rng.random(), 8 + place + 0.3 * rng.random(), 12.0, direction)
        for place, policy in enumerate(POLICIES)
        for seed in range(SEEDS)
    ]
    return pd.DataFrame(rows, columns=["policy", "seed", "score", "cost_usd", "budget_usd", "direction"])


def trajectories(direction="minimize"):
    columns = ["policy", "seed", "at_s", "spent_usd", "best_score", "gpus_held", "gpus_ready", "direction"]
    steps = [(0, None, 0, 0), (100, None, 0, 8), (300, 0.5, 6, 8), (900, 0.2, 4, 4), (1500, 0.1, 0, 0)]
    rows = [
        (policy, seed, at_s + 10.0 * seed * (at_s > 0), at_s / 150, best, held, ready, direction)
        for policy in POLICIES
        for seed in range(SEEDS)
        for at_s, best, held, ready in steps
    ]
    return pd.DataFrame(rows, columns=columns).assign(deadline_s=1800.0, budget_usd=12.0)


def learning_curves():
    rng = np.random.default_rng(0)
    scores = 0.02 + rng.random((30, 1)) * np.exp(-rng.random((30, 1)) * np.arange(12))
    scores[3, 5:] = np.nan
    scores[4, 2:] = np.inf
    trial, iteration = np.divmod(np.arange(scores.size), 12)
    table = pd.DataFrame({"trial": trial, "iteration": iteration + 1, "score": scores.ravel()})
    return table.assign(direction="minimize"), scores


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def caption(figure):
    return figure.legends[0].get_title().get_text()


def labelled(artists, label):
    return [artist for artist in artists if artist.get_label() == label]


def bars(axes):
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def test_score_over_cost_draws_every_run_and_the_mean_of_each_policy():
    table = results()
    figure = score_over_cost(table, score_label="validation error")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("cost (USD)", "validation error\n(lower is better)")
    assert legend_texts(figure) == list(POLICIES)
    runs = labelled(axes.collections, "_runs")
    assert [len(marks.get_offsets()) for marks in runs] == [SEEDS] * len(POLICIES)
    for policy, bar in zip(POLICIES, bars(axes), strict=True):
        mine = table[table["policy"] == policy]
        assert bar[0].get_xydata()[0] == pytest.approx([np.mean(mine["cost_usd"]), np.mean(mine["score"])])
        assert bar.has_xerr
        assert bar.has_yerr
    assert [line.get_xdata()[0] for line in labelled(axes.lines, "_limit")] == [12.0]
    assert [text.get_text() for text in axes.texts] == ["budget 12 USD"]
    assert "95 % bootstrap" in caption(figure)


def test_runs_without_a_score_are_left_out_and_counted():
    table = results().astype({"score": object})
    table.loc[[0, 1], "score"] = [None, np.nan]
    figure = score_over_cost(table)
    assert legend_texts(figure)[0] == f"seer (2 of {SEEDS} unscored)"
    assert bars(figure.axes[0])[0][0].get_ydata()[0] == pytest.approx(np.mean(table["score"][2:SEEDS]))
    assert legend_texts(score_over_cost(table.astype({"score": "Float64"}))) == legend_texts(figure)


def test_a_table_without_any_score_still_makes_a_figure():
    table = results().assign(score=None)
    assert legend_texts(score_over_cost(table))[1] == f"rubberband ({SEEDS} of {SEEDS} unscored)"


def test_one_outlier_sits_on_the_edge_and_does_not_flatten_the_picture():
    table = results()
    table.loc[2, "score"] = 1e9
    figure = score_over_cost(table)
    (axes,) = figure.axes
    assert axes.get_ylim()[1] < 0.1
    (beyond,) = labelled(axes.collections, "_beyond")
    assert beyond.get_offsets()[0][1] == pytest.approx(axes.get_ylim()[1])
    assert caption(figure).endswith("on the edge: 1 run beyond the axes")
    assert len(labelled(axes.lines, "_mean beyond")) == 1


def test_a_policy_that_is_far_worse_is_shown_all_the_same():
    table = results("maximize")
    table.loc[table["policy"] == "homemade", "score"] -= 5
    low, high = score_over_cost(table).axes[0].get_ylim()
    assert low < table["score"].min()
    assert high > table["score"].max()


def test_a_far_budget_does_not_flatten_the_costs_and_is_still_named():
    (axes,) = score_over_cost(results().assign(budget_usd=500.0)).axes
    assert axes.get_xlim()[1] < 20
    assert [text.get_text() for text in axes.texts] == ["budget 500 USD →"]


@pytest.mark.parametrize(("x", "label", "limit"), [("at_s", "time (min)", 30.0), ("spent_usd", "spent (USD)", 12.0)])
def test_best_so_far_draws_the_median_of_the_seeds_as_steps(x, label, limit):
    table = trajectories()
    figure = best_so_far(table, x, score_label="error")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (label, "error\n(lower is better)")
    assert [line.get_xdata()[0] for line in labelled(axes.lines, "_limit")] == [limit]
    (line,) = labelled(axes.lines, "seer")
    grid = np.asarray(line.get_xdata()) * (60 if x == "at_s" else 1)
    steps = resampled(table[table["policy"] == "seer"], "test", x, "best_score", grid)
    expected = np.median(np.nan_to_num(steps, nan=1e9), axis=0)
    np.testing.assert_allclose(line.get_ydata(), np.where(expected > 1, np.nan, expected))
    assert line.get_drawstyle() == "steps-post"
    assert len([c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]) == len(POLICIES)
    assert caption(figure) == f"median of {SEEDS} seeds with 95 % bootstrap interval"


def test_the_line_starts_when_more_than_half_of_the_seeds_have_a_score_and_holds_to_the_end():
    (line,) = labelled(best_so_far(trajectories()).axes[0].lines, "seer")
    minutes, scores = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    started = minutes[np.isfinite(scores)]
    assert started[0] * 60 == pytest.approx(330, abs=1800 / 399)
    assert (minutes[-1], scores[-1]) == (30.0, 0.1)


def test_a_run_that_never_scores_counts_as_the_worst():
    table = trajectories("maximize")
    table["best_score"] = table["best_score"].where((table["policy"] != "seer") | (table["seed"] < 3))
    (line,) = labelled(best_so_far(table).axes[0].lines, "seer")
    assert not np.isfinite(line.get_ydata()).any()
    assert best_so_far(table.assign(best_score=np.nan)).axes


def test_best_so_far_refuses_another_x():
    with pytest.raises(InputError, match="x is 'iteration', but must be at_s or spent_usd"):
        best_so_far(trajectories(), "iteration")


def test_gpus_over_time_has_a_panel_per_policy_with_the_means_over_the_seeds():
    table = trajectories()
    figure = gpus_over_time(table)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(POLICIES)
    assert [axes.get_xlabel() for axes in figure.axes] == ["time (min)"] * 3
    assert figure.axes[0].get_ylabel() == "GPUs"
    (ready,) = labelled(figure.axes[0].lines, "seer")
    mine = table[table["policy"] == "seer"]
    grid = np.asarray(ready.get_xdata()) * 60
    np.testing.assert_allclose(
        ready.get_ydata(), np.mean(resampled(mine, "test", "at_s", "gpus_ready", grid), axis=0), atol=1e-12
    )
    (held,) = labelled(figure.axes[0].collections, "_held")
    expected = np.mean(resampled(mine, "test", "at_s", "gpus_held", grid), axis=0)
    assert held.get_paths()[0].vertices[:, 1].max() == pytest.approx(expected.max())
    assert legend_texts(figure) == ["GPUs ready (rented)", "GPUs held by trials", "deadline"]


def test_without_a_deadline_none_is_drawn():
    figure = gpus_over_time(trajectories().drop(columns="deadline_s"))
    assert legend_texts(figure) == ["GPUs ready (rented)", "GPUs held by trials"]
    assert not labelled(figure.axes[0].lines, "_limit")


def test_curves_highlights_the_best_and_counts_the_diverged():
    table, scores = learning_curves()
    figure = curves(table, score_label="error", highlighted=2)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "error\n(lower is better)")
    (thin,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert len(thin.get_segments()) == 30
    finite = np.where(np.isfinite(scores), scores, np.nan)
    best = np.argsort(np.nanmin(finite, axis=1))[:2]
    assert legend_texts(figure)[3:] == [f"trial {trial}, best {np.nanmin(finite[trial]):.3g}" for trial in best]
    (median,) = labelled(axes.lines, "_median")
    np.testing.assert_allclose(median.get_ydata(), np.nanmedian(finite, axis=0))
    assert caption(figure) == "thin lines: 30 trials; 2 diverged"


def test_curves_of_a_diverged_bundle_make_a_figure():
    table, _ = learning_curves()
    assert caption(curves(table.assign(score=np.nan))) == "thin lines: 30 trials; 30 diverged"


def test_curves_refuses_two_scores_for_one_iteration():
    table, _ = learning_curves()
    with pytest.raises(InputError, match="curves: some trial has two rows for one iteration"):
        curves(pd.concat([table, table.head(1)]))


def test_comparison_has_three_panels_and_one_legend_at_the_width_of_a_page():
    figure = comparison(results(), trajectories(), score_label="error")
    assert figure.get_figwidth() == 7.0
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["cost (USD)", "", "time (min)"]
    assert legend_texts(figure) == list(POLICIES)
    assert figure.axes[1].get_xlim() == figure.axes[2].get_xlim()


@pytest.mark.parametrize(
    ("make", "table", "columns"),
    [
        (score_over_cost, results, ["policy", "score", "cost_usd", "budget_usd", "direction"]),
        (best_so_far, trajectories, ["policy", "seed", "at_s", "best_score", "direction"]),
        (gpus_over_time, trajectories, ["policy", "seed", "at_s", "gpus_held", "gpus_ready"]),
        (curves, lambda: learning_curves()[0], ["trial", "iteration", "score", "direction"]),
    ],
)
def test_a_missing_column_is_named_with_its_figure(make, table, columns):
    for column in columns:
        with pytest.raises(InputError, match=f"^{make.__name__}: no column {column} in the table"):
            make(table().drop(columns=column))
    with pytest.raises(InputError, match=f"^{make.__name__}: the table has no rows"):
        make(table().head(0))


def test_directions_must_agree():
    table = results()
    table.loc[0, "direction"] = "maximize"
    with pytest.raises(InputError, match="direction is maximize, minimize"):
        score_over_cost(table)


def test_words_are_no_scores():
    with pytest.raises(InputError, match="score_over_cost: column score must hold numbers"):
        score_over_cost(results().assign(score="good"))


@pytest.mark.many(fast=1)
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_equal_tables_give_equal_bytes(tmp_path, suffix):
    figure = comparison(results(), trajectories())
    first = save(figure, tmp_path / "new" / f"a{suffix}")
    again = save(figure, tmp_path / f"b{suffix}")
    other = save(comparison(results(), trajectories()), tmp_path / f"c{suffix}")
    assert first.read_bytes() == again.read_bytes() == other.read_bytes()
    assert b"CreationDate" not in first.read_bytes()


def test_a_format_is_refused_before_any_work_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("elastune.experiments.plans.planning.make_plans", lambda *_, **__: pytest.fail("planned"))
    for folder, figure, message in (
        ("", "a.gif", "cannot write a.gif: a figure is one of .png, .pdf, .svg"),
        ("", "svg", "cannot write svg: a figure is one of .png, .pdf, .svg"),
    ):
        failed = CliRunner().invoke(app, ["plan", "headline", "--figure", str(tmp_path / folder / figure)])
        assert failed.exit_code == 2
        assert message in failed.stderr


def test_save_refuses_other_formats(tmp_path):
    with pytest.raises(InputError, match=r"cannot write a\.gif: a figure is one of \.png, \.pdf, \.svg"):
        save(score_over_cost(results()), tmp_path / "a.gif")


def test_nothing_sticks_out_of_a_figure():
    for figure in (comparison(results(), trajectories()), gpus_over_time(trajectories()), score_over_cost(results())):
        tight, width, height = figure.get_tightbbox(), *figure.get_size_inches()
        assert min(tight.x0, tight.y0) >= 0
        assert tight.x1 <= width
        assert tight.y1 <= height


def test_the_only_variant_of_a_policy_looks_like_it_and_is_drawn_in_its_place():
    alone = looks_of(["asha-fixed", "seer:truncate=always"])
    assert list(alone) == ["seer:truncate=always", "asha-fixed"]
    assert alone["seer:truncate=always"] == KNOWN["seer"]
    beside = looks_of(["seer", "seer:truncate=always"])
    assert beside["seer:truncate=always"] not in KNOWN.values()
    two = looks_of(["seer:truncate=never", "seer:truncate=always"])
    assert not set(two.values()) & set(KNOWN.values())


def test_a_policy_looks_the_same_in_every_subset():
    everything = looks_of([*KNOWN, "homemade"])
    assert looks_of(["rubberband", "homemade"]) == {name: everything[name] for name in ("rubberband", "homemade")}
    assert len({(look.color, look.marker) for look in everything.values()}) == len(everything)
    assert len({look.color for look in everything.values()}) == len(everything)
    assert set(policy_names()) <= {name.partition(":")[0] for name in KNOWN}
    many = looks_of(f"mine-{number}" for number in range(30))
    assert len(set(many.values())) == 30


def test_intervals_hold_the_centre_and_shrink_with_the_seeds():
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=8), rng.normal(size=200)
    for values in (few, many):
        (mean,), (low,), (high,) = mean_band(values[:, None])
        assert mean == pytest.approx(np.mean(values))
        assert high - low == pytest.approx(2 * 1.96 * np.std(values) / math.sqrt(len(values)), rel=0.15)
    assert mean_band(np.array([[3.0]])) == (3.0, 3.0, 3.0)


def test_the_median_band_takes_infinities():
    values = np.array([[1.0, 1.0], [2.0, np.inf], [3.0, np.inf]])
    median, low, high = median_band(values)
    assert median.tolist() == [2.0, np.inf]
    assert low[0] == low[1] == 1.0
    assert high.tolist() == [3.0, np.inf]


def test_a_log_axis_only_where_positive_values_span_a_factor_of_ten():
    values = np.geomspace(0.01, 1, 50)
    assert robust_view([values], may_be_log=True).is_log
    assert not robust_view([values]).is_log
    assert not robust_view([values - 0.5], may_be_log=True).is_log
    assert not robust_view([values[40:]], may_be_log=True).is_log


def test_figures_are_made_without_pyplot_and_imported_without_matplotlib():
    code = """
import sys
import elastune.experiments.figures.panels, elastune.experiments.figures.learning
assert not {"matplotlib", "pandas"} & set(sys.modules) - before
from matplotlib.figure import Figure
import pandas as pd
table = pd.DataFrame({"trial": [1, 1], "iteration": [1, 2], "score": [0.2, 0.1], "direction": "minimize"})
elastune.experiments.figures.learning.curves(table)
assert "matplotlib.pyplot" not in sys.modules
"""
    # What the experiments package itself imports is tested elsewhere.
    code = "import sys, elastune.experiments\nbefore = set(sys.modules)\n" + code
    subprocess.run([sys.executable, "-c", code], check=True)


def test_best_so_far_shows_falls_on_a_log_axis_and_cuts_them_on_a_linear_one():
    table = trajectories()
    assert best_so_far(table).axes[0].get_yscale() == "linear"
    deep = table.assign(best_score=table["best_score"].replace(0.1, 0.004))
    (axes,) = best_so_far(deep).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 0.004
    assert axes.get_ylim()[1] > 0.5
    early = pd.DataFrame({"at_s": [0.0, 100.0, 110.0, 1800.0], "best_score": [np.nan, -90.0, 0.8, 0.9]})
    early = early.assign(policy="seer", seed=0, direction="maximize")
    assert best_so_far(early).axes[0].get_ylim()[0] > 0.7


def ledger_rows():
    parts = {"training": (6.0, 2.0), "startup": (1.0, 0.5), "idle_at_barriers": (0.5, 0.25), "head_node": (0.25, 0.0)}
    rows = [
        (policy, part, usd * (1 + place), gpu_hours)
        for place, policy in enumerate(POLICIES)
        for part, (usd, gpu_hours) in parts.items()
    ]
    return pd.DataFrame(rows, columns=["policy", "part", "usd", "gpu_hours"]).assign(budget_usd=25.0)


def test_the_ledger_stacks_the_parts_of_each_policy_to_its_bill():
    figure = ledger(ledger_rows())
    dollars, hours = figure.axes
    assert (dollars.get_xlabel(), hours.get_xlabel()) == ("cost (USD)", "GPU-hours rented")
    assert [label.get_text() for label in dollars.get_yticklabels()] == list(POLICIES)
    assert legend_texts(figure) == ["training", "startup", "idle at barriers", "head node"]
    for axes, scale, one in ((dollars, (1, 2, 3), 7.75), (hours, (1, 1, 1), 2.75)):
        ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in zip(*axes.containers, strict=True)]
        assert ends == pytest.approx([one * factor for factor in scale])
    assert [text.get_text() for text in dollars.texts] == ["7.75", "15.5", "23.2", "budget 25 USD"]
    assert [line.get_xdata()[0] for line in labelled(dollars.lines, "_limit")] == [25.0]
    assert dollars.get_xlim()[1] > 25.0


@pytest.mark.parametrize("budget_usd", [24.0, 60.0])
def test_the_sums_of_a_ledger_stand_beyond_the_bars_and_the_budget(budget_usd):
    figure = ledger(ledger_rows().assign(budget_usd=budget_usd))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (limit,) = [line for line in axes.lines if line.get_label() == "_limit"]
    to_pixels = axes.transData.transform
    bars = max(to_pixels((bar.get_x() + bar.get_width(), 0))[0] for bar in axes.patches)
    line = to_pixels((limit.get_xdata()[0], 0))[0]
    sums = [text.get_window_extent() for text in axes.texts if text.get_text().replace(".", "").isdigit()]
    assert len(sums) == len(axes.get_yticks())
    for box in sums:
        assert box.x0 > bars
        assert box.x0 > line or box.x1 < line


def test_a_part_of_the_ledger_may_be_below_zero_and_a_bill_nothing():
    table = ledger_rows().drop(columns="budget_usd")
    assert ledger(table.assign(usd=0.0)).axes[0].get_xlim()[1] > 0
    table.loc[table["part"] == "head_node", ["part", "usd"]] = ["rounding", -0.1]
    assert legend_texts(ledger(table))[-1] == "rounding"
    with pytest.raises(InputError, match="ledger: no column part"):
        ledger(table.drop(columns="part"))
