"""Figure: one run as a Gantt chart, its trials on the GPUs of its machines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from elastune.experiments.figures import style
from elastune.experiments.figures.ledger import COLORS
from elastune.experiments.figures.tables import SECONDS, numbers, require_columns, time_unit
from elastune.sim.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    Span = tuple[float, float, int, int]


@dataclass(frozen=True)
class Slot:
    """Rows of the chart for one machine after the other: `first` to `first + gpus`, counted from the top."""

    first: int
    gpus: int


@dataclass(frozen=True)
class GpuBlock:
    """A segment on neighbouring GPUs of one machine: rows `first` to `first + gpus`."""

    trial: int
    rung: int
    first: int
    gpus: int
    start_s: float
    end_s: float
    launch_s: float
    checkpoint_s: float
    is_lost: bool

    @property
    def trains_from_s(self) -> float:
        """When its workers had started; its end where they never had. What was cut did not tell."""
        return min(self.start_s + self.launch_s, self.end_s) if self.launch_s > 0 else self.start_s


def slots_of(leases: pd.DataFrame, figure: str) -> dict[int, Slot]:
    """By machine its slot: the uppermost of its size that is free when it is launched, so that there are as few as can be."""
    order = leases.sort_values(["launched_s", "instance"])
    spans = zip(
        order["instance"], numbers(order, figure, "gpus"), numbers(order, figure, "launched_s"),
        numbers(order, figure, "end_s"), strict=True,
    )  # fmt: skip
    slots: list[Slot] = []
    free_from_s: list[float] = []
    found = {}
    for instance, gpus, launched_s, end_s in spans:
        fits = (at for at, slot in enumerate(slots) if slot.gpus == gpus and free_from_s[at] <= launched_s)
        place = next(fits, len(slots))
        if place == len(slots):
            slots.append(Slot(sum(slot.gpus for slot in slots), int(gpus)))
            free_from_s.append(end_s)
        free_from_s[place] = end_s
        found[int(instance)] = slots[place]
    return found


def blocks_of(segments: pd.DataFrame, slots: dict[int, Slot]) -> list[GpuBlock]:
    """The segments, one block for each stretch of neighbouring lanes; on machines that have no slot, none."""
    blocks = []
    for (_, instance), rows in segments.groupby(["segment", "instance"], sort=False):
        if instance not in slots:
            continue
        lanes = sorted(int(lane) for lane in rows["lane"])
        breaks = [at for at in range(1, len(lanes)) if lanes[at] != lanes[at - 1] + 1]
        for start, end in zip([0, *breaks], [*breaks, len(lanes)], strict=True):
            blocks.append(_block(rows.iloc[0], slots[instance].first + lanes[start], end - start))
    return blocks


def _block(row: pd.Series, first: int, gpus: int) -> GpuBlock:
    return GpuBlock(
        int(row["trial"]), int(row["until_iteration"]), first, gpus, float(row["start_s"]), float(row["end_s"]),
        float(row["launch_s"]), float(row["checkpoint_s"]), row["outcome"] in ("failed", "instance_gone"),
    )  # fmt: skip


FIGURE = "gantt"
SEGMENT_COLUMNS = (
    "trial", "segment", "instance", "lane", "start_s", "end_s", "launch_s", "checkpoint_s", "until_iteration", "outcome",
)  # fmt: skip
LEASE_COLUMNS = ("instance", "gpus", "launched_s", "ready_s", "end_s")

IDLE, STARTING, BEST = "#ECECEC", "#8C8C8C", "#D55E00"
TRIALS = ("#56B4E9", "#E69F00", "#66C2A5", "#CC79A7", "#D9C84A", "#8DA0CB", "#D98A5B", "#B3B3B3", "#7FB77E", "#A6761D")
SEEN = 0.001
"""The share of the run from which on saving can be seen."""
MOST_RUNGS = 7
"""More of them have a colour bar instead of samples."""
LEAST_PT = 3.5
"""Smaller numbers are not written."""
LANE_IN, HEIGHT_IN = (0.012, 0.12), 4.4
"""Least and most height of a GPU's row, and what all of them together shall take."""
LEAST_HEIGHT_IN = 0.8
"""Of all rows together, so that the axis can be labelled."""


def gantt(
    segments: pd.DataFrame,
    leases: pd.DataFrame,
    *,
    color: Literal["rung", "trial"] = "rung",
    deadline_s: float | None = None,
    best_trial: int | None = None,
) -> Figure:
    """Machines as rows of one lane per GPU over time: booting, idle, and the segments of trials on them.

    A machine stands in the uppermost free rows of its size when it is launched, so that there are as many rows as GPUs were
    rented at once; machines one after the other in the same rows are told apart by their booting. Numbers are trials. Crossed
    out is a segment that was broken, hatched in amber a machine that boots.

    Args:
        segments: one row per segment and GPU, as of `experiments.runs.timeline.timeline_of`: trial, segment, instance, lane,
            start_s, end_s, launch_s, checkpoint_s, until_iteration, outcome.
        leases: one row per machine: instance, gpus, launched_s, ready_s, end_s.
        color: what colours a segment: the rung that it trains to (`until_iteration`), or the trial.
        deadline_s: where the line of the deadline is; None for none.
        best_trial: the trial whose segments have a frame, the run's answer; None for none.

    Raises an InputError for a missing column, for a run that rented no machine, or another colour.
    """
    if color not in ("rung", "trial"):
        raise InputError(f"{FIGURE}: color is {color!r}, but must be rung or trial")
    require_columns(leases, FIGURE, LEASE_COLUMNS)
    require_columns(segments, FIGURE, SEGMENT_COLUMNS, may_be_empty=True)
    slots = slots_of(leases, FIGURE)
    blocks = blocks_of(segments, slots)
    rows = max(slot.first + slot.gpus for slot in slots.values())
    lane_in = max(min(max(HEIGHT_IN / rows, LANE_IN[0]), LANE_IN[1]), LEAST_HEIGHT_IN / rows)
    figure = style.new_figure(style.DOUBLE_IN, 0.95 + lane_in * rows)
    axes = figure.add_subplot()
    end_s = float(numbers(leases, FIGURE, "end_s").max())
    horizon_s = max(end_s, deadline_s) if deadline_s is not None and deadline_s <= 2 * end_s else end_s
    unit = time_unit(horizon_s)
    axes.set_xlim(0, 1.01 * horizon_s / SECONDS[unit])
    axes.set_ylim(rows, 0)
    _draw_machines(axes, leases, slots, SECONDS[unit])
    paint, rungs = _painter(blocks, color)
    _draw_blocks(axes, blocks, paint, SECONDS[unit], best_trial)
    _write_trials(axes, blocks, paint, SECONDS[unit], lane_in)
    _dress(axes, slots, unit)
    style.limit_lines(axes, "deadline", [] if deadline_s is None else [deadline_s / SECONDS[unit]], unit)
    if color == "rung" and len(rungs) > MOST_RUNGS:
        _rung_bar(figure, axes, rungs)
    style.legend_below(figure, _samples(blocks, rungs, paint, color, best_trial), "numbers: trials")
    return style.finished(figure)


def _draw_machines(axes: Axes, leases: pd.DataFrame, slots: dict[int, Slot], unit_s: float) -> None:
    """The grey of machines that are ready, the amber of those that boot, and a line at the end of each."""
    launched, ready, end = (numbers(leases, FIGURE, column) / unit_s for column in ("launched_s", "ready_s", "end_s"))
    booting, idle = [], []
    for instance, from_at, ready_at, end_at in zip(leases["instance"], launched, ready, end, strict=True):
        slot = slots[int(instance)]
        up_at = end_at if math.isnan(ready_at) else min(ready_at, end_at)
        booting.append((from_at, up_at, slot.first, slot.gpus))
        idle.append((up_at, end_at, slot.first, slot.gpus))
    _rectangles(axes, idle, facecolor=IDLE, edgecolor="none", zorder=1.5, label="_idle")
    _rectangles(
        axes, booting, facecolor="white", edgecolor=COLORS["startup"], hatch="/////", linewidth=0.6, zorder=1.6,
        label="_booting",
    )  # fmt: skip


def _draw_blocks(
    axes: Axes, blocks: Sequence[GpuBlock], paint: Callable[[GpuBlock], str], unit_s: float, best_trial: int | None
) -> None:
    def spans(
        chosen: Iterable[GpuBlock], begin: Callable[[GpuBlock], float], end: Callable[[GpuBlock], float]
    ) -> list[Span]:
        return [(begin(block) / unit_s, end(block) / unit_s, block.first, block.gpus) for block in chosen]

    def start(block: GpuBlock) -> float:
        return block.start_s

    def stop(block: GpuBlock) -> float:
        return block.end_s

    edges = {"edgecolor": "white", "linewidth": 0.25}
    _rectangles(
        axes, spans(blocks, start, stop), facecolor=[paint(block) for block in blocks], zorder=2, label="_segments", **edges
    )  # fmt: skip
    starting = [block for block in blocks if block.launch_s > 0]
    _rectangles(
        axes, spans(starting, start, lambda block: block.trains_from_s),
        facecolor=STARTING, edgecolor="none", zorder=2.1, label="_starting",
    )  # fmt: skip
    saving = [block for block in blocks if block.checkpoint_s > 0]
    _rectangles(
        axes, spans(saving, lambda block: max(block.end_s - block.checkpoint_s, block.start_s), stop),
        facecolor=COLORS["checkpoint"], edgecolor="none", zorder=2.1, label="_checkpoints",
    )  # fmt: skip
    lost = [block for block in blocks if block.is_lost]
    _rectangles(
        axes, spans(lost, start, stop), facecolor="none", edgecolor=COLORS["redone"], hatch="xxxxx", linewidth=0.6,
        zorder=2.2, label="_lost",
    )  # fmt: skip
    best = [block for block in blocks if block.trial == best_trial]
    _rectangles(
        axes, spans(best, start, stop), facecolor="none", edgecolor=BEST, linewidth=1.1, zorder=2.4, label="_best"
    )


def _rectangles(axes: Axes, spans: Sequence[Span], **looks: Any) -> None:  # noqa: ANN401  as matplotlib takes them
    """Rectangles as one collection: (from, to, first row, rows)."""
    from matplotlib.collections import PolyCollection

    corners = [((left, top), (right, top), (right, top + rows), (left, top + rows)) for left, right, top, rows in spans]
    axes.add_collection(PolyCollection(corners, **looks), autolim=False)


def _painter(blocks: Sequence[GpuBlock], color: str) -> tuple[Callable[[GpuBlock], str], list[int]]:
    """What colours a block, and the rungs there are, ascending; the higher a rung, the darker."""
    from matplotlib.colors import to_hex

    rungs = sorted({block.rung for block in blocks})
    if color == "trial":
        return lambda block: TRIALS[block.trial % len(TRIALS)], rungs
    shades = _shades()
    by_rung = {rung: to_hex(shades(0.25 + 0.7 * place / max(len(rungs) - 1, 1))) for place, rung in enumerate(rungs)}
    return lambda block: by_rung[block.rung], rungs


def _shades() -> Colormap:
    from matplotlib import colormaps

    return colormaps["Blues"]


def _write_trials(
    axes: Axes, blocks: Sequence[GpuBlock], paint: Callable[[GpuBlock], str], unit_s: float, lane_in: float
) -> None:
    """The trial's number in each block that has room for it."""
    from matplotlib.colors import to_rgb

    in_per_s = 6.2 / (axes.get_xlim()[1] * unit_s)
    for block in blocks:
        text = str(block.trial)
        from_s = block.trains_from_s
        height_pt, width_pt = 72 * lane_in * block.gpus, 72 * in_per_s * (block.end_s - from_s)
        size_pt = min(style.TICK_PT, 0.85 * height_pt, 1.5 * width_pt / len(text))
        if size_pt < LEAST_PT:
            continue
        red, green, blue = to_rgb(paint(block))
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.55 else style.INK
        axes.text(
            (from_s + block.end_s) / 2 / unit_s, block.first + block.gpus / 2, text, ha="center", va="center_baseline",
            fontsize=size_pt, color=ink, zorder=3, clip_on=True,
        )  # fmt: skip


def _dress(axes: Axes, slots: dict[int, Slot], unit: str) -> None:
    """Ticks in the middle of each slot, a line below each, and the size of the machines on the axis."""
    distinct = sorted(set(slots.values()), key=lambda slot: slot.first)
    sizes = sorted({slot.gpus for slot in distinct})
    told = " or ".join(str(size) for size in sizes) + (" GPU" if sizes == [1] else " GPUs")
    style.dress(axes, f"time ({unit})", f"machines\n({told})")
    step = -(-len(distinct) // 16)
    middles = [slot.first + slot.gpus / 2 for slot in distinct]
    axes.set_yticks(middles[::step], [str(place + 1) for place in range(len(distinct))][::step], fontsize=style.TICK_PT)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.hlines(
        [slot.first for slot in distinct[1:]],
        *axes.get_xlim(),
        color="#B5B5B5",
        linewidth=0.4,
        zorder=2.3,
        label="_slots",
    )


def _rung_bar(figure: Figure, axes: Axes, rungs: Sequence[int]) -> None:
    """A scale of the rungs, where there are too many for samples."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    shades = ListedColormap([_shades()(0.25 + 0.7 * place / (len(rungs) - 1)) for place in range(len(rungs))])
    mapped = ScalarMappable(BoundaryNorm([at - 0.5 for at in range(len(rungs) + 1)], len(rungs)), shades)
    bar = figure.colorbar(mapped, ax=axes, pad=0.01, aspect=30)
    step = -(-len(rungs) // 8)
    bar.set_ticks(list(range(len(rungs)))[::step], labels=[str(rung) for rung in rungs][::step])
    bar.ax.tick_params(labelsize=style.TICK_PT, colors=style.INK, length=2.5, width=0.6)
    bar.set_label("trains to iteration", fontsize=style.LABEL_PT, color=style.INK)


def _samples(
    blocks: Sequence[GpuBlock],
    rungs: Sequence[int],
    paint: Callable[[GpuBlock], str],
    color: str,
    best_trial: int | None,
) -> list[Artist]:
    from matplotlib.patches import Patch

    samples: list[Artist] = [
        Patch(facecolor="white", edgecolor=COLORS["startup"], hatch="/////", linewidth=0.6, label="booting"),
        Patch(facecolor=IDLE, label="idle"),
        Patch(facecolor=STARTING, label="starting workers"),
    ]
    if any(block.checkpoint_s > SEEN * max(block.end_s for block in blocks) for block in blocks):
        samples.append(Patch(facecolor=COLORS["checkpoint"], label="saving"))
    if any(block.is_lost for block in blocks):
        samples.append(
            Patch(facecolor="white", edgecolor=COLORS["redone"], hatch="xxxxx", linewidth=0.6, label="broken")
        )
    if any(block.trial == best_trial for block in blocks):
        samples.append(Patch(facecolor="white", edgecolor=BEST, linewidth=1.1, label=f"the answer, trial {best_trial}"))
    if color == "rung" and len(rungs) <= MOST_RUNGS:
        first = {block.rung: block for block in reversed(blocks)}
        samples += [Patch(facecolor=paint(first[rung]), label=f"to iteration {rung}") for rung in rungs]
    return samples
