"""What `elastune results` prints for people. Imports rich; numbers arrive computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table

from elastune.experiments.cli.options import console
from elastune.experiments.cli.sweep_tables import cell_text
from elastune.experiments.statistics.paired import PAIRED_COLUMNS, POOLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

_ERRORS_SHOWN = 5
_FEW_FAMILIES = 6
_TAUS_SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_OVER_FAMILIES = "over families, their bundles and seeds"
_OVER_SEEDS = "over seeds: nothing is said of other workloads"


def print_results(summary: pd.DataFrame) -> None:
    """One line per group: its columns, runs, and each measure with its interval."""
    names = list(summary.columns)
    group, measured = names[: names.index("runs")], names[names.index("over") + 1 :: 3]
    table = _table("Over the runs that are done, with 95 % intervals", group, ["runs", *measured])
    for row in _rows(summary):
        notes = [f"{row[kind]} {kind}" for kind in ("infeasible", "failed") if row[kind]]
        intervals = [_interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))) for name in measured]
        table.add_row(*(cell_text(row[name]) for name in group), ", ".join([str(row["runs"]), *notes]), *intervals)
    console().print(table)
    _print_rests(summary)


def print_paired(paired: pd.DataFrame) -> None:
    """One line per policy and group: how it differs from the one that all are compared with."""
    group = [name for name in paired.columns if name not in ("against", "measure", "scope", *PAIRED_COLUMNS)]
    group = [*group, *(["measure"] if len(paired["measure"].unique()) > 1 else [])]
    shown = ("difference", "P(better)", "ties", "pairs", "cells better, worse", "p (Holm)", "seeds for 80 %")
    measures = ", ".join(paired["measure"].unique())
    table = _table(f"{measures}: differences to {paired['against'].iloc[0]}, with 95 % intervals", group, shown)
    for row in _rows(paired):
        is_pooled = row["scope"] == POOLED
        labels = [POOLED if is_pooled and text == "-" else text for text in (cell_text(row[name]) for name in group)]
        unpaired = [
            f"{row[kind]} {words}" for kind, words in (("only", "alone"), ("only_against", "lacking")) if row[kind]
        ]
        table.add_row(
            *labels,
            _interval(row["mean"], row["low"], row["high"]),
            _share(row["better"]),
            _share(row["ties"]),
            ", ".join([str(row["pairs"]), *unpaired]),
            f"{row['cells_better']}, {row['cells_worse']} of {row['cells']}",
            cell_text(float(f"{row['p_holm']:.2g}")),
            "-" if math.isnan(row["seeds_needed"]) else f"{row['seeds_needed']:.0f}",
            style="bold" if is_pooled else "",
        )
    console().print(table)
    _print_rests(paired)


def print_profile(profile: pd.DataFrame) -> None:
    """One line per group and policy: the share of runs at least as good as some of the taus."""
    names = list(profile.columns)
    group = names[: names.index("tau")]
    taus = sorted(profile["tau"].unique())
    shown = [tau for tau in taus if tau in _TAUS_SHOWN] or taus[:: -(-len(taus) // len(_TAUS_SHOWN))]
    table = _table("Share of runs at least as good as tau, with 95 % bands", group, [f"{tau:.3g}" for tau in shown])
    for labels, part in profile.groupby(group, dropna=False, sort=False):
        points = {row["tau"]: f"{row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in _rows(part)}
        table.add_row(*(cell_text(label) for label in labels), *(points[tau] for tau in shown))
    console().print(table)
    _print_rests(profile)


def print_counts(counts: Mapping[str, int], errors: Sequence[Mapping[Any, Any]]) -> None:
    """How many runs are done, and why others are not."""
    wide = console()
    wide.print(", ".join(f"{number} {status}" for status, number in counts.items()), highlight=False)
    for error in errors[:_ERRORS_SHOWN]:
        text = f"{error['status']}, {error['count']} times: {error['error']}"
        wide.print(text, markup=False, highlight=False)


def _table(title: str, group: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in group:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _print_rests(table: pd.DataFrame) -> None:
    """What the intervals are over, and a word where they rest on few families."""
    told: list[str] = []
    for over, words in (("families", _OVER_FAMILIES), ("seeds", _OVER_SEEDS)):
        part = table[(table["over"] == over) & (table["seeds"] > 0)]
        if len(part):
            told.append(f"{'intervals' if not told else 'others'} {words}")
    few = table.loc[table["over"] == "families", "families"]
    if len(few) and few.min() < _FEW_FAMILIES:
        told.append(
            f"{few.min()} families say little of others: --over seeds is about these, --group bundle_family shows each"
        )
    if told:
        console().print("; ".join(told), highlight=False, soft_wrap=True)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", table.astype(object).to_dict("records"))


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _interval(value: float, low: float, high: float) -> str:
    return "-" if math.isnan(value) else f"{_short(value, 4)} [{_short(low, 3)}, {_short(high, 3)}]"


def _short(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
