"""Figures: scores over FLOPs, of configurations and of networks, and how sparse gates become."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from elastune.experiments.figures import style
from elastune.experiments.figures.tables import numbers, require_columns, score_axis_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.figures.style import Array

TRADE_OFF, NETWORKS, GATES = "trade_off", "networks_over_flops", "gate_sparsity"
_FLOPS = "FLOPs (multiply-adds of an image)"
_WHOLE = 2.0
"""Standard errors of a mean on either side."""


def trade_off(
    points: pd.DataFrame,
    answers: pd.DataFrame,
    *,
    minimized: bool,
    bound: float | None = None,
    score_label: str = "score",
) -> Figure:
    """Every configuration at its FLOPs and final score, those that no other beats in both, and what policies answered.

    Args:
        points: columns score and flops, one row per configuration; those without either are left out.
        answers: columns policy, score and flops, one row per run; may be empty.
        minimized: whether less of a score is better.
        bound: on FLOPs, drawn as a line.
        score_label: what the score is.

    Raises an InputError for a missing column.
    """
    require_columns(points, TRADE_OFF, ("score", "flops"))
    require_columns(answers, TRADE_OFF, ("policy", "score", "flops"), may_be_empty=True)
    scores, flops = (numbers(points, TRADE_OFF, name) for name in ("score", "flops"))
    known = np.isfinite(scores) & np.isfinite(flops)
    scores, flops = scores[known], flops[known]
    figure = style.new_figure(style.DOUBLE_IN, 3.4)
    axes = figure.add_subplot()
    axes.plot(flops, scores, ".", color=style.RULE, alpha=0.6, markersize=5, label="configurations")
    best = efficient(flops, scores if minimized else -scores)
    axes.plot(flops[best], scores[best], "-", color=style.INK, linewidth=1.0, label="no other is better and cheaper")
    if bound is not None:
        axes.axvline(bound, color=style.INK, linewidth=0.8, linestyle=style.LIMIT_DASHES, label=f"bound {bound:,.0f}")
    for place, (policy, look) in enumerate(style.looks_of(answers["policy"].unique()).items()):
        its = answers[answers["policy"] == policy]
        axes.plot(
            its["flops"],
            its["score"],
            look.marker,
            color=look.color,
            markersize=5,
            alpha=0.55,
            label=policy,
            zorder=9 - place / 99,
        )
    axes.set_xscale("log")
    style.dress(axes, _FLOPS, score_axis_label(score_label, minimized=minimized))
    runs = f"; {len(answers)} answers" if len(answers) else ""
    style.legend_below(figure, axes.get_legend_handles_labels()[0], f"{known.sum()} configurations at their end{runs}")
    return style.finished(figure)


def efficient(flops: Array, losses: Array) -> np.ndarray:
    """Rows that no other beats in FLOPs and loss, by FLOPs."""
    order = np.lexsort((losses, flops))
    least = np.minimum.accumulate(losses[order])
    is_first = np.concatenate([[True], losses[order][1:] < least[:-1]])
    rows: np.ndarray = order[is_first]
    return rows


def networks_over_flops(rows: pd.DataFrame, *, measure: str = "test") -> Figure:
    """Accuracy over FLOPs, a line per kind of network; means over seeds with two standard errors.

    Args:
        rows: columns network, width, sparsity, seed, flops, and the measure; one row per training. Where there are columns data
            and body, each pair of them has a panel.
        measure: column of the accuracy.

    Raises an InputError for a missing column.
    """
    require_columns(rows, NETWORKS, ("network", "width", "sparsity", "seed", "flops", measure))
    parts = [("", rows)]
    if {"data", "body"} <= set(rows):
        parts = [(", ".join(map(str, names)), part) for names, part in rows.groupby(["data", "body"], sort=False)]
    columns = style.balanced(len(parts), 2)
    figure = style.new_figure(style.DOUBLE_IN, 1.2 + 2.2 * math.ceil(len(parts) / columns))
    looks = style.looks_of(rows["network"].unique())
    handles: dict[object, Artist] = {}
    for panel, (name, part) in zip(style.panels_on(figure, len(parts), columns), parts, strict=True):
        for network in [network for network in looks if network in set(part["network"])]:
            _network_line(panel.axes, part[part["network"] == network], looks[network], measure)
        handles |= {line.get_label(): line for line in panel.axes.get_legend_handles_labels()[0]}
        panel.axes.set_xscale("log")
        style.panel_name(panel.axes, name, style.DOUBLE_IN / columns)
        label = score_axis_label(f"{measure} accuracy", minimized=False) if panel.is_left else ""
        style.dress(panel.axes, _FLOPS if panel.is_lowest else "", label)
    told = [handles[network] for network in looks]
    seeds = rows["seed"].nunique()
    style.legend_below(figure, told, f"means of {seeds} trainings, with two standard errors")
    return style.finished(figure)


def _network_line(axes: Axes, rows: pd.DataFrame, look: style.Look, measure: str) -> None:
    """The means of one kind of network, by FLOPs; a single training has no error."""
    grouped = rows.groupby(["width", "sparsity"])[["flops", measure]]
    middle, spread = grouped.mean(), grouped.sem().fillna(0.0) * _WHOLE
    at = middle["flops"].argsort().to_numpy()
    middle, spread = middle.iloc[at], spread.iloc[at]
    axes.errorbar(
        middle["flops"], middle[measure], yerr=spread[measure], xerr=spread["flops"], color=look.color, capsize=2,
        marker=look.marker, markersize=4, linewidth=1.0, elinewidth=0.7, label=rows["network"].iloc[0],
    )  # fmt: skip


def gate_sparsity(rows: pd.DataFrame) -> Figure:
    """The share of channels that are active, by gated layer, and FLOPs, over the weight of the sparsity loss.

    Args:
        rows: columns sparsity, seed, active (a share for each layer, separated by spaces), flops, dense_flops and routed; one
            row per training of one kind of network.

    Raises an InputError for a missing column.
    """
    require_columns(rows, GATES, ("sparsity", "seed", "active", "flops", "dense_flops", "routed"))
    shares = np.array([[float(share) for share in text.split()] for text in rows["active"]])
    figure = style.new_figure(style.DOUBLE_IN, 2.8)
    left, right = figure.subplots(1, 2)
    settings = np.sort(rows["sparsity"].unique())
    places = np.arange(len(settings))
    of_setting = [rows["sparsity"].to_numpy() == one for one in settings]
    looks = list(style.looks_of(f"layer {number + 1}" for number in range(shares.shape[1])).items())
    for layer, (name, look) in enumerate(looks):
        means = [shares[chosen, layer].mean() for chosen in of_setting]
        left.plot(places, means, color=look.color, marker=look.marker, markersize=4, linewidth=1.0, label=name)
    for column, label, color in (
        ("flops", "FLOPs, share of dense", "#0072B2"),
        ("routed", "used by some images only", "#D55E00"),
    ):
        values = rows[column].to_numpy() / (rows["dense_flops"].to_numpy() if column == "flops" else 1.0)
        right.plot(
            places, [values[chosen].mean() for chosen in of_setting], marker="o", markersize=4, color=color, label=label
        )
        for place, chosen in zip(places, of_setting, strict=True):
            right.plot([place] * int(chosen.sum()), values[chosen], ".", color=color, alpha=0.4, markersize=3)
    for axes, label in ((left, "share of active channels"), (right, "share")):
        _by_setting(axes, settings, label)
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    style.legend_below(figure, handles, f"means of {rows['seed'].nunique()} trainings; points: each of them")
    return style.finished(figure)


def _by_setting(axes: Axes, settings: Array, label: str) -> None:
    axes.set_xticks(range(len(settings)), [f"{one:g}" for one in settings])
    axes.set_ylim(bottom=0)
    style.dress(axes, "lambda", label)
