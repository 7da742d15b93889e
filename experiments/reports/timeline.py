"""The machines and trials of a run, and its decisions, as a chart that zooms. Its rows are those of `figures.gantt`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from elastune.experiments.figures.gantt import GpuBlock, Slot, blocks_of, slots_of
from elastune.experiments.figures.ledger import COLORS
from elastune.experiments.figures.tables import SECONDS, time_unit
from elastune.experiments.formats import number
from elastune.experiments.reports.charts import limited
from elastune.experiments.reports.page import Chart, label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from elastune.experiments.reports.decisions import ToldDecision
    from elastune.experiments.runs.timeline import Timeline

_MOST_BLOCKS = 4_000
"""More bars make a page that does not answer; the longest stay."""
_MOST_TICKS = 16
_STRIP = 0.09
"""The share of the height that the decisions have."""
_FRAMES = {True: ("#D55E00", 2.5), False: ("#ffffff", 0.5)}
"""Colour and width of the frame of a bar, by whether it is of the answer."""
_KINDS = {"machines": ("#332288", "diamond"), "trials": ("#D55E00", "circle"), "end": ("#222222", "square")}


def timeline_chart(
    timeline: Timeline,
    decisions: Sequence[ToldDecision],
    configurations: Mapping[int, str],
    name: Callable[[int], str] = str,
) -> Chart:
    """Machines as rows of one lane per GPU, the trials on them, and above a mark for each decision.

    Args:
        timeline: of the run.
        decisions: in order of time.
        configurations: of trials, in words.
        name: what a trial is called, by its number in the run.
    """
    slots = slots_of(timeline.leases, "timeline") if len(timeline.leases) else {}
    blocks = blocks_of(timeline.segments, slots)
    left_out = len(blocks) - _MOST_BLOCKS
    if left_out > 0:
        blocks = sorted(blocks, key=lambda block: block.start_s - block.end_s)[:_MOST_BLOCKS]
    unit = time_unit(timeline.end_s)
    details = [_decision_detail(one) for one in decisions] + [
        _block_detail(one, name(one.trial), configurations) for one in blocks
    ]
    traces = [
        *_machines(timeline, slots, SECONDS[unit]),
        *_trials(blocks, timeline.best_trial, len(decisions), SECONDS[unit], name),
        *_marks(decisions, SECONDS[unit]),
    ]
    note = "Drag over a part to zoom, double-click to go back. Bars have the names of trials; the answer has a frame."
    more = f" The {left_out:,} shortest of the bars are left out." if left_out > 0 else ""
    layout = _layout(timeline, slots, unit)
    ask = "Click a mark of the strip for a decision and its reason, or a bar for what trained there."
    return Chart("Machines, trials and decisions", traces, layout, details, note + more, ask)


def _layout(timeline: Timeline, slots: Mapping[int, Slot], unit: str) -> dict[str, Any]:
    rows = max((slot.first + slot.gpus for slot in slots.values()), default=1)
    distinct = sorted(set(slots.values()), key=lambda slot: slot.first)
    step = -(-len(distinct) // _MOST_TICKS) or 1
    horizon_s = timeline.end_s
    deadline_s = timeline.deadline_s
    is_shown = deadline_s is not None and deadline_s <= 2 * horizon_s
    shown_s = max(horizon_s, deadline_s if is_shown and deadline_s is not None else 0.0)
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "bargap": 0,
        "height": 220 + min(max(14 * rows, 180), 620),
        "margin": {"l": 70, "r": 20, "t": 40, "b": 50},
        "xaxis": {"title": {"text": f"time ({unit})"}, "range": [0, 1.01 * shown_s / SECONDS[unit]], "anchor": "y"},
        "yaxis": {
            "title": {"text": "machines"},
            "range": [rows, 0],
            "domain": [0, 1 - _STRIP - 0.02],
            "tickvals": [slot.first + slot.gpus / 2 for slot in distinct][::step],
            "ticktext": [str(place + 1) for place in range(len(distinct))][::step],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis2": {
            "domain": [1 - _STRIP, 1],
            "showticklabels": False,
            "fixedrange": True,
            "range": [-0.6, 2.6],
            "zeroline": False,
            "showgrid": False,
        },
    }
    return limited(
        layout, [deadline_s / SECONDS[unit]] if is_shown and deadline_s is not None else [], "deadline", unit
    )


def _bars(name: str, spans: Sequence[tuple[float, float, float, float]], **looks: object) -> dict[str, Any]:
    """Bars: (from, to, first row, rows) in the unit of the axis."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "base": [start for start, *_ in spans],
        "x": [end - start for start, end, *_ in spans],
        "y": [first + rows / 2 for *_, first, rows in spans],
        "width": [rows for *_, rows in spans],
        **looks,
    }


def _machines(timeline: Timeline, slots: Mapping[int, Slot], unit_s: float) -> list[dict[str, Any]]:
    """When machines boot, and when they are up."""
    booting, up, told = [], [], []
    for row in timeline.leases.to_dict("records"):
        slot, end_s = slots[int(row["instance"])], row["end_s"]
        ready_s = end_s if math.isnan(row["ready_s"]) else min(row["ready_s"], end_s)
        booting.append((row["launched_s"] / unit_s, ready_s / unit_s, slot.first, slot.gpus))
        up.append((ready_s / unit_s, end_s / unit_s, slot.first, slot.gpus))
        told.append(f"machine {row['instance']}: {row['instance_type']}, {row['market']}")
    hover = {"text": told, "textposition": "none"}
    starts = {
        "marker": {"color": COLORS["startup"], "opacity": 0.6},
        "hovertemplate": "%{text}<extra>boots</extra>",
    }
    idles = {"marker": {"color": "#ECECEC"}, "hovertemplate": "%{text}<extra>ready, idle</extra>"}
    return [_bars("boots", booting, **hover, **starts), _bars("idle", up, **hover, **idles)]


def _trials(
    blocks: Sequence[GpuBlock], best_trial: int | None, first_detail: int, unit_s: float, name: Callable[[int], str]
) -> list[dict[str, Any]]:
    """The segments, coloured by the iteration that they train to; what is spent on workers and checkpoints over them."""
    rungs = sorted({block.rung for block in blocks})
    place = {rung: position for position, rung in enumerate(rungs)}
    spans = [(block.start_s / unit_s, block.end_s / unit_s, block.first, block.gpus) for block in blocks]
    is_best = [block.trial == best_trial for block in blocks]
    segments = _bars(
        "trains",
        spans,
        text=[label(name(block.trial)) for block in blocks],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="inside",
        customdata=[first_detail + number_ for number_ in range(len(blocks))],
        hovertemplate="trial %{text}, click for more<extra></extra>",
        marker={
            "color": [place[block.rung] for block in blocks],
            "colorscale": [[0, "#9ECAE1"], [0.5, "#4292C6"], [1, "#08306B"]],
            "cmin": 0,
            "cmax": max(len(rungs) - 1, 1),
            "line": {"color": [_FRAMES[one][0] for one in is_best], "width": [_FRAMES[one][1] for one in is_best]},
            "showscale": len(rungs) > 1,
            "colorbar": _rung_bar(rungs),
        },
    )
    starting = [(one.start_s / unit_s, one.trains_from_s / unit_s, one.first, one.gpus) for one in blocks]
    saving = [
        ((one.end_s - max(one.checkpoint_s, 0.0)) / unit_s, one.end_s / unit_s, one.first, one.gpus)
        for one in blocks
        if one.checkpoint_s > 0
    ]
    lost = [span for span, block in zip(spans, blocks, strict=True) if block.is_lost]
    quiet = {"hoverinfo": "skip"}
    return [
        segments,
        _bars("starts workers", starting, **quiet, marker={"color": "#8C8C8C"}),
        *([_bars("saves", saving, **quiet, marker={"color": COLORS["checkpoint"]})] if saving else []),
        *([_bars("breaks", lost, **quiet, marker={"color": COLORS["redone"], "opacity": 0.35})] if lost else []),
    ]


def _rung_bar(rungs: Sequence[int]) -> dict[str, Any]:
    step = -(-len(rungs) // 10) or 1
    return {
        "title": {"text": "to iteration", "side": "right"},
        "thickness": 12,
        "len": 0.8,
        "tickvals": list(range(len(rungs)))[::step],
        "ticktext": [str(rung) for rung in rungs][::step],
    }


def _marks(decisions: Sequence[ToldDecision], unit_s: float) -> list[dict[str, Any]]:
    """A mark per decision in the strip above."""
    traces = []
    for level, (kind, (color, symbol)) in enumerate(_KINDS.items()):
        chosen = [(place, one) for place, one in enumerate(decisions) if one.kind == kind]
        if chosen:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"decides: {kind}",
                    "yaxis": "y2",
                    "x": [one.at_s / unit_s for _, one in chosen],
                    "y": [level] * len(chosen),
                    "customdata": [place for place, _ in chosen],
                    "hovertemplate": f"decision about {kind}, click for its reason<extra></extra>",
                    "marker": {"color": color, "symbol": symbol, "size": 8, "opacity": 0.75},
                }
            )
    return traces


def _decision_detail(decision: ToldDecision) -> dict[str, str]:
    return {
        "decision at": f"{decision.at_s:,.1f} s",
        "decided": "\n".join(decision.decided),
        "because": decision.happened,
        "known then": "\n".join(decision.known) or "nothing of trials",
    }


def _block_detail(block: GpuBlock, name: str, configurations: Mapping[int, str]) -> dict[str, str]:
    spent = {"starting workers": block.launch_s, "checkpoints": block.checkpoint_s}
    told = ", ".join(f"{number(value)} s for {what}" for what, value in spent.items() if value > 0)
    return {
        "trial": name,
        "trained": f"to iteration {block.rung}, from {block.start_s:,.1f} s to {block.end_s:,.1f} s",
        "GPUs here": str(block.gpus),
        "of that": told or "all in training",
        "configuration": configurations.get(block.trial, "not recorded"),
        **({"broke": "its machine or a worker was lost"} if block.is_lost else {}),
    }
