"""Traces for Plotly from the tables of policies: where money went, score over cost, best score over time.

Imports `experiments.figures` for colours, units and step functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elastune.experiments.figures.ledger import COLORS
from elastune.experiments.figures.style import looks_of
from elastune.experiments.figures.tables import SECONDS, few_policies, limits_of, resampled, time_unit
from elastune.experiments.reports.page import Chart, label

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_GRID = 200
_LINE = {"color": "#555", "width": 1.5, "dash": "dash"}


def upright(x: float, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A limit as a line from bottom to top, and its name beside it: (shape, annotation) of a layout."""
    shape = {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": _LINE}
    above = {
        "x": x,
        "y": 0.99,
        "yref": "paper",
        "xanchor": "right",
        "yanchor": "top",
        "text": text,
        "showarrow": False,
        "bgcolor": "#ffffff",
    }
    return shape, above


def limited(layout: dict[str, Any], limits_usd: Sequence[float], name: str, unit: str) -> dict[str, Any]:
    """The layout with these limits of the horizontal axis."""
    drawn = [upright(limit, f"{name} {limit:.4g} {unit}") for limit in limits_usd[:3]]
    return layout | {"shapes": [shape for shape, _ in drawn], "annotations": [above for _, above in drawn]}


def ledger_chart(ledger: pd.DataFrame) -> Chart:
    """Mean dollars of each policy by part.

    Args:
        ledger: columns policy, part, usd, gpu_hours, and budget_usd where there is one.
    """
    policies = list(dict.fromkeys(ledger["policy"]))[::-1]
    table = ledger.pivot_table(index="policy", columns="part", values="usd", sort=False).reindex(policies)
    hours = ledger.pivot_table(index="policy", columns="part", values="gpu_hours", sort=False).reindex(policies)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part.replace("_", " "),
            "y": [label(policy) for policy in policies],
            "x": table[part],
            "customdata": hours[part],
            "marker": {"color": color},
            "hovertemplate": "%{y}<br>%{x:.3g} USD, %{customdata:.3g} GPU-hours<extra>%{fullData.name}</extra>",
        }
        for part, color in COLORS.items()
        if part in table and (table[part].abs() > 0).any()
    ]
    layout = {
        "barmode": "relative",
        "height": 200 + 34 * len(policies),
        "xaxis": {"title": {"text": "cost (USD)"}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "margin": {"l": 70, "r": 20, "t": 90, "b": 50},
    }
    budgets = limits_of(ledger, "ledger", "budget_usd")
    note = f"Means over the runs; the budget is {', '.join(f'{one:,.4g}' for one in budgets)} USD." if budgets else ""
    shapes = [upright(budget, "")[0] for budget in budgets[:3]]
    return Chart("Dollars by part", traces, layout | {"shapes": shapes}, note=note)


def score_chart(done: pd.DataFrame) -> Chart:
    """Score over cost: a mark per run, a larger one per policy.

    Args:
        done: rows of runs that are done: policy, seed, score, cost_usd, budget_usd.
    """
    colors = {policy: look.color for policy, look in looks_of(done["policy"]).items()}
    traces: list[dict[str, Any]] = []
    for policy, rows in done.groupby("policy", sort=False):
        shared: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "legendgroup": label(policy),
            "name": label(policy),
        }
        told = "<br>%{y:.4g} for %{x:.3g} USD<extra>"
        traces += [
            shared
            | {
                "x": rows["cost_usd"],
                "y": rows["score"],
                "text": rows["seed"],
                "showlegend": False,
                "marker": {"color": colors[str(policy)], "size": 5, "opacity": 0.45},
                "hovertemplate": f"seed %{{text}}{told}{label(policy)}</extra>",
            },
            shared
            | {
                "x": [rows["cost_usd"].mean()],
                "y": [rows["score"].mean()],
                "marker": {"color": colors[str(policy)], "size": 14, "line": {"color": "#fff", "width": 1.5}},
                "hovertemplate": f"mean{told}{label(policy)}</extra>",
            },
        ]
    layout = {"xaxis": {"title": {"text": "cost (USD)"}}, "yaxis": {"title": {"text": _better(done)}}}
    budgets = limits_of(done, "score over cost", "budget_usd")
    return Chart(
        "Score over cost",
        traces,
        limited(layout, budgets, "budget", "USD"),
        note="Small marks are runs, large ones their means.",
    )


def _better(table: pd.DataFrame) -> str:
    """What the axis says: which way is better."""
    return f"score ({'lower' if table['direction'].iloc[0] == 'minimize' else 'higher'} is better)"


def best_chart(trajectories: pd.DataFrame, done: pd.DataFrame, reference: str) -> Chart:
    """Mean of the best score so far over time, of few policies.

    Args:
        trajectories: as of `experiments.comparisons.comparison.Comparison`.
        done: its rows of runs that are done.
        reference: a policy that is always shown.
    """
    shown = few_policies(done, reference)
    horizon_s = float(trajectories["at_s"].max())
    unit = time_unit(horizon_s)
    grid = np.linspace(0, horizon_s, _GRID)
    colors = {policy: look.color for policy, look in looks_of(shown).items()}
    traces, curves = [], []
    for policy in shown:
        scores = resampled(trajectories[trajectories["policy"] == policy], "best so far", "at_s", "best_score", grid)
        is_known = np.isfinite(scores).all(axis=0)
        means = np.where(is_known, np.nan_to_num(scores).mean(axis=0), np.nan)
        curves.append(means)
        look = {"color": colors[policy], "width": 2, "shape": "hv"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label(policy),
                "x": grid / SECONDS[unit],
                "y": means,
                "line": look,
                "hovertemplate": f"%{{y:.4g}} after %{{x:.3g}} {unit}<extra>{label(policy)}</extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": f"time ({unit})"}},
        "yaxis": {"title": {"text": _better(trajectories)}, **_late_range(curves)},
    }
    deadlines = [limit / SECONDS[unit] for limit in limits_of(done, "best so far", "deadline_s")]
    left_out = done["policy"].nunique() - len(shown)
    note = "Means over the seeds, from when all have a score. The first quarter may lie outside; double-click for all."
    more = f" {left_out} further policies are left out, as many lines cannot be told apart." if left_out > 0 else ""
    return Chart("Best score so far", traces, limited(layout, deadlines, "deadline", unit), note=note + more)


def _late_range(curves: Sequence[np.ndarray]) -> dict[str, Any]:
    """The range of what comes after the first quarter, where policies differ; the first scores lie far from the rest."""
    late = np.concatenate([curve[len(curve) // 4 :] for curve in curves])
    late = late[np.isfinite(late)]
    if not late.size:
        return {}
    pad = 0.05 * (late.max() - late.min()) or 0.01
    return {"range": [late.min() - pad, late.max() + pad]}
