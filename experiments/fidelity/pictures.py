"""Pictures of real runs beside their simulation: a Gantt chart of both, predictions with intervals, errors by part."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from elastune.experiments.figures import style
from elastune.experiments.figures.gantt import FIGURE, STARTING, TRIALS, blocks_of, slots_of
from elastune.experiments.figures.ledger import COLORS
from elastune.experiments.runs.ledger import PARTS
from elastune.experiments.runs.timeline import timeline_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elastune.experiments.fidelity.analysis import CheckedRun
    from elastune.experiments.runs.fold import Tables

_INTERVAL_WIDTH = 1.2
_MOST_PANELS = 3
_WIDE = 20.0
"""Where the largest number is so many times the smallest, axes are logarithmic."""


def draw(runs: Sequence[CheckedRun], folder: Path) -> Iterator[Path]:
    """Write the three pictures into a folder; yields their paths.

    Args:
        runs: at least one.
        folder: made where it is not there.
    """
    yield style.save(gantt_beside(runs[0]), folder / "gantt.png")
    yield style.save(predicted_and_real(runs), folder / "predicted.png")
    yield style.save(errors_by_part(runs), folder / "errors.png")


def gantt_beside(run: CheckedRun) -> Figure:
    """One run three times: as it was, from the profile, and with the seconds that were measured in it."""
    real, simulated, measured = run.tables
    rows = {"real": real, "simulated with measured seconds": measured, "simulated from the profile": simulated}
    figure = style.new_figure(style.DOUBLE_IN, 1.3 * len(rows))
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, tables) in zip(panels, rows.items(), strict=True):
        _draw_gangs(axes, tables, run)
        axes.set_ylabel("GPUs", fontsize=style.TICK_PT)
        axes.set_title(f"{name}: {tables.finished_s:.1f} s", loc="left", fontsize=style.TICK_PT)
    panels[-1].set_xlabel("seconds; grey: launches; numbers: trials", fontsize=style.TICK_PT)
    return style.finished(figure)


def _draw_gangs(axes: Axes, tables: Tables, run: CheckedRun) -> None:
    timeline = timeline_in(tables, run.unit.spec)
    slots = slots_of(timeline.leases, FIGURE)
    for block in blocks_of(timeline.segments, slots):
        spans, where = [(block.start_s, block.end_s - block.start_s)], (block.first, block.gpus)
        axes.broken_barh(spans, where, facecolors=TRIALS[block.trial % len(TRIALS)], edgecolor="white", linewidth=0.4)
        axes.broken_barh([(block.start_s, block.trains_from_s - block.start_s)], where, facecolors=STARTING)
        middle_s = (block.trains_from_s + block.end_s) / 2
        axes.text(
            middle_s, block.first + block.gpus / 2, str(block.trial), ha="center", va="center", fontsize=5, clip_on=True
        )
    rows = max(slot.first + slot.gpus for slot in slots.values())
    axes.set_ylim(rows, 0)
    axes.set_yticks([])


def predicted_and_real(runs: Sequence[CheckedRun]) -> Figure:
    """Each run's prediction with its 90 % interval over what came; on the diagonal both are equal."""
    panels = {"makespan_s": "makespan (s)", "cost_usd": "cost (USD)"}
    looks = style.looks_of(run.unit.policy for run in runs)
    figure = style.new_figure(style.DOUBLE_IN, 3.0)
    for axes, (name, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        ends = []
        for run in runs:
            split = run.split(name)
            if split is None:
                continue
            look = looks[run.unit.policy]
            reach = [[max(split.guess.value - split.guess.low, 0)], [max(split.guess.high - split.guess.value, 0)]]
            axes.errorbar(
                [split.real], [split.guess.value], yerr=reach, marker=look.marker, color=look.color, markersize=4,
                linewidth=_INTERVAL_WIDTH,
            )  # fmt: skip
            ends += [split.real, split.guess.low, split.guess.high]
        line = [min(ends, default=0), max(ends, default=1)]
        axes.plot(line, line, color="#999999", linewidth=0.8, zorder=0)
        if 0 < line[0] < line[1] / _WIDE:  # jobs of seconds beside jobs of hours
            axes.set(xscale="log", yscale="log")
        style.dress(axes, f"real {label}", f"predicted {label}")
    style.legend_below(figure, [style.handle(look, name) for name, look in looks.items()], "bars: 90 % intervals")
    return style.finished(figure)


def errors_by_part(runs: Sequence[CheckedRun]) -> Figure:
    """Waterfalls from the real GPU-seconds to the predicted ones: structure first, then parameters, part by part."""
    jobs = list(dict.fromkeys(run.unit.job for run in runs))[:_MOST_PANELS]
    figure = style.new_figure(style.DOUBLE_IN, 2.9)
    for axes, job in zip(figure.subplots(1, len(jobs), squeeze=False)[0], jobs, strict=True):
        steps = _steps([run for run in runs if run.unit.job == job])
        labels, at, level = [], 0, 0.0
        for label, part, change in steps:
            bottom = level if change >= 0 else level + change
            axes.bar(at, abs(change), bottom=bottom, color=COLORS.get(part, "#444444"), width=0.8)
            level = change if label == "real" else level + change
            labels.append(label)
            at += 1
        axes.bar(at, level, color="#444444", width=0.8)
        axes.set_xticks(range(at + 1), [*labels, "predicted"], rotation=60, ha="right", fontsize=5.5)
        style.dress(axes, job, "GPU-seconds, mean of the runs")
    return style.finished(figure)


def _steps(runs: Sequence[CheckedRun]) -> list[tuple[str, str, float]]:
    """(label, part, change) from the real GPU-seconds on; parts that change little are one step."""

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values) if values else 0.0

    real = mean(
        [math.fsum(value for name, value in run.real.quantities.items() if name.startswith("gpu_s:")) for run in runs]
    )
    steps, small = [("real", "", real)], 0.0
    for kind in ("structure", "parameters"):
        for part in PARTS:
            splits = [split for run in runs if (split := run.split(f"gpu_s:{part}")) is not None]
            change = mean([getattr(split, kind) for split in splits]) * len(splits) / len(runs)
            if abs(change) >= 0.005 * real:
                steps.append((f"{part} ({kind})", part, change))
            else:
                small += change
    return [*steps, ("all others", "", small)]
