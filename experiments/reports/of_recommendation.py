"""The page of a recommendation, from the folder of `elastune recommend -o`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from elastune.experiments.figures.tables import SECONDS, time_unit
from elastune.experiments.formats import NONE, interval, number, percent, seconds, usd
from elastune.experiments.reports.page import (
    Chart,
    Heading,
    Page,
    PageSection,
    PageTable,
    between,
    cells_of,
    label,
    numbers,
    shares,
    texts,
)
from elastune.experiments.spec.run import RunSpec
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from elastune.experiments.reports.what_if import WhatIf

_SOUGHT = {"score": "the best score", "cost_usd": "the cheapest", "makespan_s": "the soonest"}
_UNITS = {"score": "", "cost_usd": " USD", "makespan_s": " s"}
_MARKERS = {"type": "scatter", "mode": "markers"}
_MEASURES = {"score": "score", "cost_usd": "cost, USD", "makespan_s": "makespan, s"}


def recommendation_page(folder: Path, tried: WhatIf) -> Page:
    """The page of a recommendation.

    Raises:
        InputError: a file is missing or damaged.
    """
    told, candidates = _read(folder)
    goal, standings = told["goal"], told["standings"]
    spec = RunSpec.recorded(told["spec"]) if told["spec"] is not None else None
    facts = {
        "asked": _asked(goal),
        "recommended": _named(standings[0]) if standings else "nothing keeps it in 95 runs of 100",
        "runner-up": _named(standings[1]) if len(standings) > 1 else NONE,
        "candidates": f"{told['candidates']}, {int((candidates['status'] == 'infeasible').sum())} without a plan",
        "runs to choose": f"{told['runs']:,}",
    }
    sections = [
        PageSection("The choice, and the runner-up", _choice(told), [_standings_table(told)] if standings else []),
        PageSection("What it costs to be wrong", _wrong(told), [_wrong_table(told)] if told["when_wrong"] else []),
        PageSection("Everything that was tried", (), [_front_chart(told, candidates), _candidates_table(candidates)]),
        *tried.section([] if spec is None else [spec]),
    ]
    title = f"Recommendation: {_named(standings[0])}" if standings else "Recommendation: nothing keeps it"
    return Page(title, f"Sought: {_asked(goal)}, in 95 runs of 100.", facts, sections, told["notes"])


def _read(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    import pandas as pd

    path = folder / "recommendation.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        candidates = pd.read_csv(folder / "candidates.csv")
        if not {"goal", "standings", "when_wrong", "front", "spec", "notes"} <= told.keys():
            raise ValueError("it lacks parts of a recommendation")  # noqa: TRY301
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; recommend again into {folder}") from error
    return told, candidates


def _asked(goal: Mapping[str, Any]) -> str:
    limits = {
        "by {:,.0f} s": goal["deadline_s"],
        "for {:,.2f} USD": goal["budget_usd"],
        "with a score of {:g}": goal["score"],
    }
    return " ".join(
        [_SOUGHT[goal["seeks"]], *(words.format(value) for words, value in limits.items() if value is not None)]
    )


def _named(row: Mapping[str, Any]) -> str:
    market = "" if row["market"] == "on-demand" else f" ({row['market']})"
    return f"{row['policy']} on {row['instance_type']}{market}"


def _choice(told: Mapping[str, Any]) -> list[str]:
    """What is recommended, how sure that is, and what the runner-up would do."""
    standings, seeks = told["standings"], told["goal"]["seeks"]
    if not standings:
        return [
            "No candidate may keep what was asked in 95 runs of 100. The nearest are below: ask for less, or give more."
        ]
    best = standings[0]
    score, cost, makespan = (interval(*best[name]) for name in _MEASURES)
    sentences = [
        (
            f"{_named(best)} keeps it in {percent(best['kept'])} of {best['runs']} runs on new seeds (at least"
            f" {percent(best['kept_low'])} with 95 % confidence): score {score}, {cost} USD, {makespan} s."
        ),
    ]
    if len(standings) > 1:
        second = standings[1]
        mean, low, high = second["to_best"]
        gap = NONE if mean is None else f"{mean:+.3g}{_UNITS[seeks]} [{number(low, 3)}, {number(high, 3)}]"
        is_noise = mean is not None and low <= 0 <= high
        sentences.append(
            f"The runner-up is {_named(second)}: its {seeks.split('_')[0]} differs by {gap} on the same seeds"
            f"{', which may be noise' if is_noise else ''}; it keeps what was asked in {percent(second['kept'])} of its runs."
        )
    sentences.append(
        "To run it on real workers: elastune run spec.yaml --on ray, with the spec in the folder of the recommendation."
    )
    return sentences


def _wrong(told: Mapping[str, Any]) -> list[str]:
    worst = [one for one in told["when_wrong"] if one["loss"]]
    if not told["when_wrong"]:
        return ["There is no choice to be wrong about."]
    if not worst:
        return ["Whichever of these is wrong by 20 %, none of the best few would have been better than the choice."]
    most = max(worst, key=lambda one: one["loss"])
    return [
        (
            f"The dearest error: if {most['what']}, {_named(most['better'])} would be better by"
            f" {number(most['loss'], 3)}{_UNITS[told['goal']['seeks']]}, and the choice"
            f" keeps what was asked in {percent(most['kept'])}."
        )
    ]


def _standings_table(told: Mapping[str, Any]) -> PageTable:
    headings = [
        *texts("policy", "machine", "market"),
        *numbers("T, s", "B, USD"),
        *shares("kept"),
        *numbers(*_MEASURES.values(), "to the best"),
    ]
    rows = [
        (
            *(row[name] for name in ("policy", "instance_type", "market", "deadline_s", "budget_usd", "kept")),
            *(between(*row[name]) for name in _MEASURES),
            None if row["to_best"] is None else between(*row["to_best"]),
        )
        for row in told["standings"]
    ]
    return PageTable(
        "The best few, on seeds that did not choose them",
        headings,
        rows,
        "With 95 % intervals; the first is recommended.",
    )


def _wrong_table(told: Mapping[str, Any]) -> PageTable:
    measure = _MEASURES[told["goal"]["seeks"]]
    headings = [*texts("if, by 20 %"), *shares("kept"), *numbers(measure, "loses"), *texts("then better")]
    rows = [
        (one["what"], one["kept"], one["value"], one["loss"], NONE if one["better"] is None else _named(one["better"]))
        for one in told["when_wrong"]
    ]
    return PageTable("If something is other than believed", headings, rows)


def _front_chart(told: Mapping[str, Any], candidates: pd.DataFrame) -> Chart:
    """Score over cost of all candidates, their time as colour; a click says which one it is."""
    known = candidates.dropna(subset=["score", "cost_usd", "makespan_s"]).reset_index(drop=True)
    unit = time_unit(float(known["makespan_s"].max())) if len(known) else "s"
    named = ["policy", "instance_type", "market", "deadline_s", "budget_usd"]
    efficient = {tuple(row[name] for name in named) for row in told["front"]}
    rows = known.astype(object).where(known.notna(), None).to_dict("records")
    is_front = [tuple(row[name] for name in named) in efficient for row in rows]
    details = [_details(cast("dict[str, Any]", row), on_front) for row, on_front in zip(rows, is_front, strict=True)]
    names = [label(one["candidate"]) for one in details]

    def chosen(wanted: bool) -> dict[str, Any]:
        at = [place for place, one in enumerate(is_front) if one is wanted]
        return {
            **_MARKERS,
            "x": known["cost_usd"][at],
            "y": known["score"][at],
            "customdata": at,
            "text": [names[place] for place in at],
            "hovertemplate": "%{text}<br>%{y:.4g} for %{x:.3g} USD<extra></extra>",
        }

    marks = {
        "color": known["makespan_s"][is_front] / SECONDS[unit],
        "colorscale": "Viridis",
        "size": 12,
        "line": {"color": "#333", "width": 1},
        "colorbar": {"title": {"text": f"makespan ({unit})", "side": "right"}, "thickness": 12},
    }
    traces = [
        chosen(wanted=False) | {"name": "tried", "marker": {"color": "#9a9a9a", "size": 6, "opacity": 0.6}},
        chosen(wanted=True) | {"name": "efficient: no other is cheaper, sooner and better", "marker": marks},
        *([_star(told["standings"][0])] if told["standings"] else []),
    ]
    better = "lower" if told["goal"]["direction"] == "minimize" else "higher"
    layout = {
        "xaxis": {"title": {"text": "cost (USD)"}, "type": "log"},
        "yaxis": {"title": {"text": f"score ({better} is better)"}},
    }
    note = "Means of the runs of each candidate, few where it was given up."
    return Chart("Score, cost and time", traces, layout, details, note, "Click a mark for the candidate behind it.")


def _star(best: Mapping[str, Any]) -> dict[str, Any]:
    """The mark of the candidate that is recommended."""
    return {
        **_MARKERS,
        "x": [best["cost_usd"][0]],
        "y": [best["score"][0]],
        "name": "recommended, on new seeds",
        "marker": {"color": "#D55E00", "symbol": "star", "size": 18, "line": {"color": "#fff", "width": 1}},
        "hovertemplate": f"{label(_named(best))}<extra>recommended</extra>",
    }


def _details(row: Mapping[str, Any], is_efficient: bool) -> dict[str, str]:
    """What a click on a candidate shows."""
    return {
        "candidate": _named(row),
        "given": f"{seconds(row['deadline_s'])} s, {usd(row['budget_usd'])} USD",
        "means": f"score {number(row['score'])}, {usd(row['cost_usd'])} USD, {seconds(row['makespan_s'])} s",
        "kept": f"{row['kept']} of {row['runs']} runs",
        "efficient": "yes" if is_efficient else "no, another beats it",
    }


def _candidates_table(candidates: pd.DataFrame) -> PageTable:
    named = {"policy": "policy", "instance_type": "machine", "market": "market", "status": "status"}
    measured = {"deadline_s": "T, s", "budget_usd": "B, USD", "runs": "runs", "kept": "kept", **_MEASURES}
    headings = [*texts(*named.values()), *numbers(*measured.values()), Heading("error", "remark")]
    rows = cells_of(candidates[[*named, *measured, "error"]])
    return PageTable("Candidates", headings, rows, "Kept: how many of its runs keep what was asked.")
